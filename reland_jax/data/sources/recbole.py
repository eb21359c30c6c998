"""RecBole atomic files: tab separated, a typed header, no quoting.

``NAME.inter`` holds ``user_id:token item_id:token`` and may hold ``rating:float``, ``timestamp:float``
and ``split:token`` (train, valid or test). ``NAME.item`` and ``NAME.user`` beside it are optional; their
other columns become features.
"""

from __future__ import annotations

from pathlib import Path

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited
from reland_jax.data.sources.raw import (
    FeatureTable,
    RawTable,
    feature_table,
    require_column,
    split_codes,
    tokens,
)
from reland_jax.types import RelandError

_TYPES = ("token", "token_seq", "float", "float_seq")
_NUMBERS = ("timestamp", "rating")


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` (an ``.inter`` file) and the ``.item`` and ``.user`` files beside it.

    Raises:
        RelandError: bad header, missing column, or a row that does not fit, with file and line.
    """
    path = Path(place)
    layout = _layout(path, ("user_id", "item_id"))
    table = delimited.read_columns(path, layout)
    split = None
    if "split" in layout.kinds:
        split = split_codes(tokens(table["split"]), lambda row: delimited.place(path, layout, row))
    time, rating = (table[name].to_numpy() if name in layout.kinds else None for name in _NUMBERS)
    return RawTable(
        where=str(path),
        user=tokens(table["user_id"]),
        item=tokens(table["item_id"]),
        time=time,
        rating=rating,
        split=split,
        item_features=_features(path.with_suffix(".item"), "item_id"),
        user_features=_features(path.with_suffix(".user"), "user_id"),
    )


def _features(path: Path, id_column: str) -> FeatureTable | None:
    """Features of items or users, None when there is no such file."""
    if not path.is_file():
        return None
    layout = _layout(path, (id_column,))
    table = delimited.read_columns(path, layout)
    fields = {
        name: delimited.text_column(table, name) for name in layout.kinds if name != id_column
    }
    ids = delimited.text_column(table, id_column)
    return feature_table(ids, fields, str(path), lambda row: delimited.place(path, layout, row))


def _layout(path: Path, id_columns: tuple[str, ...]) -> delimited.Layout:
    """Column names and kinds from the typed header."""
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        header = lines.readline().rstrip("\r\n")
    columns = [_typed(field, path) for field in header.split("\t")] if header else []
    for name in id_columns:
        require_column(name, columns, f"{path}:1")
    if len(set(columns)) != len(columns):
        raise RelandError(f"{path}:1: a column name appears twice: {', '.join(columns)}")
    is_inter = path.suffix == ".inter"
    kinds = {}
    for name in columns:
        number = is_inter and name in _NUMBERS
        kinds[name] = (
            delimited.ID if name in id_columns else delimited.NUMBER if number else delimited.TEXT
        )
    return delimited.Layout(kinds)


def _typed(field: str, path: Path) -> str:
    """The name in ``name:type``, with the type checked."""
    name, colon, kind = field.rpartition(":")
    if not colon or kind not in _TYPES or not name:
        raise RelandError(
            f"{path}:1: header field {field!r} must be name:type with a type of {', '.join(_TYPES)}"
        )
    if name in _NUMBERS and kind != "float":
        raise RelandError(f"{path}:1: column {name!r} must have type float, not {kind}")
    return name
