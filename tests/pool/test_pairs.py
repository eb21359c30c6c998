"""Chats of a pool: what they hold, what the writer was given, and the division into two parts."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.config import PoolConfig
from reland_jax.pool.pairs import OTHER, SAME, UNKNOWN, ChatPair, chat_pairs, parts_of
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.requests import pool_requests
from reland_jax.types import Rationale, ReasoningPool, RelandError
from tests.pool.test_build import DIM, PRODUCTS, USER_IDS, seeds_of, world


def test_a_chat_is_the_prompt_of_today_and_both_steps() -> None:
    """User 5 has no text to show; no id and no held-out item is in a chat."""
    interactions, splits, _ = world()
    seeds = seeds_of(5, 2, 0, 3)
    made = pool_requests(seeds, splits.train, interactions, PoolConfig(), PRODUCTS)
    hashes = ["", prompt_hash(made.requests[0].prompt), "", "0" * 64]
    said = [Rationale("Likes it.", f"Buy {n}.", "raw", digest, "m") for n, digest in enumerate(hashes)]
    found = chat_pairs(ReasoningPool(seeds, np.zeros((4, DIM), np.float32), said), made)
    assert [each.writer for each in found] == [SAME, UNKNOWN, OTHER]
    assert [each.items for each in found] == [5, 5, 5]
    system, user, assistant = found[0].messages()
    assert [system["role"], user["role"], assistant["role"]] == ["system", "user", "assistant"]
    assert assistant["content"] == "Step 1: Likes it.\nStep 2: Buy 1."
    assert all(f"Title{item}" in user["content"] for item in range(3, 8))
    assert "Title8" not in user["content"] and "Title9" not in user["content"]
    assert not any(name in str(each) for each in found for name in USER_IDS)


def test_parts_keep_equal_prompts_together() -> None:
    pairs = [ChatPair(f"p{n % 20}", "", 1, UNKNOWN, "") for n in range(60)]
    train, valid = parts_of(pairs, 0.1)
    assert sorted([*train, *valid]) == list(range(60)) and len(valid) == 6
    assert not {pairs[row].prompt for row in train} & {pairs[row].prompt for row in valid}
    fewer = parts_of(pairs[:2], 0.9)
    assert [len(each) for each in fewer] == [1, 1]
    for some, share in ((pairs[:1], 0.1), (pairs, 0.0), (pairs, 1.0)):
        with pytest.raises(RelandError, match="cannot be divided"):
            parts_of(some, share)
