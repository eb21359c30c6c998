"""The choice among recommenders: what is recommended, and the settings that other commands read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from experiments.choose import Bill, Row, apart, bill_words, choose, recommended, table
from experiments.configs.reland import get_config
from reland_jax.presets import preset
from reland_jax.types import RelandError


def test_the_fastest_that_is_about_as_good_is_recommended() -> None:
    rows = [
        Row("popularity", "", 0.9, 0.1, 1.0), Row("ease", "id", 0.1, 20.0, 1.0),
        Row("ials", "id", 0.0995, 5.0, 1.0), Row("fast", "id", 0.098, 1.0, 1.0),
        Row("deep", "", None, 0.0, None, "not tried"),
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


def test_the_bill_of_reland_is_told() -> None:
    bill = Bill(1200, 340000, 480000, "gpt-4o-mini", 0.339, "USD")
    assert "1,200 seed users" in bill_words(bill) and "at most 0.34 USD with gpt-4o-mini" in bill_words(bill)
    assert "no item texts" in bill_words(None)


def test_a_model_that_ends_its_process_costs_only_itself() -> None:
    assert apart(os.getpid) != os.getpid()
    with pytest.raises(RelandError, match="killed, perhaps for lack of memory"):
        apart(os._exit, 9)


@pytest.mark.slow
def test_a_choice_on_the_demo(tmp_path: Path) -> None:
    """Without seconds the linear models decide, and popularity is below them."""
    choice = choose("demo", "sets", 0.0, tmp_path, ["ease.neighbours=32"])
    rows, chosen = choice.rows, choice.config
    by_name = {row.model: row for row in rows}
    assert chosen.ease.neighbours == 32
    assert len([row for row in rows if row.peak_gb]) == 5
    assert choice.bill is not None and choice.bill.prompts == 99 and (choice.bill.price or 0) > 0
    assert [row.model for row in rows if row.ndcg is None] == ["lightgcn", "neumf", "ngcf"]
    assert (by_name["popularity"].ndcg or 0) < (by_name["ease"].ndcg or 0)
    assert json.loads((tmp_path / "choice.json").read_text())["recommended"] == recommended(rows).model
    assert get_config(str(tmp_path / "choice.json")).model.backbone == chosen.model.backbone
