"""Turns the markdown that LLMs write into one readable line of plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BULLET = re.compile(
    r"^\s*(?:[-*+•·▪◦‣●○–—]\s+|\(?\d{1,2}[.)]\s+|\d{1,2}、\s*|[a-z]\)\s+|[•●▪]\s*)(?P<text>.*)$"
)
_HEADING = re.compile(r"^\s*#{1,6}\s+")
_ROW = re.compile(r"^\s*\|(?P<cells>.*)\|\s*$")
_RULE = re.compile(r"^\s*(?:[-*_=]\s*){3,}$|^\s*\|[-:|\s]*\|\s*$")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_BOLD_LINE = re.compile(r"^\s*\*\*[^*]+\*\*\s*$")
_INLINE = (
    (re.compile(r"\[([^\]\n]{1,200})\]\([^)\n]{1,500}\)"), r"\1"),
    (re.compile(r"\*\*|__|`+"), ""),
    (re.compile(r"(?<!\w)\*([^*\n]{1,300})\*(?!\w)"), r"\1"),
)
_END = ".!?。！？…:;"
_COLONS = (":", "：")


def readable(text: str) -> str:
    """One line of plain text from a block of markdown.

    Bullets and numbered lines are joined by semicolons after the label above them, wrapped lines are joined,
    markup is removed. Words and their order are unchanged.
    """
    sentences: list[str] = []
    label, items = "", list[str]()
    for kind, line in _lines(text):
        if kind == "item" or (kind == "prose" and label and not items):
            items.append(line)
        elif kind == "more" and items:
            items[-1] = f"{items[-1]} {line}"
        elif kind == "more" and sentences:
            sentences[-1] = f"{sentences[-1]} {line}"
        else:
            sentences += _listing(label, items)
            label, items = (line, []) if kind == "label" else ("", [])
            sentences += [line] if kind != "label" else []
    sentences += _listing(label, items) or ([label] if label and not sentences else [])
    return " ".join([_closed(sentence) for sentence in sentences[:-1]] + sentences[-1:])


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Every non-empty line as (kind, plain text); kind "more" continues the line before."""
    before = ""
    for raw in text.split("\n"):
        if not raw.strip() or _RULE.match(raw) or _FENCE.match(raw):
            before = ""
            continue
        kind, line = _classified(raw)
        if not line:
            continue
        wrapped = before == "prose" or (before == "item" and raw[0].isspace())
        yield ("more" if kind == "prose" and wrapped else kind), line
        before = kind


def _classified(raw: str) -> tuple[str, str]:
    if row := _ROW.match(raw):
        return "item", ": ".join(filter(None, map(_plain, row["cells"].split("|"))))
    bullet = _BULLET.match(raw)
    heading = bool(_HEADING.match(raw) or _BOLD_LINE.match(raw))
    line = _plain(_HEADING.sub("", bullet["text"] if bullet else raw))
    if line.endswith(_COLONS):
        return "label", line
    if heading and not bullet:
        return "label", line.rstrip(".") + ":" if line else ""
    return ("item" if bullet else "prose"), line


def _plain(line: str) -> str:
    for pattern, replacement in _INLINE:
        line = pattern.sub(replacement, line)
    return " ".join(line.split())


def _listing(label: str, items: list[str]) -> list[str]:
    """The items as one sentence after their label; nothing for a label without items."""
    if not items:
        return []
    trimmed = [item.rstrip(" ;,.") for item in items]
    separator = ". " if any(": " in item for item in trimmed[:-1]) else "; "
    listed = _closed(separator.join(trimmed)) if len(items) > 1 else items[0]
    return [f"{label} {listed}" if label else listed]


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith(tuple(_END)) else sentence + "."
