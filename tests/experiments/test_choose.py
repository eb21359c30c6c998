"""The choice among recommenders: what is recommended, and the settings that other commands read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.choose import Row, choose, recommended, table
from experiments.configs.reland import get_config
from reland_jax.presets import preset
from reland_jax.types import RelandError


def test_the_fastest_that_is_about_as_good_is_recommended() -> None:
    rows = [
        Row("popularity", "", 0.9, 0.1, 1.0), Row("ease", "id", 0.1, 20.0, 1.0),
        Row("ials", "id", 0.0995, 5.0, 1.0), Row("fast", "id", 0.098, 1.0, 1.0),
        Row("deep", "id", None, 0.0, 1.0, "not tried"),
    ]  # fmt: skip
    assert recommended(rows).model == "ials"
    assert "not tried" in table(rows).splitlines()[-1]
    with pytest.raises(RelandError, match="deep: not tried"):
        recommended([*rows[:2][:1], rows[0], rows[4]])


def test_other_commands_read_the_choice(tmp_path: Path) -> None:
    chosen = preset("demo", "ease", {"ease.form": "exact"})
    path = tmp_path / "choice.json"
    path.write_text(json.dumps({"config": chosen.to_dict()}))
    read = get_config(str(path))
    assert read.ease.form == "exact" and read.to_dict() == get_config("demo,ease").to_dict() | {
        "ease": read.ease.to_dict()
    }
    path.write_text('{"config": {"eas": {}}}')
    with pytest.raises(RelandError, match="eas"):
        get_config(str(path))
    path.write_text("[]")
    with pytest.raises(RelandError, match=r"not a choice\.json"):
        get_config(str(path))


def test_auto_names_the_command() -> None:
    with pytest.raises(RelandError, match="experiments.choose --dataset=demo"):
        get_config("demo,auto")


@pytest.mark.slow
def test_a_choice_on_the_demo(tmp_path: Path) -> None:
    """Without seconds the linear models decide, and popularity is below them."""
    rows, chosen = choose("demo", "sets", 0.0, tmp_path)
    by_name = {row.model: row for row in rows}
    assert [row.model for row in rows if row.ndcg is None] == ["lightgcn", "neumf", "ngcf"]
    assert (by_name["popularity"].ndcg or 0) < (by_name["ease"].ndcg or 0)
    assert json.loads((tmp_path / "choice.json").read_text())["recommended"] == recommended(rows).model
    assert get_config(str(tmp_path / "choice.json")).model.backbone == chosen.model.backbone
