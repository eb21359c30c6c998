"""Money: prices, the estimate against counting by hand, and a budget that no order of events exceeds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import Config, LLMConfig, PoolConfig
from reland_jax.pool.asking.money import Budget, BudgetReached, Price, Usage, estimate, ledger, price_of
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.tokens import UNKNOWN_OVERHEAD
from reland_jax.types import RelandError

PRICES = ("small=1/2", "small-mini=10/20", "odd-2024-01-01=3/4", "org/model=x=0.5/0")


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("small", Price(1, 2)),
        ("small-2024-07-18", Price(1, 2)),
        ("small-0125", Price(1, 2)),
        ("small-mini", Price(10, 20)),
        ("small-mini-20240718", Price(10, 20)),
        ("odd-2024-01-01", Price(3, 4)),
        ("odd", None),
        ("small-large", None),
        ("sma", None),
        ("org/model=x", Price(0.5, 0)),
    ],
)
def test_price_of(model: str, price: Price | None) -> None:
    assert price_of(model, PRICES) == price


@pytest.mark.parametrize(
    "entry", ["m", "m=1", "m=1/2/3", "m=a/b", "=1/2", "m=-1/2", "m=nan/1", "m=1/inf", ""]
)
def test_a_price_that_cannot_be_read(entry: str) -> None:
    with pytest.raises(
        RelandError, match=r"config\.llm\.prices: .* is not a price; write MODEL=PROMPT/RESPONSE"
    ):
        price_of("other", [entry])


def test_two_prices_for_one_model() -> None:
    with pytest.raises(RelandError, match="two prices for 'm'"):
        price_of("m", ["m=1/2", "m=1/2"])


def test_the_estimate_by_hand() -> None:
    """Three seeds, two distinct prompts, one of them answered; and one prompt of step 0."""
    requests = [RationaleRequest(user, user[0] * 30 * len(user)) for user in ("x", "yy", "x")]
    config = PoolConfig(tokenizer="characters", model="small", max_tokens=100, history=5, answers="text")
    llm = LLMConfig(prices=PRICES, concurrency=4)
    found = estimate(requests, config, llm, [prompt_hash("x" * 30), prompt_hash("of other data")], ["z" * 90])
    read, written = 20 + 30 + 2 * UNKNOWN_OVERHEAD, 100 + 5 * 60
    assert found == (3, 3, 1, read, written, pytest.approx((read + 2 * written) / 1e6), 4.0, False)


def test_the_time_of_an_estimate_is_the_slowest_limit() -> None:
    requests = [RationaleRequest(str(n), f"{n:03}") for n in range(120)]
    config = PoolConfig(tokenizer="characters", max_tokens=50, answers="text")
    assert estimate(requests, config, LLMConfig(concurrency=60)).seconds == 2
    assert estimate(requests, config, LLMConfig(concurrency=60, requests_per_minute=60)).seconds == 120
    tokens = 120 * (50 + 1 + UNKNOWN_OVERHEAD)
    assert estimate(requests, config, LLMConfig(tokens_per_minute=tokens // 2)).seconds == 120
    nothing = estimate([], config, LLMConfig())
    assert (nothing.prompts, nothing.price, nothing.seconds) == (0, 0, 0)
    assert estimate(requests, config, LLMConfig(prices=())).price is None


def test_a_budget_step_by_step() -> None:
    budget = Budget(LLMConfig(budget_tokens=100), "m")
    assert budget.reserve(30, 20) and budget.reserve(30, 20) and not budget.reserve(1, 0)
    assert (budget.spent_tokens, budget.reserved_tokens, budget.spent) == (0, 100, None)
    budget.settle((30, 20), (25, 5))
    assert (budget.spent_tokens, budget.reserved_tokens) == (30, 50)
    assert budget.reserve(10, 10) and not budget.reserve(1, 0)
    budget.settle((10, 10), None)  # a time-out: it may have been paid
    budget.settle((30, 20), (0, 0))  # refused
    assert (budget.spent_tokens, budget.reserved_tokens) == (50, 0)


@pytest.mark.parametrize("name", ["budget", "budget_tokens"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, -0.5, float("-inf")])
def test_a_budget_that_is_no_limit_is_refused(name: str, value: float) -> None:
    with pytest.raises(RelandError, match=f"config.llm.{name}={value} is not a limit"):
        Budget(LLMConfig(**{name: value, "prices": ("m=1/2",)}), "m")
    with pytest.raises(RelandError, match=f"config.llm.{name}="):
        Config.from_dict({"llm": {name: value}})


def test_no_bound() -> None:
    budget = Budget(LLMConfig(), "m")
    assert all(budget.reserve(10**9, 10**9) for _ in range(5))


def test_earlier_runs_count() -> None:
    paid = {"small-2024-07-18": Usage(3, 400_000, 50_000), "small-mini": Usage(1, 10_000, 0)}
    budget = Budget(LLMConfig(budget=0.7, prices=PRICES), "small", paid)
    assert budget.spent_tokens == 460_000 and budget.spent == pytest.approx(0.4 + 0.1 + 0.1)
    assert not budget.reserve(100_001, 0) and not budget.reserve(0, 50_001) and budget.reserve(90_000, 0)
    assert not Budget(LLMConfig(budget_tokens=460_000), "small", paid).reserve(1, 0)


def test_money_without_a_price() -> None:
    with pytest.raises(
        RelandError, match="budget=1.0 bounds the money, but 'big' has no price; add 'big=PROMPT"
    ):
        Budget(LLMConfig(budget=1.0, prices=PRICES), "big")
    with pytest.raises(RelandError, match="'older' has no price"):
        Budget(LLMConfig(budget=1.0, prices=PRICES), "small", {"older": Usage(1, 1, 1)})
    assert Budget(LLMConfig(prices=PRICES), "small", {"older": Usage(1, 1, 1)}).spent is None


def test_the_message_of_a_reached_budget() -> None:
    budget = Budget(LLMConfig(budget=0.5, budget_tokens=9, prices=PRICES, currency="EUR"), "small")
    assert budget.reserve(4, 4)
    budget.settle((4, 4), (4, 4))
    assert not budget.reserve(1, 1)
    reached = budget.reached(left=7)
    assert isinstance(reached, BudgetReached) and isinstance(reached, RelandError)
    assert (reached.spent_tokens, reached.left) == (8, 7) and reached.spent == pytest.approx(12e-6)
    for part in ("8 tokens (0.0000 EUR)", "budget_tokens=9", "budget=0.5 EUR", "7 prompts", "same command"):
        assert part in str(reached)


@given(st.integers(0, 2**32), st.integers(1, 3000), st.floats(1e-6, 0.01), st.integers(1, 40))
def test_the_spend_never_exceeds_the_bounds(seed: int, tokens: int, money: float, at_a_time: int) -> None:
    """Whatever the order of answers, time-outs and refusals, with many requests under way."""
    rng = random.Random(seed)
    llm = LLMConfig(budget_tokens=tokens, budget=money, prices=("m=1.7/3.1",))
    budget, under_way = Budget(llm, "m"), list[tuple[int, int]]()
    paid = [0, 0]
    for _ in range(300):
        most = (rng.randrange(200), rng.randrange(100))
        if len(under_way) < at_a_time and budget.reserve(*most):
            under_way.append(most)
        elif under_way:
            most = under_way.pop(rng.randrange(len(under_way)))
            really = (rng.randint(0, most[0]), rng.randint(0, most[1]))
            paid = [paid[0] + really[0], paid[1] + really[1]]
            budget.settle(most, rng.choice([really, None]))
        # What is under way may be paid in full at any moment.
        worst = [paid[i] + sum(most[i] for most in under_way) for i in (0, 1)]
        assert sum(worst) <= tokens and (1.7 * worst[0] + 3.1 * worst[1]) / 1e6 <= money * (1 + 1e-12)
        assert sum(paid) <= budget.spent_tokens <= tokens


def test_ledger() -> None:
    usage = {"small": Usage(2, 1_000_000, 500_000), "a": Usage(1, 10, 20)}
    found = ledger(usage, LLMConfig(prices=("small=1/2", "a=0/0")))
    assert list(found["models"]) == ["a", "small"]
    assert found["models"]["small"] == {
        "requests": 2, "prompt_tokens": 1_000_000, "response_tokens": 500_000, "cost": 2.0
    }  # fmt: skip
    total = {name: found[name] for name in ("requests", "prompt_tokens", "response_tokens", "cost")}
    assert total == {"requests": 3, "prompt_tokens": 1_000_010, "response_tokens": 500_020, "cost": 2.0}
    assert found["currency"] == "USD"
    unknown = ledger(usage, LLMConfig(prices=("small=1/2",)))
    assert unknown["cost"] is None and unknown["models"]["a"]["cost"] is None
    assert ledger({}, LLMConfig())["cost"] == 0
