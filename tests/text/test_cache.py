"""The file of vectors: what it keeps, and that damage never gets through."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reland_jax.text.cache import VectorCache, add_rows, open_cache, text_key

FINGERPRINT = "f" * 64


def keys_of(*texts: str) -> list[bytes]:
    return [text_key(FINGERPRINT, 8, 64, text) for text in texts]


def filled(folder: Path) -> tuple[VectorCache, np.ndarray]:
    """A cache of three texts and its vectors ``[3, 4]``."""
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return add_rows(open_cache(folder, FINGERPRINT), keys_of("a", "b", "c"), vectors), vectors


def test_rows_come_back(tmp_path: Path) -> None:
    cache, vectors = filled(tmp_path / "new" / "folder")
    for rows in (cache.rows, open_cache(tmp_path / "new" / "folder", FINGERPRINT).rows):
        np.testing.assert_array_equal(np.stack([rows[key] for key in keys_of("a", "b", "c")]), vectors)
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name], "nothing is left aside"


def test_the_key_depends_on_all_that_decides_a_vector() -> None:
    keys = {
        text_key(*of)
        for of in [("f", 8, 6, "a"), ("g", 8, 6, "a"), ("f", 9, 6, "a"), ("f", 8, 7, "a"), ("f", 8, 6, "b")]
    }
    assert len(keys) == 5


def test_encoders_do_not_share_a_file(tmp_path: Path) -> None:
    filled(tmp_path)
    assert open_cache(tmp_path, "e" * 64).rows == {}


def test_rows_of_another_process_are_kept(tmp_path: Path) -> None:
    mine, theirs = (open_cache(tmp_path, FINGERPRINT) for _ in range(2))
    add_rows(theirs, keys_of("theirs"), np.ones((1, 4), np.float32))
    add_rows(mine, keys_of("mine"), np.zeros((1, 4), np.float32))
    assert set(open_cache(tmp_path, FINGERPRINT).rows) == set(keys_of("mine", "theirs"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _ = filled(tmp_path)
    before = cache.path.read_bytes()

    def full_disk(file: object, **arrays: np.ndarray) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        add_rows(cache, keys_of("d"), np.zeros((1, 4), np.float32))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(cut=st.booleans(), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_damage_is_noticed_or_harmless(tmp_path: Path, cut: bool, place: float, value: int) -> None:
    cache, vectors = filled(tmp_path)
    content = bytearray(cache.path.read_bytes())
    position = int(place * len(content))
    content[position:] = b"" if cut else bytes([value]) + content[position + 1 :]
    cache.path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = open_cache(tmp_path, FINGERPRINT).rows
    cache.path.unlink()
    if rows:
        np.testing.assert_array_equal(np.stack([rows[key] for key in keys_of("a", "b", "c")]), vectors)
    else:
        assert any("damaged text cache" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    "arrays",
    [
        {"keys": np.zeros((2, 32), np.uint8), "vectors": np.zeros((3, 4), np.float32)},
        {"keys": np.zeros((1, 32), np.uint8), "vectors": np.full((1, 4), np.nan, np.float32)},
        {"keys": np.zeros((1, 32), np.uint8)},
        {"keys": np.zeros((1, 32), np.uint8), "vectors": np.zeros((1, 4), np.float32)},
        {
            "keys": np.zeros((1, 32), np.uint8),
            "vectors": np.zeros((1, 4), np.float32),
            "checksum": np.zeros(32, np.uint8),
        },
    ],
)
def test_a_file_that_does_not_fit_is_reported(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    cache = open_cache(tmp_path, FINGERPRINT)
    np.savez(cache.path, **arrays)
    with pytest.warns(UserWarning, match="damaged text cache"):
        assert open_cache(tmp_path, FINGERPRINT).rows == {}
