"""From texts to vectors: against sentence-transformers, and the properties of batching and caching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.config import TextConfig
from reland_jax.text import check_texts, encode, encode_texts, load_encoder
from reland_jax.text.checkpoint import Pooling
from reland_jax.text.encode import plan_batches, pool, run_encoder
from reland_jax.types import RelandError

TEXTS = ["w1", "w2 w3 w4 w5 w6", "", "w7 " * 18, "w2 w3", "w1", "  \n", "w9 unknown"]


def config_of(folder: Path, **changes: Any) -> TextConfig:
    return TextConfig(encoder=str(folder), **({"max_tokens": 24} | changes))


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of texts whenever the encoder runs."""
    counts: list[int] = []

    def counted(encoder: encode.TextEncoder, token_ids: list[list[int]], batch_size: int) -> np.ndarray:
        counts.append(len(token_ids))
        return run_encoder(encoder, token_ids, batch_size)

    monkeypatch.setattr(encode, "run_encoder", counted)
    return counts


def test_minilm_is_what_sentence_transformers_computes(repository: Path) -> None:
    with np.load(repository / "tests" / "golden" / "bert_minilm.npz") as golden:
        sentences, expected, tokens = (golden[name] for name in ("sentences", "vectors", "tokens"))
    encoder = load_encoder(TextConfig())
    assert [len(ids) for ids in encoder.tokenise(list(sentences))] == list(tokens)
    found = encode_texts(list(sentences), TextConfig(), cache_dir=None)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_empty_and_repeated_texts(tiny_folder: Path) -> None:
    vectors = encode_texts(TEXTS, config_of(tiny_folder), cache_dir=None)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 32)
    assert not vectors[[2, 6]].any()
    assert np.isfinite(vectors).all() and np.abs(vectors[[0, 1, 3, 4, 5, 7]]).max(axis=1).min() > 0
    np.testing.assert_array_equal(vectors[0], vectors[5])


@pytest.mark.parametrize("texts", [[], ["", " "]])
@pytest.mark.parametrize("cached", [False, True])
def test_no_text_at_all(tiny_folder: Path, tmp_path: Path, texts: list[str], cached: bool) -> None:
    vectors = encode_texts(texts, config_of(tiny_folder), tmp_path / "cache" if cached else None)
    np.testing.assert_array_equal(vectors, np.zeros((len(texts), 32), np.float32))


def test_a_text_alone_is_the_same_as_in_a_batch(tiny_folder: Path) -> None:
    """To the last bit, or a cache would hold other vectors than a run without one makes."""
    config = config_of(tiny_folder)
    together = encode_texts(TEXTS, config, cache_dir=None)
    alone = np.concatenate([encode_texts([text], config, cache_dir=None) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    backwards = encode_texts(TEXTS[::-1], config, cache_dir=None)[::-1]
    np.testing.assert_array_equal(together, backwards)
    many = encode_texts([*TEXTS, *(f"w1 w{number}" for number in range(1, 40))], config, cache_dir=None)
    np.testing.assert_array_equal(together, many[: len(TEXTS)])
    assert np.linalg.norm(together[1] - together[4]) > 0.1, "different texts must differ"


def test_tokens_beyond_the_longest_are_not_read(tiny_folder: Path) -> None:
    first, same, other = encode_texts(
        ["w1 w2 w3 w4 w5", "w1 w2 w3 w9", "w1 w2 w4"], config_of(tiny_folder, max_tokens=5), cache_dir=None
    )
    np.testing.assert_allclose(first, same, atol=1e-6)
    assert np.linalg.norm(first - other) > 0.1


def test_half_a_surrogate_pair_is_encoded(tiny_folder: Path, tmp_path: Path) -> None:
    vectors = encode_texts(["w1 \ud83d w2", "w1 ? w2"], config_of(tiny_folder), tmp_path / "cache")
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_a_cached_text_does_not_run_the_encoder(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, counts = config_of(tiny_folder), count_encoded(monkeypatch)
    first = encode_texts(TEXTS, config, tmp_path / "cache")
    again = encode_texts(TEXTS, config, tmp_path / "cache")
    assert counts == [5], "distinct texts that are not empty, once"
    np.testing.assert_array_equal(first, again)
    encode_texts([*TEXTS, "w30"], config, tmp_path / "cache")
    assert counts == [5, 1]
    encode_texts(["w30"], config_of(tiny_folder, max_tokens=6), tmp_path / "cache")
    assert counts == [5, 1, 1], "another number of tokens is another vector"


def test_another_encoder_does_not_see_the_cache(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_encoded(monkeypatch)
    before = encode_texts(["w1 w2"], config_of(tiny_folder), tmp_path / "cache")
    values = json.loads((tiny_folder / "config.json").read_text(encoding="utf-8"))
    (tiny_folder / "config.json").write_text(json.dumps(values | {"hidden_act": "relu"}), encoding="utf-8")
    after = encode_texts(["w1 w2"], config_of(tiny_folder), tmp_path / "cache")
    assert counts == [1, 1] and np.abs(after - before).max() > 1e-3


def test_a_damaged_cache_is_built_again(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, counts = config_of(tiny_folder), count_encoded(monkeypatch)
    first = encode_texts(TEXTS, config, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="damaged text cache"):
        again = encode_texts(TEXTS, config, tmp_path / "cache")
    encode_texts(TEXTS, config, tmp_path / "cache")
    assert counts == [5, 5]
    np.testing.assert_array_equal(first, again)


def test_few_shapes_are_compiled(tiny_folder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["w1", "w2", "w3"], size)) + f" w{i % 40}" for i, size in enumerate(range(1, 21))
    ]
    encode.embed.clear_cache()
    for _ in range(2):
        encode_texts(texts * 3, config_of(tiny_folder, batch_size=2), cache_dir=None)
    assert encode.embed._cache_size() == 2, "one shape for 16 tokens and one for 24"


def test_token_ids_beyond_the_table_are_refused(tiny_folder: Path) -> None:
    """JAX would take another row of the table, or none, without a word."""
    values = json.loads((tiny_folder / "tokenizer.json").read_text())
    values["model"]["vocab"]["w1"] = 900
    (tiny_folder / "tokenizer.json").write_text(json.dumps(values))
    message = r"tokenizer.json: token id 900 \('w1'\), but vocab_size=50 in the config.json"
    with pytest.raises(RelandError, match=message):
        encode_texts(["w2", "w1"], config_of(tiny_folder), cache_dir=None)
    with pytest.raises(RelandError, match=message):
        check_texts(["w2", "w1"], config_of(tiny_folder))


def test_vectors_that_are_not_finite_are_refused(tiny_folder: Path) -> None:
    encoder = load_encoder(config_of(tiny_folder))
    params = jax.tree.map(lambda leaf: leaf * np.float32(1e30), encoder.params)
    with pytest.raises(RelandError, match="vectors that are not finite of 1 of 1 texts; its weights or"):
        run_encoder(encoder._replace(params=params), [[2, 5, 3]], 4)


def test_an_encoder_is_checked_before_long_work(tiny_folder: Path) -> None:
    config = config_of(tiny_folder)
    check_texts(TEXTS, config)
    (tiny_folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RelandError, match="model.safetensors: cannot read the weights"):
        check_texts(TEXTS, config)


FOREIGN = [f"slovo{number} w{number % 5}" for number in range(40)]


def test_texts_in_an_unknown_script_are_refused_unless_allowed(tiny_folder: Path, tmp_path: Path) -> None:
    """Also where all of them are in the cache already."""
    config = config_of(tiny_folder)
    message = "titles: 40 distinct texts become 5 distinct vectors by .*not know 50% of their words"
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(RelandError, match=message):
            encode_texts(FOREIGN, config, cache, "titles")
    allowed = config_of(tiny_folder, allow_alike=True)
    vectors = encode_texts(FOREIGN, allowed, tmp_path / "cache", "titles")
    assert len(np.unique(vectors, axis=0)) == 5
    with pytest.raises(RelandError, match="config.text.allow_alike=True goes on as it is"):
        encode_texts(FOREIGN, config, tmp_path / "cache", "titles")


@pytest.mark.parametrize("max_tokens", [2, 25])
def test_lengths_without_positions_are_refused(tiny_folder: Path, max_tokens: int) -> None:
    with pytest.raises(
        RelandError, match=f"config.text.max_tokens={max_tokens} must be at least 3 and at most 24"
    ):
        load_encoder(config_of(tiny_folder, max_tokens=max_tokens))


@given(
    lengths=st.lists(st.integers(1, 100), max_size=200),
    max_tokens=st.integers(100, 300),
    tokens_per_step=st.integers(1, 3000),
)
def test_batches_hold_every_text_once(lengths: list[int], max_tokens: int, tokens_per_step: int) -> None:
    batches = list(plan_batches(lengths, max_tokens, tokens_per_step))
    rows = [int(row) for batch in batches for row in batch.rows]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for batch in batches:
        texts, tokens = batch.shape
        assert 1 <= len(batch.rows) <= texts
        assert max(lengths[row] for row in batch.rows) <= tokens <= max_tokens
        assert texts * tokens <= max(tokens_per_step, tokens)
        # A text alone is encoded in the same shape, so by the same program.
        (alone,) = plan_batches([lengths[int(batch.rows[0])]], max_tokens, tokens_per_step)
        assert alone.shape == batch.shape
    assert len({batch.shape for batch in batches}) <= len(encode.LENGTHS) + 1


def test_pooling_against_numpy() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4, 6, 5)).astype(np.float32)
    lengths = np.array([6, 3, 1, 0])
    mask = np.arange(6) < lengths[:, None]
    mean = np.stack(
        [row[:n].mean(axis=0) if n else np.zeros(5) for row, n in zip(hidden, lengths, strict=True)]
    )
    first = hidden[:, 0] * (lengths > 0)[:, None]
    for mode, expected in (("mean", mean), ("cls", first)):
        np.testing.assert_allclose(pool(hidden, mask, Pooling(mode, False)), expected, atol=1e-6)
        unit = expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
        np.testing.assert_allclose(pool(hidden, mask, Pooling(mode, True)), unit, atol=1e-6)
