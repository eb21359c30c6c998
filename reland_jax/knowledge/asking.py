"""Texts of knowledge, by the providers of the reasoning pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.knowledge.facts import ScenarioFacts, UserFacts
from reland_jax.knowledge.prompts import scenario_prompt, user_prompt
from reland_jax.knowledge.sentences import scenario_text, user_text
from reland_jax.pool import make_provider, pool_ledger
from reland_jax.pool.contract import NoAnswer
from reland_jax.types import RelandError

_FEWEST_WORDS = 8


class Told(NamedTuple):
    """Texts of knowledge.

    Attributes:
        scenarios: one for each scenario.
        users: one for each user; "" for one without a click, or without a usable answer.
        writer: who wrote them, in words.
        unanswered: users whose prompt has no usable answer.
        ledger: calls, tokens and cost by the journal, see `pool_ledger`; {} where no LLM was asked.
    """

    scenarios: list[str]
    users: list[str]
    writer: str
    unanswered: int
    ledger: Mapping[str, Any]


def tell(
    scenarios: Sequence[ScenarioFacts],
    users: Sequence[UserFacts],
    pool: PoolConfig,
    llm: LLMConfig,
    folder: str | Path,
    descriptions: Mapping[str, str] | None = None,
) -> Told:
    """Writes of every scenario and of every user who clicked, each in one call or from the journal.

    Args:
        scenarios: facts of all scenarios.
        users: facts of those who are wanted.
        pool: the provider; with `heuristic` no LLM is asked.
        llm: limits, budget and journal.
        folder: of the journal.
        descriptions: of scenarios, by name.

    Raises:
        BudgetReached: the budget is used up; answers so far are in the journal.
        RelandError: the provider writes no such texts; a scenario has no usable answer.
    """
    told = descriptions or {}
    if pool.provider == "heuristic":
        texts = [scenario_text(each, scenarios, told.get(each.name, "")) for each in scenarios]
        return Told(texts, [user_text(each) for each in users], "from counts, no LLM", 0, {})
    if pool.provider not in ("openai", "batch"):
        raise RelandError(
            f"config.pool.provider={pool.provider!r} writes nothing about scenarios; use heuristic, "
            "openai or batch, or give vectors by config.knowledge.path"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ask = make_provider(pool, llm, folder).answers
    assert ask is not None
    asked = [each for each in users if each.clicked]
    prompts = [scenario_prompt(place, scenarios, descriptions) for place in range(len(scenarios))]
    answers = ask([*prompts, *map(user_prompt, asked)], pool.max_tokens, _fault)
    about = [_text_of(scenario, answer) for scenario, answer in zip(scenarios, answers, strict=False)]
    found = {each.user: answer for each, answer in zip(asked, answers[len(scenarios) :], strict=True)}
    said = [found.get(each.user, "") for each in users]
    texts = ["" if isinstance(each, NoAnswer) else each for each in said]
    unanswered = sum(isinstance(each, NoAnswer) for each in said)
    return Told(about, texts, f"{pool.model} ({pool.provider})", unanswered, pool_ledger(pool, llm, folder))


def _text_of(scenario: ScenarioFacts, answer: str | NoAnswer) -> str:
    if isinstance(answer, NoAnswer):
        raise RelandError(f"scenario {scenario.name!r} has no usable answer: {answer.why}")
    return answer


def _fault(answer: str) -> str:
    """What is wrong with an answer, "" for a usable one."""
    words = len(answer.split())
    return "" if words >= _FEWEST_WORDS else f"it has {words} words; at least {_FEWEST_WORDS} are needed"
