"""Compiled programs kept from one start of a command to the next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reland_jax.config import Config


def keep_programs_of(configs: Iterable[Config], workdir: Path) -> None:
    """Keeps the compiled programs of this command in its workdir, unless a config says not to."""
    from reland_jax.device import PROGRAMS, keep_programs

    if all(config.keep_programs for config in configs):
        keep_programs(workdir / PROGRAMS)
