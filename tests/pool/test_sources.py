"""The table of sources, and what a stamp says of the files of a pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from reland_jax.config import PoolConfig
from reland_jax.pool import pool_state, sources
from reland_jax.types import RelandError


def test_a_source_that_nobody_registered_says_who_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SOURCES", {"file": sources.source_of(PoolConfig(provider="file"))})
    message = "config.pool.provider='store': .* not registered .*reland_jax.pool_store.register"
    with pytest.raises(RelandError, match=message):
        sources.source_of(PoolConfig(provider="store", path="x"))


def test_the_stamp_follows_the_content_of_files(tmp_path: Path) -> None:
    """Of the pool file and of files of names, under the same paths; names are settings already."""
    pool, names = tmp_path / "pool.jsonl", tmp_path / "names.txt"
    config = PoolConfig(provider="file", path=str(pool), scrub=("names",), names=("Ann Bo", str(names)))
    states = [pool_state(config)]
    for path, text in ((pool, "{}"), (names, "Carl"), (names, "Dora")):
        path.write_text(text)
        states.append(pool_state(config))
    assert len({tuple(state) for state in states}) == 4
    assert pool_state(PoolConfig(provider="heuristic")) == [""]
