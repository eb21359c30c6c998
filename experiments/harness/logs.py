"""What the package logs, for the person at the console."""

from __future__ import annotations

import logging


def log_to_console() -> None:
    """Lines of this package on stderr, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("reland_jax")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
