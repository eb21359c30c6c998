"""Checks of the pool's settings before anything is trained."""

from __future__ import annotations

from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.money import price_of
from reland_jax.pool.asking.records import journal_path
from reland_jax.pool.prompting.scrub import scrubber
from reland_jax.pool.providers.openai_chat import async_client
from reland_jax.pool.sources import is_source, source_of


def check_ready(config: PoolConfig, llm: LLMConfig, folder: Path) -> None:
    """Refuses settings with which no pool can be built, before the trainings that it needs.

    Nothing is written or sent. If there is a journal it may have all answers, so neither the key nor the
    package is required then.

    Args:
        config: the provider and its inputs.
        llm: how an LLM is asked.
        folder: folder of the journal.

    Raises:
        RelandError: a file, price, name, key or package that is missing or wrong.
    """
    price_of(config.model, llm.prices)
    scrubber(config.scrub, config.names)
    if is_source(config):
        source_of(config).open(config)
    if journal_path(llm, folder).exists():
        return
    if config.provider == "openai" or (config.provider == "batch" and llm.upload):
        async_client(llm, config.max_tokens)
