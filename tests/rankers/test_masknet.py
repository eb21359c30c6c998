"""MaskNet against the paper's equations, row by row in float64, and what follows from them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from reland_jax.rankers.masknet import FieldNorm, MaskBlock, ParallelMaskNet, SerialMaskNet
from tests.rankers import oracles
from tests.rankers.toys import applied, random_like

FIELDS = np.random.default_rng(0).normal(size=(5, 4, 3))
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def normalised(params: oracles.Params, fields: np.ndarray) -> np.ndarray:
    """Layer norm field by field, one after the other."""
    every = [oracles.layer_norm(*one) for one in zip(fields, params["gain"], params["bias"], strict=True)]
    return np.concatenate(every)


def block(params: oracles.Params, masked: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """ReLU(LN(W (M o x))), M from the embeddings as they are."""
    inner = oracles.relu(oracles.linear(params["mask_inner"], np.concatenate(list(fields))))
    mask = oracles.linear(params["mask_outer"], inner)
    assert "bias" not in params["hidden"]
    hidden = oracles.linear(params["hidden"], mask * masked)
    return oracles.relu(oracles.layer_norm(hidden, params["norm"]["scale"], params["norm"]["bias"]))


def serial(params: oracles.Params, fields: np.ndarray) -> np.ndarray:
    """Blocks one on the other."""
    hidden = normalised(params["field_norm"], fields)
    for number in range(sum(name.startswith("block_") for name in params)):
        hidden = block(params[f"block_{number}"], hidden, fields)
    return hidden


def parallel(params: oracles.Params, fields: np.ndarray) -> np.ndarray:
    """Blocks side by side."""
    normal = normalised(params["field_norm"], fields)
    number = sum(name.startswith("block_") for name in params)
    every = [block(params[f"block_{at}"], normal, fields) for at in range(number)]
    return oracles.layers(params.get("layers", {}), np.concatenate(every))


@pytest.mark.parametrize(("blocks", "reduction", "text_fields"), [(1, 2.0, 0), (3, 0.5, 1)])
def test_the_serial_form_is_that_of_the_paper(blocks: int, reduction: float, text_fields: int) -> None:
    params, found = applied(SerialMaskNet(blocks, 4, reduction, text_fields), FIELDS)
    np.testing.assert_allclose(found, [serial(params, row) for row in FIELDS], **CLOSE)
    declared = 3 * (4 - text_fields)
    assert params["block_0"]["mask_inner"]["kernel"].shape == (12, int(reduction * declared))
    assert all(
        params[f"block_{n}"]["mask_inner"]["kernel"].shape[1] == reduction * 4 for n in range(1, blocks)
    )


@pytest.mark.parametrize("layers", [(), (6, 5)])
def test_the_parallel_form_is_that_of_the_paper(layers: tuple[int, ...]) -> None:
    params, found = applied(ParallelMaskNet(3, 4, 2.0, layers), FIELDS)
    np.testing.assert_allclose(found, [parallel(params, row) for row in FIELDS], **CLOSE)


def test_one_parallel_block_without_layers_above_is_the_serial_form_of_one_block() -> None:
    _, one = applied(ParallelMaskNet(1, 4, 2.0, ()), FIELDS)
    _, other = applied(SerialMaskNet(1, 4, 2.0), FIELDS)
    np.testing.assert_array_equal(one, other)


def test_a_mask_of_ones_leaves_a_layer_with_layer_norm() -> None:
    masked, fields = FIELDS[:, 0], FIELDS.reshape(5, 12)
    module = MaskBlock(4, 6)
    params = random_like(jax.eval_shape(module.init, jax.random.key(0), masked, fields))["params"]
    outer = params["mask_outer"]
    params["mask_outer"] = {"kernel": np.zeros_like(outer["kernel"]), "bias": np.ones_like(outer["bias"])}
    with jax.enable_x64(True):
        found = module.apply({"params": params}, masked, fields)
    norm = params["norm"]
    plain = [
        oracles.layer_norm(row, norm["scale"], norm["bias"]) for row in masked @ params["hidden"]["kernel"]
    ]
    np.testing.assert_allclose(found, np.maximum(plain, 0), **CLOSE)


def test_a_constant_added_to_a_field_changes_its_mask_alone() -> None:
    moved = FIELDS.copy()
    moved[:, 1] += 0.7
    _, before = applied(FieldNorm(), FIELDS)
    _, after = applied(FieldNorm(), moved)
    np.testing.assert_allclose(after, before, **CLOSE)
    _, before = applied(SerialMaskNet(1, 4, 2.0), FIELDS)
    _, after = applied(SerialMaskNet(1, 4, 2.0), moved)
    assert np.abs(after - before).max() > 0.01


def test_text_fields_have_no_gain_at_the_start() -> None:
    variables: Any = FieldNorm(text_fields=1).init(jax.random.key(0), FIELDS)
    np.testing.assert_array_equal(variables["params"]["gain"], [[1] * 3] * 3 + [[0] * 3])


def test_dropout_is_in_training_only() -> None:
    module = ParallelMaskNet(2, 4, 2.0, (5,), dropout=0.5)
    params = module.init(jax.random.key(0), FIELDS)
    plain = ParallelMaskNet(2, 4, 2.0, (5,)).apply(params, FIELDS)
    np.testing.assert_array_equal(module.apply(params, FIELDS), plain)
    dropped = [module.apply(params, FIELDS, True, rngs={"dropout": jax.random.key(n)}) for n in range(2)]
    assert np.abs(np.subtract(*map(np.asarray, dropped))).max() > 1e-3
