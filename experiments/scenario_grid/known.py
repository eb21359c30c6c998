"""Vectors of knowledge of a log: of its scenarios, and of its users by their seed user or their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.ranking.arms import Prepared
from experiments.ranking.texts import Matched, matched_users
from reland_jax import events, knowledge
from reland_jax.config import TextConfig
from reland_jax.rankers import Texts, standardised
from reland_jax.scenario_settings import ScenarioJob
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
    if job.knowledge.users == "seed":
        return matched_users(prepared.log, job.texts, workdir / "texts")
    every = np.arange(prepared.log.events.num_users, dtype=np.int32)
    return Matched(every, every, np.ones(len(every), np.float32))


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
    users = knowledge.facts_of_users(log.events, log.parts.train, matched.seeds, words, config.history)
    told = knowledge.tell(
        facts, users, job.pool, job.llm, workdir / "knowledge", _descriptions(config.descriptions, names)
    )
    vectors = _encoded([*told.scenarios, *told.users], job, workdir)
    of_users = vectors[len(facts) :]
    has_one = np.array([bool(each) for each in told.users])
    place = np.where(has_one, np.cumsum(has_one) - 1, -1)
    row = np.where(matched.row >= 0, place[matched.row], -1).astype(np.int32)
    texts = Texts(
        rationales=standardised(_fewer(of_users[has_one], config.directions)), seed=row,
        scenarios=standardised(_fewer(vectors[: len(facts)], config.directions)),
    )  # fmt: skip
    about = dict(zip(names.tolist(), told.scenarios, strict=True))
    wanted = len(facts) + sum(bool(each.clicked) for each in users)
    return Known(texts, about, told.writer, told.ledger, wanted, int((row >= 0).sum()))


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
    config = TextConfig(encoder=job.texts.text_encoder, max_tokens=job.texts.max_tokens, allow_alike=True)
    return encode_texts(list(texts), config, workdir / "text_cache", "texts of knowledge")


def _fewer(vectors: np.ndarray, directions: int | None) -> np.ndarray:
    """The vectors in their principal directions, where there are more of them than those."""
    if directions is None or len(vectors) <= directions:
        return vectors
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ axes[:directions].T)
