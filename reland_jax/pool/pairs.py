"""Prompts with the answers of a pool as chats: what a small LLM learns to write rationales from.

SLIM (arXiv 2403.04260) distils a large LLM into a small one, which then writes for every user. Training it is
left to any trainer of adapters that reads chats; this makes the chats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.requests import PoolRequests
from reland_jax.types import ReasoningPool, RelandError

SYSTEM = "You sum up the taste of one person from what this person had, then recommend what fits it."
SAME, OTHER, UNKNOWN = "the same prompt", "another prompt", "not known"
"""What the writer of an answer was given, beside the prompt of the chat."""


class ChatPair(NamedTuple):
    """A prompt and its answer; no user id is in it.

    Attributes:
        prompt: of today's template and settings, from training items alone.
        answer: both steps, as they were read of what the LLM wrote.
        items: how many items the prompt shows.
        writer: `SAME`, `OTHER` or `UNKNOWN`.
        model: who wrote the answer, "" where not known.
    """

    prompt: str
    answer: str
    items: int
    writer: str
    model: str

    def messages(self) -> list[dict[str, str]]:
        """As chats are written: system, user, assistant."""
        said = (("system", SYSTEM), ("user", self.prompt), ("assistant", self.answer))
        return [{"role": role, "content": content} for role, content in said]


def chat_pairs(pool: ReasoningPool, made: PoolRequests) -> list[ChatPair]:
    """The pairs of a pool, in its order.

    Args:
        pool: rationales.
        made: the prompts about its seed users; those without a text to show are left out there.
    """
    rows = {user: row for row, user in enumerate(pool.seeds.user.tolist())}
    found = []
    for user, request in zip(made.seeds.user.tolist(), made.requests, strict=True):
        one = pool.rationales[rows[user]]
        answer = "\n".join(
            f"Step {number}: {text}" for number, text in enumerate((one.step1, one.step2), 1) if text
        )
        told = UNKNOWN
        if one.prompt_hash:
            told = SAME if one.prompt_hash == prompt_hash(request.prompt) else OTHER
        items = sum(any(fields.values()) for fields in request.history)
        found.append(ChatPair(request.prompt, answer, items, told, one.model))
    return found


def parts_of(pairs: Sequence[ChatPair], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation, ``<int64>[n]`` each, in order.

    Equal prompts are in one part. Which it is depends on the prompt alone, so a pool that grows keeps its
    parts but for few.

    Args:
        pairs: at least two different prompts.
        share: of the prompts, for validation; at least one is.

    Raises:
        RelandError: there are fewer than two prompts, or the share is not between 0 and 1.
    """
    hashes = np.array([prompt_hash(each.prompt) for each in pairs])
    distinct = np.unique(hashes)
    if not 0 < share < 1 or len(distinct) < 2:
        raise RelandError(
            f"{len(distinct)} prompts cannot be divided with a share of {share} for validation; at least two "
            "are needed, and a share between 0 and 1"
        )
    count = min(max(1, round(share * len(distinct))), len(distinct) - 1)
    chosen = np.isin(hashes, distinct[:count])
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
