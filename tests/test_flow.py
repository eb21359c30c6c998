"""The flow of stages on three stages of numbers: what is run, what is read back, and from where."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reland_jax import flow
from reland_jax.config import Config, SeedsConfig
from reland_jax.files import write_json
from reland_jax.flow import Codec, Flow, Job, Made, Stage
from reland_jax.types import RelandError

RAN: list[str] = []
"""Names of the stages that were run, in order."""


@pytest.fixture(autouse=True)
def ran() -> list[str]:
    """Forgets what earlier tests ran."""
    RAN.clear()
    return RAN


def number(value: int, folder: Path) -> None:
    write_json(folder / "number.json", value)


def codec(job: Job) -> Codec[int]:
    return Codec(number, lambda folder: int((folder / "number.json").read_text()))


def stage(name: str, reads: Sequence[Stage[int]] = (), setting: str = "rounds", **more: Any) -> Stage[int]:
    """Adds one of the settings of seeds to what it reads."""

    def run(job: Job) -> int:
        RAN.append(name)
        return int(getattr(job.config.seeds, setting)) + sum(job[each] for each in reads)

    settings = lambda config: [getattr(config.seeds, setting)]  # noqa: E731
    return Stage(name, tuple(reads), settings, run, codec, **more)


FIRST = stage("first", setting="rounds", identify=lambda value: f"{value % 100}", exact=True)
SECOND = stage("second", [FIRST], "clusters")
THIRD = stage("both/third", [FIRST, SECOND], "iterations")
FOURTH = stage("both/fourth", [SECOND], "iterations")
NUMBERS = Flow((FIRST, SECOND, THIRD, FOURTH), after=("last",))


def config(rounds: int = 1, clusters: int = 20, iterations: int = 300) -> Config:
    return Config(seeds=SeedsConfig(rounds=rounds, clusters=clusters, iterations=iterations))


def run(workdir: Path, settings: Config | None = None, **given: Any) -> Made:
    return flow.run(NUMBERS, settings or config(), workdir, **given)


def test_what_is_up_to_date_is_read_back(tmp_path: Path) -> None:
    first, again = run(tmp_path), run(tmp_path)
    assert RAN == ["first", "second", "both/third", "both/fourth"]
    for made in (first, again):
        assert [made[each] for each in NUMBERS.stages] == [1, 21, 322, 321]
    assert list(again.seconds) == RAN and first.stamps == again.stamps
    assert sorted(path.name for path in (tmp_path / "both").iterdir() if path.name[0] != ".") == [
        "fourth",
        "third",
    ]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (config(iterations=301), ["both/third", "both/fourth"]),
        (config(clusters=21), ["second", "both/third", "both/fourth"]),
        (config(rounds=2), ["first", "second", "both/third", "both/fourth"]),
        (config(rounds=101), ["first"]),  # later stages depend on what it holds, which is the same to them
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it(
    changed: Config, expected: list[str], tmp_path: Path
) -> None:
    run(tmp_path)
    RAN.clear()
    run(tmp_path, changed)
    assert RAN == expected


def test_a_new_version_is_made_anew(tmp_path: Path) -> None:
    run(tmp_path)
    RAN.clear()
    run(tmp_path, replace={"second": dataclasses.replace(SECOND, version=2)})
    assert RAN == ["second", "both/third", "both/fourth"]


def test_a_replaced_stage_is_read_in_the_place_of_the_other(tmp_path: Path) -> None:
    other = stage("second", setting="rounds")
    assert run(tmp_path, replace={"second": other})[THIRD] == 302


def test_it_runs_as_far_as_is_said(tmp_path: Path) -> None:
    assert list(run(tmp_path, until="second").artefacts) == ["first", "second"]
    assert list(run(tmp_path, until="both").artefacts) == [each.name for each in NUMBERS.stages]
    assert list(run(tmp_path, asked=("first",)).artefacts) == ["first"]
    assert list(run(tmp_path, asked=("last",)).artefacts) == [each.name for each in NUMBERS.stages]
    assert NUMBERS.reaches((), "last") and NUMBERS.reaches(("last",), "both")
    assert not NUMBERS.reaches(("first", "second"), "both")


def test_stages_that_are_asked_for_are_made_again_and_no_others(tmp_path: Path) -> None:
    """A family is asked for as a whole. A stage that is made again is another one to those after it."""
    before = run(tmp_path)
    RAN.clear()
    made = run(tmp_path, asked=("both",))
    assert RAN == ["both/third", "both/fourth"]
    assert made.artefacts["second"] == before.artefacts["second"]._replace(fresh=False)
    assert made.artefacts["both/third"].fingerprint != before.artefacts["both/third"].fingerprint
    run(tmp_path, asked=("second",))
    with pytest.raises(RelandError, match="stage 'both' was made from other settings or data; add 'both'"):
        run(tmp_path, asked=("last",))


def test_a_missing_stage_that_was_not_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="stage 'first' does not exist; add 'first' to --stages"):
        run(tmp_path, asked=("second",))
    with pytest.raises(RelandError, match="--stages: 'secnd' is not a stage; did you mean 'second'"):
        run(tmp_path / "nowhere", asked=("secnd",))
    assert RAN == [] and not (tmp_path / "nowhere").exists()


def test_a_finished_training_is_never_repeated_by_naming_it(tmp_path: Path) -> None:
    last = stage("last/one", [SECOND], "iterations", repeats=False)
    assert run(tmp_path).make(last) == 321
    RAN.clear()
    assert run(tmp_path, asked=("last",)).make(last) == 321 and RAN == []
    assert run(tmp_path, config(iterations=9), asked=("both", "last")).make(last) == 30
    assert RAN == ["both/third", "both/fourth", "last/one"]


def test_a_stage_reads_only_what_it_declares(tmp_path: Path) -> None:
    secret = dataclasses.replace(stage("both/third", [FIRST, SECOND]), reads=(SECOND,))
    with pytest.raises(AssertionError, match="first is not declared"):
        run(tmp_path, replace={"both/third": secret})


def test_shared_artefacts_are_read_from_another_workdir(tmp_path: Path) -> None:
    base, own = tmp_path / "base", tmp_path / "own"
    run(base, until="second")
    RAN.clear()
    made = run(own, shared=dict.fromkeys(("first", "second"), base))
    assert RAN == ["both/third", "both/fourth"] and made[THIRD] == 322
    assert {path.name for path in own.iterdir() if path.name[0] != "."} == {"both"}


def test_what_an_earlier_run_holds_is_not_read_again(tmp_path: Path) -> None:
    """Nor what it holds of another folder, or made of other settings, taken for this one's."""
    known = run(tmp_path)
    (tmp_path / "second/number.json").write_text("99")  # a reading would tell the damage
    again = run(tmp_path, config(iterations=9), known=known)
    assert again[SECOND] == 21 and again[THIRD] == 31 and RAN[4:] == ["both/third", "both/fourth"]
    RAN.clear()
    run(tmp_path / "elsewhere", known=known)
    assert RAN == [each.name for each in NUMBERS.stages]


def test_damage_and_incompleteness(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An incomplete artefact is worked on, unless it is taken as it is."""
    caplog.set_level(logging.INFO, "reland_jax")
    told: list[str] = []
    incomplete = dataclasses.replace(
        SECOND, complete=lambda value: value > 21, on_damage=lambda job, why: told.append(why)
    )
    for again in (True, True, False):
        run(tmp_path, until="second", replace={"second": incomplete}, ask_again=again)
    assert RAN == ["first", "second", "second"] and told == ["it is incomplete"]
    assert "second: incomplete, not continued" in caplog.text
    (tmp_path / "second/number.json").write_text("9")
    run(tmp_path, until="second", replace={"second": incomplete})
    assert RAN[3:] == ["second"] and "number.json" in told[1]


def test_every_artefact_is_checked_before_the_next_stage(tmp_path: Path) -> None:
    def refuse(job: Job, made: Any) -> None:
        raise RelandError(f"{made.value} is refused")

    strict = dataclasses.replace(SECOND, check=refuse)
    for _ in range(2):
        with pytest.raises(RelandError, match="21 is refused"):
            run(tmp_path, replace={"second": strict})
    assert RAN == ["first", "second"]


def test_what_is_computed_with_another_value_is_not_kept(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert made.instead(SECOND, 1000).compute(THIRD) == 1301
    assert made[SECOND] == 21 and run(tmp_path)[THIRD] == 322
    seen: list[Job] = []
    made.compute(dataclasses.replace(FOURTH, run=lambda job: seen.append(job) or 0))
    assert seen[0].checkpoints is None and not seen[0].kept


def test_an_origin_is_of_settings_and_data(tmp_path: Path) -> None:
    """Equal wherever it was made and made again, and another one of other settings."""
    one, other = run(tmp_path / "one"), run(tmp_path / "other")
    run(tmp_path / "other", asked=("second",))
    other = run(tmp_path / "other")
    assert one.artefacts["second"].fingerprint != other.artefacts["second"].fingerprint
    assert one.origin(THIRD) == other.origin(THIRD) != one.origin(FOURTH)
    assert run(tmp_path, config(rounds=101)).origin(THIRD) == one.origin(THIRD), "the data are the same"
    for changed in (config(rounds=2), config(clusters=2), config(iterations=2)):
        assert run(tmp_path, changed).origin(THIRD) != one.origin(THIRD)
    newer = dataclasses.replace(SECOND, version=2)
    assert run(tmp_path, replace={"second": newer}).origin(THIRD) != one.origin(THIRD)
    assert run(tmp_path, config(clusters=2)).origin(FIRST) == one.origin(FIRST)


def test_stages_to_come_are_asked_before_the_first_is_computed(tmp_path: Path) -> None:
    """Not those that are not to run, and nobody where all is up to date."""
    asked: list[str] = []

    def watched(one: Stage[int]) -> Stage[int]:
        return dataclasses.replace(one, ready=lambda config, workdir: asked.append(one.name))

    replace = {one.name: watched(one) for one in (FIRST, SECOND, THIRD)}
    run(tmp_path, replace=replace, until="second")
    assert asked == ["first", "second"]
    asked.clear()
    run(tmp_path, replace=replace, until="second")
    assert asked == []
    refused = dataclasses.replace(THIRD, ready=lambda config, workdir: _refuse())
    with pytest.raises(RelandError, match="no key"):
        run(tmp_path / "new", replace={"both/third": refused})
    assert not (tmp_path / "new" / "first").exists()


def _refuse() -> None:
    raise RelandError("no key")
