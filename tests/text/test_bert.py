"""The linen BERT against the hidden states that PyTorch computes from the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.text.bert import Bert, BertConfig, Embeddings, Layer
from reland_jax.text.convert import convert_tensors
from reland_jax.types import RelandError
from tests.golden import tiny_bert


def tiny(**changes: Any) -> tuple[Bert, dict[str, Any]]:
    """The tiny BERT with changed config entries, and its parameters."""
    config = BertConfig.from_values(tiny_bert.CONFIG | changes, "tiny")
    return Bert(config), convert_tensors(tiny_bert.tensors(), config, "tiny")


def hidden_states(bert: Bert, params: dict[str, Any]) -> np.ndarray:
    """Output of the embeddings and of every layer, ``[layers + 1, B, L, T]``."""
    ids, mask = tiny_bert.inputs()
    _, state = bert.apply(
        {"params": params},
        ids,
        mask.astype(bool),
        capture_intermediates=lambda module, _: isinstance(module, (Embeddings, Layer)),
        mutable=["intermediates"],
    )
    kept = state["intermediates"]
    names = ["embeddings", *(f"layer_{i}" for i in range(tiny_bert.CONFIG["num_hidden_layers"]))]
    return np.stack([kept[name]["__call__"][0] for name in names])


def golden(repository: Path) -> np.ndarray:
    with np.load(repository / "tests" / "golden" / "bert_tiny.npz") as file:
        return file["hidden_states"]


def test_every_layer_is_what_pytorch_computes(repository: Path) -> None:
    expected = golden(repository)
    tokens = tiny_bert.inputs()[1].astype(bool)
    found = hidden_states(*tiny())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[:, tokens], expected[:, tokens], atol=2e-5)


@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"num_attention_heads": 2}]
)
def test_the_golden_tells_another_network_apart(repository: Path, change: dict[str, Any]) -> None:
    tokens = tiny_bert.inputs()[1].astype(bool)
    difference = np.abs(hidden_states(*tiny(**change)) - golden(repository))[-1, tokens].max()
    assert difference > 2e-4, "the tolerance of the test above would not notice"


def test_what_stands_at_padding_changes_nothing() -> None:
    bert, params = tiny()
    ids, mask = tiny_bert.inputs()
    other = np.where(mask, ids, 7).astype(np.int32)
    outputs = [bert.apply({"params": params}, given, mask.astype(bool)) for given in (ids, other)]
    assert not np.array_equal(ids, other)
    np.testing.assert_array_equal(*(np.asarray(output)[mask.astype(bool)] for output in outputs))


def test_a_row_of_padding_only_is_finite() -> None:
    bert, params = tiny()
    output = bert.apply({"params": params}, jnp.zeros((1, 5), jnp.int32), jnp.zeros((1, 5), bool))
    assert np.isfinite(output).all()


def test_outputs_are_float32() -> None:
    bert, params = tiny()
    shape = jax.eval_shape(
        bert.apply, {"params": params}, jnp.zeros((2, 5), jnp.int32), jnp.ones((2, 5), bool)
    )
    assert (shape.shape, shape.dtype) == ((2, 5, 32), jnp.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type='roberta' is not supported, only model_type='bert' is"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key' is not supported",
        ),
        ({"is_decoder": True}, "is_decoder=True is not supported"),
        ({"hidden_act": "gelu_nwe"}, "hidden_act='gelu_nwe' is not supported; did you mean 'gelu_new'?"),
        ({"vocab_size": -1}, "vocab_size=-1 must be a whole number of at least 1"),
        ({"hidden_size": "x"}, "hidden_size='x' must be a whole number of at least 1"),
        ({"hidden_size": 32.0}, "hidden_size=32.0 must be a whole number"),
        ({"intermediate_size": None}, "intermediate_size=None must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be a whole number of at least 1"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True must be a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is more than 1000"),
        ({"type_vocab_size": []}, "type_vocab_size=[] must be a whole number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan must be a number of at least 0 and below 1"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps='1e-12' must be a number"),
        ({"hidden_act": ["gelu"]}, "hidden_act=['gelu'] is not supported"),
        ({"num_attention_heads": 5}, "hidden_size=32 is not a multiple of num_attention_heads=5"),
    ],
)
def test_an_unsupported_model_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RelandError) as caught:
        BertConfig.from_values(tiny_bert.CONFIG | change, "folder/config.json")
    assert message in str(caught.value) and str(caught.value).startswith("folder/config.json")


def test_missing_entries_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "bert", "vocab_size": 9}), encoding="utf-8")
    with pytest.raises(RelandError, match=r"config\.json: no entry hidden_size, num_hidden_layers"):
        BertConfig.from_file(path)


def test_no_model_type_is_refused() -> None:
    with pytest.raises(RelandError, match="model_type='' is not supported"):
        BertConfig.from_values({k: v for k, v in tiny_bert.CONFIG.items() if k != "model_type"}, "x")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_config_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RelandError, match=r"config\.json: (cannot read|expected)"):
        BertConfig.from_file(path)
