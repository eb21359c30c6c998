"""Settings that a later stage cannot work with are refused before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reland_jax import flow
from reland_jax.config import Config
from reland_jax.pool.ready import check_ready
from reland_jax.stages import FLOW, assign, behaviour
from reland_jax.types import RelandError

FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"provider": "file"}, {}, "config.pool.path is None; with provider 'file'"),
    ({"provider": "file", "path": "missing.jsonl"}, {}, "missing.jsonl"),
    ({"provider": "file", "path": "/dev"}, {}, "config.pool.path='/dev' cannot be read"),
    ({"names": ("Ada",)}, {}, "config.pool.scrub does not have 'names'"),
    ({}, {"prices": ("free",)}, "config.llm.prices"),
    ({"provider": "openai"}, {}, "OPENAI_API_KEY is not set"),
    ({"provider": "batch"}, {"upload": True}, "OPENAI_API_KEY is not set"),
]


@pytest.mark.parametrize(("pool", "llm", "told"), FAULTS)
def test_what_cannot_work_is_reported_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: dict[str, Any], llm: dict[str, Any], told: str
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(behaviour, "fit", lambda *given, **named: pytest.fail("trained in vain"))
    data = {"demo_users": 30, "demo_items": 20}
    config = Config.from_dict({"data": data, "encoder": {"text_weight": 0.0}, "pool": pool, "llm": llm})
    with pytest.raises(RelandError, match=told):
        flow.run(FLOW, config, tmp_path)
    assert not (tmp_path / "journal.sqlite").exists() and not (tmp_path / "load").exists()


def test_the_package_of_the_search_and_the_encoder_of_texts_are_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RelandError("ScaNN cannot be imported")

    monkeypatch.setattr(assign, "import_scann", missing)
    data = {"demo_users": 30, "demo_items": 20}
    values: dict[str, Any] = {"data": data, "encoder": {"text_weight": 0.0}}
    with pytest.raises(RelandError, match="ScaNN cannot be imported"):
        flow.run(FLOW, Config.from_dict(values | {"retrieval": {"engine": "scann"}}), tmp_path)
    with pytest.raises(RelandError, match="nowhere"):
        flow.run(FLOW, Config.from_dict(values | {"text": {"encoder": str(tmp_path / "nowhere")}}), tmp_path)
    assert not (tmp_path / "load").exists()


def test_stages_that_are_not_asked_for_need_nothing(tmp_path: Path) -> None:
    data = {"demo_users": 30, "demo_items": 20}
    config = Config.from_dict({"data": data, "pool": {"provider": "file"}})
    assert flow.run(FLOW, config, tmp_path, until="split").seconds.keys() == {"load", "split"}


def test_a_pool_of_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pool.jsonl")
    config = Config.from_dict({"pool": {"provider": "file", "path": str(tmp_path / "pool.jsonl")}})
    with pytest.raises(RelandError, match="cannot be read"):
        check_ready(config.pool, config.llm, tmp_path)


def test_a_journal_may_have_all_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no key is needed to read them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config = Config.from_dict({"pool": {"provider": "openai"}})
    with pytest.raises(RelandError, match="OPENAI_API_KEY is not set"):
        check_ready(config.pool, config.llm, tmp_path)
    (tmp_path / "journal.sqlite").touch()
    check_ready(config.pool, config.llm, tmp_path)
