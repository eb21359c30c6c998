"""A pool without all of its answers is never up to date: the same command asks about, or reads, the rest."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reland_jax import flow
from reland_jax.config import Config
from reland_jax.pool import AwaitingResponses
from reland_jax.stages import FLOW, inputs_of
from reland_jax.storage import Inputs
from reland_jax.types import RelandError
from tests.e2e.conftest import Finished, merged
from tests.pool import fault_server
from tests.pool.batch_server import answer
from tests.pool.fault_server import Process, content_of


@pytest.fixture
def prepare(
    finished: Callable[[str], Finished], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., Inputs]:
    """Runs the stages up to the assignment with other settings in a workdir; `caplog` has the last run."""
    original, workdir = finished("lightgcn"), tmp_path / "work"
    shutil.copytree(original.workdir, workdir)
    caplog.set_level(logging.INFO)

    def run(ask_again: bool = True, **changes: Any) -> Inputs:
        caplog.clear()
        config = Config.from_dict(merged(original.config.to_dict(), changes))
        return inputs_of(flow.run(FLOW, config, workdir, ask_again=ask_again))

    return run


def is_up_to_date(caplog: pytest.LogCaptureFixture) -> bool:
    return "build_pool: up to date" in caplog.text


def answer_by_hand(workdir: Path, count: int | None) -> int:
    """Answers so many prompts of the request file; how many there were."""
    lines = [json.loads(line) for line in (workdir / "batch_requests.jsonl").read_text("utf-8").splitlines()]
    with (workdir / "batch_responses.jsonl").open("a", encoding="utf-8") as file:
        for line in lines[:count]:
            text = content_of(hashlib.sha256(line["custom_id"].encode()).hexdigest())
            file.write(json.dumps(answer(line, text)) + "\n")
    return len(lines)


def test_answers_that_come_later_are_read_by_the_same_command(
    prepare: Callable[..., Inputs], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workdir, batch = tmp_path / "work", {"pool": {"provider": "batch"}}
    with pytest.raises(AwaitingResponses):
        prepare(**batch)
    seeds = answer_by_hand(workdir, 5)
    first = prepare(**batch)
    assert len(first.built.pool.rationales) == 5 and len(first.built.unanswered()) == seeds - 5
    assert f"incomplete: 5 rationales, and {seeds - 5} seed users without an answer" in caplog.text
    again = prepare(**batch)
    assert not is_up_to_date(caplog) and f"{seeds - 5} seed users without" in caplog.text
    assert again.fingerprint == first.fingerprint, "nothing has changed for what comes after"
    assert "encode_text/rationales: up to date" in caplog.text
    assert answer_by_hand(workdir, None) == seeds - 5
    prepare(ask_again=False, **batch)
    assert "build_pool: incomplete, not continued" in caplog.text and not is_up_to_date(caplog)
    whole = prepare(**batch)
    assert len(whole.built.pool.rationales) == seeds and not whole.built.unanswered()
    assert whole.fingerprint != first.fingerprint and "encode_text/rationales: done" in caplog.text
    prepare(**batch)
    assert is_up_to_date(caplog) and "incomplete" not in caplog.text


def test_an_incomplete_pool_whose_journal_is_gone_is_not_paid_for_again(
    prepare: Callable[..., Inputs], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workdir, batch = tmp_path / "work", {"pool": {"provider": "batch"}}
    with pytest.raises(AwaitingResponses):
        prepare(**batch)
    answer_by_hand(workdir, 5)
    first = prepare(**batch)
    journal, away = workdir / "journal.sqlite", tmp_path / "away.sqlite"
    journal.rename(away)
    with pytest.raises(RelandError, match="(?s)build_pool: it is incomplete.*paid for.*restore the pool"):
        prepare(**batch)
    journal.touch()
    with pytest.raises(RelandError, match="journal.sqlite"):
        prepare(**batch)
    assert len(prepare(ask_again=False, **batch).built.pool.rationales) == 5, "as it is it may be used"
    away.replace(journal)
    assert prepare(**batch).fingerprint == first.fingerprint


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Process]]:
    """Starts the misbehaving service anew with other settings, and points the environment at it."""
    with fault_server.started(monkeypatch) as start:
        yield start


def test_a_service_that_failed_is_asked_again_about_what_is_missing(
    prepare: Callable[..., Inputs],
    service: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service(faults=0.5, kinds="error", seed=1)
    settings = {"pool": {"provider": "openai"}, "llm": {"attempts": 1, "breaker_failures": 1000}}
    first = prepare(**settings)
    missing = len(first.built.unanswered())
    assert 0 < missing < len(first.built.pool.rationales) + missing
    healthy = service()
    whole = prepare(**settings)
    assert not is_up_to_date(caplog) and not whole.built.unanswered()
    assert healthy.get("stats")["asked"] == missing, "only what is missing is asked"
    for name in healthy.environment:
        monkeypatch.delenv(name, raising=False)
    assert prepare(**settings).fingerprint == whole.fingerprint and is_up_to_date(caplog)
