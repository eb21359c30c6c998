"""Vectors of texts that were encoded before: one file per encoder, one row per text."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax.files import written_aside


class VectorCache(NamedTuple):
    """Vectors by text key.

    Attributes:
        path: the file, which need not exist yet.
        rows: key -> ``<float32>[T]``.
    """

    path: Path
    rows: dict[bytes, np.ndarray]


def text_key(fingerprint: str, max_tokens: int, batch_size: int, text: str) -> bytes:
    """SHA-256 (32 bytes) of all that decides a text's vector to the last bit."""
    return hashlib.sha256(f"{fingerprint}\0{max_tokens}\0{batch_size}\0{text}".encode()).digest()


def open_cache(folder: str | os.PathLike[str], fingerprint: str) -> VectorCache:
    """Reads the cache of one encoder; a damaged file is reported and taken as empty."""
    path = Path(folder) / f"text-{fingerprint[:16]}.npz"
    return VectorCache(path, _read(path))


def add_rows(cache: VectorCache, keys: Sequence[bytes], vectors: np.ndarray) -> VectorCache:
    """Adds rows ``<float32>[n, T]`` to the file and returns the cache that has them.

    The file is read again just before it is replaced, so what another process has added meanwhile is
    kept; if two processes replace it at the same moment, one wins, and the other's vectors are computed
    again.
    """
    rows = _read(cache.path) | cache.rows | dict(zip(keys, vectors, strict=True))
    packed = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 32)
    with written_aside(cache.path) as aside, aside.open("wb") as file:
        vectors = np.stack(list(rows.values()))
        np.savez(file, keys=packed, vectors=vectors, checksum=_checksum(packed, vectors))
    return VectorCache(cache.path, rows)


def _checksum(keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """SHA-256 of the rows, as ``<uint8>[32]``."""
    found = hashlib.sha256(np.ascontiguousarray(keys).data)
    found.update(np.ascontiguousarray(vectors).data)
    return np.frombuffer(found.digest(), np.uint8)


def _read(path: Path) -> dict[bytes, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, vectors, checksum = file["keys"], file["vectors"], file["checksum"]
        if keys.shape != (len(vectors), 32) or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError("its arrays do not fit together")
        if checksum.tobytes() != _checksum(keys, vectors).tobytes():
            raise ValueError("it is not what was written")
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path}: damaged text cache ({error}); its texts are encoded again", stacklevel=2)
        return {}
    return dict(zip((row.tobytes() for row in keys), vectors, strict=True))
