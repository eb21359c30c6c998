"""Weights from a safetensors file, and the faults that a file can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from reland_jax.text.bert import BertConfig
from reland_jax.text.convert import convert_tensors, load_params
from reland_jax.types import RelandError
from tests.golden import tiny_bert

CONFIG = BertConfig.from_values(tiny_bert.CONFIG, "tiny")
QUERY = "encoder.layer.1.attention.self.query.weight"
Tensors = dict[str, np.ndarray]


def old_style(tensors: Tensors) -> Tensors:
    """The same weights as the first BERT checkpoints hold them: prefix, old names, other parts."""
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in tensors.items()
    }
    extra = ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids")
    return renamed | {name: np.zeros(3, np.float32) for name in extra}


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: array for name, array in tensors.items() if name not in names}


def not_finite(tensors: Tensors) -> Tensors:
    weight = tensors[QUERY].copy()
    weight[3, 4] = np.inf
    return tensors | {QUERY: weight}


def test_a_file_is_loaded_into_the_right_places(tmp_path: Path) -> None:
    tensors = tiny_bert.tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    params = load_params(tmp_path / "model.safetensors", CONFIG)
    np.testing.assert_array_equal(params["layer_1"]["attention"]["query"]["kernel"], tensors[QUERY].T)
    np.testing.assert_array_equal(
        params["layer_0"]["output_norm"]["scale"], tensors["encoder.layer.0.output.LayerNorm.weight"]
    )
    np.testing.assert_array_equal(
        params["embeddings"]["word"]["embedding"], tensors["embeddings.word_embeddings.weight"]
    )
    count = sum(array.size for array in tensors.values())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_prefix_old_names_and_heads_are_tolerated() -> None:
    tensors = tiny_bert.tensors()
    expected = convert_tensors(tensors, CONFIG, "x")
    jax.tree.map(np.testing.assert_array_equal, convert_tensors(old_style(tensors), CONFIG, "x"), expected)


def test_half_precision_weights_become_float32() -> None:
    halves = {name: array.astype(np.float16) for name, array in tiny_bert.tensors().items()}
    params = convert_tensors(halves, CONFIG, "x")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(params["layer_1"]["attention"]["query"]["kernel"].T, halves[QUERY])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: without(t, QUERY), f"tensor {QUERY} is missing"),
        (
            lambda t: without(t, *[name for name in t if "layer.1" in name]),
            "encoder.layer.1.attention.output.LayerNorm.bias, .* and 12 more is missing",
        ),
        (
            lambda t: t | {"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)},
            "tensor encoder.layer.2.output.dense.bias is not part of a BERT with this config",
        ),
        (
            lambda t: t | {"encoder.layer.0.output.dense.weight": np.zeros((64, 32), np.float32)},
            r"encoder.layer.0.output.dense.weight has shape \[64, 32\], config.json asks for \[32, 64\]",
        ),
        (not_finite, f"tensor {QUERY} holds values that are not finite"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, damage: Callable[[Tensors], Tensors], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(damage(tiny_bert.tensors()), path)
    with pytest.raises(RelandError, match=message) as caught:
        load_params(path, CONFIG)
    assert str(caught.value).startswith(str(path))


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tiny_bert.tensors(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RelandError, match="cannot read the weights"):
        load_params(path, CONFIG)
