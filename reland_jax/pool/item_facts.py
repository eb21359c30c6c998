"""What an LLM knows of every item: the factual half of KAR (arXiv 2306.10933), by the providers of the pool.

The other half, a text about every user, is a pool: `config.pool.prompt` "factors" with all users as seed
users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax.config import DataConfig, LLMConfig, PoolConfig
from reland_jax.plain import text_columns
from reland_jax.pool.build import pool_ledger
from reland_jax.pool.contract import NoAnswer, RationaleRequest
from reland_jax.pool.prompting.prompts import item_text, numbered, shown_text
from reland_jax.pool.prompting.requests import described_item
from reland_jax.pool.prompting.scrub import scrubber
from reland_jax.pool.providers import WITH_JOURNAL, make_provider
from reland_jax.pool.reading.answers import readable_steps
from reland_jax.pool.templates import FACTS, check_domain, filled
from reland_jax.types import Interactions, RelandError


class ItemFacts(NamedTuple):
    """Texts about items.

    Attributes:
        texts: ``<str>[I + 1]``, by dense item; "" for one without a text to ask by, or a usable answer.
        unanswered: items that were asked about in vain.
        ledger: see `pool_ledger`.
    """

    texts: np.ndarray
    unanswered: int
    ledger: Mapping[str, Any]


def fact_requests(interactions: Interactions, pool: PoolConfig, data: DataConfig) -> list[RationaleRequest]:
    """One prompt for every item that has a text, in the order of the items; "user_id" is the item's id.

    Args:
        interactions: external ids and the text fields of the items.
        pool: what is scrubbed out of titles.
        data: `text_fields` and `domain`.

    Raises:
        RelandError: the items have no text field.
    """
    check_domain(data.domain)
    columns = text_columns(interactions.item_features, data.text_fields)
    if not columns:
        raise RelandError(
            f"config.data.text_fields={data.text_fields} are not fields of the items, so an LLM cannot be "
            "told which item is meant"
        )
    scrub = scrubber(pool.scrub, pool.names, ())
    ids = interactions.ids.items.tolist()
    found = []
    for item in range(1, len(ids)):
        fields = {name: str(values[item]) for name, values in columns.items()}
        if text := shown_text(item_text(described_item(fields, data.domain, scrub))):
            found.append(RationaleRequest(str(ids[item]), filled(FACTS, data.domain, numbered([text]))))
    return found


def tell_items(
    requests: Sequence[RationaleRequest],
    interactions: Interactions,
    pool: PoolConfig,
    llm: LLMConfig,
    folder: str | Path,
) -> ItemFacts:
    """Asks about every item, once for equal prompts, or reads the answer from the journal.

    Args:
        requests: of `fact_requests`.
        interactions: external ids of the items.
        pool: the provider, which must ask an LLM.
        llm: limits, budget and journal.
        folder: of the journal.

    Raises:
        BudgetReached: the budget is used up; answers so far are in the journal.
        RelandError: the provider asks no LLM; or what it raises.
    """
    if pool.provider not in WITH_JOURNAL:
        raise RelandError(
            f"config.pool.provider={pool.provider!r} knows nothing about items; use "
            f"{' or '.join(WITH_JOURNAL)}"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    ask = make_provider(pool, llm, folder).answers
    assert ask is not None
    prompts = [each.prompt for each in requests]
    answers = ask(prompts, pool.max_tokens, lambda answer: _fault(answer, pool)) if prompts else []
    said = {
        request.user_id: "" if isinstance(answer, NoAnswer) else _read(answer, pool).step2
        for request, answer in zip(requests, answers, strict=True)
    }
    texts = np.array([said.get(str(each), "") for each in interactions.ids.items.tolist()], object)
    unanswered = sum(not text for text in said.values())
    return ItemFacts(texts, unanswered, pool_ledger(pool, llm, folder))


def _read(answer: str, pool: PoolConfig) -> Any:
    return readable_steps(answer, "factors", pool.any_script)


def _fault(answer: str, pool: PoolConfig) -> str:
    """What is wrong with an answer, "" for a usable one."""
    read = _read(answer, pool)
    return "" if read.step2 else "; ".join(read.problems) or "there is no text in it"
