"""What KAR and SLIM would ask an LLM about a data set: prompts and tokens, counted and not sent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reland_jax.types import REPRESENTATIVE, SeedSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reland_jax.config import Config
    from reland_jax.pool import RationaleRequest

ANSWER_TOKENS = 172
"""Expected of an answer: the mean of the pools of docs/pool.md."""


def would_ask(config: Config) -> dict[str, Any]:
    """Distinct prompts and tokens of one set of texts, by method; equal prompts share an answer.

    KAR asks about every user and every item, along factors; SLIM about every user, in steps. Tokens of
    prompts are counted as `config.pool` says, those of answers are `ANSWER_TOKENS` each.

    Args:
        config: data, split and pool.

    Raises:
        RelandError: bad data, or items without texts.
    """
    from reland_jax.data import load_interactions, split
    from reland_jax.pool.item_facts import fact_requests
    from reland_jax.pool.prompting.requests import pool_requests

    interactions = load_interactions(config.data)
    train = split(interactions, config.data.protocol, config.data.validation_from).train
    everyone = np.flatnonzero(train.lengths()).astype(np.int32)
    users = SeedSet(everyone, np.zeros_like(everyone), np.full(len(everyone), REPRESENTATIVE, np.int8))
    pool = dataclasses.replace(config.pool, provider="heuristic", path=None, cleaning="rule")
    asked = {
        kind: pool_requests(
            users, train, interactions, dataclasses.replace(pool, prompt=kind), config.data
        ).requests
        for kind in ("factors", "steps")
    }
    items = fact_requests(interactions, pool, config.data)
    methods = {"kar": [*asked["factors"], *items], "slim": asked["steps"]}
    counted = {method: _counted(requests, config) for method, requests in methods.items()}
    return {"asked": counted, "dataset": Path(config.data.name).name}


def _counted(requests: Sequence[RationaleRequest], config: Config) -> dict[str, int]:
    from reland_jax.pool.asking.money import estimate

    found = estimate(requests, dataclasses.replace(config.pool, answers="text"), config.llm)
    return {"prompts": found.prompts, "tokens": found.prompt_tokens + ANSWER_TOKENS * found.prompts}
