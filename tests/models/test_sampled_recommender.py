"""Sampled neighbours: the loss where all are sampled, and memory that does not grow with the graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import FusionConfig, ModelConfig
from reland_jax.models import Graph, PairBatch, Recommender, Tables, create_recommender, training_graph
from reland_jax.variants import find_variant
from tests.toys import random_ragged

NUM_USERS, NUM_ITEMS, TEXT, SEEDS = 6, 9, 5, 4
TRAIN = random_ragged([3, 2, 5, 1, 4, 2], NUM_ITEMS)
ENTITIES = np.array([[-1, 0, 1, 1, 0, -1, 2, 2, 1, 0]], np.int32)
BATCH = PairBatch(
    user=jnp.array([0, 3, 5, 0], jnp.int32),
    positive=jnp.array([1, 2, 9, 1], jnp.int32),
    negative=jnp.array([[4, 5], [6, 7], [8, 1], [2, 3]], jnp.int32),
    weight=jnp.array([1.0, 1.0, 1.0, 0.0]),
)
SAMPLED = pytest.mark.parametrize("backbone", ["lightgcn", pytest.param("gat", marks=pytest.mark.slow)])


def recommender(config: ModelConfig, variant: str, num_users: int, num_items: int) -> Recommender:
    return create_recommender(
        config, FusionConfig(dropout=0.0), find_variant(variant),
        num_users=num_users, num_items=num_items, max_length=5, embedding_l2=0.3,
    )  # fmt: skip


def toy(backbone: str, variant: str, fanout: tuple[int, ...]) -> tuple[Recommender, Tables]:
    """A recommender of two layers without dropout, with its tables."""
    config = ModelConfig(backbone=backbone, dim=4, layers=2, heads=2, dropout=0.0, fanout=fanout)
    rng = np.random.default_rng(0)
    tables = Tables(
        item_text=jnp.asarray(rng.normal(size=(NUM_ITEMS + 1, TEXT)), jnp.float32),
        rationale=jnp.asarray(rng.normal(size=(SEEDS, TEXT)), jnp.float32),
        seed=jnp.arange(NUM_USERS, dtype=jnp.int32)[:, None] % SEEDS,
        propagation=training_graph(config, TRAIN, NUM_ITEMS, ENTITIES),
    )
    return recommender(config, variant, NUM_USERS, NUM_ITEMS), tables


def loss_and_gradients(backbone: str, variant: str, fanout: tuple[int, ...], key: int = 0) -> Any:
    """Of the same random parameters, whatever is sampled."""
    model, tables = toy(backbone, variant, fanout)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    shapes = jax.eval_shape(lambda: model.init(rngs, tables, BATCH, method="loss"))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        return model.apply(params, tables, BATCH, method="loss", rngs={"dropout": key})

    return jax.jit(jax.value_and_grad(loss))(params, jax.random.key(key))


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [
        ("lightgcn", "reland"),
        ("gat", "id"),
        pytest.param("lightgcn", "id", marks=pytest.mark.slow),
        pytest.param("gat", "reland", marks=pytest.mark.slow),
    ],
)
def test_all_neighbours_sampled_is_the_whole_graph(backbone: str, variant: str) -> None:
    """Loss and gradients of every parameter, with item texts, entities and rationales too."""
    whole, sampled = (loss_and_gradients(backbone, variant, fanout) for fanout in ((), (9, 9)))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, sampled, whole)


@SAMPLED
def test_neighbours_are_drawn_anew_with_every_key(backbone: str) -> None:
    first, again, other = (loss_and_gradients(backbone, "id", (1, 2), key) for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert float(first[0]) != float(other[0])


@SAMPLED
def test_ranking_sees_all_neighbours(backbone: str) -> None:
    """User and item vectors do not depend on the fan-out, and need no key."""

    def vectors(fanout: tuple[int, ...], method: str) -> jax.Array:
        model, tables = toy(backbone, "f_item", fanout)
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        params = jax.jit(partial(model.init, method="loss"))(rngs, tables, BATCH)
        return jax.jit(partial(model.apply, method=method))(params, tables)

    for method in ("user_vectors", "item_vectors"):
        np.testing.assert_allclose(vectors((1, 1), method), vectors((), method), rtol=1e-4, atol=1e-6)


def step_bytes(backbone: str, num_users: int, fanout: tuple[int, ...]) -> int:
    """What a compiled step needs beside its inputs and outputs (the parameters and their gradients)."""
    config = ModelConfig(backbone=backbone, dim=16, layers=2, heads=2, dropout=0.1, fanout=fanout)
    model = recommender(config, "id", num_users, 300)
    nodes, edges, size = num_users + 301, 16 * num_users, 64
    shape = jax.ShapeDtypeStruct
    ends, node = shape((edges,), jnp.int32), shape((nodes,), jnp.int32)
    graph = Graph(
        nodes={"begin": node, "degree": node}, edges={"relation": shape((edges,), jnp.int8)}, globals=None,
        senders=ends, receivers=ends, n_node=shape((1,), jnp.int32), n_edge=shape((1,), jnp.int32),
    )  # fmt: skip
    tables = Tables(propagation=graph)
    one, many = shape((size,), jnp.int32), shape((size, 2), jnp.int32)
    batch = PairBatch(one, one, many, shape((size,), jnp.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))

    def init(key: jax.Array, tables: Tables, batch: PairBatch) -> Any:
        return model.init({"params": key, "dropout": key}, tables, batch, method="loss")

    def loss(params: Any, tables: Tables, batch: PairBatch, key: jax.Array) -> jax.Array:
        return model.apply(params, tables, batch, method="loss", rngs={"dropout": key})

    params = jax.eval_shape(init, key, tables, batch)
    step = jax.jit(jax.value_and_grad(loss)).lower(params, tables, batch, key).compile()
    return step.memory_analysis().temp_size_in_bytes


@SAMPLED
def test_the_memory_of_a_step_does_not_grow_with_the_graph(backbone: str) -> None:
    """A hundred times the users and edges: less than one more table of embeddings per hop, by far."""
    few, many = (step_bytes(backbone, users, (4, 3)) for users in (2_000, 200_000))
    table = 200_000 * 16 * 4
    assert many < 1.05 * few < 0.5 * table


@pytest.mark.slow
def test_without_sampling_it_does_grow() -> None:
    """So the check above can fail."""
    few, many = (step_bytes("gat", users, ()) for users in (500, 5_000))
    assert many > 5 * few
