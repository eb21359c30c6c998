"""Prompts for recommendation rationales (paper, section 3.1.2 and Figure 3).

Texts of items are data: whatever they contain, each takes exactly one numbered, quoted line, and the rest of
the prompt stays the same. For the wording see `templates`, for step 0 `cleaning` and `step0`.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reland_jax.pool.prompting.cleaning import clean_title, one_line
from reland_jax.pool.prompting.tokens import TokenCounter, chat_tokens
from reland_jax.pool.templates import check_domain, check_prompt, filled
from reland_jax.types import RelandError

MAX_ITEM_CHARACTERS = 300
"""Longest text of one item in a prompt; longer ones are cut at a word and end with an ellipsis."""


class TokenLimit(NamedTuple):
    """A bound on the tokens of a prompt, chat format included.

    It holds exactly with an exact counter, otherwise by its estimate.

    Attributes:
        tokens: the bound, at least 1.
        counter: counts the tokens.
    """

    tokens: int
    counter: TokenCounter

    def allows(self, prompt: str) -> bool:
        """Whether a prompt, sent as one message, is within the limit."""
        return chat_tokens(self.counter, [{"role": "user", "content": prompt}]) <= self.tokens


def item_text(fields: Mapping[str, str]) -> str:
    """One line from the cleaned fields of an item: the first as it is, the others named.

    "" if all are empty.
    """
    filled_in = [(name, value) for name, value in fields.items() if value]
    if not filled_in:
        return ""
    return "; ".join([filled_in[0][1], *(f"{name}: {value}" for name, value in filled_in[1:])])


def build_prompt(history_texts: Sequence[str], domain: str, history: int = 30, *, kind: str = "steps") -> str:
    """The prompt for one user.

    Args:
        history_texts: what describes each training item, oldest first. Texts are data: each is cleaned,
            cut to `MAX_ITEM_CHARACTERS` and put on one line as a JSON string without "<", so it can
            neither end its line, its quotes nor the history.
        domain: one of `templates.DOMAINS`.
        history: how many of the most recent items are shown.
        kind: one of `templates.PROMPTS`.

    Raises:
        RelandError: an unknown domain or kind, or no item with any text.
    """
    check_domain(domain)
    check_prompt(kind)
    recent = list(history_texts)[-history:] if history > 0 else []
    shown = [shown_text(text) for raw in recent if (text := clean_title(raw, domain))]
    if not shown:
        raise RelandError(
            f"a prompt needs at least one item with a text; none of the last {history} items has one "
            "(see config.data.text_fields and config.pool.history)"
        )
    return filled(kind, domain, numbered(shown))


def newest_that_fit(shown: Sequence[str], template: str, domain: str, limit: TokenLimit | None) -> int:
    """Number of the newest texts that fit into a prompt within the limit; 0 if not even one does.

    Whole items are left out, oldest first, until the prompt fits. No item is cut.

    Args:
        shown: non-empty results of `shown_text`, oldest first.
        template: a name that `templates.filled` knows.
        domain: one of `templates.DOMAINS`.
        limit: None for no limit.
    """
    if limit is None:
        return len(shown)

    def too_long(count: int) -> bool:
        return not limit.allows(filled(template, domain, numbered(shown[len(shown) - count :])))

    # The result was tried, so it fits even if a tokenizer counts more text as fewer tokens.
    return bisect.bisect_left(range(1, len(shown) + 1), True, key=too_long)


def numbered(shown: Sequence[str]) -> str:
    """The data lines of a prompt: each text, as `shown_text` made it, numbered from 1 and quoted."""
    quoted = (json.dumps(text, ensure_ascii=False) for text in shown)
    return "\n".join(f"{number}. {text}" for number, text in enumerate(quoted, start=1))


def shown_text(text: str) -> str:
    """A cleaned text in the form of a prompt, without its quotes.

    On one line, at most `MAX_ITEM_CHARACTERS`, no "<".
    """
    line = one_line(text)
    if len(line) > MAX_ITEM_CHARACTERS:
        line = line[:MAX_ITEM_CHARACTERS].rsplit(" ", 1)[0] + " …"
    return line.replace("<", "‹")


def prompt_hash(prompt: str) -> str:
    """Hexadecimal SHA-256 of a prompt in UTF-8, 64 characters."""
    return hashlib.sha256(prompt.encode("utf-8")).hexdigest()
