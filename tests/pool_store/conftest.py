"""What all tests of stores share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for no disk: no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
