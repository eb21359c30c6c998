"""CSV and similar formats, and Parquet: any table with named columns, in one file or several."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited, opened, parquet_files, parts
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Frames, Usual
from reland_jax.data.sources.raw import RawTable
from reland_jax.files import resolve
from reland_jax.types import RelandError

TEXT_ENDINGS = (".csv", ".tsv", ".tab", ".txt")
PARQUET_ENDINGS = (".parquet", ".pq")
PACKED_ENDINGS = (".gz", ".bz2", ".xz")

_USUAL = Usual()
_SNIFFED = (",", ";", "\t", "|")
_NAMED = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
_ALONE = ("ratings", "interactions")
"""Names of the one file of a folder that holds the interactions."""
_MOVIE, _MOVIES = "movieId", "movies.csv"


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return ending(path) in (*TEXT_ENDINGS, *PARQUET_ENDINGS)


def ending(path: Path) -> str:
    """The ending of a file's name in small letters, without that of a packer."""
    name = path.name.lower()
    for packed in PACKED_ENDINGS:
        name = name.removesuffix(packed)
    return Path(name).suffix


def read(place: str, config: DataConfig) -> RawTable:
    """Reads the interactions at ``place``, and the tables of items and users that `config` names.

    ``place`` is a file, a folder of parts (also in folders like ``day=1``, which give a column), or several
    paths with commas between them. Columns listed in `config.text_fields` describe the item of their row,
    unless the table of the items has them. ``movies.csv`` next to a table with a column ``movieId`` is its
    table of items.

    Raises:
        RelandError: missing column, empty id, or a value that is not a number or time, with its place.
    """
    found = frames(place, config)
    usual = _USUAL._replace(split=(parts.SPLIT,)) if config.protocol == "fixed" else _USUAL
    return assemble(found.log, config, usual, found.items, found.users, found.notes)


def frames(place: str, config: DataConfig) -> Frames:
    """The tables of ``place`` as they are.

    Raises:
        RelandError: a file cannot be read, or files that are not parts of one table.
    """
    notes: list[str] = []
    frame = _interactions(place, config, notes)
    items, users = (of_file(path, config) if path else None for path in _described(place, config, frame))
    if items is not None and not config.item_table:
        items = parts.with_written(items, "genres", spelled_out)
    return Frames(frame, items, users, notes)


def files(place: str, config: DataConfig) -> list[Path]:
    """Every file that `read` reads.

    Raises:
        RelandError: there is none, or one that was asked for is missing.
    """
    frame = _interactions(place, config, []) if (_folder(place) / _MOVIES).is_file() else None
    return [*_files(place, config), *filter(None, _described(place, config, frame))]


def of_file(path: Path, config: DataConfig) -> Frame:
    """One file, CSV or Parquet, as a frame.

    Raises:
        RelandError: it cannot be read, or has no header.
    """
    if not path.is_file():
        raise RelandError(f"{path}: there is no such file")
    if ending(path) in PARQUET_ENDINGS:
        return parquet_files.frame(path)
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return parquet_files.frame(path)
    return _text(path, config)


def beside(written: str, folder: Path, setting: str) -> Path | None:
    """The file that a setting names, as seen from here or from the folder of the data; None for "".

    Raises:
        RelandError: there is no such file.
    """
    if not written:
        return None
    path = resolve(written)
    candidates = [path, folder / path]
    for each in candidates:
        if each.is_file():
            return each
    looked = " and ".join(str(each.absolute()) for each in dict.fromkeys(candidates))
    raise RelandError(f"config.data.{setting}={written!r} was not found; looked for {looked}")


def described(
    config: DataConfig, folder: Path, items: str = "", users: str = ""
) -> tuple[Path | None, Path | None]:
    """The tables of items and users: those that the settings name, else files of these names, if there.

    Raises:
        RelandError: a file that a setting names is not there.
    """
    asked = (beside(getattr(config, name), folder, name) for name in ("item_table", "user_table"))
    usual = (folder / name if name and (folder / name).is_file() else None for name in (items, users))
    of_items, of_users = (named or known for named, known in zip(asked, usual, strict=True))
    return of_items, of_users


def some_of(paths: Sequence[Path]) -> str:
    """The names of some files, and how many more there are; with the folder where names are the same."""
    same = len({path.name for path in paths}) < len(paths)
    names = [f"{path.parent.name}/{path.name}" if same else path.name for path in paths]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _interactions(place: str, config: DataConfig, notes: list[str]) -> Frame:
    found = _files(place, config)
    folder = Path(place) if Path(place).is_dir() else found[0].parent
    words = parts.split_of(found)
    frames = []
    for number, path in enumerate(found):
        constants = parts.partition(path, folder) | ({parts.SPLIT: words[number]} if words else {})
        frames.append(parts.with_constants(of_file(path, config), constants))
    if len(found) > 1:
        notes.append(f"{len(found)} files were read as one table: {some_of(found)}")
        if words and config.protocol != "fixed":
            said = " and ".join(dict.fromkeys(words))
            notes.append(f"their names say {said}; config.data.protocol='fixed' uses that split")
    return parts.combined(frames, place)


def _files(place: str, config: DataConfig) -> list[Path]:
    """The files of the interactions."""
    if not Path(place).exists() and "," in place:
        return [Path(each.strip()) for each in place.split(",")]
    if not Path(place).is_dir():
        return [Path(place)]
    folder = Path(place)
    if (folder / "_delta_log").is_dir():
        raise RelandError(
            f"{folder}: a Delta table, whose folder also keeps rows that were changed or deleted; write its "
            "current version to Parquet or CSV and give that"
        )
    beside_them = {path.resolve() for path in described(config, folder) if path is not None}
    named, nested = (
        [path for path in sorted(found) if _counts(path, folder) and path.resolve() not in beside_them]
        for found in (folder.iterdir(), folder.glob("*=*/**/*"))
    )
    for wanted in ((folder.name,), _ALONE):
        alone = [path for path in named if path.name.split(".")[0] in wanted]
        if len(alone) == 1 and not nested:
            return alone
    if not named and not nested:
        endings = ", ".join(each for each in (*TEXT_ENDINGS, *PARQUET_ENDINGS) if each != ".txt")
        raise RelandError(
            f"{folder}: no table in this folder ({endings}, also packed by {', '.join(PACKED_ENDINGS)}); "
            "a .txt is read where its path is given"
        )
    return [*named, *nested]


def _counts(path: Path, folder: Path) -> bool:
    """Whether a file may be a part: programs mark theirs, such as ``_SUCCESS``, by their first letter.

    A ``.txt`` next to tables is a README more often than a table; it has to be named.
    """
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and is_table(path) and ending(path) != ".txt"


def _folder(place: str) -> Path:
    """The folder that the interactions lie in."""
    first = Path(place if Path(place).exists() else place.partition(",")[0])
    return first if first.is_dir() else first.parent


def _described(place: str, config: DataConfig, frame: Frame | None) -> tuple[Path | None, Path | None]:
    """The tables of items and users."""
    has_movies = frame is not None and _MOVIE in frame.columns
    return described(config, _folder(place), _MOVIES if has_movies else "")


def spelled_out(genres: str) -> str:
    """MovieLens' "Action|Comedy" as "Action, Comedy"."""
    return "" if genres == "(no genres listed)" else genres.replace("|", ", ")


def delimiter_of(config: DataConfig) -> str | None:
    """The delimiter that the settings name, which may do so in words; None for none."""
    return config.delimiter and _NAMED.get(config.delimiter, config.delimiter)


def _text(path: Path, config: DataConfig) -> Frame:
    """A text file with a header, whose delimiter the settings, its ending or its header tell."""
    asked = delimiter_of(config)
    sniffed = ("\t",) if ending(path) in (".tsv", ".tab") else _SNIFFED
    settings = (config.user_field, config.item_field, *_USUAL.user, *_USUAL.item)
    wanted = {name.strip().casefold() for name in settings if name}
    found, fault = [], ""
    for delimiter in (asked,) if asked else sniffed:
        try:
            found.append(_header(path, delimiter, config))
        except csv.Error as error:
            fault = fault or str(error)
    if not found:
        raise RelandError(f"{path}:1: no header that can be read ({fault})")

    def fit(each: _Header) -> tuple[int, bool]:
        return sum(name.strip().casefold() in wanted for name in each.names), len(each.names) > 1

    names, delimiter, lines = max(found, key=fit)
    # Quotes are marks of CSV, with whatever delimiter of one character.
    return delimited.frame(
        path, delimited.Layout(names, delimiter, lines, config.encoding, quoted=len(delimiter) == 1)
    )


class _Header(NamedTuple):
    """Column names, the delimiter between them, and the lines up to the first row."""

    names: list[str]
    delimiter: str
    lines: int


def _header(path: Path, delimiter: str, config: DataConfig) -> _Header:
    """The header of a file, read with a delimiter; one that Excel names in a line of its own goes before."""
    with opened.text(path, config.encoding) as text:
        if len(delimiter) > 1:
            return _Header(text.readline().rstrip("\r\n").split(delimiter), delimiter, 1)
        reader = csv.reader(text, delimiter=delimiter)
        names = next((fields for fields in reader if any(fields)), [])
        before = reader.line_num
        if len(names) <= 2 and names and names[0].startswith("sep="):
            delimiter = names[0][4:] or delimiter
            reader = csv.reader(text, delimiter=delimiter)
            return _Header(next(reader, []), delimiter, before + reader.line_num)
        return _Header(names, delimiter, before)
