"""What is made for a day sees earlier days alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.deployment.days import before, beginning, catalogue_stage, days_of, iso, log_stage, whole_log
from experiments.deployment.plan import plan_of
from experiments.deployment.rankers import texts_of
from experiments.deployment.tables import without_texts
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.deploy_settings import DeployJob, RhythmConfig
from reland_jax.events import Events
from reland_jax.events.shop import rationale_vectors
from reland_jax.flow import Codec, Flow, Job, Made, Stage
from reland_jax.ranker_settings import LogConfig
from reland_jax.rankers import Texts
from reland_jax.types import RelandError

LOG = LogConfig(shop_users=20, shop_rows=400)
CATALOGUE = catalogue_stage(LOG)
LOGS = {day: log_stage(LOG, CATALOGUE, day) for day in days_of(LOG)}
FIRST = next(iter(LOGS))


def probe(reads: list[Stage[Any]], run: Callable[[Job], int]) -> Stage[int]:
    nothing: Codec[int] = Codec(lambda value, folder: np.save(folder / "x.npy", value), lambda folder: 0)
    return Stage("probe", tuple(reads), lambda config: [], run, lambda job: nothing)


def made_with(workdir: Path, stage: Stage[int]) -> Made:
    return flow.run(Flow((CATALOGUE, *LOGS.values(), stage)), Config(), workdir)


def test_the_days_are_the_log(tmp_path: Path) -> None:
    seen: list[Events] = []
    reads = [LOGS[FIRST + each] for each in range(3)]

    def run(job: Job) -> int:
        seen.append(before(job, CATALOGUE, reads, FIRST + 3))
        return 0

    made_with(tmp_path, probe([CATALOGUE, *reads], run))
    whole = whole_log(LOG).events.before(beginning(seen[0], FIRST + 3))
    assert seen[0].num_rows == whole.num_rows > 0
    for name in ("user", "item", "time"):
        np.testing.assert_array_equal(getattr(seen[0], name), getattr(whole, name))
    np.testing.assert_array_equal(seen[0].features["position"], whole.features["position"])


def test_the_log_of_the_day_itself_is_refused(tmp_path: Path) -> None:
    reads = [LOGS[FIRST], LOGS[FIRST + 1]]
    late = probe([CATALOGUE, *reads], lambda job: before(job, CATALOGUE, reads, FIRST + 1).num_rows)
    with pytest.raises(RelandError, match=f"what is made for {iso(FIRST + 1)} may only see what was before"):
        made_with(tmp_path, late)


def test_no_stage_of_a_day_declares_the_log_of_that_day_but_its_judge() -> None:
    plan = plan_of(DeployJob(log=LOG, rhythm=RhythmConfig(warm_days=2, pool_days=3)))
    later = {f"log/{iso(day)}": day for day in LOGS}
    for day, stages in plan.of_day.items():
        for stage in stages:
            read = [later[each.name] for each in _all_reads(stage) if each.name in later]
            # Vocabularies are of the days before the first pool, none of which is judged.
            last = day if stage.family == "judged" else max(day, FIRST + 2) - 1
            assert max(read) == last, stage.name
    assert list(plan.pools) == [FIRST + 2 + 3 * week for week in range(5)]
    assert list(plan.judged) == list(range(FIRST + 3, FIRST + 14))


def _all_reads(stage: Stage[Any], seen: dict[str, Stage[Any]] | None = None) -> list[Stage[Any]]:
    """What a stage reads, and what that reads."""
    seen = {} if seen is None else seen
    for each in stage.reads:
        if each.name not in seen:
            seen[each.name] = each
            _all_reads(each, seen)
    return list(seen.values())


@pytest.mark.parametrize("days", [(3, 5), (5, 4), (5, 15)])
def test_days_that_cannot_be_judged(days: tuple[int, int]) -> None:
    with pytest.raises(RelandError, match=r"the log has days 1 to 14, and the first pool is made for day 4"):
        plan_of(DeployJob(log=LOG), days)


def test_texts_of_every_user_are_the_shops_alone() -> None:
    with pytest.MonkeyPatch.context() as patch:
        other = whole_log(LOG)._replace(shop=None)
        patch.setattr("experiments.deployment.plan.whole_log", lambda config: other)
        with pytest.raises(RelandError, match="'own' reads a text of every user"):
            plan_of(DeployJob(log=LOG, arms=("f_item", "own")))


def test_own_texts_are_of_the_user_itself_and_read_from_the_first_pool_on() -> None:
    world = whole_log(LOG).shop.world  # type: ignore[union-attr]
    job, nobody = DeployJob(log=LOG), without_texts(20, 2, 32)
    later = nobody._replace(seed_users=np.array([3, -1], np.int32))
    texts = Texts(np.zeros((201, 32), np.float32), nobody.rationales, nobody.seed, nobody.cosine)
    before_it, after_it = (texts_of(job, "own", texts, table) for table in (nobody, later))
    assert (np.asarray(before_it.seed) == -1).all()
    assert np.asarray(after_it.seed).tolist() == list(range(20))
    np.testing.assert_array_equal(after_it.rationales, rationale_vectors(world))


def test_a_day_without_rows_is_refused() -> None:
    empty = LogConfig(shop_users=20, shop_rows=100)
    log = whole_log(empty).events
    assert len(np.unique(log.day())) == 14
    rows = np.flatnonzero(log.day() != FIRST + 4)
    whole_log.cache_clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            changed = whole_log(empty)._replace(events=log.take(rows))
            patch.setattr("experiments.deployment.days.whole_log", lambda config: changed)
            with pytest.raises(RelandError, match=f"no rows on {iso(FIRST + 4)}"):
                days_of(empty)
    finally:
        whole_log.cache_clear()
