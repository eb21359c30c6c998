"""Stored values as plain text, for people, prompts and the text encoder alike.

Tables hold more than texts: lists of categories, lists that somebody wrote out as text, marks of missing
values, HTML. They are interpreted here only; the columns themselves stay as they were read.
"""

from __future__ import annotations

import ast
import csv
import html
import html.entities
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reland_jax.strings import as_strings, encodable

MARKS = frozenset(
    (
        "nan",
        "NaN",
        "NAN",
        "<NA>",
        "NaT",
        "#N/A",
        "N/A",
        "n/a",
        "NA",
        "None",
        "none",
        "NONE",
        "null",
        "NULL",
        r"\N",
    )
)
"""What programs write into a table of texts where there is no value."""

LONGEST_WRITTEN_OUT = 20_000
"""Longest text, in characters, that is looked at as a list or mapping written out."""

DEEPEST = 8
"""Lists within lists that are still read as what they hold."""

TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|center|dd|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|li|ol|p|pre|s|small|span"
    r"|strike|strong|style|sub|sup|table|tbody|td|th|thead|tr|u|ul)(?:\s[^<>]{0,200})?\s?/?>",
    re.IGNORECASE,
)
"""The HTML elements that stand in descriptions. Others may be words in brackets, such as "<Live>"."""

_ENTITY = re.compile(r"&(?:amp;)*(?P<name>(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)")
_LAYERS = 4
"""Entities within entities that are resolved ("&amp;amp;lt;"), which hostile texts have without end."""

_OPENINGS = ("[", "(", "{", "b'", 'b"', "array(", "set(", "frozenset(")
_CLOSINGS = ("]", ")", "}", "'", '"')
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|\\?\Z)|"(?:[^"\\]|\\.)*(?:"|\\?\Z)""", re.DOTALL)
"""A text in quotes; one that is not closed goes to the end, so that no text is looked through twice."""
_NO_COMMA = re.compile(r"\s*(?:\.\.\.\s*)?[bu]?")
_BARE = re.compile(r"\[(?P<list>[^\[\]{}]*)\]|\{(?P<array>[^\[\]{}:]*)\}", re.DOTALL)
"""Lists whose texts have no quotes, as DuckDB, Trino and Spark write them, and the arrays of PostgreSQL."""
_NAMES = ("name", "title", "label", "text", "value")
_CALLS = ("array", "set", "frozenset")
_CONSTANTS = dict.fromkeys(("nan", "NaN", "null", "NaT"), None) | {"true": True, "false": False}


class PlainColumn(NamedTuple):
    """A column as plain texts.

    Attributes:
        texts: ``<str>[n]``, "" where nothing is said.
        marks: values that only say that there is none, such as "nan".
        written_out: values that were lists or mappings written out as text.
    """

    texts: np.ndarray
    marks: int
    written_out: int


def find_column(names: Iterable[str], wanted: str) -> str | None:
    """The column of this name, else the only one that differs from it in case alone."""
    names = list(names)
    if wanted in names:
        return wanted
    alike = [name for name in names if name.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 else None


def text_columns(features: Mapping[str, np.ndarray], fields: Sequence[str]) -> dict[str, np.ndarray]:
    """The plain texts of some columns, by the names they are asked for; ones that are not there are left out.

    Args:
        features: field name -> ``<str>[n]``.
        fields: names; a column that differs in case alone is taken (`find_column`), once.

    Returns:
        name -> ``<str>[n]``, in the order of `fields`.
    """
    taken: dict[str, str] = {}
    for field in fields:
        column = find_column(features, field)
        if column is not None and column not in taken.values():
            taken[field] = column
    return {field: plain_column(features[column]).texts for field, column in taken.items()}


def plain_column(values: Iterable[Any]) -> PlainColumn:
    """The plain texts of a column of any values.

    A text that is a list, tuple, set or mapping written out, as Python, JSON or NumPy write it, becomes
    what it holds. Where only a few values of a column look like that, those without any word are names and
    stay (the film "(500)", the album "()").
    """
    given = values.tolist() if isinstance(values, np.ndarray) else list(values)
    written = {row: _written_out(value) for row, value in enumerate(given) if isinstance(value, str)}
    written = {row: value for row, value in written.items() if value is not None}
    filled = sum(isinstance(value, str) and bool(plain_text(value).strip()) for value in given)
    bare = {row: found for row in range(len(given)) if row not in written and (found := _bare(given[row]))}
    if 2 * (len(written) + len(bare)) < filled:
        written = {row: value for row, value in written.items() if _has_words(value)}
    else:
        written |= bare
    texts = [_spoken(written.get(row, value)) for row, value in enumerate(given)]
    marks = sum(isinstance(value, str) and value.strip() in MARKS for value in given)
    return PlainColumn(as_strings(texts), marks, len(written))


def text_of(value: Any) -> str:
    """One value as plain text; "" for a missing one.

    Args:
        value: a text, number, list, mapping or whatever a table holds.
    """
    written = _written_out(value) if isinstance(value, str) else None
    return _spoken(written if _has_words(written) else value)


def plain_text(text: str) -> str:
    """A text without HTML; "" for one of `MARKS`. One that has none of this stays as it is."""
    if text.strip() in MARKS:
        return ""
    return without_markup(encodable(text))


def without_markup(text: str) -> str:
    """A text with HTML entities resolved and without the elements of `TAG`."""
    for _ in range(_LAYERS):
        if "&" not in text and "<" not in text:
            break
        plain = TAG.sub(" ", _ENTITY.sub(_resolved, text))
        if plain == text:
            break
        text = plain
    return text


def _resolved(entity: re.Match[str]) -> str:
    name = entity["name"]
    known = name.startswith("#") or name in html.entities.html5
    return html.unescape(f"&{name}") if known else f"&{name}"


def _has_words(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str | bytes):
        return bool(value)
    return isinstance(value, list | tuple | set | frozenset | np.ndarray) and any(map(_has_words, value))


# --- lists and mappings written out as text --------------------------------------------------------


def _written_out(text: str) -> Any:
    """The list, mapping or bytes that a text is written as; None for any other text."""
    text = text.strip()
    if not text.startswith(_OPENINGS) or not text.endswith(_CLOSINGS) or len(text) > LONGEST_WRITTEN_OUT:
        return None
    try:
        value = _parsed(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list | dict | bytes) and _is_flat(value, DEEPEST) else None


def _bare(value: Any) -> list[str]:
    """The texts of a list that is written out without quotes, or in quotes where one holds a comma."""
    found = _BARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or len(value) > LONGEST_WRITTEN_OUT:
        return []
    escape = "\\" if found["list"] is None else None
    inner = [found["array"] or found["list"] or ""]
    try:
        (texts,) = csv.reader(inner, skipinitialspace=True, escapechar=escape, doublequote=escape is None)
    except (ValueError, csv.Error):
        return []
    return [text.strip() for text in texts]


def _is_flat(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested no deeper than a number of levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(part, levels - 1) for part in inner)


def _parsed(text: str) -> Any:
    if text[0] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            pass
    text = _with_commas(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return _value(ast.parse(text, mode="eval").body)


def _with_commas(text: str) -> str:
    """A list with commas between its texts: NumPy writes none, and Python would join the texts."""
    parts, end = [], 0
    for found in _QUOTED.finditer(text):
        between = text[end : found.start()]
        if end and _NO_COMMA.fullmatch(between):
            between = "," + between.replace("...", "")
        parts += [between, found[0]]
        end = found.end()
    return "".join([*parts, text[end:]])


def _value(node: ast.expr) -> Any:
    """The value of a Python literal, as lists, mappings and plain values.

    Raises:
        ValueError: it is none.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple() | ast.Set():
            return [_value(element) for element in node.elts]
        case ast.Dict():
            keys = [_value(key) for key in node.keys if key is not None]
            return {str(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            return _value(node.args[0]) if node.args else []
    raise ValueError("no literal")


# --- values as text --------------------------------------------------------------------------------


def _spoken(value: Any) -> str:
    """Any value in words; a list of lists is one of paths, such as "Makeup > Face"."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, np.ndarray | set | frozenset | tuple):
        value = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if isinstance(value, list):
        nested = [
            " > ".join(filter(None, map(_inner, part))) if isinstance(part, list | tuple | np.ndarray)
            else _inner(part) for part in value
        ]  # fmt: skip
        return _listed(nested)
    return _of_scalar(value)


def _inner(value: Any) -> str:
    """A part of a list or mapping in words; in some exports it is a list written out itself."""
    written = _written_out(value) if isinstance(value, str) else None
    return _spoken(written if isinstance(written, Mapping) or _has_words(written) else value)


def _of_mapping(value: Mapping[Any, Any]) -> str:
    for name in _NAMES:
        if isinstance(value.get(name), str):
            return plain_text(value[name])
    pairs = [(name, _inner(part)) for name, part in value.items()]
    return _listed(f"{plain_text(str(name))}: {text}" for name, text in pairs if text)


def _listed(parts: Iterable[str]) -> str:
    found = list(dict.fromkeys(filter(None, parts)))
    # So that the parts can be distinguished.
    return ("; " if any("," in part or ">" in part for part in found) else ", ").join(found)


def _of_scalar(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return plain_text(" ".join(str(value).split()))
