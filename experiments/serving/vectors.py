"""Vectors of users, items and rationales as files, for a ranker of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reland_jax.files import written_aside
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa

    from reland_jax.serve import ModelVectors

FORMATS = ("parquet", "numpy")


def export_vectors(vectors: ModelVectors, out: Path, kind: str) -> dict[str, int]:
    """Writes the vectors.

    Args:
        vectors: of a recommender.
        out: folder of the outputs, which is made as a whole; it must not exist yet, or be empty.
        kind: "parquet": users, items and rationales, each with a column of ids and one of vectors; users also
            with the row of their nearest rationale. "numpy": the same as arrays, ids and vectors apart.

    Returns:
        How many vectors each file has.

    Raises:
        RelandError: the folder holds something.
    """
    check_free(out)
    parts = {"user": (vectors.user_ids, vectors.users), "item": (vectors.item_ids, vectors.items)}
    if vectors.rationales is not None and vectors.seed_ids is not None:
        parts["rationale"] = (vectors.seed_ids, vectors.rationales)
    with written_aside(out, private=True) as aside:
        aside.mkdir()
        for name, (ids, rows) in parts.items():
            nearest = vectors.nearest if name == "user" else None
            write = _numpy if kind == "numpy" else _parquet
            write(aside, name, ids, rows, nearest)
    return {f"{name}s": len(ids) for name, (ids, _) in parts.items()}


def check_free(out: Path) -> None:
    """Raises `RelandError` for a folder that holds something, or a file in its place."""
    if out.is_dir() and any(out.iterdir()):
        raise RelandError(f"--out: {out} is not empty; choose another folder")
    if out.exists() and not out.is_dir():
        raise RelandError(f"--out: {out} is a file; choose another folder")


def vector_table(name: str, ids: np.ndarray, vectors: np.ndarray) -> pa.Table:
    """A column of ids and a column "vector" of lists of one width.

    Args:
        name: of the column of ids.
        ids: ``<str>[n]``.
        vectors: ``<float32>[n, E]``.
    """
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table({name: pa.array(ids.tolist(), pa.string()), "vector": lists})


def _parquet(
    folder: Path, name: str, ids: np.ndarray, vectors: np.ndarray, nearest: np.ndarray | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A rationale is called by the seed user from whose history it was written.
    table = vector_table("seed_user_id" if name == "rationale" else f"{name}_id", ids, vectors)
    if nearest is not None:
        table = table.append_column("rationale", pa.array(nearest.astype(np.int32)))
    pq.write_table(table, folder / f"{name}s.parquet", compression="zstd")


def _numpy(folder: Path, name: str, ids: np.ndarray, vectors: np.ndarray, nearest: np.ndarray | None) -> None:
    np.save(folder / f"{name}s.npy", np.asarray(vectors, np.float32))
    np.save(folder / f"{name}_ids.npy", np.array(ids.tolist(), np.str_))
    if nearest is not None:
        np.save(folder / "user_rationale.npy", nearest.astype(np.int32))
