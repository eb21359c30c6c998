"""The comparison of arms: from settings to files, what is judged, and texts of training rows alone."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import ranker_ladder as ladder
from experiments.configs.ranker import get_config
from experiments.ranker import run
from experiments.ranking import judged
from experiments.ranking.arms import (
    ArmRun,
    Prepared,
    _validated,
    arms_to_train,
    data_of,
    encoded_log,
    prepare,
    program_of,
    train_arm,
)
from experiments.ranking.logs import Log, Parts, read_log
from experiments.ranking.planted import told, worth
from experiments.ranking.search import TRIALS
from experiments.ranking.texts import NONE, make_texts, read_profiles, training_clicks
from experiments.ranking.view import draws_note
from reland_jax import events
from reland_jax.events import Rows, metrics
from reland_jax.events.shards import ShardBatches, write_batch
from reland_jax.ranker_settings import LogConfig, RankerConfig, RankerJob, RankerTextsConfig
from reland_jax.rankers import find_arm, predict_rows, train_ranker
from reland_jax.types import RelandError

SMALL_LOG = LogConfig(shop_users=80, shop_rows=4000)


@pytest.fixture(scope="module", name="log")
def small_log() -> Log:
    """A small shop."""
    return read_log(SMALL_LOG)


def job(**changed: object) -> RankerJob:
    """Settings that train in seconds."""
    values = get_config("shop,dnn,esmm").to_dict()
    values["log"] |= dataclasses.asdict(SMALL_LOG)
    values["ranker"] |= {"layers": (8,), "width": 4}
    values["train"] |= {"max_epochs": 1, "batch_size": 256}
    return RankerJob.from_dict(values | {"draws": 20} | changed)


def constant_runs(log: Log, **scores: np.ndarray) -> dict[str, dict[int, ArmRun]]:
    """Arms that predict given clicks."""
    summary = {
        "history": [{"epoch": 1.0, "logloss": 0.5, "auc": 0.6}], "best": 0, "rows_per_second": 1.0,
        "seconds": 1.0, "parameters": {"table": 1, "dense": 2},
    }  # fmt: skip
    test = log.parts.test
    return {
        name: {seed: ArmRun(each[test][:, None], each[test][:, None], summary) for seed in (0, 1)}
        for name, each in scores.items()
    }


def test_words_in_the_place_of_a_setting_are_told() -> None:
    with pytest.raises(RelandError, match="expected DATASET,NETWORK"):
        get_config("shop")
    with pytest.raises(RelandError, match="did you mean 'dnn'"):
        get_config("shop,dn")
    assert get_config("kuairand-pure,din,mmoe").ranker.labels == ("click", "long_view")


def test_log_of_ones_own_needs_a_schema(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match=r"config\.log\.schema the JSON file"):
        read_log(LogConfig(name=str(tmp_path / "log.csv")))


def test_log_of_ones_own_with_texts(tmp_path: Path) -> None:
    rows = [f"u{n % 3},i{n % 2},{1_704_067_200 + 86_400 * (n // 3)},{n % 2},red {n % 2}" for n in range(12)]
    (tmp_path / "log.csv").write_text("\n".join(["u,i,t,hit,words", *rows]) + "\n")
    (tmp_path / "items.csv").write_text("i,about\ni0,a tea\ni1,a soap\n")
    schema = {"user": "u", "item": "i", "time": "t", "labels": [{"name": "click", "column": "hit"}]}
    schema["features"] = [{"name": "words", "kind": "categorical", "side": "context"}]
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    config = LogConfig(name=str(tmp_path / "log.csv"), schema=str(tmp_path / "schema.json"), test_days=1)
    log = read_log(config)
    assert [len(part) for part in log.parts[:3]] == [6, 3, 3]
    (tmp_path / "schema.json").write_text(json.dumps(schema | {"lables": []}))
    with pytest.raises(RelandError, match=r"schema\.json: not a schema .*lables"):
        read_log(config)


def test_clicks_of_training_rows_alone_make_the_texts(log: Log) -> None:
    clicks = training_clicks(log)
    events, train = log.events, log.parts.train
    hit = train[events.labels["click"][train] == 1]
    assert len(clicks.user) == len(hit)
    assert (np.diff(clicks.user) >= 0).all()
    latest = events.time[train].max()
    assert clicks.time.max() <= latest < events.time[log.parts.valid].min()
    assert sorted(zip(clicks.user, clicks.item, strict=True)) == sorted(
        zip(events.user[hit], events.item[hit], strict=True)
    )


def test_days_before_training_match_the_users_and_train_no_ranker(log: Log) -> None:
    warm = read_log(dataclasses.replace(SMALL_LOG, warm_days=4))
    np.testing.assert_array_equal(np.sort([*warm.parts.warm, *warm.parts.train]), log.parts.train)
    clicks = training_clicks(warm)
    assert clicks.time.max() < warm.events.time[warm.parts.train].min()
    np.testing.assert_array_equal(warm.parts.test, log.parts.test)
    assert len(read_log(dataclasses.replace(SMALL_LOG, warm_days=4, scenarios=("home",))).parts.warm) > 0
    with pytest.raises(RelandError, match="warm_days=11 leaves nothing to train on: training has 11 days"):
        read_log(dataclasses.replace(SMALL_LOG, warm_days=11))


def test_texts_of_the_shop_say_the_favourites_of_the_seed_user(log: Log, tmp_path: Path) -> None:
    found = make_texts(log, RankerTextsConfig(), tmp_path)
    assert found.texts.rationales is not None and found.texts.seed is not None and found.own is not None
    np.testing.assert_array_equal(found.texts.rationales[found.texts.seed[0]], found.own[_seed_of(found, 0)])
    again = make_texts(log, RankerTextsConfig(), tmp_path)
    np.testing.assert_array_equal(found.texts.seed, again.texts.seed)


def _seed_of(found: object, user: int) -> int:
    """The user whose text a user is given."""
    texts = found.texts  # type: ignore[attr-defined]  # a LogTexts
    given = texts.rationales[texts.seed[user]]
    return int(np.flatnonzero((found.own == given).all(1))[0])  # type: ignore[attr-defined]  # as above


def test_what_planted_words_can_add_is_what_a_ranker_lacks(log: Log, tmp_path: Path) -> None:
    assert log.shop is not None
    prepared = encoded_log(log, SMALL_LOG, make_texts(log, RankerTextsConfig(), tmp_path))
    world, user, item = log.shop.world, log.events.user, log.events.item
    favourite = (world.favourites[user] == world.category[item][:, None]).any(1)
    truth = log.shop.truth.click
    without = 1 / (1 + np.exp(world.strength * favourite) * (1 - truth) / truth)
    knows = worth(prepared, constant_runs(log, f_item=truth)["f_item"])
    lacks = worth(prepared, constant_runs(log, f_item=without)["f_item"])
    label, test = log.events.labels["click"][log.parts.test], log.parts.test
    planted = metrics.auc(label, truth[test]) - metrics.auc(label, without[test])  # type: ignore[operator]
    assert planted > 0.01 and lacks["own"] == pytest.approx(planted, abs=0.01)
    assert abs(knows["own"]) < 0.01 and lacks["reland"] < lacks["own"] / 2
    (sentence,) = told(prepared, constant_runs(log, f_item=truth))
    assert f"own {knows['own']:+.4f}" in sentence
    with pytest.raises(RelandError, match="planted words are known of the generated shop alone"):
        worth(prepared._replace(texts=NONE), {})


def test_arm_without_its_texts_is_an_error() -> None:
    with pytest.raises(RelandError, match="'own' reads texts that this log does not have; it allows id"):
        arms_to_train(job(arms=("id", "own")), NONE)
    assert arms_to_train(job(arms=("all",)), NONE) == ["id"]


def test_a_single_label_is_judged_on_the_rows_that_it_is_of(log: Log) -> None:
    events, test = log.events, log.parts.test
    score = np.linspace(0.1, 0.9, len(test))[:, None]
    on_all = judged.judge_of(log, RankerConfig(labels=("conversion",))).tasks(score, score)
    assert [each.name for each in on_all] == ["ctcvr"] and len(on_all[0].rows) == len(test)
    config = RankerConfig(labels=("conversion",), trained_on="click")
    clicked = judged.judge_of(log, config).tasks(score, score)
    assert [each.name for each in clicked] == ["cvr"]
    np.testing.assert_array_equal(clicked[0].rows, test[events.labels["click"][test] == 1])


def test_metrics_are_means_over_seeds_and_differences_are_of_them(log: Log) -> None:
    assert log.shop is not None
    rng = np.random.default_rng(0)
    truth, guess = log.shop.truth.click, rng.random(log.events.num_rows)
    runs = constant_runs(log, id=guess, f_item=truth)
    judge = judged.judge_of(log, RankerConfig())
    found = judged.arm_results(judge, runs["f_item"])
    label = log.events.labels["click"][log.parts.test]
    expected = metrics.auc(label, truth[log.parts.test])
    assert found.quality[0].auc == expected
    assert found.auc_deviation == {"ctr": 0.0}
    truths = judged.truth_of(judge)
    assert truths is not None and truths[0].auc == expected
    (difference,) = judged.differences(judge, job(), runs)
    assert (difference.arm, difference.baseline, difference.segment) == ("f_item", "id", "all")
    assert difference.auc.low > 0


def test_profiles_that_are_none_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"user_id": 1, "profile": "likes tea"}\n{"user_id": 2}\n')
    with pytest.raises(RelandError, match=r"p\.jsonl:2: not a text of a user"):
        read_profiles(path)


def test_writes_tables_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = job(arms=("id", "seed_id"), keep_programs=False)
    first = run(settings, tmp_path)
    written = json.loads((tmp_path / "ranker.json").read_text())
    assert set(written["arms"]) == {"id", "seed_id"}
    tasks = [each["task"] for each in written["arms"]["id"]["quality"] if each["segment"] == "all"]
    assert tasks == ["ctr", "cvr", "ctcvr"]
    assert "<title>ReLand: shop, dnn</title>" in (tmp_path / "ranker.html").read_text()
    assert (tmp_path / "ranker.md").read_text().startswith("# Ranker on shop: dnn, esmm")
    monkeypatch.setattr("experiments.ranking.arms.train_ranker", None)  # nothing is trained again
    assert run(settings, tmp_path).arms == first.arms


@pytest.mark.parametrize(
    "comparisons, draws, told", [(30, 600, ""), (31, 600, "below 0.052"), (9, 5, "below 1,")]
)
def test_a_table_of_too_many_comparisons_says_so(comparisons: int, draws: int, told: str) -> None:
    found = "".join(draws_note(comparisons, draws))
    assert told in found and bool(told) == bool(found)


def test_arms_have_the_same_trials_and_the_best_by_validation(tmp_path: Path) -> None:
    arms, seeds = ("id", "reland", "seed_id"), (0, 1)
    settings = job(arms=arms, keep_programs=False, search=True, seeds_of_training=seeds)
    found = run(settings, tmp_path)
    assert tuple(found.chosen) == arms
    for arm in ("id", "reland"):
        chosen = found.chosen[arm]
        assert [{name: each[name] for name in TRIALS[0]} for each in chosen.trials] == [*TRIALS]
        best = min(chosen.trials, key=lambda each: float(each["valid_logloss"]))
        assert chosen.settings == {name: best[name] for name in TRIALS[0]}
        first, second = found.arms[arm].seeds
        assert first["valid_logloss"] == best["valid_logloss"] != second["valid_logloss"]
    # What stands beside reland has its settings, and no search that could find better ones.
    assert found.chosen["seed_id"] == (found.chosen["reland"].settings, ())
    given = dataclasses.replace(settings.ranker, **found.chosen["reland"].settings)
    alone = dataclasses.replace(settings, ranker=given, arms=("seed_id",), search=False)
    assert run(alone, tmp_path / "alone").arms["seed_id"].quality == found.arms["seed_id"].quality
    rows = [line.split() for line in (tmp_path / "ranker.md").read_text().splitlines()]
    (row,) = (row for row in rows if row[1:2] == ["seed_id"] and "chosen" in row)
    told = [f"{value:g}" for value in found.chosen["reland"].settings.values()]
    assert [cell for cell in row if cell != "|"] == ["seed_id", *told, "–", "–", "–", "chosen"]
    written = json.loads((tmp_path / "ranker.json").read_text())["chosen"]["id"]["settings"]
    assert written == found.chosen["id"].settings


SCHEMA = {
    "user": "user", "item": "item", "time": "time", "time_unit": "seconds", "labels": [{"name": "click"}],
    "features": [{"name": "age", "kind": "categorical", "side": "context"}],
}  # fmt: skip


def write_log(folder: Path, rows: list[str], header: str = "user,item,time,click,age") -> LogConfig:
    """A log of one's own with its schema."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    return LogConfig(name=str(folder / "log.csv"), schema=str(folder / "schema.json"))


def write_days(folder: Path, rows: list[str], header: str = "user,item,time,click,age") -> LogConfig:
    """A log of one's own with a file for each day."""
    (folder / "log").mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    days = sorted({int(row.split(",")[2]) // 86_400 for row in rows})
    for day in days:
        some = [row for row in rows if int(row.split(",")[2]) // 86_400 == day]
        (folder / "log" / f"{day}.csv").write_text("\n".join([header, *some]) + "\n")
    return LogConfig(name=str(folder / "log"), schema=str(folder / "schema.json"))


def rows_of_days(one_class: str = "") -> list[str]:
    """Six days of impressions: three for training, one for validation, two for testing."""
    rng, parts = np.random.default_rng(0), ("training",) * 3 + ("validation",) + ("testing",) * 2
    return [
        f"u{rng.integers(20)},i{rng.integers(10)},{1_704_067_200 + 86_400 * day + 60 * place},"
        f"{1 if part == one_class else rng.integers(2)},{rng.integers(5)}"
        for day, part in enumerate(parts)
        for place in range(60)
    ]


@pytest.mark.parametrize("part", ["training", "validation", "testing"])
def test_a_label_of_one_class_is_refused_before_anything_is_made(tmp_path: Path, part: str) -> None:
    settings = job(
        log=dataclasses.asdict(write_log(tmp_path, rows_of_days(part))), keep_programs=False,
        ranker={"network": "logistic", "labels": ("click",)},
    )  # fmt: skip
    with pytest.raises(RelandError, match=f"'click' is 1 in all of the .* rows for {part}: .* other days"):
        run(settings, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def ranker_command(folder: Path, log: LogConfig) -> list[str]:
    """The command on a log of one's own, of some seconds."""
    return [
        sys.executable, "-m", "experiments.ranker", f"--config=experiments/configs/ranker.py:{log.name},dnn",
        f"--config.log.schema={log.schema}", f"--workdir={folder / 'work'}", "--config.draws=5",
        "--config.train.max_epochs=60", "--config.train.patience=60", "--config.train.batch_size=16",
        "--config.train.checkpoint_seconds=0", "--config.keep_programs=False",
    ]  # fmt: skip


def without_clock(folder: Path) -> dict[str, Any]:
    """What a finished command wrote of its arms, without seconds."""
    arms: dict[str, Any] = json.loads((folder / "work/ranker.json").read_text())["arms"]
    for seed in (seed for arm in arms.values() for seed in arm["seeds"]):
        del seed["seconds"], seed["rows_per_second"]
    return arms


def test_a_log_that_is_streamed_trains_as_in_memory(tmp_path: Path) -> None:
    """The same rows in memory, in the order in which shards of a file for each day give them."""
    log = write_days(tmp_path / "days", rows_of_days())
    settings = job(
        log=dataclasses.asdict(log), keep_programs=False, draws=5, train={"batch_size": 32, "max_epochs": 3},
        ranker={"network": "dnn", "width": 4, "layers": (8,), "labels": ("click",)},
    )  # fmt: skip
    streamed = dataclasses.replace(settings, log=dataclasses.replace(log, streamed=True))
    found = run(streamed, tmp_path / "streamed")
    assert len(list((tmp_path / "streamed/shards").glob("*.parquet"))) == 3
    assert found.about == run(settings, tmp_path / "memory").about[:2]
    prepared = prepare(settings, tmp_path / "memory")
    arm = find_arm("id")
    data, program = data_of(prepared, arm, 0), program_of(prepared, settings, arm)
    validate = partial(_validated, prepared, program, data)
    order = InOrderOfShards(prepared, tmp_path / "numbers")
    trained = train_ranker(program, data, order, 0, validate=validate)
    mine = train_arm(prepare(streamed, tmp_path / "streamed"), streamed, "id", 0, tmp_path / "again")
    assert [each["logloss"] for each in mine.summary["history"]] == [
        each["logloss"] for each in trained.history
    ]
    reached = predict_rows(program, trained.params, data, prepared.log.parts.test).reached
    np.testing.assert_array_equal(mine.reached, reached)


class InOrderOfShards:
    """Rows in memory by their numbers, which stand in the place of users in shards of their own."""

    size, processes = 32, 1

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        train, day = prepared.log.parts.train, prepared.log.events.day()
        folder.mkdir()
        for number in np.unique(day[train]).tolist():
            rows = train[day[train] == number]
            batch = events.gather(prepared.encoded, rows, None)
            write_batch(batch._replace(user=rows), folder / f"{number}.parquet")
        self.shards = ShardBatches(sorted(folder.iterdir()), self.size, 0)
        self.steps_per_epoch = self.shards.steps_per_epoch

    def at(self, step: int) -> Rows:
        found = self.shards.at(step)
        return Rows(found.user, found.weight)


def test_streaming_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="streamed=True is for a log of your own"):
        read_log(LogConfig(streamed=True))
    with pytest.raises(RelandError, match="this command keeps its log in memory"):
        log = write_days(tmp_path / "log", rows_of_days())
        encoded_log(read_log(dataclasses.replace(log, streamed=True)), log)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "row", "message"),
    [
        (70, "u1,i1,1704067300,maybe,3", "log.csv:72: 'click' is 'maybe', which is not a number"),
        (70, "u1,i1", "log.csv:72: 2 fields where the columns are 5: user, item, time, click, age"),
        (0, ",i1,1704067300,1,3", "log.csv:2: 'user' is empty"),
        (9, "u1,i1,-3,1,3", "log.csv:11: 'time' is not between 1990 and 2100"),
    ],
)
def test_a_bad_row_ends_the_command_with_one_line(
    repository: Path, tmp_path: Path, place: int, row: str, message: str
) -> None:
    rows = rows_of_days()
    rows[place] = row
    command = ranker_command(tmp_path, write_log(tmp_path, rows))
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr and not list((tmp_path / "work").rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_killed_at_any_moment_the_command_ends_with_the_same_numbers(
    repository: Path, tmp_path: Path, streamed: bool
) -> None:
    """Rows out of order are sorted, a column that nobody declared is left out; both are told."""
    rows = [f"{row},sun" for row in np.random.default_rng(2).permutation(rows_of_days())]
    numbers, rng = [], np.random.default_rng(1)
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        log = (write_days if streamed else write_log)(folder, rows, "user,item,time,click,age,weather")
        command = [*ranker_command(folder, log), f"--config.log.streamed={streamed}"]
        for _ in range(3 if name == "killed" else 0):
            process = subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)  # fmt: skip
            begun = len(list(folder.rglob("checkpoints/*/*")))
            while process.poll() is None and len(list(folder.rglob("checkpoints/*/*"))) == begun:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 1))
            process.kill()
            process.wait()
        subprocess.run(command, cwd=repository, check=True, capture_output=True)
        numbers.append(without_clock(folder))
    assert numbers[0] == numbers[1]
    notes = json.loads((tmp_path / "killed/work/ranker.json").read_text())["about"]
    assert any("'weather'" in note for note in notes) and any("sorted by time" in note for note in notes)


def test_split_by_profile_is_of_rows_that_no_text_has_seen() -> None:
    from experiments.ranking.logs import _by_profile
    from reland_jax.data.sources.raw import Tokens

    code = (np.arange(1000) % 5 == 0).astype(np.int32)
    parts: Parts = _by_profile(Tokens(code, np.array(["train", "test"])))
    assert (code[parts.train] == 0).all() and len(parts.train) == 800
    unseen = np.concatenate([parts.valid, parts.test])
    assert (code[unseen] == 1).all() and len(np.unique(unseen)) == 200
    assert 30 < len(parts.valid) < 70


@pytest.mark.slow
def test_texts_by_the_stages_and_by_profiles(log: Log, tmp_path: Path) -> None:
    """Words of the heuristic, and those of a file, are vectors of one space; every user is given one."""
    category = log.events.features["category"]
    said = {
        "title": np.asarray(category.name)[category.code],
        "categories": np.asarray(category.name)[category.code],
    }
    plain = log._replace(shop=None, item_texts=said)
    config = RankerTextsConfig(encoder_epochs=1, fraction=0.2, max_tokens=16, directions=8)
    heuristic = make_texts(plain, config, tmp_path / "heuristic").texts
    path = tmp_path / "profiles.jsonl"
    users = log.events.ids.users.tolist()
    lines = [
        json.dumps({"user_id": user, "profile": f"likes {at % 7} teas"}) for at, user in enumerate(users)
    ]
    path.write_text("\n".join(lines))
    found = make_texts(plain._replace(profiles=path), config, tmp_path / "profiles")
    for texts in (heuristic, found.texts):
        assert texts.items is not None and texts.rationales is not None and texts.seed is not None
        assert texts.items.shape[1] == texts.rationales.shape[1] == 8
        assert len(texts.items) == log.events.num_items + 1
        assert len(texts.seed) == len(users) and texts.seed.min() >= 0
        assert texts.seed.max() < len(texts.rationales)
    assert found.own is not None and found.own.shape == (len(users), 8) and found.own.any(1).all()
    np.testing.assert_array_equal(found.own[0], found.own[7])
    assert np.abs(found.own[0] - found.own[1]).max() > 1e-3
    assert found.texts.rationales is not None and heuristic.rationales is not None
    assert {tuple(row) for row in found.texts.rationales} <= {tuple(row) for row in found.own}


@pytest.mark.slow
def test_the_planted_gain_is_found_and_controls_do_not_find_it(tmp_path: Path) -> None:
    """In the shop of the preset, which is large enough to tell it from chance."""
    values = get_config("shop,masknet_parallel").to_dict()
    arms = ("f_item", "reland", "permuted", "noise", "seed_id", "own")
    settings = RankerJob.from_dict(values | {"arms": arms, "draws": 200})
    results = run(settings, tmp_path)
    found = {
        (each.arm, each.baseline): each.auc
        for each in results.differences
        if (each.task, each.segment) == ("ctr", "all")
    }
    gain = {arm: found[arm, "f_item"] for arm in arms[1:]}
    prepared = prepare(settings, tmp_path)
    could = worth(prepared, {0: train_arm(prepared, settings, "f_item", 0, tmp_path)})
    # The words of the nearest seed user say little of those that most users would say of themselves.
    assert 0.002 < could["reland"] < could["own"] / 3
    assert gain["reland"].low > 0 and gain["reland"].difference > could["reland"] / 2
    assert gain["own"].difference > could["own"] / 2
    for control in ("permuted", "noise", "seed_id"):
        assert found["reland", control].low > 0
        assert gain[control].high > 0


@pytest.mark.slow
def test_networks_are_tuned_by_validation_and_trained_with_all_seeds(tmp_path: Path) -> None:
    values = get_config("shop,dnn").to_dict()
    values["log"] |= dataclasses.asdict(SMALL_LOG)
    values["ranker"] |= {"layers": (8,), "width": 4}
    values["train"] |= {"max_epochs": 1, "batch_size": 256}
    small = RankerJob.from_dict(values | {"draws": 20, "seeds_of_training": (0, 1)})
    chosen, results = ladder.run(small, ["logistic", "dnn"], tmp_path)
    for tuned in chosen.values():
        assert len(tuned.trials) == len(TRIALS)
        best = min(tuned.trials, key=lambda trial: trial["valid_logloss"])
        assert tuned.settings.items() <= best.items()
    assert [entry["seed"] for entry in results.arms["dnn"].seeds] == [0, 1]
    assert results.arms["dnn"].seeds[0]["valid_logloss"] == min(
        trial["valid_logloss"] for trial in chosen["dnn"].trials
    )
    assert [(each.arm, each.baseline) for each in results.differences] == [("logistic", "dnn")]
    assert "chosen" in ladder.markdown(chosen, results)
    taken = {name: tuned.settings for name, tuned in chosen.items()}
    assert ladder.run(small, ["dnn"], tmp_path, taken)[1].arms["dnn"].seeds == results.arms["dnn"].seeds
    with pytest.raises(RelandError, match="did you mean 'dnn'"):
        ladder.run(small, ["dn"], tmp_path)
