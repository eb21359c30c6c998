"""The benchmark of rankers: the processes that it starts, its table, and what a step needs in memory."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "third_party" / "rankers"
sys.path.insert(0, str(FOLDER))

import ranker_bench as bench  # noqa: E402  # after its path
from ranker_rows import make_rows, milliseconds  # noqa: E402


def given(**changed: object) -> argparse.Namespace:
    """Flags of the benchmark."""
    values = {"python": "py", "rounds": 2, "rows": 100, "values": 50, "batch": 32, "fields": 3, "requests": 5}
    return argparse.Namespace(**values | changed)


def test_every_library_is_in_every_round_and_growth_is_measured_once() -> None:
    names = list(bench.commands(given()))
    first = names[: len(bench.LIBRARIES) + len(bench.CASES)]
    assert [name.rpartition("/")[0] for name in first] == [
        *(f"{library}/dcn_v2" for library in bench.LIBRARIES), *(f"reland_jax/{case}" for case in bench.CASES)
    ]  # fmt: skip
    assert [name for name in names if " x" in name] == [
        *(f"reland_jax/dcn_v2 x{n}/0" for n in (2, 4, 8)),
        *(f"reland_jax/stream x{n}/0" for n in (1, 2, 4, 8)),
    ]  # fmt: skip
    assert "--rows=800" in bench.commands(given())["reland_jax/dcn_v2 x8/0"]
    assert "--case=stream" in bench.commands(given())["reland_jax/stream x1/0"]


def test_rows_are_the_same_for_all_and_within_their_sizes() -> None:
    one, other = make_rows(500, 4, 80), make_rows(500, 4, 80)
    np.testing.assert_array_equal(one.code, other.code)
    assert one.sizes[0] == 10 and one.sizes[-1] in (79, 80)
    assert (one.code >= 0).all() and (one.code.max(0) < one.sizes).all()
    assert 0.2 < one.label.mean() < 0.8


def test_table_has_medians_over_rounds() -> None:
    records = {
        f"nextrec/dcn_v2/{at}": {
            "rows_per_second": [rate, rate], "request_ms": {"p50": 1.0, "p99": 2.0 + at}, "peak_bytes": 2**20
        }
        for at, rate in enumerate((100.0, 200.0, 900.0))
    }  # fmt: skip
    assert "| nextrec, dcn_v2 | 200 | 1.00 | 3.00 | 1 |" in bench.table(records)
    assert milliseconds([0.001] * 99 + [1.0])["p50"] == 1.0


@pytest.mark.slow
def test_memory_of_a_step_does_not_grow_with_the_table() -> None:
    command = [sys.executable, str(FOLDER / "reland_ranker.py"), "--case=memory", "--fields=6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])["memory"]
    by_table, by_batch = found[:3], found[2:]
    assert by_table[-1]["table_bytes"] > 50 * by_table[0]["table_bytes"]
    assert by_table[-1]["step_bytes"] < 1.1 * by_table[0]["step_bytes"]
    assert by_batch[-1]["step_bytes"] == pytest.approx(4 * by_batch[0]["step_bytes"], rel=0.2)
