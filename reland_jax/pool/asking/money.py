"""The cost of asking: the price table, the estimate in advance, the hard budget and the ledger.

Tokens are those of requests (prompt) and answers (response); money is in `config.llm.currency`. Prices are
settings and are never looked up: set those of your contract.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.answer_format import format_messages
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.step0 import answer_tokens
from reland_jax.pool.prompting.tokens import chat_tokens, token_counter
from reland_jax.types import RelandError

ASSUMED_TOKENS_PER_SECOND = 50.0
"""Tokens per second of one answer, assumed for the duration in an `Estimate`."""

_SNAPSHOT = re.compile(r"-(?:\d{4}|\d{8}|\d{4}-\d{2}-\d{2})$")
"""Date at the end of a model's name: the answer of "gpt-4o-mini" says it is "gpt-4o-mini-2024-07-18"."""

_MILLION = 1_000_000


class Price(NamedTuple):
    """Price of a million tokens.

    Attributes:
        prompt: of a million tokens read.
        response: of a million tokens written.
    """

    prompt: float
    response: float

    def of(self, prompt_tokens: int, response_tokens: int) -> float:
        """Price of this number of tokens."""
        return (self.prompt * prompt_tokens + self.response * response_tokens) / _MILLION


class Usage(NamedTuple):
    """The amount paid to one model, including rejected answers.

    Attributes:
        requests: answered requests.
        prompt_tokens: tokens read.
        response_tokens: tokens written.
    """

    requests: int
    prompt_tokens: int
    response_tokens: int


class Estimate(NamedTuple):
    """The estimated cost of asking, before anything is sent.

    Attributes:
        seeds: seed users about whom a rationale is wanted.
        prompts: distinct prompts, those of step 0 included; seed users with the same history share one.
        journalled: prompts among them that are answered already and cost nothing.
        prompt_tokens: of the unanswered prompts, each sent once. With `exact`, counted with the model's
            tokenizer (the chat format of each message is estimated), otherwise estimated. With an LLM for
            step 0, counted with the titles before step 0.
        response_tokens: upper bound, the longest allowed answer to every unanswered prompt.
        price: of these tokens, hence an upper bound but for prompts that are sent again after a malformed
            answer or a failure; None without a price for the model.
        seconds: a rough guess from `ASSUMED_TOKENS_PER_SECOND`, the concurrency, and the limits per minute.
        exact: whether the tokens of the prompts were counted with the model's own tokenizer.
    """

    seeds: int
    prompts: int
    journalled: int
    prompt_tokens: int
    response_tokens: int
    price: float | None
    seconds: float
    exact: bool


class BudgetReached(RelandError):
    """The budget has no room for another request; answers are kept, and asking can be continued.

    Attributes:
        spent_tokens: tokens paid.
        spent: money paid, None without a price.
        left: number of unanswered prompts.
    """

    def __init__(self, spent_tokens: int, spent: float | None, left: int, limits: str, currency: str) -> None:
        """Composes the message: what was spent, what is left, and how to continue."""
        self.spent_tokens, self.spent, self.left = spent_tokens, spent, left
        money = "" if spent is None else f" ({spent:.4f} {currency})"
        super().__init__(
            f"the budget is reached: {spent_tokens} tokens{money} were spent of {limits}, and the next "
            f"request might exceed it; {left} prompts are unanswered. Every answer so far is in the "
            "journal: raise the budget and run the same command again; it sends only the other prompts"
        )


class Budget:
    """The hard bound of `config.llm.budget_tokens` and `config.llm.budget` on one journal.

    Before a request is sent, its largest possible cost is reserved; when its answer arrives, the reservation
    is replaced by the real usage. The sum of spent and reserved never exceeds the limit, so neither does the
    spend, however many requests are pending, as long as each was reserved with an upper bound (`chat_bound`,
    `max_tokens`) that the server respects. For one thread of control (one asyncio loop).

    Attributes:
        spent_tokens: tokens paid so far, by earlier runs on the journal too.
        reserved_tokens: tokens of requests under way, at most.
    """

    def __init__(self, llm: LLMConfig, model: str, usage: Mapping[str, Usage] | None = None) -> None:
        """Starts from what the journal's earlier runs paid.

        Args:
            llm: the bounds and the prices.
            model: the model that will be asked.
            usage: model -> what was paid to it.

        Raises:
            RelandError: a limit that is not a positive finite number; or there is a limit on money, and the
                model or one in `usage` has no price.
        """
        for name in ("budget_tokens", "budget"):
            value = getattr(llm, name)
            if value is not None and not 0 < value < math.inf:  # not a number compares with nothing
                raise RelandError(
                    f"config.llm.{name}={value} is not a limit; use a number above 0, or None for no limit"
                )
        paid = usage or {}
        costs = {name: _cost(name, used, llm) for name, used in paid.items()}
        self._llm, self._price = llm, price_of(model, llm.prices)
        unknown = [model] if self._price is None else [name for name, cost in costs.items() if cost is None]
        if llm.budget and unknown:
            raise RelandError(
                f"config.llm.budget={llm.budget} bounds the money, but {unknown[0]!r} has no price; add "
                f"'{unknown[0]}=PROMPT/RESPONSE' (per million tokens) to config.llm.prices"
            )
        self._before = None if unknown else float(sum(cost for cost in costs.values() if cost is not None))
        self.spent_tokens = sum(used.prompt_tokens + used.response_tokens for used in paid.values())
        self._used = self._reserved = (0, 0)

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the requests under way, at most."""
        return sum(self._reserved)

    @property
    def spent(self) -> float | None:
        """Money paid so far, by earlier runs on the journal too; None if a model has no price."""
        return self._cost_with((0, 0))

    def reserve(self, prompt_tokens: int, response_tokens: int) -> bool:
        """Reserves the largest cost of one request; returns False, without reserving, if there is no room.

        While other requests are pending, their settling may make room: try again then. If none is pending,
        the budget is reached (`reached`).
        """
        tokens = self.spent_tokens + self.reserved_tokens + prompt_tokens + response_tokens
        if self._llm.budget_tokens and tokens > self._llm.budget_tokens:
            return False
        reserved = _sum(self._reserved, (prompt_tokens, response_tokens))
        cost = self._cost_with(reserved)
        if self._llm.budget and (cost is None or cost > self._llm.budget):
            return False
        self._reserved = reserved
        return True

    def settle(self, reserved: tuple[int, int], used: tuple[int, int] | None) -> None:
        """Ends a reservation.

        Args:
            reserved: prompt and response tokens that were reserved.
            used: prompt and response tokens that the server reports; (0, 0) for a request that certainly
                cost nothing (refused before it was read); None where it is not known what was paid (a
                time-out, a connection lost, an answer without usage): then all of the reservation counts.
        """
        paid = reserved if used is None else used
        self._reserved = _sum(self._reserved, (-reserved[0], -reserved[1]))
        self._used = _sum(self._used, paid)
        self.spent_tokens += sum(paid)

    def _cost_with(self, reserved: tuple[int, int]) -> float | None:
        """Money spent, and `reserved` tokens more."""
        if self._before is None or self._price is None:
            return None
        return self._before + self._price.of(*_sum(self._used, reserved))

    def reached(self, left: int) -> BudgetReached:
        """The error to raise if `reserve` fails while no request is pending."""
        limits = []
        if self._llm.budget_tokens:
            limits.append(f"config.llm.budget_tokens={self._llm.budget_tokens}")
        if self._llm.budget:
            limits.append(f"config.llm.budget={self._llm.budget} {self._llm.currency}")
        return BudgetReached(self.spent_tokens, self.spent, left, " and ".join(limits), self._llm.currency)


def price_of(model: str, prices: Sequence[str]) -> Price | None:
    """The price of a model, None where the table does not have it.

    A name with a date at its end ("gpt-4o-mini-2024-07-18") has the price of the name without, unless
    the table has it itself.

    Args:
        model: the name asked for, or the name an answer says.
        prices: ``MODEL=PROMPT/RESPONSE`` each, the prices of a million tokens.

    Raises:
        RelandError: an entry that cannot be read, or a model with two prices.
    """
    table: dict[str, Price] = {}
    for entry in prices:
        name, price = _entry(entry)
        if name in table:
            raise RelandError(f"config.llm.prices has two prices for {name!r}; keep one")
        table[name] = price
    return table.get(model, table.get(_SNAPSHOT.sub("", model)))


def estimate(
    requests: Sequence[RationaleRequest],
    config: PoolConfig,
    llm: LLMConfig,
    answered: Collection[str] = (),
    step0: Sequence[str] = (),
) -> Estimate:
    """The expected cost of these requests; nothing is sent.

    Args:
        requests: one per seed user.
        config: model, tokenizer and `max_tokens`.
        llm: prices, concurrency and limits per minute.
        answered: `prompt_hash` of every prompt that the journal has an accepted answer to, given by this
            model with these settings.
        step0: distinct prompts of step 0 by an LLM, none with `config.cleaning` "rule".

    Raises:
        RelandError: a malformed price.
    """
    counter, done, schema = token_counter(config), frozenset(answered), format_messages(config)
    # Each prompt with the longest answer to it.
    prompts = dict.fromkeys((request.prompt for request in requests), config.max_tokens)
    prompts |= dict.fromkeys(step0, answer_tokens(config.history, config.max_tokens))
    todo = {prompt: longest for prompt, longest in prompts.items() if prompt_hash(prompt) not in done}
    in_fields = {request.prompt for request in requests}
    read = sum(
        chat_tokens(counter, [{"role": "user", "content": prompt}, *(schema if prompt in in_fields else ())])
        for prompt in todo
    )
    written = sum(todo.values())
    price = price_of(config.model, llm.prices)
    return Estimate(
        seeds=len(requests),
        prompts=len(prompts),
        journalled=len(prompts) - len(todo),
        prompt_tokens=read,
        response_tokens=written,
        price=None if price is None else price.of(read, written),
        seconds=_seconds(len(todo), read, written, llm),
        exact=counter.exact,
    )


def ledger(usage: Mapping[str, Usage], llm: LLMConfig) -> dict[str, Any]:
    """The cost by a journal, for `results.json`: the sum, and by model.

    "cost" is None for a model without a price, and for the sum if any of its models has none.
    """
    models = {
        name: {**used._asdict(), "cost": _cost(name, used, llm)} for name, used in sorted(usage.items())
    }
    costs = [entry["cost"] for entry in models.values()]
    total = {field: sum(entry[field] for entry in models.values()) for field in Usage._fields}
    total["cost"] = None if None in costs else float(sum(costs))
    return {**total, "currency": llm.currency, "models": models}


def _entry(entry: str) -> tuple[str, Price]:
    name, separator, values = entry.rpartition("=")
    try:
        prompt, response = (float(value) for value in values.split("/"))
    except ValueError:
        prompt = response = math.nan
    if not (separator and name.strip() and 0 <= prompt < math.inf and 0 <= response < math.inf):
        raise RelandError(
            f"config.llm.prices: {entry!r} is not a price; write MODEL=PROMPT/RESPONSE with two prices per "
            "million tokens, as in gpt-4o-mini=0.15/0.60"
        )
    return name.strip(), Price(prompt, response)


def _cost(model: str, used: Usage, llm: LLMConfig) -> float | None:
    price = price_of(model, llm.prices)
    return None if price is None else price.of(used.prompt_tokens, used.response_tokens)


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _seconds(requests: int, read: int, written: int, llm: LLMConfig) -> float:
    """The slowest of: answers written at the assumed speed, requests per minute, tokens per minute."""
    at_a_time = min(llm.concurrency, max(requests, 1))
    times = [written / (at_a_time * ASSUMED_TOKENS_PER_SECOND)]
    times += [60 * requests / llm.requests_per_minute] if llm.requests_per_minute else []
    times += [60 * (read + written) / llm.tokens_per_minute] if llm.tokens_per_minute else []
    return float(max(times))
