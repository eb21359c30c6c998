"""Tuning: the spaces, equal budgets, what a stopped or failed trial leaves, and no look at the test part."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import tune as tuning
from experiments.configs.reland import get_config
from experiments.grid.spaces import SPACES, Choice, LogRange, Space, space_of, starting_point
from experiments.harness.settings import parse_setting, setting_of, with_settings
from experiments.tune import Report, base_config, table, tune
from reland_jax import flow
from reland_jax.config import BACKBONES, LINEAR, Config
from reland_jax.eval import Vectors
from reland_jax.stages import FLOW, SPLIT, train, training
from reland_jax.train import Evaluator, Task
from reland_jax.types import RelandError, TargetRanks
from reland_jax.variants import VARIANTS, Variant
from tests.e2e.conftest import merged

# --- spaces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", SPACES)
def test_every_value_of_a_space_is_a_valid_setting(backbone: str) -> None:
    config = base_config("demo", backbone)
    for setting in space_of(backbone, "reland"):
        ends = (setting.low, setting.high) if isinstance(setting, LogRange) else setting.values
        for value in ends:
            also = getattr(setting, "also", "")
            changed = with_settings(config, {setting.name: value} | ({also: value} if also else {}))
            assert setting_of(changed, setting.name) == value
            kinds = {type(value), type(setting_of(config, setting.name))} - {type(None)}
            assert len(kinds) <= 1


@pytest.mark.parametrize("backbone", LINEAR)
def test_the_search_of_a_linear_model_starts_from_its_settings(backbone: str) -> None:
    config, space = base_config("demo", backbone), space_of(backbone, "reland")
    assert set(starting_point(config, space)) == {setting.name for setting in space}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_search_starts_from_the_settings_of_the_configs(backbone: str) -> None:
    config, space = base_config("demo", backbone), space_of(backbone, "reland")
    point = starting_point(config, space)
    assert set(point) == {setting.name for setting in space}, "a default lies outside its space"
    assert point["train.learning_rate"] == config.train.learning_rate
    projection = config.train.projection_learning_rate or config.train.learning_rate
    assert point["train.projection_learning_rate"] == projection


def test_a_linear_model_tunes_the_weight_that_it_reads() -> None:
    names = {v: {setting.name for setting in space_of("ease", v)} for v in ("reland", "seed_id")}
    assert names["reland"] ^ names["seed_id"] == {"ease.phrase_weight", "ease.rationale_weight"}
    assert "ease.phrase_weight" in names["reland"]


def test_a_variant_adds_to_the_shared_space() -> None:
    assert set(SPACES) == {*BACKBONES, *LINEAR}
    for backbone in SPACES:
        plain, text, full = ([setting.name for setting in space_of(backbone, v)] for v in VARIANTS)
        assert text[: len(plain)] == plain and full[: len(text)] == text
        assert not any(name.startswith(("text.", "fusion.")) for name in plain)
        assert not any(name.startswith("fusion.") for name in text)
        assert len(set(full)) == len(full)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.batch_size", "expected section.key=value"),
        ("train.batch_sizes=1", "'batch_sizes': did you mean 'batch_size'?"),
        ("train.batch_size=many", "batch_size='many' must be a whole number, not a text"),
        ("train.batch_size.x=1", "1024 has no settings below it"),
        ("train=1", "config.train is a section"),
    ],
)
def test_a_mistake_in_a_setting(text: str, expected: str) -> None:
    with pytest.raises(RelandError) as error:
        parse_setting(text, Config())
    assert expected in str(error.value)


def test_settings_take_the_type_that_they_have() -> None:
    config = base_config("demo", "neumf", ["train.learning_rate=1", "text.encoder=12"], "a.jsonl", 2)
    assert type(config.train.learning_rate) is float and config.text.encoder == "12"
    assert (config.pool.provider, config.pool.path, config.train.max_epochs) == ("file", "a.jsonl", 2)
    assert parse_setting("model.tower=(8, 4)", config) == ("model.tower", (8, 4))
    assert parse_setting("pool.path=a=b", config) == ("pool.path", "a=b")
    assert parse_setting("data.text_fields=title, brand", config) == ("data.text_fields", ("title", "brand"))
    assert parse_setting("model.fanout=5", config) == ("model.fanout", (5,))
    assert parse_setting("data.user_field=5", config) == ("data.user_field", "5")
    assert parse_setting("data.user_field=None", config) == ("data.user_field", None)
    assert parse_setting("data.min_rating=4", config) == ("data.min_rating", 4.0)


# --- the search, with a made-up training -------------------------------------------------------------

EPOCHS = 3
Tuned = Callable[..., dict[str, Any]]


def score(settings: Mapping[str, Any]) -> float:
    """Best at a learning rate of 0.002."""
    return 0.5 - 0.1 * abs(math.log(settings["train.learning_rate"] / 0.002))


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Tuned:
    """Tunes with `outcome(variant, settings, count, report)` in place of training."""

    def start(
        workdir: Path, trials: int, outcome: Any = None, variants: tuple[str, ...] = ("id",)
    ) -> dict[str, Any]:
        class Made:
            count = 0

            def __init__(self, config: Config, folder: Path) -> None:
                pass

            def measure(self, variant: str, settings: Mapping[str, Any], report: Report) -> float:
                Made.count += 1
                if outcome:
                    outcome(variant, settings, Made.count, report)
                for epoch in range(1, EPOCHS + 1):
                    report({"epoch": epoch, "ndcg@10": score(settings) * epoch / EPOCHS})
                return score(settings)

        monkeypatch.setattr(tuning, "Bench", Made)
        return tune(base_config("demo", "lightgcn", max_epochs=EPOCHS), variants, trials, workdir)

    return start


def drawn(found: dict[str, Any], variant: str = "id") -> list[dict[str, Any]]:
    """The settings of the trials that count."""
    return [t["settings"] for t in found["variants"][variant]["trials"] if t["state"] != "stopped"]


def test_equal_budgets_and_the_same_random_draws(search: Tuned, tmp_path: Path) -> None:
    turns: list[str] = []
    found = search(tmp_path, 4, lambda variant, *_: turns.append(variant), VARIANTS)
    assert turns == list(VARIANTS) * 4
    config = base_config("demo", "lightgcn")
    for variant in VARIANTS:
        first = drawn(found, variant)[0]
        assert first == {name: setting_of(config, name) for name in first}, "not the configs' settings"
        assert len({json.dumps(settings) for settings in drawn(found, variant)}) == 4
        shared = [setting.name for setting in SPACES["lightgcn"].shared]
        for own, plain in zip(drawn(found, variant), drawn(found), strict=True):
            assert {name: own[name] for name in shared} == plain
    for settings in drawn(found, "reland"):
        assert settings["text.whiten_items"] == settings["text.whiten_rationales"]
    assert json.loads((tmp_path / "tune.json").read_text()) == json.loads(json.dumps(found))


def test_a_stopped_search_goes_on_as_if_it_had_not_stopped(search: Tuned, tmp_path: Path) -> None:
    """Stopped in the first and in the sixth trial, of which the latter is no longer a random draw."""

    def stop(at: int) -> Any:
        def outcome(variant: str, settings: Any, count: int, report: Report) -> None:
            if count == at:
                report({"epoch": 1, "ndcg@10": 0.01})
                raise KeyboardInterrupt

        return outcome

    expected = search(tmp_path / "undisturbed", 6)
    for at in (1, 6):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "stopped", 6, stop(at))
    found = search(tmp_path / "stopped", 6)
    assert drawn(found) == drawn(expected)
    states = [trial["state"] for trial in found["variants"]["id"]["trials"]]
    assert len(states) == 8 and states.count("stopped") == 2
    assert found["variants"]["id"]["best"]["value"] == expected["variants"]["id"]["best"]["value"]
    assert drawn(search(tmp_path / "stopped", 7))[:6] == drawn(expected), "a larger budget adds trials"


def test_a_failed_trial_counts_with_its_reason(search: Tuned, tmp_path: Path) -> None:
    def outcome(variant: str, settings: Any, count: int, report: Report) -> None:
        if count == 2:
            raise RelandError("training stopped at step 7: the loss is nan")

    found = search(tmp_path, 3, outcome)
    trials = found["variants"]["id"]["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "fail", "complete"]
    assert trials[1]["reason"] == "training stopped at step 7: the loss is nan"
    assert trials[1]["value"] is None and found["variants"]["id"]["best"]["number"] != 1
    assert table(found).splitlines()[1].split()[:4] == ["id", "2", "0", "1"]

    def always(*_: Any) -> None:
        raise RelandError("no luck")

    with pytest.raises(RelandError, match="no trial of id was completed: no luck"):
        search(tmp_path / "none", 1, always)


def test_a_hopeless_trial_is_pruned_after_a_third_of_the_epochs(search: Tuned, tmp_path: Path) -> None:
    def outcome(variant: str, settings: Any, count: int, report: Report) -> None:
        if count == 5:
            for epoch in range(1, EPOCHS + 1):
                report({"epoch": epoch, "loss": 1.0})
                report({"epoch": epoch, "ndcg@10": 0.0})

    trial = search(tmp_path, 5, outcome)["variants"]["id"]["trials"][4]
    assert (trial["state"], trial["value"]) == ("pruned", None)
    assert trial["validation"] == {str(epoch): 0.0 for epoch in range(1, EPOCHS // 3 + 2)}


def test_other_settings_begin_anew_and_a_folder_has_one_owner(search: Tuned, tmp_path: Path) -> None:
    def again(*_: Any) -> None:
        with pytest.raises(RelandError, match="another process is tuning"):
            tune(base_config("demo", "lightgcn"), ("id",), 1, tmp_path)

    search(tmp_path, 2, again)
    found = tune(base_config("demo", "lightgcn", max_epochs=EPOCHS + 1), ("id",), 1, tmp_path)
    assert len(found["variants"]["id"]["trials"]) == 1


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RelandError, match="pip install -r requirements-tune.txt"):
        tune(Config(), ("id",), 1, tmp_path)
    with pytest.raises(RelandError, match="'relan' is not known; did you mean 'reland'"):
        tune(Config(), ("relan",), 1, tmp_path)


# --- the search, with real trainings -----------------------------------------------------------------


@pytest.fixture
def tiny(settings: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Config:
    """LightGCN on the smallest demo, with a space that suits it."""
    space = Space(
        (LogRange("train.learning_rate", 1e-3, 1e-2),),
        (Choice("text.whiten_items", (4, 6), also="text.whiten_rationales"),),
        (Choice("fusion.neighbours", (1, 3)),),
    )
    monkeypatch.setitem(SPACES, "lightgcn", space)
    train, text = {"max_epochs": 2, "eval_every": 1}, {"whiten_items": 4, "whiten_rationales": 4}
    changes = settings(train=train, text=text)
    return Config.from_dict(merged(get_config("demo,lightgcn").to_dict(), changes))


def test_no_test_metric_and_the_main_job_finds_the_same(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that what a changed setting prepares is what the trial trains with."""
    parts: list[str] = []
    rank, task = Evaluator.rank, train._task
    hidden = flow.run(FLOW, tiny, tmp_path / "prepared")[SPLIT]

    def watched_rank(self: Evaluator, part: str, vectors: Vectors, cutoff: int | None = None) -> TargetRanks:
        parts.append(part)
        return rank(self, part, vectors, cutoff)

    def watched_task(job: flow.Job, variant: Variant) -> Task:
        np.testing.assert_array_equal(job[SPLIT].test.items, hidden.valid.items)
        made = task(job, variant)
        widths = made.tables.item_text.shape[1], made.tables.rationale.shape[1], made.tables.seed.shape[1]
        text = job.config.text
        nearest = max(job.config.fusion.neighbours, job.config.retrieval.neighbours)
        assert widths == (text.whiten_items, text.whiten_rationales, nearest)
        return made

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "rank", watched_rank)
        patched.setattr(train, "_task", watched_task)
        found = tune(tiny, ("reland",), 2, tmp_path)
    assert set(parts) == {"valid"}, "a test metric was computed"
    assert '"test' not in json.dumps({key: value for key, value in found.items() if key != "config"})
    trials, best = found["variants"]["reland"]["trials"], found["variants"]["reland"]["best"]
    prepared = {(t["settings"]["text.whiten_items"], t["settings"]["fusion.neighbours"]) for t in trials}
    assert len(prepared) > 1, "nothing was prepared again"
    for trial in trials:
        assert trial["value"] == max(trial["validation"].values()) and len(trial["validation"]) == 2
    assert best["value"] == max(trial["value"] for trial in trials)

    flags = [flag.removeprefix("--config.") for flag in shlex.split(best["command"]) if "--config." in flag]
    command = with_settings(base_config("demo", "lightgcn"), dict(parse_setting(f, tiny) for f in flags))
    expected = with_settings(tiny, best["settings"] | {"variants": ("reland",)})
    assert command == expected
    assert not list((tmp_path / "prepared").glob("train/*")), "trials leave no trainings"
    prepared_again = flow.run(FLOW, command, tmp_path / "prepared")
    summary = prepared_again.make(training(prepared_again, "reland", tuning.TRAINING_SEED)).summary
    assert summary.valid["ndcg@10"] == pytest.approx(best["value"], abs=1e-9)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a?mode=ro", "a #b", "line\nbreak"])
def test_trials_lie_in_the_folder_that_was_named(tmp_path: Path, name: str) -> None:
    """Whatever a URL would make of its name."""
    (tmp_path / name).mkdir()
    tuning.open_study(base_config("demo", "lightgcn"), "id", tmp_path / name).enqueue_trial({"x": 1})
    assert len(tuning.open_study(base_config("demo", "lightgcn"), "id", tmp_path / name).trials) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in (tmp_path / name).iterdir()] == ["trials.sqlite"]


def test_damaged_trials_are_reported(tmp_path: Path) -> None:
    path, config = tmp_path / "trials.sqlite", base_config("demo", "lightgcn")
    tuning.open_study(config, "id", tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    torn = content[:middle] + b"\xaa" * 8192 + content[middle + 8192 :]
    for damaged in (content[:5000], b"{}" * 5000, b"X" + content[1:], torn):
        path.write_bytes(damaged)
        with pytest.raises(RelandError, match="the trials cannot be read .* to start a new search"):
            tuning.open_study(config, "id", tmp_path)
        assert path.read_bytes() == damaged
