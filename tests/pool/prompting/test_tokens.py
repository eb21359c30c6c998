"""Counting tokens: which tokenizer is used, and what is a bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import PoolConfig
from reland_jax.pool.prompting.tokens import (
    OPENAI_OVERHEAD,
    UNKNOWN_OVERHEAD,
    CharacterCounter,
    TokenCounter,
    chat_bound,
    chat_tokens,
    token_counter,
)
from reland_jax.types import RelandError

WORDS = {"[UNK]": 0, "buy": 1, "soap": 2, "<u>": 3, "</u>": 4, "<a>": 5}


def tokenizer_folder(folder: Path, chat_template: str | None = None) -> str:
    """A word-level tokenizer in the Hugging Face layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(WORDS, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    settings |= {"chat_template": chat_template} if chat_template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


def user(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


def test_characters() -> None:
    counter = token_counter(PoolConfig(tokenizer="characters"))
    assert (counter.exact, counter.name, counter.overhead) == (False, "characters", UNKNOWN_OVERHEAD)
    assert [counter.count("x" * n) for n in (0, 1, 3, 4, 300)] == [0, 1, 1, 2, 100]


def test_a_folder_with_a_tokenizer(tmp_path: Path) -> None:
    counter = token_counter(PoolConfig(tokenizer=tokenizer_folder(tmp_path)))
    assert counter.exact and counter.count("buy soap now") == 3
    assert chat_tokens(counter, user("buy soap", "now")) == 3 + 2 * UNKNOWN_OVERHEAD


def test_the_folder_of_a_local_model_has_its_tokenizer(tmp_path: Path) -> None:
    """And the chat format is that of its chat template: here three tokens around each message."""
    template = "{% for m in messages %}<u> {{ m.content }} </u>{% endfor %} <a>"
    model = tokenizer_folder(tmp_path, template)
    counter = token_counter(PoolConfig(model=model))
    assert (counter.exact, counter.name, counter.overhead) == (True, model, 3)
    assert chat_tokens(counter, user("buy soap")) == 5 == chat_bound(counter, user("buy soap"))


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    for name in (str(tmp_path), str(tmp_path / "nothing")):
        with pytest.raises(RelandError, match="config.pool.tokenizer='.*cannot be read.*'characters'"):
            token_counter(PoolConfig(tokenizer=name))


def test_openai_without_its_vocabulary_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once in a process, not for every prompt."""
    tiktoken = pytest.importorskip("tiktoken")
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
    tiktoken = pytest.importorskip("tiktoken")
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
    counter: TokenCounter = CharacterCounter()
    assert not counter.exact
    assert chat_tokens(counter, user("字" * 300)) < 900 <= chat_bound(counter, user("字" * 300))
