"""How long the trainings of a run will still take."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from reland_jax.config import Config

_log = logging.getLogger("reland_jax.run")

_TOLD_AFTER = 3
"""Epoch after which the longest time is told: the first one compiles."""


class Remaining:
    """Tells how long the trainings will take: at most, and after each one by those before it."""

    def __init__(self, config: Config) -> None:
        """Starts before the first training."""
        self._trainings = len(config.variants) * len(config.seeds_of_training)
        self._epochs, self._done, self._epochs_seen = config.train.max_epochs, 0, 0
        self._started, self._seconds, self._told = time.monotonic(), 0.0, False

    def epoch(self, entry: Mapping[str, float]) -> None:
        """Counts an epoch; after the first few the longest time is told."""
        self._epochs_seen += 1
        if self._told or self._epochs_seen < _TOLD_AFTER:
            return
        self._told = True
        each = entry["seconds"] + entry.get("evaluation_seconds", 0.0)
        most = each * self._epochs * self._trainings
        _log.info(
            "estimate: %s at most for %d trainings of up to %d epochs, %.3g s each; most end earlier",
            _clock(most), self._trainings, self._epochs, each,
        )  # fmt: skip

    def trained(self) -> None:
        """Counts a training, new or read back, and tells the time to come if it was new."""
        self._done += 1
        took, self._started = time.monotonic() - self._started, time.monotonic()
        if not self._epochs_seen:
            return
        self._seconds, self._epochs_seen = max(self._seconds, took), 0
        if left := self._trainings - self._done:
            _log.info(
                "%d of %d trainings done, %s to come",
                self._done, self._trainings, _clock(left * self._seconds),
            )  # fmt: skip


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 60 else "less than a minute"
