"""What can be known of the settings of a pool before anything is trained for it."""

from __future__ import annotations

from pathlib import Path

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.asking.money import price_of
from reland_jax.pool.asking.records import journal_path
from reland_jax.pool.prompting.scrub import scrubber
from reland_jax.pool.providers.openai_chat import async_client
from reland_jax.pool.sources import is_source, source_of


def check_ready(config: PoolConfig, llm: LLMConfig, folder: Path) -> None:
    """Refuses settings with which no pool can be built, so that nothing is trained in vain.

    Nothing is written and nobody is asked. Where there is a journal it may have all answers, and then
    neither key nor package is needed.

    Args:
        config: who writes, and what.
        llm: how an LLM is asked.
        folder: of the journal.

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
