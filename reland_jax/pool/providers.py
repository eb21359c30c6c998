"""The table of providers: who can write rationales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from reland_jax.config import PoolConfig, nearest_name
from reland_jax.pool.batch import BatchProvider
from reland_jax.pool.contract import Provider
from reland_jax.pool.files import FileProvider
from reland_jax.pool.heuristic import HeuristicProvider
from reland_jax.types import RelandError


def _heuristic(config: PoolConfig, folder: Path) -> Provider:
    return HeuristicProvider()


def _file(config: PoolConfig, folder: Path) -> Provider:
    if not config.path:
        raise RelandError("config.pool.path is empty; with provider 'file' it names the pool file (.jsonl)")
    return FileProvider(config.path)


def _batch(config: PoolConfig, folder: Path) -> Provider:
    return BatchProvider(config, folder)


PROVIDERS: Mapping[str, Callable[[PoolConfig, Path], Provider]] = {
    "heuristic": _heuristic,
    "file": _file,
    "batch": _batch,
}
"""Name -> factory. The folder is where a provider may leave files for people, such as requests."""


def make_provider(config: PoolConfig, folder: str | Path) -> Provider:
    """The provider that `config.provider` names.

    Raises:
        RelandError: an unknown name, or settings with which the provider cannot start.
    """
    if config.provider not in PROVIDERS:
        raise RelandError(
            f"config.pool.provider={config.provider!r} is not known; "
            f"{nearest_name(config.provider, list(PROVIDERS))}"
        )
    return PROVIDERS[config.provider](config, Path(folder))
