"""Builds the reasoning pool from seed users and their training histories (paper, section 3.1.2)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import DataConfig, LLMConfig, PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import Estimate, estimate, ledger
from reland_jax.pool.asking.records import journal_path
from reland_jax.pool.contract import HEURISTIC, Problem, Provider, SeedRationales
from reland_jax.pool.prompting.requests import PoolRequests, pool_requests
from reland_jax.pool.providers import WITH_JOURNAL, make_provider
from reland_jax.pool.sources import files_state, is_source, source_of
from reland_jax.pool.templates import PROMPT_VERSION
from reland_jax.types import Interactions, Ragged, ReasoningPool, RelandError, SeedSet, Splits


def build_pool(
    seeds: SeedSet | None,
    behaviour: np.ndarray,
    splits: Splits,
    interactions: Interactions,
    config: PoolConfig,
    data: DataConfig,
    *,
    folder: str | Path,
    llm: LLMConfig | None = None,
    cluster: np.ndarray | None = None,
) -> tuple[ReasoningPool, list[Problem]]:
    """Builds the pool: the provider writes a rationale per seed user, or a source is read.

    Seed users without a readable rationale are left out. A provider sees training interactions only. A source
    (`is_source`) has its own seed users, and `seeds` is ignored; those whose rationale was written from
    interactions that this split holds out are left out.

    Args:
        seeds: the chosen seed users; may be None for a source.
        behaviour: ``<float32>[U, D]``, output of the behaviour encoder (paper, Eq. 1).
        splits: only `train` is shown; the sizes of the others guard against leakage.
        interactions: external ids and the text fields of the items.
        config: the provider and its inputs.
        data: `text_fields` and `domain`.
        folder: for the journal, and for the request files of a provider.
        llm: how an LLM is asked; the defaults if None.
        cluster: ``<int32>[U]``, K-means cluster of every user, for the seed users of a source.

    Returns:
        The pool, in the order of the seed users, and its problems: seed users that were left out and why, and
        remarks on rationales that were used.

    Raises:
        RelandError: no seed user has a readable rationale; a source has users that the data do not have;
            items without text fields; or what the provider or the source raises.
    """
    if len(behaviour) != splits.num_users:
        raise RelandError(f"behaviour has {len(behaviour)} rows for {splits.num_users} users")
    if is_source(config):
        found = source_of(config).open(config).seed_rationales(interactions.ids, cluster, splits)
    elif seeds is None:
        raise RelandError(f"provider {config.provider!r} needs seed users; files and stores have their own")
    else:
        provider = make_provider(config, llm or LLMConfig(), folder)
        made = pool_requests(seeds, splits.train, interactions, config, data, provider.answers)
        found = written(made, provider, config)
    return pool_of(found, behaviour, config), found.problems


def written(made: PoolRequests, provider: Provider, config: PoolConfig) -> SeedRationales:
    """The rationales that the provider writes for the requests.

    Raises:
        RelandError: the provider failed.
    """
    result = provider.rationales(made.requests)
    problems = [*_step0_remark(provider, config), *made.problems, *result.problems]
    return SeedRationales(made.seeds, result.rationales, problems, len(made.problems))


def written_by_counts(
    seeds: SeedSet, train: Ragged, interactions: Interactions, config: PoolConfig, data: DataConfig
) -> list[str]:
    """Step 2 as the offline writer has it for these seed users, whoever wrote their rationales.

    Args:
        seeds: the seed users.
        train: training items; only these are read.
        interactions: external ids and the text fields of the items.
        config: length of the history, and what is scrubbed.
        data: `text_fields` and `domain`.

    Returns:
        One for each seed user, in their order; "" where no item of the history has a text.

    Raises:
        RelandError: items without text fields.
    """
    offline = dataclasses.replace(config, provider=HEURISTIC, cleaning="rule", prompt_tokens=None)
    made = pool_requests(seeds, train, interactions, offline, data)
    said = make_provider(offline, LLMConfig(), "").rationales(made.requests).rationales
    found = dict(zip(made.seeds.user.tolist(), said, strict=True))
    return [one.step2 if (one := found.get(user)) else "" for user in seeds.user.tolist()]


def pool_of(found: SeedRationales, behaviour: np.ndarray, config: PoolConfig) -> ReasoningPool:
    """The pool of the seed users that have a rationale; users can be assigned to these only.

    Args:
        found: seed users and their rationales.
        behaviour: ``<float32>[U, D]``, output of the behaviour encoder.
        config: names the provider in the error message.

    Raises:
        RelandError: none has a rationale, or the vector of one is not finite.
    """
    rows = [row for row, rationale in enumerate(found.rationales) if rationale is not None]
    if not rows:
        listed = found.problems
        first = f"; the first: user {listed[0].user_id!r}: {listed[0].why}" if listed else ""
        raise RelandError(
            f"the reasoning pool is empty: provider {config.provider!r} has a usable rationale for none of "
            f"{len(found.seeds.user) + found.left_out} seed users{first}"
        )
    kept = found.seeds.rows(rows)
    m = np.asarray(behaviour[kept.user], np.float32)
    if not np.isfinite(m).all():
        bad = int(kept.user[~np.isfinite(m).all(axis=1)][0])
        raise RelandError(f"the behaviour vector of user {bad} is not finite; the behaviour encoder diverged")
    return ReasoningPool(kept, m, [each for each in found.rationales if each is not None])


def pool_state(config: PoolConfig) -> list[str]:
    """The inputs of a pool beyond its settings, for the stamp of a stage: see `files_state`.

    Raises:
        RelandError: the source cannot be read.
    """
    return source_of(config).state(config) if is_source(config) else files_state(config)


def pool_ledger(config: PoolConfig, llm: LLMConfig, folder: str | Path) -> dict[str, Any]:
    """The cost so far by the journal of a pool, see `ledger`; {} for a provider without a journal.

    Args:
        config: the provider.
        llm: prices, and the journal's path.
        folder: that of `build_pool`.
    """
    path = journal_path(llm, folder)
    if config.provider not in WITH_JOURNAL or not path.exists():
        return {}
    with Journal(path) as journal:
        return ledger(journal.usage(), llm)


def expected_cost(
    seeds: SeedSet,
    train: Ragged,
    interactions: Interactions,
    config: PoolConfig,
    data: DataConfig,
    llm: LLMConfig,
) -> Estimate:
    """What asking an LLM about seed users would take, whoever wrote about them; nothing is sent.

    Args:
        seeds: the seed users.
        train: training items; only these would be shown.
        interactions: external ids and the text fields of the items.
        config: model, history, kind of prompt.
        data: `text_fields` and `domain`.
        llm: prices.
    """
    made = pool_requests(seeds, train, interactions, config, data)
    return estimate(made.requests, config, llm, (), made.step0)


def refuse_to_pay_again(config: PoolConfig, llm: LLMConfig, workdir: Path, damage: str) -> None:
    """Refuses to rebuild a damaged pool if its answers are not in the journal and would be paid for again.

    Raises:
        RelandError: the journal is missing.
    """
    if config.provider not in WITH_JOURNAL or (journal := journal_path(llm, workdir)).exists():
        return
    raise RelandError(
        f"{workdir / 'build_pool'}: {damage}. Its rationales were paid for, and the journal {journal}, from "
        "it could be rebuilt, is missing: restore the pool or the journal from a backup, or pay for all "
        "answers again with --stages=build_pool"
    )


def missing_answers_note(
    config: PoolConfig, llm: LLMConfig, rationales: int, missing: int, ask_again: bool
) -> str:
    """The message about a pool with unanswered seed users: how many there are, and what can be done.

    Args:
        config: the provider.
        llm: whether it sends batches itself.
        rationales: number of rationales in the pool.
        missing: number of seed users whose answer may still arrive.
        ask_again: whether the same command asks again; a job of several processes does not.
    """
    by_hand = config.provider == "batch" and not llm.upload
    how = "reads their answers from the response file" if by_hand else "asks about them again"
    condition = "" if ask_again else " if it runs in one process with one backbone"
    return (
        f"incomplete: {rationales} rationales, and {missing} seed users without an answer "
        f"(build_pool/problems.json); the same command {how}{condition}. To use the pool as it is: "
        "--stages=encode_text,assign,train,report"
    )


def pool_provenance(config: PoolConfig, data: DataConfig) -> dict[str, Any]:
    """Where a pool built with these settings comes from, for `save_pool`.

    Raises:
        RelandError: the source cannot be read.
    """
    settings: dict[str, Any] = {"provider": config.provider, "domain": data.domain, "data": data.name}
    if is_source(config):
        return settings | source_of(config).provenance(config)
    settings |= {"prompt_version": PROMPT_VERSION, "history": config.history, "scrub": list(config.scrub)}
    if config.prompt_tokens:
        settings |= {"prompt_tokens": config.prompt_tokens, "tokenizer": config.tokenizer}
    if config.provider in WITH_JOURNAL:
        names = ("model", "max_tokens", "temperature", "prompt", "answers", "cleaning")
        settings |= {name: getattr(config, name) for name in names}
    return settings


def _step0_remark(provider: Provider, config: PoolConfig) -> list[Problem]:
    """A remark if step 0 is to use an LLM, but the provider has none."""
    if config.cleaning != "llm" or provider.answers is not None:
        return []
    why = f"provider {config.provider!r} has no LLM for step 0; titles are cleaned by rule"
    return [Problem("", f"config.pool.cleaning='llm': {why}")]
