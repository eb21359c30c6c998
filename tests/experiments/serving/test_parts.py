"""A file in parts: the same bytes however often the job is stopped, and nobody else's folder touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from experiments.serving.parts import FORMATS, PartedFile, format_of
from reland_jax.types import RelandError

WHOLE = pa.table({
    "user": [f"u{row // 3}" for row in range(12)],
    "rank": pa.array([row % 3 + 1 for row in range(12)], pa.int32()),
    "item": ["é,\"'\n" if row == 4 else f"i{row}" for row in range(12)],
    "score": pa.array([1 / (row + 3) for row in range(12)], pa.float32()),
})  # fmt: skip
READ = {
    ".parquet": lambda path: pq.read_table(path),
    ".csv": lambda path: pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    ),
    ".jsonl": lambda path: pa.Table.from_pylist([json.loads(line) for line in path.open(encoding="utf-8")]),
}


def written(path: Path, until: int = 4, made_from: str = "m") -> list[int]:
    """Writes parts of three rows up to a number, and joins them if these are all; which were missing."""
    file = PartedFile(path, 4, {"model": made_from})
    with file.begun() as missing:
        for number in missing:
            if number < until:
                file.write(number, WHOLE.slice(3 * number, 3))
        if until == 4:
            file.join()
    return missing


@pytest.mark.parametrize("ending", FORMATS)
def test_a_stopped_job_goes_on_to_the_same_bytes(tmp_path: Path, ending: str) -> None:
    at_once, stopped = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    assert written(at_once) == [0, 1, 2, 3]
    assert written(stopped, until=2) == [0, 1, 2, 3] and not stopped.exists()
    assert written(stopped) == [2, 3]
    assert stopped.read_bytes() == at_once.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"b{ending}"]
    assert os.stat(stopped).st_mode & 0o777 == 0o600
    found = READ[ending](stopped).cast(WHOLE.schema)
    assert found == WHOLE


def test_parts_of_something_else_are_made_again(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", until=2, made_from="another")
    assert written(tmp_path / "a.csv") == [0, 1, 2, 3]


def test_what_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv.parts").mkdir()
    (tmp_path / "a.csv.parts" / "thesis.txt").touch()
    with pytest.raises(RelandError, match="not made by this program; move it away"):
        written(tmp_path / "a.csv")
    file = PartedFile(tmp_path / "b.csv", 4, {})
    with file.begun(), pytest.raises(RelandError, match="another process is writing this file"):
        written(tmp_path / "b.csv")
    with pytest.raises(RelandError, match=r"--out=lists.xlsx: the ending says the format, one of .parquet"):
        format_of(Path("lists.xlsx"))
