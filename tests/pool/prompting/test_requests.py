"""From histories to requests: what every provider gets, the bound on tokens, and step 0 by an LLM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import DataConfig, LLMConfig, PoolConfig
from reland_jax.pool import build as build_module
from reland_jax.pool.asking.money import estimate
from reland_jax.pool.build import build_pool
from reland_jax.pool.contract import NoAnswer, ProviderResult, RationaleRequest
from reland_jax.pool.prompting.prompts import build_prompt
from reland_jax.pool.prompting.requests import PoolRequests, described_item, pool_requests
from reland_jax.pool.prompting.scrub import PHONE, scrubber
from reland_jax.pool.prompting.tokens import chat_tokens, token_counter
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions, Ragged, Rationale, RelandError, SeedSet, Splits
from tests.pool.prompt_lines import shown

USER_IDS = ("A1B2C3D4E5", "other-user-77", "12")
TITLES = (
    "",
    "Rose Soap free for all, ask me@example.com",
    "Wig of A1B2C3D4E5",
    "Plain Balm 5 oz",
    "",
    "Brush",
)
BRANDS = ("", "Acme", "", "Tel. 5550147", "", "")
TRAIN = ([1, 2, 3], [4, 5, 3, 1], [4])
NOTHING = np.zeros(0)


def interactions() -> Interactions:
    ids = IdMap(np.asarray(USER_IDS, object), np.asarray(["", *(f"i{n}" for n in range(1, 6))], object))
    features = {"title": np.asarray(TITLES, object), "brand": np.asarray(BRANDS, object)}
    return Interactions(NOTHING, NOTHING, NOTHING, ids, features, {})


def train() -> Ragged:
    lengths = [len(row) for row in TRAIN]
    return Ragged(np.cumsum([0, *lengths]).astype(np.int64), np.concatenate(TRAIN).astype(np.int32))


def seeds(*users: int) -> SeedSet:
    array = np.asarray(users, np.int32)
    return SeedSet(array, array * 10, np.ones(len(users), np.int8))


def make(*users: int, provider: Tidy | None = None, **config: Any) -> PoolRequests:
    chosen = PoolConfig(**{"tokenizer": "characters", **config})
    answers = provider.answers if provider else None
    return pool_requests(seeds(*users), train(), interactions(), chosen, DataConfig(), answers)


def test_names_are_cleaned_and_scrubbed_by_the_rules_of_their_domain() -> None:
    name, description = "Brand New - (212) 555-0147 &lt;Live&gt;", "Ask (212) 555-0147. Brand new!"
    fields = {"name": name, "description": description}
    scrub = scrubber(("phone",))
    music = described_item(fields, "music", scrub)
    assert music == {
        "name": "Brand New - (212) 555-0147 <Live>", "description": f"Ask {PHONE}. Brand new!",
    }  # fmt: skip
    products = described_item({**fields, "name": "Soap, brand new (212) 555-0147"}, "products", scrub)
    assert products == {"name": f"Soap, {PHONE}", "description": f"Ask {PHONE}."}


def test_a_name_survives_beside_other_fields() -> None:
    """What the rules kept in a title is not taken out when the fields stand on one line."""
    data = interactions()
    titles, brands = (["", "Best Seller (1987)", "nan", *[""] * 3], ["", "['A', 'B']", "x", *[""] * 3])
    data = data._replace(item_features={"Title": as_strings(titles), "brand": as_strings(brands)})
    made = pool_requests(seeds(0), train(), data, PoolConfig(), DataConfig())
    assert shown(made.requests[0].prompt) == ["Best Seller (1987); brand: A, B", "x"]
    assert made.requests[0].history[0] == {"title": "Best Seller (1987)", "brand": "A, B"}


class Tidy:
    """Answers step 0 by leaving out the words " free for all"; or with a fixed answer."""

    def __init__(self, answer: str | NoAnswer = "") -> None:
        self.answer, self.calls = answer, list[tuple[tuple[str, ...], int]]()

    def answers(
        self, prompts: Sequence[str], max_tokens: int, judge: Callable[[str], str]
    ) -> list[str | NoAnswer]:
        self.calls.append((tuple(prompts), max_tokens))
        if self.answer != "":
            return [self.answer] * len(prompts)
        titles = [shown(prompt, "titles") for prompt in prompts]
        answers = [
            "\n".join(f"{n}. {t.replace(' free for all', '')}" for n, t in enumerate(ts, 1)) for ts in titles
        ]
        assert not any(map(judge, answers))
        return answers

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        return ProviderResult([Rationale("", request.prompt, "") for request in requests], [])


def test_titles_are_cleaned_and_scrubbed_for_prompts_and_for_the_history() -> None:
    made = make(0, 1)
    assert shown(made.requests[0].prompt) == [
        "Rose Soap free for all, ask [email]; brand: Acme",
        "Wig of [user]",
        "Plain Balm 5 oz; brand: Tel. [phone]",
    ]
    assert made.requests[0].history[0] == {"title": "Rose Soap free for all, ask [email]", "brand": "Acme"}
    assert [request.user_id for request in made.requests] == ["A1B2C3D4E5", "other-user-77"]
    assert made.problems == [] and made.step0 == ()
    texts = [str((request.prompt, request.history)) for request in made.requests]
    assert not any(user in text for user in USER_IDS[:2] for text in texts)


def test_the_prompt_is_the_one_of_build_prompt() -> None:
    (request,) = make(1, scrub=(), prompt="direct").requests
    texts = ["", "Brush", "Plain Balm 5 oz; brand: Tel. 5550147", f"{TITLES[1]}; brand: Acme"]
    assert request.prompt == build_prompt(texts, "products", kind="direct")
    assert len(request.history) == 4


def test_seeds_stay_aligned_when_one_has_no_text() -> None:
    made = make(2, 1, 0)
    assert [request.user_id for request in made.requests] == ["other-user-77", "A1B2C3D4E5"]
    np.testing.assert_array_equal(made.seeds.user, [1, 0])
    np.testing.assert_array_equal(made.seeds.cluster, [10, 0])
    assert made.problems == [("12", "none of the last 30 training items has a text")]


def test_the_newest_training_items_are_shown_oldest_first() -> None:
    (whole,), (newest,) = make(1).requests, make(1, history=2).requests
    assert shown(newest.prompt) == shown(whole.prompt)[-2:] != shown(whole.prompt)[:2]
    assert newest.history == whole.history[-2:]


def test_the_bound_leaves_out_the_oldest_in_prompt_and_history() -> None:
    whole = make(1).requests[0]
    counter = token_counter(PoolConfig(tokenizer="characters"))
    tokens = chat_tokens(counter, [{"role": "user", "content": whole.prompt}])
    assert make(1, prompt_tokens=tokens).requests[0] == whole
    (cut,) = make(1, prompt_tokens=tokens - 1).requests
    assert shown(cut.prompt) == shown(whole.prompt)[1:] and cut.history == whole.history[2:]


def test_a_newest_item_that_does_not_fit_and_a_template_that_does_not() -> None:
    room = token_counter(PoolConfig(tokenizer="characters"))
    tokens = chat_tokens(room, [{"role": "user", "content": build_prompt(["a"], "products")}])
    with pytest.raises(RelandError, match=r"prompt_tokens=\d+ has no room for the template .*characters"):
        make(1, prompt_tokens=tokens - 1)
    made = make(1, prompt_tokens=tokens + 3)
    why = f"its newest item alone does not fit into config.pool.prompt_tokens={tokens + 3}"
    assert made.requests == [] and made.problems == [("other-user-77", why)]


def test_unknown_settings() -> None:
    with pytest.raises(RelandError, match="config.pool.prompt='step' is not known; did you mean 'steps'"):
        make(0, prompt="step")
    with pytest.raises(RelandError, match="config.pool.cleaning='LLM' is not known; .*llm"):
        make(0, cleaning="LLM")


def test_step_0_by_an_llm() -> None:
    tidy = Tidy()
    made = make(0, 1, cleaning="llm", provider=tidy)
    assert shown(made.requests[0].prompt)[0] == "Rose Soap, ask [email]; brand: Acme"
    assert made.requests[1].history[3] == {"title": "Rose Soap, ask [email]", "brand": "Acme"}
    assert made.requests[1].history[0] == {"title": "", "brand": ""}
    assert made.problems == []
    ((prompts, max_tokens),) = tidy.calls
    assert prompts == made.step0 and len(prompts) == 2 and max_tokens == 30 * 60
    assert not any(word in prompt for prompt in prompts for word in (*USER_IDS[:2], "@", "Acme"))


def test_whose_titles_a_prompt_of_step_0_shows() -> None:
    for provider in (None, Tidy()):
        made = make(0, 1, 2, cleaning="llm", provider=provider)
        assert list(made.step0_of) == list(USER_IDS[:2]) and tuple(made.step0_of.values()) == made.step0
    assert make(0).step0_of == {}


def test_no_room_for_step_0() -> None:
    """Its template is longer than the one of direct prompting."""
    room = token_counter(PoolConfig(tokenizer="characters"))
    tokens = chat_tokens(room, [{"role": "user", "content": make(0, prompt="direct").requests[0].prompt}])
    tidy = Tidy()
    made = make(0, cleaning="llm", prompt="direct", prompt_tokens=tokens, provider=tidy)
    assert tidy.calls == [] and made.step0 == () and len(made.requests) == 1
    assert [problem.why for problem in made.problems] == [
        "step 0 has no room for any title in config.pool.prompt_tokens; its titles are cleaned by rule"
    ]


def test_the_key_of_step_0_does_not_depend_on_the_other_seeds() -> None:
    one, both = Tidy(), Tidy()
    make(0, cleaning="llm", provider=one)
    make(0, 1, cleaning="llm", provider=both)
    assert one.calls[0][0] == both.calls[0][0][:1] and one.calls[0][1] == both.calls[0][1]


@pytest.mark.parametrize(
    "answer",
    [NoAnswer("late", True), NoAnswer("refused", False), "1. Rose Soap", "1. Gold\n2. Gold\n3. Gold", "no"],
)
def test_an_answer_that_is_not_used_leaves_the_titles_of_the_rules(answer: str | NoAnswer) -> None:
    made = make(0, cleaning="llm", provider=Tidy(answer))
    assert made.requests == make(0).requests
    (problem,) = made.problems
    user, why = problem
    assert problem.again == (answer == NoAnswer("late", True)), "only one that may come is asked for again"
    assert user == "A1B2C3D4E5" and why.startswith("step 0 ") and why.endswith("titles are cleaned by rule")


def test_a_dry_run_of_step_0_sends_nothing_and_counts_it() -> None:
    made = make(0, 1, cleaning="llm")
    assert made.requests == make(0, 1).requests and len(made.step0) == 2
    config = PoolConfig(tokenizer="characters", cleaning="llm")
    found = estimate(made.requests, config, LLMConfig(), step0=made.step0)
    assert (found.seeds, found.prompts, found.response_tokens) == (2, 4, 2 * 400 + 2 * 1800)


def test_build_asks_step_0_of_a_provider_that_can_and_says_so_of_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = train()
    nobody = Ragged(np.zeros(4, np.int64), np.zeros(0, np.int32))
    arguments = (np.ones((3, 2), np.float32), Splits(rows, nobody, nobody, 5, "ratio"), interactions())
    config = PoolConfig(cleaning="llm")

    pool, problems = build_pool(seeds(0), *arguments, config, DataConfig(), folder=tmp_path)
    assert [user for user, _ in problems] == [""] and "'heuristic' has no LLM for step 0" in problems[0].why
    rule = dataclasses.replace(config, cleaning="rule")
    same, _ = build_pool(seeds(0), *arguments, rule, DataConfig(), folder=tmp_path)
    assert list(pool.rationales) == list(same.rationales)

    monkeypatch.setattr(build_module, "make_provider", lambda *_: Tidy())
    pool, problems = build_pool(seeds(0), *arguments, config, DataConfig(), folder=tmp_path)
    assert problems == [] and "free for all" not in pool.rationales[0].step2
