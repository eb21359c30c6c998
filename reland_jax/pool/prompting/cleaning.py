"""Step 0 by rule: item texts without promotional noise (paper, section 3.1.2).

The promotional phrases of shops are names elsewhere: "Best Seller" is a film, "Brand New" a band. So texts of
films and music keep all words, and lose only markup and invisible characters.

A change of the rules increases `PROMPT_VERSION` (see `templates`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from reland_jax.plain import without_markup

WITH_PROMOTION = ("products",)
"""Domains (`config.data.domain`) whose texts are searched for promotional noise."""

MAX_RAW_CHARACTERS = 3000
"""Characters of a raw text that are read, ten times what is shown; the rest is dropped."""

_JOINERS = "\u200c\u200d"
"""Invisible characters that Persian, Indic scripts and emoji need."""

_FRAME = re.compile(r"</?(?:history|titles|think|script)\b[^<>]{0,80}>", re.IGNORECASE)
"""Tags that have a meaning in a prompt or its parser."""

_PROMOTION = re.compile(
    r"""\b(?:
        (?:with\s+|plus\s+)?free\s+(?:\w+\s+)?(?:shipping|delivery|s\s?[&/]\s?h)\b
            (?:\s+(?:today|now|worldwide|available(?:\s+worldwide)?))*
      | (?:final\s+)?clearance\s+(?:sale|price[ds]?) | final\s+clearance
      | (?:big|hot|flash|super|summer|holiday)\s+sale
      | on\s+sale(?=\s*(?:now|today|!|$)) (?:\s*(?:now|today))?
      | (?:limited\s+time|amazing|special|best|hot)\s+(?:offer|deal)s? | good\s+deal(?=\s*(?:!|$))
      | (?:\d+[\s-]day\s+)?(?:100%\s+)?(?:satisfaction|money[\s-]back)\s+guaranteed?
            (?:\s+or\s+your\s+money\s+back)?
      | \d+[\s-]day\s+risk[\s-]free\s+trial
      | buy\s+(?:\d+|one)\s*,?\s+get\s+(?:\d+|one)\s+free | (?:with\s+|plus\s+)?free\s+gift
      | (?:save\s+)?\d{1,2}\s?%\s+(?:off|discount)
      | best[\s-]?seller | order\s+(?:now|today) | buy\s+now | brand[\s-]new | new(?=\s*!)
    )(?!\w)[ ]?!*""",
    re.IGNORECASE | re.VERBOSE,
)
_SHOUTING = re.compile(r"!{2,}|\*{2,}|~{2,}|\.{4,}|={2,}|#{2,}|_{3,}|\${2,}")
_EMPTY_BRACKETS = re.compile(r"\(\s*\W?\s*\)+|\[\s*\W?\s*\]|\{\s*\W?\s*\}")
_GAPS = re.compile(r"\s+(?=[,)\]])|(?<=[(\[])\s*[-–—|]?\s+")
_DOUBLE_DASH = re.compile(r"\s([-–—|])(?:\s[-–—|])+(?=\s|$)")
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_NAME = re.compile(r"[A-Za-z]{3,}|(?![A-Za-z])[^\W\d_]")
"""A word; in scripts other than Latin it may have one letter."""

_AFTER_A_NAME = re.compile(r"\s*(?:[-–—]\s|\((?:1[89]|20)\d\d\))")
_LOOSE_ENDS = re.compile(r"^(?:[\s,;:|/~–—-]+|[+*]+\s)+|(?:[\s,;:|/~–—-]|\s[+*]+)+$")


def clean_title(text: str, domain: str = "products") -> str:
    """Step 0: one item text without promotional noise, markup and control characters, on one line.

    Sizes, quantities, percentages of an ingredient and model numbers stay. A text that is nothing but
    noise (the band "!!!"), or that would lose its name with it ("Hot Deals EP"), keeps its characters.
    Cleaning twice changes nothing more. Only the first `MAX_RAW_CHARACTERS` are read.

    Args:
        text: of one item.
        domain: `config.data.domain`; noise is removed only in those of `WITH_PROMOTION`.
    """
    plain = one_line(text)
    if domain not in WITH_PROMOTION:
        return plain
    cleaned = _settled(lambda title: _plain(_without_noise(title)), plain)
    return cleaned if _names_something(cleaned, plain) else plain


def one_line(text: str) -> str:
    """A text without markup and control characters, on one line, with its words unchanged."""
    return _settled(lambda title: _GAPS.sub("", _plain(title)), text[:MAX_RAW_CHARACTERS])


def _names_something(cleaned: str, plain: str) -> bool:
    """Whether a word is left outside of brackets, where there was one."""
    if cleaned == plain:
        return True
    if not any(character.isalnum() for character in cleaned):
        return False
    lost = _PROMOTION.search(plain) is not None
    return not lost or _NAME.search(_IN_BRACKETS.sub(" ", cleaned)) is not None


def _settled(shorten: Callable[[str], str], text: str) -> str:
    """Applies `shorten` until nothing changes: a removal may form new noise."""
    while (shorter := shorten(text)) != text:
        text = shorter
    return text


def _plain(text: str) -> str:
    """One pass that removes entities, tags and control characters, and collapses white space."""
    text = _FRAME.sub(" ", without_markup(text))
    if not text.isprintable():
        text = "".join(map(_printable, text))
    return " ".join(text.split())


def _printable(character: str) -> str:
    """The character; a blank for a control or line separator; nothing for an invisible one."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    hidden = category in ("Cf", "Cs", "Co", "Cn") and character not in _JOINERS
    return "" if hidden else character


def _without_noise(text: str) -> str:
    text = _PROMOTION.sub(_unless_a_name, text)
    text = _SHOUTING.sub(" ", text)
    text = _GAPS.sub("", " ".join(_EMPTY_BRACKETS.sub(" ", text).split()))
    return _LOOSE_ENDS.sub("", _DOUBLE_DASH.sub(r" \1", text))


def _unless_a_name(found: re.Match[str]) -> str:
    """A blank for promotion; but capitals at the start of a text, set off from the rest, are a name."""
    opens = not found.string[: found.start()].strip() and _AFTER_A_NAME.match(found.string, found.end())
    return found[0] if opens and found[0].istitle() else " "
