"""The table of providers and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax import config
from reland_jax.pool.providers import PROVIDERS, make_provider
from reland_jax.pool.providers.batch import BatchProvider, UploadedBatchProvider
from reland_jax.pool.providers.heuristic import HeuristicProvider
from reland_jax.types import RelandError

LLM = config.LLMConfig()


def test_the_table_is_what_the_config_allows() -> None:
    assert {*PROVIDERS, *config.POOL_SOURCES} == set(config.PROVIDERS)
    assert not set(PROVIDERS) & set(config.POOL_SOURCES)


def test_a_name_makes_its_provider(tmp_path: Path) -> None:
    assert isinstance(make_provider(config.PoolConfig(), LLM, tmp_path), HeuristicProvider)
    batch = config.PoolConfig(provider="batch")
    assert isinstance(make_provider(batch, LLM, tmp_path), BatchProvider)
    assert isinstance(make_provider(batch, config.LLMConfig(upload=True), tmp_path), UploadedBatchProvider)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provider": "file"}, "config.pool.provider='file' is not known"),
        (
            {"provider": "heuristics"},
            "config.pool.provider='heuristics' is not known; did you mean 'heuristic'",
        ),
    ],
)
def test_faults(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(RelandError, match=message):
        make_provider(config.PoolConfig(**settings), LLM, tmp_path)
