"""Vectors of knowledge of a log: of its scenarios, and of its users by their seed user or their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.ranking.arms import Prepared
from experiments.ranking.texts import Matched, matched_users
from reland_jax import artefacts, events, knowledge
from reland_jax.artefacts import fingerprint
from reland_jax.config import TextConfig
from reland_jax.files import checksum, resolve
from reland_jax.pool.pool_file import read_pool_file
from reland_jax.rankers import Texts, standardised
from reland_jax.scenario_settings import ScenarioJob
from reland_jax.storage import load_array, save_array
from reland_jax.strings import as_strings
from reland_jax.text import encode_texts
from reland_jax.types import RelandError


class Known(NamedTuple):
    """What meta layers may read.

    Attributes:
        texts: `rationales` and `seed` of users, `scenarios`; standardised.
        scenarios: what was written of every scenario; empty where nothing was.
        writer: who wrote it, in words.
        ledger: calls and tokens, {} where no LLM was asked.
        asked: texts that were wanted: one for each scenario and each user with a click.
        users: users with knowledge.
    """

    texts: Texts
    scenarios: Mapping[str, str]
    writer: str
    ledger: Mapping[str, Any]
    asked: int
    users: int


NOTHING = Known(Texts(), {}, "nobody", {}, 0, 0)


def make_known(prepared: Prepared, job: ScenarioJob, workdir: Path) -> Known:
    """Makes the vectors of a log, of its training rows alone.

    Raises:
        RelandError: see `knowledge.tell`, `knowledge.read_vectors` and `encode_texts`; a source that the log
            does not have.
    """
    names = prepared.encoding.known[events.contract.SCENARIO]
    if job.knowledge.source == "file":
        return _of_file(prepared, job, names)
    matched = _matched(prepared, job, workdir)
    if job.knowledge.source == "truth":
        return _of_truth(prepared, names, matched)
    return _of_texts(prepared, job, names, matched, workdir)


def _matched(prepared: Prepared, job: ScenarioJob, workdir: Path) -> Matched:
    """Who is told of, and whose knowledge each user is given."""
    log, given = prepared.log, job.knowledge
    seeds = np.array(sorted(pooled(given.pools, log.events)), np.int32) if given.pools else None
    if given.users == "seed":
        return matched_users(log, job.texts, workdir / "texts", seeds)
    every = np.arange(log.events.num_users, dtype=np.int32)
    if seeds is None:
        return Matched(every, every, np.ones(len(every), np.float32))
    row = np.full(len(every), -1, np.int32)
    row[seeds] = np.arange(len(seeds))
    return Matched(seeds, row, (row >= 0).astype(np.float32))


def _of_file(prepared: Prepared, job: ScenarioJob, names: np.ndarray) -> Known:
    if job.knowledge.path is None:
        raise RelandError("config.knowledge.path is None; with source=file it names the .npz file of vectors")
    found = knowledge.read_vectors(job.knowledge.path, prepared.log.events, names)
    users, scenarios = (None if each is None else standardised(each) for each in found[:2])
    texts = Texts(rationales=users, seed=found.row, scenarios=scenarios)
    return Known(texts, {}, f"the file {Path(job.knowledge.path).name}", {}, 0, int((found.row >= 0).sum()))


def _of_truth(prepared: Prepared, names: np.ndarray, matched: Matched) -> Known:
    shop = prepared.log.shop
    if shop is None:
        raise RelandError("config.knowledge.source=truth is for the generated shop alone")
    order = _places(prepared, names)
    texts = Texts(
        rationales=standardised(events.shop.rationale_vectors(shop.world)[matched.seeds]),
        seed=matched.row, scenarios=standardised(events.shop.scenario_vectors(shop.world)[order]),
    )  # fmt: skip
    wanted = len(names) + len(matched.seeds)
    return Known(texts, {}, "the shop, truthfully", {}, wanted, int((matched.row >= 0).sum()))


def _places(prepared: Prepared, names: np.ndarray) -> list[int]:
    """The scenarios as places in the log's names."""
    return [prepared.log.events.scenario.name.tolist().index(name) for name in names.tolist()]


def _of_texts(
    prepared: Prepared, job: ScenarioJob, names: np.ndarray, matched: Matched, workdir: Path
) -> Known:
    config, log = job.knowledge, prepared.log
    words = knowledge.item_words(log.events, config.words)
    known = {each.name: each for each in knowledge.facts_of_scenarios(log.events, log.parts.train, words)}
    facts = [known[name] for name in names.tolist()]
    asked = matched.seeds[:0] if config.pools else matched.seeds
    users = knowledge.facts_of_users(log.events, log.parts.train, asked, words, config.history)
    told = knowledge.tell(
        facts, users, job.pool, job.llm, workdir / "knowledge", _descriptions(config.descriptions, names)
    )
    said, writer = told.users, told.writer
    if config.pools:
        written = pooled(config.pools, log.events)
        said = [written.get(user, "") for user in matched.seeds.tolist()]
        writer = f"scenarios: {writer}; users: {', '.join(Path(each).name for each in config.pools)}"
    vectors = _encoded([*told.scenarios, *said], job, workdir)
    of_users = vectors[len(facts) :]
    has_one = np.array([bool(each) for each in said])
    place = np.where(has_one, np.cumsum(has_one) - 1, -1)
    row = np.where(matched.row >= 0, place[matched.row], -1).astype(np.int32)
    texts = Texts(
        rationales=standardised(_fewer(of_users[has_one], config.directions)), seed=row,
        scenarios=standardised(_fewer(vectors[: len(facts)], config.directions)),
    )  # fmt: skip
    about = dict(zip(names.tolist(), told.scenarios, strict=True))
    wanted = len(facts) + int(has_one.sum() if config.pools else sum(bool(each.clicked) for each in users))
    return Known(texts, about, writer, told.ledger, wanted, int((row >= 0).sum()))


def pooled(paths: Sequence[str], log: events.Events) -> dict[int, str]:
    """What pool files say of users of a log: both steps, one file after the other.

    Raises:
        RelandError: see `read_pool_file`; none of the users is in the log.
    """
    found: dict[int, str] = {}
    for path in paths:
        entries = [each for each in read_pool_file(resolve(path)) if each.rationale]
        places = events.values.positions(as_strings([each.user_id for each in entries]), log.ids.users)
        for user, entry in zip(places.tolist(), entries, strict=True):
            if user >= 0 and entry.rationale:
                text = f"{entry.rationale.step1} {entry.rationale.step2}".strip()
                found[user] = f"{found[user]} {text}" if user in found else text
    if not found:
        raise RelandError(f"config.knowledge.pools: no user of {', '.join(paths)} is in the log")
    return found


def _descriptions(entries: Sequence[str], names: np.ndarray) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, _, words = entry.partition("=")
        if not words.strip() or name not in names:
            raise RelandError(
                f"config.knowledge.descriptions: {entry!r} is not SCENARIO=WORDS of a scenario of "
                f"{', '.join(names.tolist())}"
            )
        found[name] = words.strip()
    return found


def _encoded(texts: Sequence[str], job: ScenarioJob, workdir: Path) -> np.ndarray:
    if job.knowledge.model is not None:
        model = resolve(job.knowledge.model)
        stamp = fingerprint("hidden states", list(texts), checksum(model) if model.is_file() else "")
        found: np.ndarray = artefacts.make(
            workdir / "hidden_states", stamp, compute=lambda: knowledge.hidden_states(texts, model),
            save=save_array, load=load_array,
        ).value  # fmt: skip
        return found
    config = TextConfig(encoder=job.texts.text_encoder, max_tokens=job.texts.max_tokens, allow_alike=True)
    return encode_texts(list(texts), config, workdir / "text_cache", "texts of knowledge")


def _fewer(vectors: np.ndarray, directions: int | None) -> np.ndarray:
    """The vectors in their principal directions, where there are more of them than those."""
    if directions is None or len(vectors) <= directions:
        return vectors
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ axes[:directions].T)
