"""The table of providers: who can write rationales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig, nearest_name
from reland_jax.pool.contract import Provider
from reland_jax.pool.providers.batch import BatchProvider, UploadedBatchProvider
from reland_jax.pool.providers.files import FileProvider
from reland_jax.pool.providers.heuristic import HeuristicProvider
from reland_jax.pool.providers.openai_chat import OpenAIProvider
from reland_jax.pool_store.provider import StoreProvider
from reland_jax.types import RelandError


def _heuristic(config: PoolConfig, llm: LLMConfig, folder: Path) -> Provider:
    return HeuristicProvider()


def _file(config: PoolConfig, llm: LLMConfig, folder: Path) -> Provider:
    return FileProvider(config.path_to_read(), config.any_script)


def _batch(config: PoolConfig, llm: LLMConfig, folder: Path) -> Provider:
    return UploadedBatchProvider(config, llm, folder) if llm.upload else BatchProvider(config, llm, folder)


def _store(config: PoolConfig, llm: LLMConfig, folder: Path) -> Provider:
    return StoreProvider(config.path_to_read())


def _openai(config: PoolConfig, llm: LLMConfig, folder: Path) -> Provider:
    return OpenAIProvider(config, llm, folder)


PROVIDERS: Mapping[str, Callable[[PoolConfig, LLMConfig, Path], Provider]] = {
    "heuristic": _heuristic,
    "file": _file,
    "store": _store,
    "openai": _openai,
    "batch": _batch,
}
"""Name -> factory. The folder is for the journal, and for files that a provider leaves for people."""


def make_provider(config: PoolConfig, llm: LLMConfig, folder: str | Path) -> Provider:
    """The provider that `config.provider` names.

    Args:
        config: who writes, and what.
        llm: how an LLM is asked.
        folder: for the journal, and for files for people.

    Raises:
        RelandError: an unknown name, or settings with which the provider cannot start.
    """
    if config.provider not in PROVIDERS:
        raise RelandError(
            f"config.pool.provider={config.provider!r} is not known; "
            f"{nearest_name(config.provider, list(PROVIDERS))}"
        )
    return PROVIDERS[config.provider](config, llm, Path(folder))
