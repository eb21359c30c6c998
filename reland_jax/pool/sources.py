"""The table of sources: readers of existing pools, which have their own seed users.

`config.pool.provider` names a provider, which writes rationales about the sampled seed users, or a source.
Pool files are a source; other packages register theirs by `register_source`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from reland_jax.config import POOL_SOURCES, PoolConfig
from reland_jax.files import checksum, resolve
from reland_jax.pool.contract import SeedRationales
from reland_jax.pool.pool_file import PoolFile
from reland_jax.pool.prompting.scrub import name_files
from reland_jax.types import IdMap, RelandError, Splits


class OpenPool(Protocol):
    """An existing pool, read and checked."""

    def seed_rationales(self, ids: IdMap, cluster: np.ndarray | None, splits: Splits) -> SeedRationales:
        """The seed users and rationales that may be used with these data and this split.

        Args:
            ids: external ids of the present data.
            cluster: ``<int32>[U]``, K-means cluster of every user; None keeps those of the pool.
            splits: the present split; a rationale that was written from its held-out interactions is left
                out.
        """
        ...


class Source(NamedTuple):
    """A kind of existing pool; its place is `config.path`.

    Attributes:
        open: reads and checks the pool.
        state: values that change whenever the pool does, for the stamp of a stage.
        provenance: where the pool comes from, as JSON values for its manifest.
    """

    open: Callable[[PoolConfig], OpenPool]
    state: Callable[[PoolConfig], list[str]]
    provenance: Callable[[PoolConfig], dict[str, Any]]


def is_source(config: PoolConfig) -> bool:
    """Whether `config.provider` names a source; otherwise it names a provider."""
    return config.provider in POOL_SOURCES


def source_of(config: PoolConfig) -> Source:
    """The source that `config.provider` names.

    Raises:
        RelandError: it is not registered.
    """
    if config.provider not in _SOURCES:
        raise RelandError(
            f"config.pool.provider={config.provider!r}: the package that reads such pools is not registered "
            "in this program; a store is registered by reland_jax.pool_store.register()"
        )
    return _SOURCES[config.provider]


def register_source(name: str, source: Source) -> None:
    """Registers a source under a name of `config.POOL_SOURCES`."""
    assert name in POOL_SOURCES, name
    _SOURCES[name] = source


def files_state(config: PoolConfig) -> list[str]:
    """Checksums of the files that the settings name: `path` and lists of names.

    Returns:
        SHA-256 of each, "" if it is not a file.
    """
    paths = [resolve(name) for name in (config.path or "", *name_files(config.names))]
    return [checksum(path) if path.is_file() else "" for path in paths]


def _open_file(config: PoolConfig) -> PoolFile:
    return PoolFile(config.path_to_read(), config.any_script, config.held_out)


def _file_provenance(config: PoolConfig) -> dict[str, Any]:
    # The prompts of a file are not known.
    return {"prompt_version": "", "file": Path(config.path_to_read()).name, "held_out": config.held_out}


_SOURCES = {"file": Source(_open_file, files_state, _file_provenance)}
