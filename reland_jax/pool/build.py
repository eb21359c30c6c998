"""Builds the reasoning pool from seed users and their training histories (paper, section 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import DataConfig, LLMConfig, PoolConfig
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.money import ledger
from reland_jax.pool.asking.records import journal_path
from reland_jax.pool.contract import Problem, Provider, ProviderResult, RationaleRequest
from reland_jax.pool.prompting.requests import PoolRequests, pool_requests
from reland_jax.pool.prompting.step0 import AnswersPrompts
from reland_jax.pool.prompting.templates import PROMPT_VERSION
from reland_jax.pool.providers import make_provider
from reland_jax.pool.providers.files import FileProvider
from reland_jax.pool_store.provider import StoreProvider
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import Interactions, Ragged, ReasoningPool, RelandError, SeedSet, Splits

WITH_JOURNAL = ("openai", "batch")
"""Providers that ask an LLM, and keep requests and answers in a journal."""

UNKNOWN_CLUSTER = -1
"""Cluster of a seed user of a file, where neither the file nor the run knows it."""


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
    made: PoolRequests | None = None,
) -> tuple[ReasoningPool, list[Problem]]:
    """Asks the provider about every seed user and keeps those with a readable rationale.

    Only training interactions are shown. With provider "file" the seed users are those of the file,
    and `seeds` is not looked at. There, seed users with more held-out items than the writer of the file
    left out (`config.held_out`) are excluded: their rationale was written from validation or test items.
    Provider "store" brings its own seed users too, without those whose rationale was written from
    interactions that are held out now (`StoreProvider.seeds`).

    Args:
        seeds: the chosen seed users; may be None with provider "file" or "store".
        behaviour: ``<float32>[U, D]``, output of the behaviour encoder (paper, Eq. 1).
        splits: only `train` is shown; the sizes of the others guard against leakage.
        interactions: external ids and the text fields of the items.
        config: who writes, and from what.
        data: `text_fields` and `domain`.
        folder: where the journal is, and where a provider may leave files for people.
        llm: how an LLM is asked; the defaults if None.
        cluster: ``<int32>[U]``, K-means cluster of every user, for the seed users of a file.
        made: the requests, where the caller has made them already from the same seed users and settings.

    Returns:
        The pool, its rows in the order of the seed users, and what a person should know: seeds that
        were left out and why, and rationales that were read with a remark.

    Raises:
        RelandError: no seed user has a readable rationale; file users that the data do not have; items
            without text fields; or what the provider raises.
    """
    if len(behaviour) != splits.num_users:
        raise RelandError(f"behaviour has {len(behaviour)} rows for {splits.num_users} users")
    provider = make_provider(config, llm or LLMConfig(), folder)
    problems: list[Problem] = []
    if isinstance(provider, FileProvider):
        seeds, problems = _file_seeds(provider, interactions.ids.users, cluster, splits, config.held_out)
        requests = [RationaleRequest(user_id, "") for user_id in interactions.ids.users[seeds.user].tolist()]
    elif isinstance(provider, StoreProvider):
        seeds, problems = provider.seeds(interactions.ids, cluster, splits)
        requests = [RationaleRequest(user_id, "") for user_id in interactions.ids.users[seeds.user].tolist()]
    elif seeds is None:
        raise RelandError(f"provider {config.provider!r} needs seed users; file and store bring their own")
    else:
        if made is None:
            made = _requests(seeds, provider, splits.train, interactions, config, data)
        seeds, requests, problems = made.seeds, made.requests, _unable(provider, config) + made.problems
    result = provider.rationales(requests)
    return _pool(seeds, behaviour, result, problems, config), problems + result.problems


def pool_ledger(config: PoolConfig, llm: LLMConfig, folder: str | Path) -> dict[str, Any]:
    """What the journal of a pool has paid so far, see `ledger`; {} for a provider without a journal.

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


def refuse_to_pay_again(config: PoolConfig, llm: LLMConfig, workdir: Path, damage: str) -> None:
    """Lets a damaged pool be built again where that costs nothing: from the answers in the journal.

    Args:
        config: the provider.
        llm: the journal's path.
        workdir: that of the pool.
        damage: what is wrong with it.

    Raises:
        RelandError: the journal is not there, and every answer would be paid for again.
    """
    if config.provider not in WITH_JOURNAL or (journal := journal_path(llm, workdir)).exists():
        return
    raise RelandError(
        f"{workdir / 'build_pool'}: {damage}. Its rationales were paid for, and the journal {journal}, from "
        "which it could be built again, is not there: restore one of them from a copy, or ask for all of "
        "them again with --stages=build_pool"
    )


def told_of_missing(
    config: PoolConfig, llm: LLMConfig, rationales: int, missing: int, ask_again: bool
) -> str:
    """What to say of a pool in which seed users have no answer: how many, and what may be done.

    Args:
        config: the provider.
        llm: whether it sends batches itself.
        rationales: of the pool.
        missing: seed users without an answer that may still come.
        ask_again: whether the same command tries again; several processes do not.
    """
    by_hand = config.provider == "batch" and not llm.upload
    how = "reads their answers from the response file" if by_hand else "asks about them again"
    alone = "" if ask_again else " where it is one process that prepares one backbone"
    return (
        f"incomplete: {rationales} rationales, and {missing} seed users without an answer "
        f"(build_pool/problems.json); the same command {how}{alone}. To go on with it as it is: "
        "--stages=encode_text,assign,train,report"
    )


def pool_provenance(config: PoolConfig, data: DataConfig) -> dict[str, Any]:
    """Where a pool built with these settings comes from, for `save_pool`.

    The prompt version is "" for a file, whose prompts are not known.
    """
    settings: dict[str, Any] = {"provider": config.provider, "domain": data.domain, "data": data.name}
    if config.provider == "store":
        return settings | PoolStore(config.path_to_read()).provenance()
    settings["prompt_version"] = "" if config.provider == "file" else PROMPT_VERSION
    if config.provider == "file":
        return {**settings, "file": Path(config.path_to_read()).name, "held_out": config.held_out}
    settings |= {"history": config.history, "scrub": list(config.scrub)}
    if config.prompt_tokens:
        settings |= {"prompt_tokens": config.prompt_tokens, "tokenizer": config.tokenizer}
    if config.provider in WITH_JOURNAL:
        names = ("model", "max_tokens", "temperature", "prompt", "cleaning")
        settings |= {name: getattr(config, name) for name in names}
    return settings


def _requests(
    seeds: SeedSet,
    provider: Provider,
    train: Ragged,
    interactions: Interactions,
    config: PoolConfig,
    data: DataConfig,
) -> PoolRequests:
    """The requests for the seed users, after step 0, where the provider can do it if it is wanted."""
    able = provider if isinstance(provider, AnswersPrompts) else None
    return pool_requests(seeds, train, interactions, config, data, able)


def _unable(provider: Provider, config: PoolConfig) -> list[Problem]:
    """A remark where step 0 is wanted by an LLM and the provider asks none."""
    if config.cleaning != "llm" or isinstance(provider, AnswersPrompts):
        return []
    why = f"provider {config.provider!r} asks no LLM for step 0; titles are cleaned by rule"
    return [Problem("", f"config.pool.cleaning='llm': {why}")]


def _file_seeds(
    provider: FileProvider, users: np.ndarray, cluster: np.ndarray | None, splits: Splits, left_out: int
) -> tuple[SeedSet, list[Problem]]:
    """The seed users of a file, without those whose held-out items its writer was shown."""
    dense = {str(user_id): index for index, user_id in enumerate(users)}
    unknown = [entry for entry in provider.entries if entry.user_id not in dense]
    if unknown:
        raise RelandError(
            f"{provider.path}:{unknown[0].line}: {len(unknown)} of {len(provider.entries)} users are not in "
            f"the data, the first is {unknown[0].user_id!r}; the file belongs to other data, or filtering "
            "removed them"
        )
    user = np.asarray([dense[entry.user_id] for entry in provider.entries], np.int32)
    own = [UNKNOWN_CLUSTER if entry.cluster is None else entry.cluster for entry in provider.entries]
    clusters = np.asarray(own, np.int32) if cluster is None else np.asarray(cluster, np.int32)[user]
    seeds = SeedSet(user, clusters, np.asarray([entry.how for entry in provider.entries], np.int8))
    held_out = (splits.valid.lengths() + splits.test.lengths())[user]
    leaked = held_out > left_out
    problems = [
        Problem(
            provider.entries[row].user_id,
            f"{provider.path}:{provider.entries[row].line}: held-out items were shown to the writer: "
            f"{held_out[row]} items are held out, config.pool.held_out={left_out} were left out",
        )
        for row in np.flatnonzero(leaked).tolist()
    ]
    return _rows(seeds, np.flatnonzero(~leaked)), problems


def _pool(
    seeds: SeedSet,
    behaviour: np.ndarray,
    result: ProviderResult,
    problems: Sequence[Problem],
    config: PoolConfig,
) -> ReasoningPool:
    """The seed users that have a rationale; nobody can be assigned to any other."""
    rows = [row for row, rationale in enumerate(result.rationales) if rationale is not None]
    if not rows:
        listed = [*problems, *result.problems]
        first = f"; the first: user {listed[0].user_id!r}: {listed[0].why}" if listed else ""
        raise RelandError(
            f"the reasoning pool is empty: provider {config.provider!r} has a usable rationale for none of "
            f"{len(seeds.user) + len(problems)} seed users{first}"
        )
    kept = _rows(seeds, rows)
    m = np.asarray(behaviour[kept.user], np.float32)
    if not np.isfinite(m).all():
        bad = int(kept.user[~np.isfinite(m).all(axis=1)][0])
        raise RelandError(f"the behaviour vector of user {bad} is not finite; the behaviour encoder diverged")
    return ReasoningPool(kept, m, [rationale for rationale in result.rationales if rationale is not None])


def _rows(seeds: SeedSet, rows: Sequence[int] | np.ndarray) -> SeedSet:
    index = np.asarray(rows, np.int64)
    return SeedSet(seeds.user[index], seeds.cluster[index], seeds.how[index])
