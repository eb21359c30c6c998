"""Scalars of a training run as TensorBoard event files."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class ScalarWriter:
    """Appends scalars to one event file; call it with a step and named values, then `close` it.

    It is a context manager too. Values that are not numbers are left out. An "@" in a name, which event
    files do not allow, becomes "_at_".
    """

    def __init__(self, logdir: str | Path) -> None:
        """Opens a new event file in `logdir`, which is made if it is missing."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(logdir))

    def __call__(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes every number of `scalars` at `step`."""
        for name, value in scalars.items():
            if not isinstance(value, bool) and isinstance(value, numbers.Real):
                self._writer.add_scalar(name.replace("@", "_at_"), float(value), step)

    def close(self) -> None:
        """Writes out what is pending and closes the file."""
        self._writer.close()

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scalar_writer(logdir: str | Path) -> ScalarWriter:
    """A callable ``(step, scalars)`` that writes TensorBoard events to `logdir`."""
    return ScalarWriter(logdir)
