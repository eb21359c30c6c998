"""Remarks on ids that are kept as they were written, and may have been meant otherwise."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.plain import MARKS

_WITH_POINT = re.compile(r"-?\d+\.0+")
_ROUNDED = re.compile(r"\d(?:\.\d+)?[eE]\+?\d+")
_NOBODY = frozenset(mark.lower() for mark in MARKS) | {"undefined", "unknown", "anonymous", "guest", "-1"}
_UNSEEN = str.maketrans("", "", "\ufeff\u200b\u200e\u200f\u2060")


def odd_ids(what: str, column: Tokens) -> list[str]:
    """Remarks about a column of ids; nothing is changed.

    Args:
        what: "user" or "item".
        column: the ids as they were written.
    """
    names = column.name.tolist()
    notes = [*_missing(what, column), *_alike(what, names)]
    if odd := [name for name in names if name != name.strip()]:
        notes.append(f"{len(odd):,} {what} ids begin or end in a space, such as {odd[0]!r}; they are kept so")
    if names and all(map(_WITH_POINT.fullmatch, names)):
        whole = names[0].partition(".")[0]
        notes.append(
            f"the {what} ids are whole numbers written with a point, such as {names[0]!r}; they are "
            f"kept so, and {whole!r} in another file is another id"
        )
    if rounded := [name for name in names if _ROUNDED.fullmatch(name)]:
        notes.append(
            f"{len(rounded):,} {what} ids are numbers as a spreadsheet rounds them, such as {rounded[0]!r}; "
            "several ids may have become one: export the column as text"
        )
    return notes


def _missing(what: str, column: Tokens) -> list[str]:
    """One remark for every id by which programs mean that there is none."""
    found = [place for place, name in enumerate(column.name) if name.strip().lower() in _NOBODY]
    return [
        f"{np.count_nonzero(column.code == place):,} rows have the {what} id {column.name[place]!r}, which "
        f"is taken for one {what}; remove them if it says that there is none"
        for place in found
    ]


def _alike(what: str, names: list[str]) -> list[str]:
    """A remark where ids differ only in how the same may be written."""
    first: dict[str, str] = {}
    pairs = [(name, first.setdefault(_bare(name), name)) for name in names]
    others = [(name, other) for name, other in pairs if name != other]
    if not others:
        return []
    return [
        f"{len(others):,} {what} ids differ from others only in capitals, spaces, leading zeros, '.0' or "
        f"the form of accents, such as {others[0][1]!r} and {others[0][0]!r}; they stay apart"
    ]


def _bare(name: str) -> str:
    """An id without what exports are known to change."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", name).translate(_UNSEEN)
    name = name.strip().casefold()
    if name[-2:] == ".0":
        name = name[:-2]
    return name.lstrip("0") or "0" if name.isdecimal() else name
