"""Rows per second and memory of rankers of scenarios: the table, the names, and the memory that is met."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import bench_scenarios
from experiments.bench_scenarios import measure, run, table
from experiments.configs.scenarios import get_config
from reland_jax.scenario_settings import ScenarioJob
from reland_jax.types import RelandError


def found(step: int, predicted: int) -> dict[str, Any]:
    """A measurement."""
    return {
        "parameters": 1234, "rows_per_second": 5678.4, "peak_bytes": 9_000_000, "step_bytes": step,
        "predicted_bytes": predicted, "numbers": 40,
    }  # fmt: skip


def test_the_table_shows_what_the_meta_layers_add() -> None:
    lines = table({"star,none": found(2_000_000, 0), "star,full": found(5_500_000, 3_400_000)}).splitlines()
    assert lines[2] == "| star | none | 1,234 | 5,678 | 9 | 2.0 |  | 0.0 |"
    assert lines[3] == "| star | full | 1,234 | 5,678 | 9 | 5.5 | 3.5 | 3.4 |"


def test_each_measurement_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def apart(module: str, values: Any) -> dict[str, Any]:
        asked.append((module, values))
        return found(1, 0)

    monkeypatch.setattr(bench_scenarios, "measured_apart", apart)
    assert list(run(("one", "star"), ("none", "full"), {"steps": "4"})) == [
        "one,none", "one,full", "star,none", "star,full",
    ]  # fmt: skip
    assert asked[3] == ("experiments.bench_scenarios", {"steps": "4", "only": "star,full"})
    with pytest.raises(RelandError, match="'alone' is not measured here"):
        run(("alone",), ("none",), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "form", "least"),
    [("one", "low_rank", 0.95), ("one", "full", 0.95), ("star", "full", 0.95), ("star", "low_rank", 0.8)],
)
def test_the_memory_is_as_predicted(backbone: str, form: str, least: float) -> None:
    """Within 5%; around STAR the small layers share a part of what the backbone's arrays leave free."""
    values = get_config("shop").to_dict()
    values["log"] |= {"shop_users": 60, "shop_rows": 8000}
    values["train"] |= {"batch_size": 512}
    job = ScenarioJob.from_dict(values)
    plain, more = (measure(job, backbone, each, 2, 1) for each in ("none", form))
    grown = more["step_bytes"] - plain["step_bytes"]
    assert least < grown / more["predicted_bytes"] < 1.05
    assert more["parameters"] > plain["parameters"] and plain["predicted_bytes"] == 0


@pytest.mark.slow
def test_more_steps_than_rows_are_refused() -> None:
    values = get_config("shop").to_dict()
    values["log"] |= {"shop_users": 60, "shop_rows": 8000}
    values["train"] |= {"batch_size": 512}
    job = ScenarioJob.from_dict(values)
    with pytest.raises(RelandError, match="--steps=20: 10,240 rows are needed"):
        measure(job, "one", "none", 20, 1)
