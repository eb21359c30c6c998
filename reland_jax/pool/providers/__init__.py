"""The table of providers, which write rationales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig, nearest_name
from reland_jax.pool.contract import MayAsk, Provider
from reland_jax.pool.providers.batch import BatchProvider, UploadedBatchProvider
from reland_jax.pool.providers.heuristic import HeuristicProvider
from reland_jax.pool.providers.openai_chat import OpenAIProvider
from reland_jax.types import RelandError

_Factory = Callable[[PoolConfig, LLMConfig, Path, MayAsk | None], Provider]


PROVIDERS: Mapping[str, _Factory] = {
    "heuristic": lambda *given: HeuristicProvider(),
    "openai": OpenAIProvider,
    "batch": lambda config, llm, *given: (UploadedBatchProvider if llm.upload else BatchProvider)(
        config, llm, *given
    ),
}
"""Factories by name. The folder is for the journal, and for request files of a provider."""

WITH_JOURNAL = ("openai", "batch")
"""Providers that ask an LLM, and keep requests and answers in a journal."""


def make_provider(
    config: PoolConfig, llm: LLMConfig, folder: str | Path, may_ask: MayAsk | None = None
) -> Provider:
    """The provider that `config.provider` names.

    Args:
        config: the provider and its inputs.
        llm: how an LLM is asked.
        folder: for the journal and request files.
        may_ask: called for every prompt of an LLM; None allows all.

    Raises:
        RelandError: an unknown name, or unusable settings.
    """
    if config.provider not in PROVIDERS:
        raise RelandError(
            f"config.pool.provider={config.provider!r} is not known; "
            f"{nearest_name(config.provider, list(PROVIDERS))}"
        )
    return PROVIDERS[config.provider](config, llm, Path(folder), may_ask)
