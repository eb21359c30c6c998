"""Step 0 by an LLM (optional, paper, section 3.1.2): titles without peripheral words, before step 1.

The LLM may only leave words out of a title. An answer that adds, loses, changes or reorders titles or words
is discarded, and the titles keep the form of the rules in `cleaning`. So no text of an LLM reaches the next
prompt; at worst a title lacks words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from reland_jax.pool.prompting.cleaning import clean_title
from reland_jax.pool.prompting.prompts import TokenLimit, newest_that_fit, numbered, shown_text
from reland_jax.pool.reading.parser import plain_text
from reland_jax.pool.reading.spoken import spoken
from reland_jax.pool.templates import CLEANING, filled

TOKENS_PER_TITLE = 60
"""Tokens for one title in the answer; titles have at most 300 characters, mostly below 100."""

_LONGEST_ANSWER = 100_000
_LINE = re.compile(r"^[ \t]*(\d{1,4})[.):][ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+")


class TitleList(NamedTuple):
    """The titles of one history with their prompt of step 0.

    Attributes:
        titles: titles of the items shown, oldest first; "" without a title.
        asked: positions in `titles` of those in the prompt.
        prompt: the prompt of step 0, "" without any title.
        domain: of the titles.
    """

    titles: Sequence[str]
    asked: Sequence[int]
    prompt: str
    domain: str


def title_list(titles: Sequence[str], domain: str, limit: TokenLimit | None = None) -> TitleList:
    """The prompt of step 0 for one history.

    Args:
        titles: cleaned by rule, oldest first.
        domain: one of `templates.DOMAINS`.
        limit: on the tokens of the prompt; the oldest titles are left out and keep their text.
    """
    shown = {position: text for position, title in enumerate(titles) if (text := shown_text(title))}
    count = newest_that_fit(list(shown.values()), CLEANING, domain, limit)
    asked = list(shown)[len(shown) - count :]
    lines = numbered([shown[position] for position in asked])
    return TitleList(titles, asked, filled(CLEANING, domain, lines) if asked else "", domain)


def cleaned_titles(listed: TitleList, answer: str) -> list[str] | str:
    """The titles as cleaned by the answer, or why the answer is not used.

    A title of the answer must consist of words of the title in the prompt, in order, and no other characters.
    """
    lines = _answered(answer)
    if isinstance(lines, str):
        return lines
    if len(lines) != len(listed.asked):
        return f"step 0 answered {len(lines)} titles for {len(listed.asked)}"
    titles = list(listed.titles)
    for number, (position, line) in enumerate(zip(listed.asked, lines, strict=True), start=1):
        cleaned = clean_title(line, listed.domain)
        if not _only_left_out(cleaned, shown_text(titles[position])):
            return f"step 0 changed title {number}, though it may only leave words out"
        titles[position] = cleaned
    return titles


def why_unreadable(answer: str) -> str:
    """What is wrong with an answer to step 0; "" for a list of titles numbered from 1."""
    lines = _answered(answer)
    return lines if isinstance(lines, str) else ""


def answer_tokens(titles: int, max_tokens: int) -> int:
    """Token limit of an answer with that many titles; at least `max_tokens`."""
    return max(max_tokens, TOKENS_PER_TITLE * titles)


def _answered(answer: str) -> list[str] | str:
    """The numbered lines of an answer, unquoted, or what is wrong with them."""
    for turn in spoken(plain_text(answer[:_LONGEST_ANSWER]))[0]:
        found = [(int(line[1]), line[2]) for line in _LINE.finditer(turn.text)]
        if found and [number for number, _ in found] == list(range(1, len(found) + 1)):
            return [_unquoted(text) for _, text in found]
    return "step 0 needs one numbered line for each title, from 1 on, in the order of the titles"


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text[1:-1]
    return value if isinstance(value, str) else text


def _only_left_out(cleaned: str, title: str) -> bool:
    """Whether `cleaned` consists of words of the title, in order, without new characters."""
    words = iter(_WORD.findall(title.casefold()))
    kept = _WORD.findall(cleaned.casefold())
    in_order = bool(kept) and all(word in words for word in kept)
    return in_order and not _signs(cleaned) - _signs(title)


def _signs(text: str) -> Counter[str]:
    return Counter(text.casefold()) - Counter({" ": len(text)})
