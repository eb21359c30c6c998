"""Whole runs on data that are smaller than the defaults: results and a report, never a crash at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax.config import Config
from tests.e2e.conftest import merged


def write(path: Path, rows: Sequence[Sequence[int]]) -> str:
    """A table of what every user takes, one after the other."""
    taken = [(user, item, time) for user, row in enumerate(rows) for time, item in enumerate(row)]
    lines = [f"{user},{item},{time},Title {item}" for user, item, time in taken]
    path.write_text("user_id,item_id,timestamp,title\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["lightgcn", "gru4rec"])
def test_everything_is_smaller_than_its_default(
    backbone: str,
    settings: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six items, one tested user who has had all of them, one seed user and the default neighbours."""
    rows = [[1, 2, 3, 4, 5, 6, 2, 5], *([1 + user % 6, 1 + (user + 1) % 6] for user in range(6))]
    place = write(tmp_path / "small.csv", rows)
    changes = settings(
        data={"name": place, "min_interactions": 0, "protocol": "leave_one_out", "max_length": 8},
        seeds={"fraction": 0.01}, eval={"mask_history": True}, retrieval={"neighbours": 3},
        report_users=("0", "3"),
    )  # fmt: skip
    values = merged(get_config(f"demo,{backbone}").to_dict(), changes)
    results = run(Config.from_dict(values), tmp_path / "work")
    test = results["held_out"]["test"]
    assert (test["users"], test["users_without"], test["had_before"]) == (1, 6, 1)
    assert results["significance"] == {} and results["pool"]["rationales_each"] == 1
    assert all(np.isclose(one["test"]["hr@10"], 1) for one in results["variants"].values())
    said = capsys.readouterr().out
    for note in ("A single user is tested", "there are 1", "6 of 7 users have no test item", "can only be 1"):
        assert note in said and any(note in each for each in results["notes"]), note
    assert json.loads((tmp_path / "work" / "results.json").read_text()) == json.loads(json.dumps(results))
    page = (tmp_path / "work" / "report.html").read_text()
    assert "nothing is left that the user has not had" in page and "User 3" in page
