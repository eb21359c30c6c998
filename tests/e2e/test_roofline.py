"""The roofline of a step: operations against closed formulas, and the script on the demo data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from experiments import roofline
from experiments.configs.reland import get_config
from experiments.roofline import Machine, Timer, least_bytes, main, measure_machine, prepare, run
from experiments.speed.operations import Operations, bytes_of, count
from experiments.speed.roofline_view import table
from reland_jax.config import Config
from reland_jax.device import sizes_of
from reland_jax.models import PairBatch, Tables, bipartite_graph, build_propagation
from reland_jax.models.graph import propagate
from reland_jax.models.losses import catalogue_cross_entropy
from reland_jax.train.state import TrainState, init_state
from reland_jax.types import RelandError
from tests.e2e.conftest import SIZES, merged
from tests.toys import ragged

M, N, K, B, ROUNDS = 5, 7, 3, 4, 6
LEFT, RIGHT = jnp.ones((M, K)), jnp.ones((K, N))

# --- operations --------------------------------------------------------------------------------------


def squared_loss(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(left @ right))


def loop(left: jax.Array, square: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, _: (carry @ square, None), left, None, length=ROUNDS)[0]


def loop_in_loop(left: jax.Array, square: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 2, lambda _, carry: jax.jit(loop)(carry, square), left)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (jnp.matmul, (LEFT, RIGHT), 2 * M * N * K),
        (lambda x, y: jnp.einsum("bmk,bkn->bnm", x, y), (jnp.ones((B, M, K)), jnp.ones((B, K, N))),
         2 * B * M * N * K),
        (lambda x: jnp.einsum("bij,bij->b", x, x), (jnp.ones((B, M, K)),), 2 * B * M * K),
        (jax.value_and_grad(squared_loss, (0, 1)), (LEFT, RIGHT), 3 * 2 * M * N * K),
        (loop, (LEFT, jnp.ones((K, K))), ROUNDS * 2 * M * K * K),
        (loop_in_loop, (LEFT, jnp.ones((K, K))), 2 * ROUNDS * 2 * M * K * K),
        (lambda p, x: jax.lax.cond(p, jnp.sin, lambda x: x @ x, x), (True, jnp.ones((K, K))), 2 * K**3),
    ],
)  # fmt: skip
def test_matrix_products(function: Callable[..., Any], arguments: tuple[Any, ...], expected: int) -> None:
    assert count(function, *arguments).matmul == expected


def test_cross_entropy_has_three_products() -> None:
    """Logits, and a product for each gradient, over all tiles."""
    tile, tiles = sizes_of("cpu").loss_targets, 2
    users, items = jnp.ones((2 * tile, K)), jnp.ones((N, K))
    loss = jax.value_and_grad(partial(catalogue_cross_entropy, num_items=N - 1), (0, 1))
    done = count(loss, users, items, jnp.ones(2 * tile, jnp.int32), jnp.ones(2 * tile))
    assert done.matmul == 3 * 2 * tiles * tile * (N - 1) * K
    assert done.transcendental == tiles * tile * N, "exp of the logits, log of the sums"


def test_sparse_products_forward_and_backward() -> None:
    propagation = build_propagation(bipartite_graph(ragged([[1, 2], [3], [1]]), 4), 3)
    sides = jnp.ones((3, K)), jnp.ones((5, K))
    edges = 2 * 4
    once = count(propagate, propagation, *sides)
    assert once.sparse == 2 * edges * K
    assert once.unfused_bytes == 4 * (2 * edges + 10 + edges * K + 8 * K)

    def two_hops(sides: tuple[jax.Array, jax.Array]) -> jax.Array:
        users, items = propagate(propagation, *propagate(propagation, *sides))
        return jnp.sum(users) + jnp.sum(items)

    assert count(jax.value_and_grad(two_hops), sides).sparse == 4 * once.sparse


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: 2.0 * x + x, Operations(elementwise=2 * M * K, unfused_bytes=4 * 5 * M * K + 4)),
        (lambda x: jnp.tanh(x).reshape(-1), Operations(transcendental=M * K, unfused_bytes=4 * 2 * M * K)),
        (lambda x: jnp.sum(x, 0), Operations(elementwise=M * K, unfused_bytes=4 * (M * K + K))),
        (lambda x: x.astype(jnp.int32) * 3, Operations(unfused_bytes=4 * 4 * M * K + 4)),
        (lambda x: x[jnp.zeros(2, int), jnp.zeros(2, int)], Operations()),
        (lambda x: jax.random.bits(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)), (M,), jnp.uint8),
         Operations(random_bits=8 * M)),
    ],
)  # fmt: skip
def test_other_operations(function: Callable[..., Any], expected: Operations) -> None:
    done = count(function, LEFT)
    assert done[:5] == expected[:5]
    if expected.unfused_bytes:
        assert done.unfused_bytes == expected.unfused_bytes


def test_rows_that_are_gathered_and_added() -> None:
    """A gather reads what it returns; a scatter adds what it is given."""
    index = jnp.zeros((2, 1), jnp.int32)
    rows = jax.lax.GatherDimensionNumbers((1,), (0,), (0,))
    done = count(lambda x: jax.lax.gather(x, index, rows, (1, K)), LEFT)
    gathered = 4 * (2 * 2 * K) + bytes_of(index)
    assert done.flops == 0 and gathered <= done.unfused_bytes < gathered + bytes_of(LEFT)
    assert count(lambda x: x.at[index[:, 0]].add(1.0), LEFT).elementwise == 2 * K


def test_a_loop_of_unknown_length_is_refused() -> None:
    with pytest.raises(RelandError, match="a while loop cannot be counted"):
        count(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), LEFT)


def test_products_agree_with_the_compiler() -> None:
    """XLA's own count of one product, whose loops it would count once."""
    compiled = jax.jit(jnp.matmul).lower(LEFT, RIGHT).compile().cost_analysis()
    assert compiled["flops"] == count(jnp.matmul, LEFT, RIGHT).flops


def test_least_bytes() -> None:
    """Of the tables by user the rows of the batch only; everything else once, or read and written."""
    batch = PairBatch(jnp.ones(B), jnp.ones(B), jnp.ones((B, 2)), jnp.ones(B))
    state = TrainState({"w": jnp.ones((M, K))}, {"mu": jnp.ones((2, M, K))}, jnp.int32(0), jnp.int32(0))
    tables = Tables(
        item_text=jnp.ones((N, K)), rationale=jnp.ones((100, K)), seed=jnp.ones((2, 9), jnp.int32)
    )
    expected = 3 * M * K + 2 * 2 * M * K + 5 * B + N * K + B * K + 2 * 9
    assert least_bytes(state, tables, batch) == 4 * expected


# --- timing ------------------------------------------------------------------------------------------


def test_timing_leaves_the_arguments_and_goes_on_in_place() -> None:
    start = jnp.zeros(3)
    timer = Timer(lambda x, y: x + y, (start, jnp.ones(3)), in_place=True)
    assert timer.best(4) > 0
    np.testing.assert_array_equal(timer.results, 5.0)
    np.testing.assert_array_equal(start, 0.0)
    timer = Timer(lambda x, y: x + y, (start, jnp.ones(3)))
    timer.best(4)
    np.testing.assert_array_equal(timer.results, 1.0)


def test_compilation_is_not_timed() -> None:
    def slow_to_trace(x: jax.Array) -> jax.Array:
        time.sleep(0.2)
        return x + 1

    assert Timer(slow_to_trace, (jnp.ones(3),)).best(2) < 0.2


# --- the script --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine() -> Machine:
    """Peaks of this machine, roughly."""
    return measure_machine(seconds=0.1, elements=1 << 20)


def numbers(value: Any) -> list[float]:
    """All numbers of nested plain values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize(
    "backbones",
    [
        ("lightgcn",),
        pytest.param(("sasrec", "duorec", "gru4rec", "ngcf", "neumf"), marks=pytest.mark.slow),
    ],
)
def test_the_demo(backbones: tuple[str, ...], machine: Machine, tmp_path: Path) -> None:
    values = [merged(get_config(f"demo,{backbone}").to_dict(), SIZES) for backbone in backbones]
    found = run([Config.from_dict(each) for each in values], "id", tmp_path, 2, machine)
    assert json.loads((tmp_path / "roofline.json").read_text()) == json.loads(json.dumps(found))
    svg = ElementTree.parse(tmp_path / "roofline.svg").getroot()
    assert svg.tag.endswith("svg")
    assert [one["backbone"] for one in found["steps"]] == list(backbones)
    for one in found["steps"]:
        assert all(math.isfinite(number) for number in numbers(one))
        for name in ("seconds_per_step", "least_seconds", "parameters", "targets_per_step"):
            assert one[name] > 0
        for name in ("share_reached", "share_of_matmul_peak", "share_of_bandwidth"):
            assert 0 < one[name] <= 1.2
        assert 0 < one["bytes"]["least"] < one["bytes"]["unfused"]
        assert (one["operations"]["sparse"] > 0) == (one["backbone"] in ("lightgcn", "ngcf"))
        assert f"{one['backbone']} id on demo" in table(found)
        for part in one["parts"]:
            assert part["name"] == "rest" or part["seconds"] >= part["fastest"] > 0


@pytest.mark.slow
def test_a_variant_with_texts(
    settings: Callable[..., dict[str, Any]], machine: Machine, tmp_path: Path
) -> None:
    """The stages before training are run, and the tables of the variant are read."""
    changes = settings(text={"whiten_items": 4, "whiten_rationales": 4})
    config = Config.from_dict(merged(get_config("demo,lightgcn").to_dict(), changes))
    plain, full = (run([config], variant, tmp_path, 1, machine)["steps"][0] for variant in ("id", "reland"))
    assert full["bytes"]["least"] > plain["bytes"]["least"] and full["share_reached"] > 0
    assert full["operations"]["matmul"] > plain["operations"]["matmul"]


def test_the_parts_of_a_step_have_all_its_operations(tmp_path: Path) -> None:
    """Batch, gradients and optimiser make up a step; cross-entropy and encoder nearly all its products."""
    config = Config.from_dict(merged(get_config("demo,sasrec").to_dict(), SIZES))
    task = prepare(config, "id", tmp_path)
    state = init_state(task, config.train)
    order = task.epoch_order(task.data, jax.random.key(0))
    parts = roofline.step_parts(task, config.train, state, order)
    done = {part.name: count(part.function, *part.arguments) for part in parts}
    dispatch = roofline.make_dispatch(task, config.train)
    step = count(dispatch, state, task.tables, task.data, order, jnp.zeros(1, jnp.int32))
    members = ("batch assembly", "loss and gradients", "optimiser")
    assert sum(done[name].flops for name in members) == step.flops
    inner = ("cross-entropy with gradients", "encoder with gradients")
    assert sum(done[name].matmul for name in inner) == step.matmul
    assert done["random bits"].random_bits == done["loss and gradients"].random_bits > 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"backbones": ["lightgnc"]}, "backbone 'lightgnc': did you mean 'lightgcn'?"),
        ({"backbones": ["ease"]}, "ease is solved at once and has no training step to measure"),
        ({"variant": "relan"}, "--variant: 'relan' is not known; did you mean 'reland'?"),
    ],
)
def test_a_mistake_ends_with_one_line(
    changed: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"dataset": "demo", "backbones": ["lightgcn"], "variant": "id", "steps": 1}
    monkeypatch.setattr(flags, "FLAGS", SimpleNamespace(workdir=tmp_path, **given | changed))
    with pytest.raises(RelandError) as error:
        main()
    assert str(error.value).endswith(expected)
    assert not list(tmp_path.iterdir())
