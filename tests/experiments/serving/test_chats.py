"""The export of chats, from a run on the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.serving.chats import ABOUT, SHOWN, TRAIN, VALID, export_chats
from reland_jax.presets import preset
from reland_jax.types import RelandError

SMALL = {"data.demo_users": 120, "data.demo_items": 60, "encoder.train.max_epochs": 1}


def read(path: Path) -> list[Any]:
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_every_line_is_a_chat_and_nothing_else(tmp_path: Path) -> None:
    config, out = preset("demo", "sasrec", SMALL), tmp_path / "chats"
    about = export_chats(config, tmp_path / "run", out, 0.25)
    lines = {name: read(out / name) for name in (TRAIN, VALID)}
    assert {name: len(found) for name, found in lines.items()} == about["pairs"]
    assert all(list(each) == ["messages"] for found in lines.values() for each in found)
    roles = {tuple(one["role"] for one in each["messages"]) for found in lines.values() for each in found}
    assert roles == {("system", "user", "assistant")}
    shown = read(out / SHOWN)
    assert [each["file"] for each in shown] == [TRAIN] * len(lines[TRAIN]) + [VALID] * len(lines[VALID])
    assert json.loads((out / ABOUT).read_text()) == about and about["pool"]["provider"] == "heuristic"
    for each, one in zip(shown, [*lines[TRAIN], *lines[VALID]], strict=True):
        prompt = one["messages"][1]["content"]
        history = prompt[prompt.index("\n<history>") : prompt.index("\n</history>")]
        assert len(history.strip().splitlines()) - 1 == each["items"]
    with pytest.raises(RelandError, match="is not empty"):
        export_chats(config, tmp_path / "run", out, 0.25)
