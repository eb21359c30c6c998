"""The grid of scenarios: from settings to files, what is judged, and a stop in between."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.scenarios import get_config
from experiments.ranking.arms import ArmRun, encoded_log
from experiments.ranking.logs import Log, read_log
from experiments.scenario_grid import judged, known, search, view
from experiments.scenario_grid.cells import Cell, cells_of, train_cell
from experiments.scenario_grid.known import NOTHING, make_known, pooled
from experiments.scenarios import run
from reland_jax.events import bootstrap, metrics
from reland_jax.scenario_settings import ScenarioJob
from reland_jax.types import RelandError

LOG = {"shop_users": 60, "shop_rows": 3000, "shop_shares": (0.5, 0.45, 0.05), "test_days": 4}


def job(**changed: Any) -> ScenarioJob:
    """Settings that train in seconds."""
    values = get_config("shop").to_dict()
    values["log"] |= LOG
    values["ranker"] |= {"layers": (8,), "width": 4, "tower": (4,)}
    values["scenarios"] |= {"meta_hidden": 4, "meta_rank": 2}
    values["train"] |= {"max_epochs": 1, "batch_size": 256}
    values |= {"draws": 20, "backbones": ("shared_bottom",), "keep_programs": False}
    for name, value in changed.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return ScenarioJob.from_dict(values)


@pytest.fixture(scope="module", name="log")
def small_log() -> Log:
    """A small shop."""
    return read_log(job().log)


def runs_of(log: Log, **scores: np.ndarray) -> dict[Cell, dict[int, ArmRun]]:
    """Runs whose probabilities are known, by backbone."""
    entry = {"epoch": 1.0, "logloss": 0.6, "auc": 0.7}
    summary = {
        "history": [entry], "best": 0, "rows_per_second": 1.0, "seconds": 1.0, "parameters": {"dense": 1},
    }  # fmt: skip
    test = log.parts.test
    return {
        Cell(name, "backbone"): {0: ArmRun(score[test][:, None], score[test][:, None], summary)}
        for name, score in scores.items()
    }


def test_segments_and_means_are_those_of_their_rows(log: Log) -> None:
    assert log.shop is not None
    judge, truth = judged.judge_of(log, "click"), log.shop.truth.click
    runs = runs_of(log, star=truth)
    found = judged.cell_results(judge, *next(iter(runs.items())), 0, search.Found(job(), Path()))
    test, events = log.parts.test, log.events
    aucs = []
    for code, name in enumerate(events.scenario.name.tolist()):
        own = test[events.scenario.code[test] == code]
        aucs.append(metrics.auc(events.labels["click"][own], truth[own]))
        assert found.segments[name].auc == aucs[-1] and found.segments[name].rows == len(own)
    assert found.macro_auc == pytest.approx(np.mean(aucs))
    of_train = zip(events.user[log.parts.train].tolist(), events.scenario.code[log.parts.train], strict=True)
    visits: dict[int, set[int]] = {}
    for user, code in of_train:
        visits.setdefault(user, set()).add(int(code))
    crosses = [len(visits.get(user, ())) > 1 for user in events.user[test].tolist()]
    assert found.segments[judged.CROSSING].rows == sum(crosses)
    assert found.segments[judged.STAYING].rows == len(test) - sum(crosses)
    assert judged.truth_of(log, judge) == found.segments


def test_pages_tell_how_many_seeds_are_trained(log: Log) -> None:
    """The files are written after every seed."""
    runs = runs_of(log, star=np.full(log.events.num_rows, 0.5))
    judge, by = judged.judge_of(log, "click"), search.Found(job(), Path())
    cells = [judged.cell_results(judge, *next(iter(runs.items())), 0, by)]
    told = {"ledger": {}, "writer": "nobody", "asked": 0, "users": 0, "scenarios": {}}
    for seeds, said in (
        ((0, 1, 2), "1 training seeds, of 3 that are asked for."),
        ((0,), "1 training seeds."),
    ):
        config = {"seeds_of_training": seeds}
        notes = view.notes(judged.ScenarioResults("shop", [], cells, None, [], told, config, {}))
        assert f"Each figure is the mean over {said}" in notes


def test_what_is_compared_with_what(log: Log) -> None:
    assert log.shop is not None
    guess = np.random.default_rng(0).random(log.events.num_rows)
    runs = runs_of(log, shared_bottom=guess, star=log.shop.truth.click)
    judge = judged.judge_of(log, "click")
    other, star = runs.values()
    star[1] = other[0]._replace(reached=np.sqrt(other[0].reached))
    found = judged.differences(judged.Draws(judge, 50), runs, "shared_bottom")
    assert {(each.ours, each.baseline) for each in found} == {("star", "shared_bottom")}
    whole = next(each for each in found if each.segment == "all").auc
    scores = ([np.asarray(each.reached[:, 0], np.float64) for each in of.values()] for of in (star, other))
    expected = bootstrap.compare("auc", judge.user, judge.label, *scores, draws=50)
    assert (whole.difference, whole.low, whole.high) == (expected.difference, expected.low, expected.high)
    assert whole.low > 0.05 and whole.difference > 0.1
    names = [Cell("star", name) for name in ("backbone", "knowledge", "noise")]
    assert [(one.name, other.name, every) for one, other, every in judged.pairs(names, "star")] == [
        ("star + knowledge", "star", True), ("star + noise", "star", True),
        ("star + knowledge", "star + noise", False),
    ]  # fmt: skip


def test_rates_are_chosen_by_validation(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone's rate first, then with it that of the meta layers; each trial has a folder of its own."""

    def trained(prepared: Any, known: Any, given: ScenarioJob, cell: Cell, seed: int, where: Path) -> ArmRun:
        shares = given.scenarios.meta_rate if cell.control == "knowledge" else 0.0
        assert seed == 3 and given.train.learning_rate == given.train.table_learning_rate
        loss = abs(given.train.learning_rate - 0.02) + abs(shares - 0.1)
        entry = {"epoch": 1.0, "logloss": loss, "auc": 0.5, "where": str(where)}
        return ArmRun(np.zeros(1), np.zeros(1), {"history": [entry], "best": 0})

    monkeypatch.setattr(search, "train_cell", trained)
    asked = job(seeds_of_training=(3, 4), rates=(0.01, 0.02, 0.04), meta_rates=(1.0, 0.1))
    args = encoded_log(log, asked.log), NOTHING, asked
    found = search.searched(*args, Cell("shared_bottom", "knowledge"), tmp_path)
    assert (found.job.train.learning_rate, found.job.scenarios.meta_rate) == (0.02, 0.1)
    assert [each["meta_rate"] for each in found.trials] == [1.0, 0.1]
    assert found.workdir == tmp_path / "rate=0.02" / "meta_rate=0.1"
    plain = search.searched(*args, Cell("shared_bottom", "backbone"), tmp_path)
    assert (plain.workdir, len(plain.trials)) == (tmp_path / "rate=0.02", 3)
    none = search.searched(args[0], NOTHING, job(), Cell("shared_bottom", "knowledge"), tmp_path)
    assert none == search.Found(job(), tmp_path)


def test_cells_of_a_job() -> None:
    made = cells_of(job(backbones=("star", "alone"), controls=("backbone", "noise"), baseline="star"))
    assert [each.name for each in made] == ["star", "star + noise", "alone"]
    assert len(cells_of(job(controls=("all",)))) == 11
    with pytest.raises(RelandError, match="baseline='star' is not among config.backbones"):
        cells_of(job(baseline="star"))
    with pytest.raises(RelandError, match="did you mean 'noise'"):
        cells_of(job(controls=("nois",)))


def test_knowledge_of_seed_users_and_of_every_user(log: Log, tmp_path: Path) -> None:
    prepared = encoded_log(log, job().log)
    of_seeds = make_known(prepared, job(), tmp_path)
    own = make_known(prepared, job(knowledge={"users": "own"}), tmp_path)
    assert of_seeds.texts.rationales is not None and own.texts.rationales is not None
    assert (len(of_seeds.texts.rationales), len(own.texts.rationales)) == (6, 60)
    assert (of_seeds.asked, own.asked) == (9, 63)
    np.testing.assert_array_equal(own.texts.seed, np.arange(60))
    assert of_seeds.texts.scenarios is not None and len(of_seeds.texts.scenarios) == 3


def test_rationales_of_pool_files_are_the_knowledge_of_users(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a user in two files stand together; with `seed` the others are given the most alike user's."""
    names = log.events.ids.users
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path, users in zip(files, ([3, 5, 8], [8, 40]), strict=True):
        lines = [
            {"user_id": str(names[user]), "step1": f"{path.stem} {user}.", "step2": "Boots."}
            for user in users
        ]
        lines.append({"user_id": "who is not there", "step1": "A.", "step2": "B."})
        path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    paths = tuple(map(str, files))
    told = pooled(paths, log.events)
    assert sorted(told) == [3, 5, 8, 40] and told[8] == "one 8. Boots. two 8. Boots."
    settings = {"source": "texts", "pools": paths, "directions": 2}
    prepared = encoded_log(log, job().log)
    monkeypatch.setattr(known, "_encoded", lambda texts, job, workdir: np.eye(len(texts), 8))
    own = make_known(prepared, job(knowledge=settings | {"users": "own"}), tmp_path)
    assert own.texts.rationales is not None and own.texts.seed is not None
    assert len(own.texts.rationales) == 4 and own.asked == 7 and own.users == 4
    row = np.asarray(own.texts.seed)
    assert np.flatnonzero(row >= 0).tolist() == [3, 5, 8, 40]
    judge = judged.judge_of(log, "click", row)
    np.testing.assert_array_equal(judge.segments[judged.TOLD], np.isin(judge.user, [3, 5, 8, 40]))
    shared = make_known(prepared, job(knowledge=settings), tmp_path)
    assert shared.texts.seed is not None and shared.users == 60
    np.testing.assert_array_equal(np.asarray(shared.texts.seed)[[3, 5, 8, 40]], np.arange(4))
    assert judged.TOLD not in judged.judge_of(log, "click", np.asarray(shared.texts.seed)).segments
    with pytest.raises(RelandError, match="no user of .*two.jsonl is in the log"):
        files[1].write_text('{"user_id": "x", "step1": "A.", "step2": "B."}\n', encoding="utf-8")
        pooled(paths[1:], log.events)


def test_scenarios_that_are_read() -> None:
    values = dataclasses.replace(job().log, scenarios=("home", "cart"))
    whole, part = read_log(job().log), read_log(values)
    assert set(part.events.scenario.code.tolist()) == {0, 2}
    kept = whole.events.scenario.code != 1
    assert part.events.num_rows == kept.sum() and part.shop is not None and whole.shop is not None
    np.testing.assert_array_equal(part.shop.truth.click, whole.shop.truth.click[kept])
    np.testing.assert_array_equal(
        part.events.time[part.parts.test], whole.events.time[whole.parts.test[kept[whole.parts.test]]]
    )
    with pytest.raises(RelandError, match="did you mean 'home'"):
        read_log(dataclasses.replace(values, scenarios=("hom",)))


@pytest.mark.slow
def test_the_command_leaves_its_files_and_goes_on(tmp_path: Path) -> None:
    """A cell that was lost is trained again to the same numbers; the others are read back."""
    asked = job(backbones=("shared_bottom", "star", "alone", "aitm"), controls=("backbone", "knowledge"))
    first = run(asked, tmp_path)
    stored = json.loads((tmp_path / "scenarios.json").read_text())
    assert [each["backbone"] for each in stored["cells"]] == [
        "shared_bottom", "shared_bottom", "star", "star", "alone", "aitm",
    ]  # fmt: skip
    page = (tmp_path / "scenarios.html").read_text()
    many = len(stored["differences"])
    assert many / stored["config"]["draws"] > 0.05
    assert f"In a table of {many} comparisons with {stored['config']['draws']} draws of users no p" in page
    assert "star + knowledge over star" in page and "mean of scenarios" in page
    kept = (tmp_path / "arms" / "aitm-backbone-seed0" / "stamp.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "arms" / "star-knowledge-seed0")
    again = run(asked, tmp_path)
    for one, other in zip(first.cells, again.cells, strict=True):
        assert one.segments == other.segments
    assert (tmp_path / "arms" / "aitm-backbone-seed0" / "stamp.json").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_model_alone_sees_the_rows_of_its_scenario(log: Log, tmp_path: Path) -> None:
    """Labels of other scenarios may be anything."""
    asked, cell = job(backbones=("alone",), baseline="alone"), Cell("alone", "backbone")
    found = train_cell(encoded_log(log, asked.log), NOTHING, asked, cell, 0, tmp_path / "a")
    other = (log.events.scenario.code != 1).nonzero()[0]
    click = log.events.labels["click"].copy()
    click[other] = 1 - click[other]
    changed = log._replace(events=log.events._replace(labels={**log.events.labels, "click": click}))
    prepared = encoded_log(changed, asked.log)
    again = train_cell(prepared, NOTHING, asked, cell, 0, tmp_path / "b")
    own = log.events.scenario.code[log.parts.test] == 1
    np.testing.assert_array_equal(found.reached[own], again.reached[own])
    assert (found.reached[~own] != again.reached[~own]).any()
