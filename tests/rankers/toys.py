"""A small schema with features of every kind, batches of it, random parameters, and a small log."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from reland_jax.events import Events, fit, shop
from reland_jax.events.shards import write_encoded
from reland_jax.rankers import Arm, Field, FieldSchema, Ranker, RankerConfig, Texts, create_ranker

USERS, ITEMS, SEED_USERS, TEXT = 7, 9, 3, 5
SCHEMA = FieldSchema(
    (
        Field("user", "categorical", USERS + 1),
        Field("item", "categorical", ITEMS + 1),
        Field("age", "numeric"),
        Field("topics", "multi", 6, length=3),
        Field("history", "sequence", length=4, shares="item"),
        Field("price", "numeric"),
    ),
    ("click", "conversion"),
)
TABLE_ROWS = USERS + 1 + ITEMS + 1 + 6
LOOKUPS = 1 + 1 + 3 + 4

SMALL: dict[str, Any] = {
    "width": 3, "layers": (6, 5), "blocks": 2, "block_width": 4, "attention_layers": (4, 3), "tower": (9, 8),
    "experts": 2, "own_experts": 1, "levels": 2, "cross_layers": 2,
}  # fmt: skip
FUNNEL = ("click", "conversion")


def small_log() -> Events:
    """1,200 rows of the generated shop."""
    return shop.generate(shop.ShopSettings(users=60, items=30, days=4, rows=1200)).events


def write_shards(log: Events, rows: np.ndarray, cuts: list[int], folder: Path) -> list[Path]:
    """Training rows in encoded files that end at some places, in order."""
    encoding, parts = fit(log, rows), np.split(rows, cuts)
    paths = [folder / f"{number}.parquet" for number in range(len(parts))]
    for part, path in zip(parts, paths, strict=True):
        write_encoded(encoding, log.take(part), path)
    return paths


def toy_batch(size: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch with lists of all lengths, values and texts that are not there, and a row of weight 0."""
    rng = np.random.default_rng(seed)
    topics, history = (_lists(rng, size, length, high) for length, high in ((3, 6), (4, ITEMS + 1)))
    whole = partial(rng.integers, size=size, dtype=np.int32)
    return {
        "user": whole(0, USERS + 1) * (np.arange(size) != 4),
        "item": whole(1, ITEMS + 1),
        "age": rng.normal(size=size).astype(np.float32),
        "topics": topics,
        "history": history,
        "price": rng.normal(size=size).astype(np.float32),
        "click": (np.arange(size) % 3 > 0).astype(np.float32),
        "conversion": (np.arange(size) % 2).astype(np.float32),
        "weight": (np.arange(size) < max(size - 1, 1)).astype(np.float32),
        "user_row": whole(-1, USERS),
        "item_row": whole(-1, ITEMS),
    }


def _lists(rng: np.random.Generator, size: int, length: int, high: int) -> np.ndarray:
    """Lists filled up with 0 in any place; the first is empty."""
    values = rng.integers(1, high, (size, length), dtype=np.int32)
    values[rng.random(values.shape) < 0.4] = 0
    values[0] = 0
    return values


def toy_texts(seed: int = 1) -> Texts:
    """Texts of everything but item 0, and a user without a seed user."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(ITEMS, TEXT)).astype(np.float32)
    items[0] = 0
    seeds = rng.integers(0, SEED_USERS, USERS, dtype=np.int32)
    seeds[2] = -1
    rationales = rng.normal(size=(SEED_USERS, TEXT)).astype(np.float32)
    return Texts(items, rationales, seeds, rng.uniform(size=USERS).astype(np.float32))


def toy_ranker(arm: Arm, **changed: Any) -> Ranker:
    """A small ranker; by default a parallel MaskNet of the click."""
    return create_ranker(RankerConfig(**(SMALL | changed)), SCHEMA, arm, SEED_USERS)


def in_float64(tree: Any) -> Any:
    """Floating arrays of a tree in float64, others as they are."""
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf, np.float64) if np.asarray(leaf).dtype == np.float32 else np.asarray(leaf)
        ),
        tree,
    )


def random_like(shapes: Any, seed: int = 2, scale: float = 0.7) -> Any:
    """Random float64 numbers in the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, scale, leaf.shape), shapes)


def applied(module: nn.Module, *inputs: Any, seed: int = 2) -> tuple[dict[str, Any], np.ndarray]:
    """Random parameters of a module, biases too, and what it makes of the inputs, all in float64."""
    params = random_like(jax.eval_shape(module.init, jax.random.key(0), *inputs), seed)
    with jax.enable_x64(True):
        return params["params"], np.asarray(module.apply(params, *in_float64(inputs)))
