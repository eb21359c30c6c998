"""Converts the values of a column to ids, ratings and texts, from any type that a file stores."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np

from reland_jax.data.sources.columns import Column
from reland_jax.data.sources.raw import Tokens
from reland_jax.plain import MARKS
from reland_jax.types import RelandError

MISSING = frozenset(("nan", "NaN", "NAN", "<NA>", "NaT", "\\N", "#N/A"))
"""How programs write a value that is missing; never an id."""

_NO_RATING = MISSING | MARKS
_EXACT = 1 << 53
"""From here on neighbouring integers are one floating-point number."""
_EXACT_OF = {"halffloat": 1 << 11, "float": 1 << 24}
"""The same of the shorter types, by Arrow's names."""


def ids(column: Column) -> Tokens:
    """Ids as they were written: ``007`` stays that, and the number 7.0 is ``7``.

    Raises:
        RelandError: one is missing, or is a number that does not tell it from others; with its place.
    """
    encoded = _encode(column)
    code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    exact = _EXACT_OF.get(str(encoded.type.value_type), _EXACT)
    names: list[int] = []
    known: dict[str, int] = {}
    for position, value in enumerate(_python(encoded.dictionary, column)):
        name, fault = _id_of(value, exact)
        if fault:
            row = int(np.flatnonzero(code == position)[0])
            raise RelandError(f"{column.place(row)}: {column.name!r} {fault}")
        names.append(known.setdefault(name, len(known)))
    if encoded.indices.null_count:
        row = int(np.flatnonzero(code < 0)[0])
        raise RelandError(f"{column.place(row)}: {column.name!r} {_NO_ID}")
    code = np.array(names, np.int32)[code] if len(names) else np.zeros(len(code), np.int32)
    return Tokens(code, np.array(list(known), dtype=object))


_NO_ID = "is empty; every interaction needs a user and an item, every row that describes one its id"


def _id_of(value: Any, exact: int) -> tuple[str, str]:
    """An id, and what is wrong with it; numbers with a point are distinguished below `exact` only."""
    if isinstance(value, str):
        text = value.strip()
        fault = _NO_ID if not text else f"is {value!r}, a missing value; {_REMOVE}" if text in MISSING else ""
        return value, "holds a NUL character; remove it" if "\0" in value else fault
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return "", f"is {value}, a missing value; {_REMOVE}"
        if isinstance(value, float) and abs(value) >= exact:
            return (
                "",
                f"is {value!r}: numbers with a point do not tell such ids apart; store them as integers",
            )
        return str(int(value)) if value == int(value) else str(value), ""
    return str(value), ""


_REMOVE = "every interaction needs a user and an item; remove such rows"


def ratings(column: Column, setting: str = "config.data.rating_field") -> np.ndarray:
    """Ratings, or other numbers, ``<float64>[n]``, NaN where there is none.

    Args:
        column: numbers of any type, or texts of them.
        setting: what named the column, for messages.

    Raises:
        RelandError: a value that is not a number, with its place.
    """
    import pyarrow as pa
    from pyarrow import compute

    values = plain(column)
    if is_text(values.type):
        trimmed = compute.utf8_trim_whitespace(values)
        missing = compute.is_in(trimmed, pa.array(["", *_NO_RATING]))
        values = compute.if_else(missing, pa.scalar(None, trimmed.type), trimmed)
    try:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _not_numbers(column, values, setting) from None
    numbers = np.asarray(numbers, np.float64)
    if len(bad := np.flatnonzero(np.isinf(numbers))):
        raise RelandError(
            f"{column.place(int(bad[0]))}: {column.name!r} is infinite; a finite number is needed"
        )
    return numbers


def _not_numbers(column: Column, values: Any, setting: str) -> RelandError:
    """The error that names the first value that is not a number."""
    for row, value in enumerate(values.to_pylist() if is_text(values.type) else []):
        if value is not None and not is_number(value):
            return RelandError(
                f"{column.place(row)}: {column.name!r} is {value!r}, which is not a number ({setting})"
            )
    return RelandError(f"{column.place(0)}: {column.name!r} holds {values.type}, not numbers ({setting})")


def texts(column: Column) -> Tokens:
    """Texts as they were written, "" where there is none.

    Raises:
        RelandError: values that no text can be made of.
    """
    import pyarrow as pa

    values = plain(column)
    if pa.types.is_nested(values.type):
        written = [_text_of(value) for value in values.to_pylist()]
        column = column._replace(values=pa.chunked_array([pa.array(written, pa.string())]))
    encoded = _encode(column)
    code = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    names = [_text_of(value) for value in _python(encoded.dictionary, column)]
    return Tokens(code.astype(np.int32), np.array([*names, ""], dtype=object))


def _text_of(value: Any) -> str:
    """One value as it was written; lists and mappings as JSON, numbers as people write them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return str(value)


def plain(column: Column) -> Any:
    """The values without dictionaries and views around them.

    Raises:
        RelandError: bytes that are not UTF-8.
    """
    import pyarrow as pa

    values = column.values
    values = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if isinstance(values.type, pa.BaseExtensionType):
        values = _without_extension(values)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    if pa.types.is_null(values.type):
        return values.cast(pa.string())
    try:
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            return values.cast(pa.large_string())
        if values.type in (pa.string_view(), pa.binary_view()):
            return values.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise RelandError(
            f"{column.place(0)}: column {column.name!r} holds no UTF-8 text ({error})"
        ) from None
    return values


def _without_extension(values: Any) -> Any:
    """Values of a type that a program has put over one of Arrow's; UUIDs become texts."""
    import pyarrow as pa

    if values.type.extension_name == "arrow.uuid":
        return pa.chunked_array([[each and str(each) for each in values.to_pylist()]], pa.string())
    return pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of strings."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def _encode(column: Column) -> Any:
    """The distinct values and their numbers, as an Arrow dictionary array."""
    import pyarrow as pa

    values = plain(column)
    if pa.types.is_nested(values.type):
        raise RelandError(
            f"{column.place(0)}: column {column.name!r} holds {values.type}; ids are texts or numbers"
        )
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type) and values.nbytes >= 1 << 30:
        values = values.cast(pa.large_string())  # else one array could not hold them
    combined = values.combine_chunks()
    combined = combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined
    return combined.dictionary_encode()


def _python(values: Any, column: Column) -> list[Any]:
    try:
        return values.to_pylist()
    except UnicodeDecodeError as error:
        raise RelandError(
            f"{column.place(0)}: column {column.name!r} holds no UTF-8 text ({error})"
        ) from None
