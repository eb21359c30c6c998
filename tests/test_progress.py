"""Progress where there is no terminal: lines, and why the work ended."""

from __future__ import annotations

import logging

import pytest

from reland_jax.progress import Progress


def test_every_advance_is_a_line_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "reland_jax"), Progress("train", 1200, "epoch", every=0) as shown:
        shown.advance(1, "loss 0.5")
        shown.advance(999)
        shown.stop("stopped: enough")
    assert caplog.messages == [
        "train: epoch 1 of 1,200, loss 0.5", "train: epoch 1,000 of 1,200", "train: stopped: enough"
    ]  # fmt: skip


def test_short_work_says_nothing_and_long_work_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("reland_jax.progress.time.monotonic", lambda: now[0])
    logging.getLogger("reland_jax.progress").setLevel(logging.WARNING)
    try:
        with Progress("ask", 9, "prompt") as shown:
            shown.advance(3)
        assert capsys.readouterr().err == ""
        with Progress("ask", 9, "prompt", done=2) as shown:
            now[0] = 11.0
            shown.advance(3)
            shown.advance(4)
        assert capsys.readouterr().err == "ask: prompt 5 of 9\nask: prompt 9 of 9\n"
    finally:
        logging.getLogger("reland_jax.progress").setLevel(logging.NOTSET)


def test_a_terminal_gets_a_bar_that_says_why_it_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("train", 60, "epoch") as shown:
        shown.advance(1, "loss 0.5")
        shown.stop("stopped: no better for 10 validations")
    said = capsys.readouterr().err
    assert "1/60" in said and "no better for 10 validations" in said
