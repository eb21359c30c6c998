"""The single things that a step 2 recommends, so that each can be encoded by itself."""

from __future__ import annotations

import re

MOST_PHRASES = 32
"""Phrases of a rationale that are read; the rest is left out."""

_ITEMS = re.compile(r"(?:^|[.;\s])recommend(?:ed|ation|ations)\s+items?\b[^:\n]{0,40}:", re.IGNORECASE)
_NEXT_LABEL = re.compile(r"\.\s+[A-Z][\w ]{2,40}:\s")
_BULLET = re.compile(r"^[\s\-+•*]*(?:\d{1,2}[.)]\s+)?")


def phrases_of(step2: str) -> tuple[str, ...]:
    """The items that a step 2 recommends, each by its name; all its phrases where no heading names items.

    Semicolons and ends of lines separate phrases, and commas where there is neither.

    Args:
        step2: of a rationale.

    Returns:
        Distinct phrases in their order, at most `MOST_PHRASES`; () for an empty step 2.
    """
    headings = list(_ITEMS.finditer(step2))
    part = step2[headings[-1].end() :] if headings else step2
    if headings and (label := _NEXT_LABEL.search(part)):
        part = part[: label.start()]
    separator = "[;\n]" if re.search("[;\n]", part.strip()) else ","
    found = (_BULLET.sub("", phrase).strip(" .*\"'") for phrase in re.split(separator, part))
    return tuple(dict.fromkeys(phrase for phrase in found if phrase))[:MOST_PHRASES]
