"""Counting tokens: which tokenizer is used, and what is a bound."""

from __future__ import annotations

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import PoolConfig
from reland_jax.pool.prompting.tokens import (
    OPENAI_OVERHEAD,
    UNKNOWN_OVERHEAD,
    CharacterCounter,
    chat_bound,
    chat_tokens,
    token_counter,
)


def user(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


def test_characters() -> None:
    counter = token_counter(PoolConfig(tokenizer="characters"))
    assert (counter.exact, counter.name, counter.overhead) == (False, "characters", UNKNOWN_OVERHEAD)
    assert [counter.count("x" * n) for n in (0, 1, 3, 4, 300)] == [0, 1, 1, 2, 100]


def test_a_model_that_tiktoken_does_not_know_is_estimated() -> None:
    assert token_counter(PoolConfig(model="some-llm")) == CharacterCounter()


def test_openai_without_its_vocabulary_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once in a process, not for every prompt."""
    asked: list[str] = []

    def unreachable(model: str) -> None:
        asked.append(model)
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "encoding_for_model", unreachable)
    for _ in range(2):
        assert token_counter(PoolConfig(model="gpt-without-network")) == CharacterCounter()
    assert asked == ["gpt-without-network"]


def test_openai_with_its_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of text that looks like a special token, which tiktoken refuses to encode by default."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    made = tiktoken.Encoding(
        "toy", pat_str=r"\w+|\W+", mergeable_ranks=ranks, special_tokens={"<|end|>": 257}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", {"gpt-toy": made}.__getitem__)
    counter = token_counter(PoolConfig(model="gpt-toy"))
    assert (counter.exact, counter.name) == (True, "toy")
    assert counter.count("abab c") == 4 and counter.count("<|end|>") == 7
    assert chat_tokens(counter, user("abab c")) == 4 + OPENAI_OVERHEAD


@given(st.lists(st.text(st.characters(), max_size=50), min_size=1, max_size=3))
def test_the_bound_is_one_for_any_tokenizer_of_bytes(texts: list[str]) -> None:
    """The worst such tokenizer makes a token of every byte; the estimate may be too low, the bound not."""
    counter = CharacterCounter()
    worst = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert chat_bound(counter, user(*texts)) >= worst + counter.overhead * len(texts)
    assert chat_bound(counter, user(*texts)) >= chat_tokens(counter, user(*texts))


def test_the_estimate_is_no_bound_and_says_so() -> None:
    counter = CharacterCounter()
    assert not counter.exact
    assert chat_tokens(counter, user("字" * 300)) < 900 <= chat_bound(counter, user("字" * 300))
