"""Files that commands write at the top of a workdir, without replacing files of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reland_jax.files import read_json, read_sealed, write_sealed
from reland_jax.types import RelandError

MARKS = {
    "results.json": b'{\n "dataset": ',
    "choice.json": b'{\n "recommended": ',
    "tune.json": b'{\n "dataset": ',
    "table2.json": b'{\n "training_seeds": ',
    "growth.json": b'{\n "exponents": ',
    "seeds_growth.json": b'{\n "setup": ',
    "report.html": b"<title>ReLand: ",
    "table2.html": b"<title>ReLand: ",
    "paper.json": b'{\n "claims": ',
    "paper.html": b"<title>ReLand: ",
    "deploy.json": b'{\n "deployment": ',
    "deploy.html": b"<title>ReLand: ",
    "ranker.json": b'{\n "log": ',
    "scenarios.json": b'{\n "log": ',
    "scenarios.html": b"<title>ReLand: ",
    "scenarios.md": b"# Scenarios of ",
    "ranker.html": b"<title>ReLand: ",
    "ranker.md": b"# Ranker on ",
    "ladder.json": b'{\n "chosen": ',
    "ladder.md": b"# Ranker on ",
    "table2.md": b"# Backbones and variants beside",
}
"""What every such file has near its beginning, by its name."""

_BEGINNING = 1024  # bytes


def check_own(folder: Path, *names: str) -> None:
    """Refuses, before any work, to replace files that this program did not write.

    Args:
        folder: the workdir, which need not exist.
        names: of `MARKS`.

    Raises:
        RelandError: a file was not made by this program, or is not a file.
    """
    for name in names:
        path = folder / name
        if not path.exists():
            continue
        if not path.is_file():
            raise RelandError(f"{path}: not a file, but a file is to be written here; move it away")
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
        if beginning and MARKS[name] not in beginning:
            raise RelandError(
                f"{path}: this file was not made by this program, so it is not replaced; move it away, or "
                "choose another --workdir"
            )


def read_records(path: Path) -> dict[str, Any]:
    """The measurements that a command keeps, by what they are of; {} where there are none yet.

    Raises:
        RelandError: the file is damaged, or was made by somebody else.
    """
    check_own(path.parent, path.name)
    if not path.exists():
        return {}
    found = read_json(path)
    if isinstance(found, dict) and "records" in found and "seal" not in found:  # of an earlier program
        write_sealed(path, found)
    try:
        return {**read_sealed(path)["records"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RelandError(f"{path}: damaged ({error}); move it away to start again") from error
