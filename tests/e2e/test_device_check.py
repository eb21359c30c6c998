"""The device check: what is measured, what no time is left for, what fails, and the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import device_check
from experiments.device_check import backbones_of, run
from experiments.speed import device_parts
from experiments.speed.device_parts import BEAUTY, Bench, Part, Scale, parts
from experiments.speed.device_view import table
from experiments.speed.machine import Machine
from reland_jax.config import ENCODERS
from reland_jax.results import environment
from reland_jax.types import RelandError

TINY = Scale(users=60, items=40, steps=1, matched=100, seeds=60, clusters=5, texts=1, bits=100)
STEP = "step of neumf, float32, 1 seed"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Invented peaks, which take no time to measure."""
    peaks = Machine(environment(), 0.0, {"float32": 1e12, "bfloat16": 2e12}, 1e11)
    monkeypatch.setattr(device_check, "measure_machine", lambda *given: peaks)
    return peaks


def numbers(value: Any) -> Iterator[float]:
    """All numbers of nested plain values."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        if isinstance(each, (dict, list)):
            yield from numbers(each)
        elif isinstance(each, (int, float)):
            yield each


def test_what_matters_most_comes_first() -> None:
    names = [part.name for part in parts(Bench(TINY, None))]  # type: ignore[arg-type]  # nothing is measured
    assert len(names) == len(set(names)) == 5 * len(ENCODERS) + 6
    assert names[: len(ENCODERS)] == [f"step of {backbone}, float32, 1 seed" for backbone in ENCODERS]
    assert BEAUTY[:2] == (22_363, 12_101)


def test_a_part_that_fails_and_one_without_time_are_reported(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> dict[str, Any]:
        raise MemoryError("no room\nfor this")

    bench = Bench(TINY, machine)
    given = [
        Part("too large", "steps", "steps", fails),
        Part("assignment", "assignment", "assignment", lambda: bench.assignment(3)),
        Part("bits", "random_bits", "random_bits", lambda: bench.random_bits("rbg")),
        Part("no time", "texts", "texts", fails),
    ]
    monkeypatch.setattr(device_check, "parts", lambda *_: given)
    room = device_check.Budget.has_room
    monkeypatch.setattr(
        device_check.Budget, "has_room", lambda self, kind: kind != "texts" and room(self, kind)
    )
    out = tmp_path / "new" / "check.json"
    found = run(out, TINY, 1.0, ("neumf",))
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    assert found["failed"] == {"too large": "MemoryError: no room\nfor this"}
    assert found["left_out"] == ["no time"]
    assert found["assignment"][0]["k"] == 3 and found["assignment"][0]["users_per_second"] > 0
    assert found["random_bits"][0]["bytes_per_second"] > 0
    shown = table(found)
    assert "failed: too large: MemoryError: no room" in shown and "no time was left for 1 parts" in shown
    with pytest.raises(RelandError, match="the file exists"):
        run(out, TINY, 1.0, ("neumf",))


def test_the_budget_expects_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(device_check.time, "perf_counter", lambda: now)
    budget = device_check.Budget(20.0)
    assert budget.has_room("steps")
    budget.spent("steps", 8.0)
    budget.spent("steps", 3.0)
    now = 12.0
    assert budget.has_room("steps")
    now = 12.5
    assert not budget.has_room("steps") and budget.has_room("texts")
    now = 15.5
    assert not budget.has_room("texts")


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(RelandError, match="--backbones: 'sasrek': did you mean 'sasrec'"):
        backbones_of(["neumf", "sasrek"])


@pytest.mark.slow
def test_every_part(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_parts, "ROUNDS", 1)
    found = run(tmp_path / "check.json", TINY, 60.0, ("neumf",))
    assert not found["failed"] and not found["left_out"]
    assert [(one["activations"], one["seeds"]) for one in found["steps"]] == [
        ("float32", 1), ("float32", 5), ("bfloat16", 1), ("bfloat16", 5),
    ]  # fmt: skip
    one, five = found["steps"][:2]
    assert five["flops"] == 5 * one["flops"] > 0 and one["compile_seconds"] > 0
    sections = {"steps", "evaluation", "assignment", "texts", "clustering", "random_bits"}
    for section in sections:
        assert all(math.isfinite(each) and each >= 0 for each in numbers(found[section])), section
    assert "| neumf | bfloat16 | 5 |" in table(found)
