"""The console scripts of the installed package: each starts a command as ``python -m`` does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def start() -> None:
    """Starts ``experiments.NAME`` for the script ``reland-NAME``, by whose name this was called."""
    name = Path(sys.argv[0]).stem.removeprefix("reland-")
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
