"""The table of items with facts, and how it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.item_facts import run
from reland_jax.config import Config
from reland_jax.data import load_interactions
from reland_jax.presets import preset
from reland_jax.types import RelandError
from tests.pool import fault_server

SMALL = {"data.demo_users": 60, "data.demo_items": 30, "pool.provider": "openai", "pool.model": "m"}


def written(folder: Path) -> tuple[Config, Path]:
    """A log with a table of items: those of the demo."""
    demo = load_interactions(preset("demo", "sasrec", SMALL).data)
    rows = zip(demo.ids.users[demo.user], demo.ids.items[demo.item], strict=True)
    (folder / "log.csv").write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in rows))
    titles = zip(demo.ids.items[1:], demo.item_features["title"][1:], strict=True)
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f'{i},"{t}"\n' for i, t in titles))
    table = {"data.item_table": str(folder / "items.csv"), "data.text_fields": ("title",)}
    changes = {"data.time_field": "", **table}
    return preset(str(folder / "log.csv"), "sasrec", {**SMALL, **changes}), folder / "with_facts.csv"


def test_facts_are_a_field_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = written(tmp_path)
    assert run(config, tmp_path / "run", out, dry_run=True) == {} and not out.exists()
    assert "items: " in capsys.readouterr().out
    with fault_server.started(monkeypatch) as start:
        start()
        told = run(config, tmp_path / "run", out)
    before = load_interactions(config.data)
    again = run(config, tmp_path / "run", out)  # replaces its own, from the journal
    assert again == told and told["unanswered"] == 0 and told["requests"] <= len(before.ids.items) - 1
    changes = {"data.item_table": str(out), "data.text_fields": ("title", "facts")}
    after = load_interactions(preset(config.data.name, "sasrec", {"data.time_field": "", **changes}).data)
    assert after.item_features["title"].tolist() == before.item_features["title"].tolist()
    assert all(after.item_features["facts"][1:].tolist())
    out.write_text("my notes")
    with pytest.raises(RelandError, match="was not made by this program"):
        run(config, tmp_path / "run", out)
