"""Step 0 by an LLM (optional, paper, section 3.1.2): titles without peripheral words, before step 1 is asked.

The LLM may leave words out of a title and nothing else. An answer that adds, loses, changes or reorders
titles or words is not used, and the titles stay as the rules of `cleaning` left them. So no text that an
LLM wrote reaches the next prompt; at worst a title lacks words.
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
"""Room for one title in the answer: a title in a prompt has 300 characters at most, mostly below 100."""

_LONGEST_ANSWER = 100_000
_LINE = re.compile(r"^[ \t]*(\d{1,4})[.):][ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+")


class TitleList(NamedTuple):
    """The titles of one history, as step 0 asks about them.

    Attributes:
        titles: of every item shown, oldest first; "" where an item has none.
        asked: which of them stand in the prompt, as positions in `titles`.
        prompt: of step 0, "" if it would show no title.
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
        limit: on the tokens of the prompt; the oldest titles are left out of it, and keep their text.
    """
    shown = {position: text for position, title in enumerate(titles) if (text := shown_text(title))}
    count = newest_that_fit(list(shown.values()), CLEANING, domain, limit)
    asked = list(shown)[len(shown) - count :]
    lines = numbered([shown[position] for position in asked])
    return TitleList(titles, asked, filled(CLEANING, domain, lines) if asked else "", domain)


def cleaned_titles(listed: TitleList, answer: str) -> list[str] | str:
    """The titles with the answer put in, or in words why it is not used.

    A title of the answer has to consist of words of the title in the prompt, in their order, without any
    other character.
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
            return f"step 0 did more to title {number} than leave words out"
        titles[position] = cleaned
    return titles


def why_unreadable(answer: str) -> str:
    """The judge of an answer to step 0: "" if it is a list of titles numbered from 1, else what is wrong."""
    lines = _answered(answer)
    return lines if isinstance(lines, str) else ""


def answer_tokens(titles: int, max_tokens: int) -> int:
    """Bound on the tokens of an answer with that many titles; at least `max_tokens`."""
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
    """Whether the words of `cleaned` are some of the title's, in order, and no other sign came in."""
    words = iter(_WORD.findall(title.casefold()))
    kept = _WORD.findall(cleaned.casefold())
    in_order = bool(kept) and all(word in words for word in kept)
    return in_order and not _signs(cleaned) - _signs(title)


def _signs(text: str) -> Counter[str]:
    return Counter(text.casefold()) - Counter({" ": len(text)})
