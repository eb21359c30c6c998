"""RecBole atomic files: tab separated, a typed header, no quoting.

``NAME.inter`` holds a user, an item and, where there are any, a rating, a time and a split (train, valid or
test), as ``user_id:token item_id:token rating:float timestamp:float split:token``. Benchmark files
``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter`` are one data set with a fixed split.
``NAME.item`` and ``NAME.user`` next to them are optional; their other columns become features.
"""

from __future__ import annotations

from pathlib import Path

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited, opened, parts, table
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Frames, Usual, listed
from reland_jax.data.sources.raw import SPLIT_CODES, RawTable
from reland_jax.types import RelandError

_TYPES = ("token", "token_seq", "float", "float_seq")
_USUAL = Usual(
    user=("user_id",), item=("item_id",), time=("timestamp",), rating=("rating",), split=(parts.SPLIT,),
    ordered=True,
)  # fmt: skip


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` (an ``.inter`` file) and the ``.item`` and ``.user`` files next to it.

    Raises:
        RelandError: bad header, missing column, or a row that does not fit, with file and line.
    """
    found = frames(place, config)
    return assemble(found.log, config, _USUAL, found.items, found.users, found.notes)


def frames(place: str, config: DataConfig) -> Frames:
    """The tables of ``place`` as they are.

    Raises:
        RelandError: bad header, or parts of a split that are not all there.
    """
    notes: list[str] = []
    inter = _inter(Path(place))
    words = parts.split_of(inter)
    each_part = [atomic(path, config) for path in inter]
    if words:
        each_part = [
            parts.with_constants(frame, {parts.SPLIT: word})
            for frame, word in zip(each_part, words, strict=True)
        ]
        notes.append(f"{len(inter)} files were read as one data set: {table.some_of(inter)}")
    frame = parts.combined(each_part, place)
    if sequences := [name for name in frame.columns if name.endswith("_list")]:
        notes.append(
            f"columns {listed(sequences)} hold whole sequences and are not read, only the row's own item"
        )
    tables = _features(Path(place), config)
    items, users = (_of_features(path, config) if path else None for path in tables)
    return Frames(frame, items, users, notes)


def files(place: str, config: DataConfig) -> list[Path]:
    """Every file that `read` reads."""
    path = Path(place)
    return [*_inter(path), *filter(None, _features(path, config))]


def base(path: Path) -> str:
    """``shop`` for ``shop.inter`` and for ``shop.train.inter``."""
    stem = path.name[: -len(".inter")]
    head, _, word = stem.rpartition(".")
    return head if head and word.lower() in SPLIT_CODES else stem


def _inter(path: Path) -> list[Path]:
    """The file itself, or all parts of the split of which it is one.

    Raises:
        RelandError: it is a part, and those for training and testing are not both there.
    """
    name = base(path)
    if f"{name}.inter" == path.name or not path.name.endswith(".inter"):
        return [path]
    found = sorted(
        each for each in path.parent.glob("*.inter") if base(each) == name and each.name != f"{name}.inter"
    )
    present = {SPLIT_CODES[each.name.split(".")[-2].lower()] for each in found}
    if not {0, 2} <= present or len(present) < len(found):
        raise RelandError(
            f"{path}: a part of a split by its name, of which {listed([each.name for each in found])} are "
            f"here; {name}.train.inter, {name}.test.inter and, if there is one, {name}.valid.inter are "
            f"needed, each once. If it is all there is, rename it to {name}.inter"
        )
    return found


def _features(path: Path, config: DataConfig) -> tuple[Path | None, Path | None]:
    """The tables of items and users: those the settings name, else those next to it."""
    return table.described(config, path.parent, f"{base(path)}.item", f"{base(path)}.user")


def _of_features(path: Path, config: DataConfig) -> Frame:
    is_atomic = path.suffix in (".item", ".user")
    return atomic(path, config) if is_atomic else table.of_file(path, config)


def atomic(path: Path, config: DataConfig) -> Frame:
    """An atomic file of whatever ending as a frame, its typed header checked.

    Raises:
        RelandError: a field of the header without a type, or with one that is not known.
    """
    names = [name for name, _ in _header(path, config)]
    layout = delimited.Layout(names, table.delimiter_of(config) or "\t", encoding=config.encoding)
    return delimited.frame(path, layout)


def kinds(path: Path, config: DataConfig) -> dict[str, str]:
    """The type of every column of an atomic file: token, token_seq, float or float_seq.

    Raises:
        RelandError: see `atomic`.
    """
    return dict(_header(path, config))


def _header(path: Path, config: DataConfig) -> list[tuple[str, str]]:
    """Name and type of every column."""
    with opened.text(path, config.encoding) as lines:
        header = lines.readline().rstrip("\r\n")
    fields = header.split(table.delimiter_of(config) or "\t") if header else []
    return [_typed(field, path) for field in fields]


def _typed(field: str, path: Path) -> tuple[str, str]:
    """Name and type of ``name:type``, with the type checked."""
    name, _, kind = field.rpartition(":")
    if kind not in _TYPES or not name or ":" in name:
        raise RelandError(
            f"{path}:1: header field {field!r} must be name:type with a type of {', '.join(_TYPES)}, and "
            "fields have a tab between them (config.data.delimiter names another)"
        )
    return name, kind
