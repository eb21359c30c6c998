"""A large table as one file, written part by part, so that a killed job goes on where it was.

Parts lie in a folder beside the file, `NAME.parts`, each written as a whole. When all are there they are
joined, and the folder is removed. A part depends on its rows alone, so the file has the same bytes however
often the job was stopped.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reland_jax.files import locked, read_sealed, remove, write_bytes, write_sealed, written_aside
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".csv", ".jsonl")
_MANIFEST, _LOCK = "made_from.json", "lock"


class PartedFile:
    """A file that is being written in parts.

    Attributes:
        path: the file.
        parts: how many parts it has.
    """

    def __init__(self, path: Path, parts: int, made_from: Mapping[str, Any]) -> None:
        """Looks at nothing yet.

        Args:
            path: the file to make; its ending is one of `FORMATS`.
            parts: how many parts it has.
            made_from: what the parts depend on; parts of anything else are made again.
        """
        self.path, self.parts, self._made_from = path, parts, json.loads(json.dumps(dict(made_from)))
        self._folder = path.with_name(f"{path.name}.parts")

    @contextlib.contextmanager
    def begun(self) -> Iterator[list[int]]:
        """Yields the numbers of the parts that are missing, while no other process writes this file.

        Raises:
            RelandError: another process does, or the folder of parts is somebody else's.
        """
        self._claim()
        try:
            with locked(self._folder / _LOCK, wait=False):
                if self._known() != self._made_from:
                    for part in self._folder.glob("part-*"):
                        remove(part)
                    write_sealed(self._folder / _MANIFEST, self._made_from)
                yield [number for number in range(self.parts) if not self._part(number).exists()]
        except BlockingIOError as error:
            raise RelandError(f"{self.path}: another process is writing this file; wait for it") from error

    def write(self, number: int, table: pa.Table) -> None:
        """Writes one part."""
        write_bytes(self._part(number), _ENCODERS[self.path.suffix](table), private=True)

    def join(self) -> None:
        """Makes the file of all parts, and removes these."""
        parts = [self._part(number) for number in range(self.parts)]
        with written_aside(self.path, private=True) as aside:
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            _join_parquet(parts, aside) if self.path.suffix == ".parquet" else _join_text(parts, aside)
        remove(self._folder)

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}{self.path.suffix}"

    def _claim(self) -> None:
        """Refuses a folder that holds something else than parts."""
        folder = self._folder
        if folder.exists() and not (folder / _LOCK).exists() and any(folder.iterdir()):
            raise RelandError(f"{folder}: this folder was not made by this program; move it away")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def _known(self) -> dict[str, Any] | None:
        try:
            return read_sealed(self._folder / _MANIFEST)
        except (OSError, ValueError):
            return None


def format_of(path: Path) -> str:
    """The format of a file by its ending.

    Raises:
        RelandError: it is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise RelandError(f"--out={path}: the ending says the format, one of {', '.join(FORMATS)}")
    return path.suffix


def _parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _csv(table: pa.Table) -> bytes:
    """With a line of names, which only the first part keeps in the file."""
    from pyarrow import csv

    sink = io.BytesIO()
    csv.write_csv(table, sink)
    return sink.getvalue()


def _jsonl(table: pa.Table) -> bytes:
    """Scores with the nine digits that tell one float32 from the next."""
    rows = table.to_pylist()
    for row in rows:
        row["score"] = float(f"{row['score']:.9g}")
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


_ENCODERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}


def _join_parquet(parts: list[Path], aside: Path) -> None:
    import pyarrow.parquet as pq

    schema = pq.read_schema(parts[0])
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))


def _join_text(parts: list[Path], aside: Path) -> None:
    with aside.open("wb") as whole:
        for number, part in enumerate(parts):
            with part.open("rb") as file:
                if number and part.suffix == ".csv":
                    file.readline()  # the names
                shutil.copyfileobj(file, whole)
