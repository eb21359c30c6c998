"""A generated shop with planted tastes and readable titles; needs no file and no network.

Every item belongs to a category of a department, carries a scent or ingredient ("trait") that runs
across departments, and has a brand and a manner ("Gentle", "Rich"). Every user likes three categories in
varying measure, two traits, a brand and a manner, and tends to stay in the category and trait of the
purchase before. Most items are bought rarely, so the words of a title tell more about who will like an
item than its few purchases do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Usual
from reland_jax.data.sources.raw import RawTable

_SEED = 20240914
_CATEGORIES = {
    ("Face Care", "Cleansers"): ("Face Wash", "Cleansing Gel", "Micellar Water", "Cleansing Balm"),
    ("Face Care", "Moisturisers"): ("Day Cream", "Night Cream", "Face Lotion", "Water Gel"),
    ("Face Care", "Serums"): ("Face Serum", "Facial Oil", "Eye Serum", "Essence"),
    ("Face Care", "Masks"): ("Clay Mask", "Sheet Mask", "Sleeping Mask", "Peel-Off Mask"),
    ("Hair Care", "Shampoos"): ("Shampoo", "Dry Shampoo", "Shampoo Bar", "Scalp Wash"),
    ("Hair Care", "Conditioners"): ("Conditioner", "Hair Mask", "Leave-In Milk", "Detangling Spray"),
    ("Hair Care", "Styling"): ("Styling Paste", "Curl Cream", "Hair Spray", "Shaping Wax"),
    ("Hair Care", "Hair Oils"): ("Hair Oil", "Split End Elixir", "Scalp Drops", "Shine Mist"),
    ("Bath and Body", "Soaps"): ("Bar Soap", "Hand Soap", "Shower Gel", "Body Wash"),
    ("Bath and Body", "Body Lotions"): ("Body Lotion", "Body Butter", "Hand Cream", "Foot Balm"),
    ("Bath and Body", "Bath Time"): ("Bath Salts", "Bubble Bath", "Bath Bomb", "Bath Milk"),
    ("Bath and Body", "Scrubs"): ("Body Scrub", "Sugar Polish", "Foot Scrub", "Hand Scrub"),
    ("Makeup", "Lips"): ("Lip Balm", "Lipstick", "Lip Gloss", "Lip Tint"),
    ("Makeup", "Eyes"): ("Mascara", "Eye Liner", "Eye Shadow", "Brow Gel"),
    ("Makeup", "Complexion"): ("Foundation", "Concealer", "Blush", "Setting Powder"),
    ("Makeup", "Nails"): ("Nail Polish", "Cuticle Oil", "Top Coat", "Nail Strengthener"),
    ("Home Scents", "Candles"): ("Soy Candle", "Pillar Candle", "Travel Candle", "Tea Lights"),
    ("Home Scents", "Diffusers"): ("Reed Diffuser", "Diffuser Oil", "Car Diffuser", "Scented Stones"),
    ("Home Scents", "Sprays"): ("Room Spray", "Linen Mist", "Pillow Mist", "Wardrobe Spray"),
    ("Home Scents", "Incense"): ("Incense Sticks", "Incense Cones", "Wax Melts", "Smudge Bundle"),
    ("Pantry", "Teas"): ("Loose Leaf Tea", "Tea Bags", "Iced Tea Mix", "Tea Sampler"),
    ("Pantry", "Sweets"): ("Hard Candy", "Chocolate Bar", "Shortbread", "Nougat"),
    ("Pantry", "Spreads"): ("Jam", "Syrup", "Nut Butter", "Curd"),
    ("Pantry", "Baking"): ("Cake Mix", "Flavour Extract", "Sugar Sprinkles", "Cookie Dough"),
}
_TRAITS = (
    "Rose", "Lavender", "Citrus", "Peppermint", "Oat", "Honey", "Coconut", "Charcoal",
    "Matcha", "Vanilla", "Cedar", "Jasmine", "Ginger", "Aloe", "Sea Salt", "Fig",
)  # fmt: skip
_BRANDS = (
    "Quellin", "Zorvane", "Brixolm", "Mirdano", "Ostrelle", "Pindarro", "Velmoor", "Kestiva",
    "Ardovan", "Fennolk", "Wexmira", "Tolbrune", "Sarnique", "Yorvell", "Huldane", "Nembrise",
)  # fmt: skip
_MANNERS = ("Gentle", "Rich", "Fresh", "Organic", "Soothing", "Intense", "Everyday", "Deluxe")
_SIZES = ("Mini", "50 ml", "100 ml", "250 ml", "Refill", "Gift Set", "Pack of 2", "Family Size")

_MIN_LENGTH, _MAX_LENGTH, _MEAN_LENGTH = 5, 30, 8.5
_TRAIT_PULL, _BRAND_PULL, _MANNER_PULL, _CHAIN_PULL = 4.0, 2.0, 1.0, 1.0
_STAY = 0.4


class _Shop(NamedTuple):
    """What is sold: ``<int>[I]`` attributes and ``<float32>[I]`` log popularity."""

    category: np.ndarray
    trait: np.ndarray
    brand: np.ndarray
    manner: np.ndarray
    popularity: np.ndarray
    titles: np.ndarray


def read(place: str, config: DataConfig) -> RawTable:
    """Generates `config.demo_users` users and `config.demo_items` items; always the same ones."""
    rng = np.random.default_rng(_SEED)
    shop = _make_shop(config.demo_items, rng)
    taste, mixture = _make_tastes(config.demo_users, shop, rng)
    user, item, time = _make_purchases(shop, taste, mixture, rng)
    users = np.array([f"U{number:06d}" for number in range(config.demo_users)], dtype=object)
    items = np.array([f"P{number:05d}" for number in range(config.demo_items)], dtype=object)
    paths = np.array([" > ".join(names) for names in _CATEGORIES], dtype=object)
    purchases = _frame({"user_id": users[user], "item_id": items[item], "timestamp": time})
    described = {
        "item_id": items,
        "title": shop.titles,
        "brand": np.array(_BRANDS, dtype=object)[shop.brand],
        "categories": paths[shop.category],
    }
    return assemble(purchases, config, Usual(), _frame(described))


def files(place: str, config: DataConfig) -> list[Path]:
    """There are none."""
    return []


def _frame(columns: Mapping[str, np.ndarray]) -> Frame:
    import pyarrow as pa

    where = "the generated demo data"
    return Frame(
        where, list(columns), lambda used: pa.table({name: pa.array(columns[name]) for name in used}),
        lambda row: f"{where}: row {row + 1}",
    )  # fmt: skip


def _make_shop(num_items: int, rng: np.random.Generator) -> _Shop:
    """Items with attributes, a title that shows them, and a long-tailed popularity."""
    category = rng.permutation(num_items) % len(_CATEGORIES)
    trait = rng.integers(len(_TRAITS), size=num_items)
    brand = rng.integers(len(_BRANDS), size=num_items)
    nouns = np.array(list(_CATEGORIES.values()))[category, rng.integers(4, size=num_items)]
    manner = rng.integers(len(_MANNERS), size=num_items)
    sizes = np.array(_SIZES)[rng.integers(len(_SIZES), size=num_items)]
    parts = zip(np.array(_MANNERS)[manner], np.array(_TRAITS)[trait], nouns, sizes, strict=True)
    titles = np.array([f"{how} {what} {noun}, {size}" for how, what, noun, size in parts], object)
    popularity = -0.7 * np.log(1.0 + rng.permutation(num_items))
    return _Shop(category, trait, brand, manner, popularity.astype(np.float32), titles)


def _make_tastes(num_users: int, shop: _Shop, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log taste of every user for every item, and for every category: ``<float32>[U, I]``, ``[U, C]``."""
    num_categories = len(_CATEGORIES)
    liked = np.argsort(rng.random((num_users, num_categories)), axis=1)[:, :3]
    weight = rng.dirichlet((2.0, 2.0, 1.0), size=num_users)
    mixture = np.full((num_users, num_categories), 0.01, np.float32)
    np.put_along_axis(mixture, liked, weight.astype(np.float32), axis=1)
    traits = np.argsort(rng.random((num_users, len(_TRAITS))), axis=1)[:, :2]
    brand = rng.integers(len(_BRANDS), size=num_users)
    manner = rng.integers(len(_MANNERS), size=num_users)
    taste = _TRAIT_PULL * (shop.trait == traits[:, :1]) + _TRAIT_PULL * (shop.trait == traits[:, 1:])
    taste = taste + _BRAND_PULL * (shop.brand == brand[:, None])
    taste = taste + _MANNER_PULL * (shop.manner == manner[:, None]) + shop.popularity
    return taste.astype(np.float32), mixture / mixture.sum(1, keepdims=True)


def _make_purchases(
    shop: _Shop, taste: np.ndarray, mixture: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Purchases of all users, one position of every sequence at a time: user, item and time."""
    num_users = len(taste)
    lengths = _MIN_LENGTH - 1 + rng.geometric(1.0 / (_MEAN_LENGTH - _MIN_LENGTH + 1), size=num_users)
    lengths = np.minimum(lengths, _MAX_LENGTH)
    open_to = np.ones(taste.shape, bool)
    last = np.full(num_users, -1)
    steps = []
    for position in range(int(lengths.max())):
        user = np.flatnonzero((lengths > position) & open_to.any(axis=1))
        item = _next_item(shop, taste[user], mixture[user], open_to[user], last[user], rng)
        open_to[user, item] = False
        last[user] = item
        steps.append((user, item, np.full(len(user), float(position))))
    user, item, time = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    return user.astype(np.int32), item.astype(np.int32), time


def _next_item(
    shop: _Shop,
    taste: np.ndarray,
    mixture: np.ndarray,
    open_to: np.ndarray,
    last: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One item per user: from the category mixture, drawn towards the item bought before."""
    started = (last >= 0)[:, None]
    stays = started & (shop.category == shop.category[last][:, None])
    category = np.where(started, 1.0 - _STAY, 1.0) * mixture[:, shop.category] + _STAY * stays
    chain = _CHAIN_PULL * (started & (shop.trait == shop.trait[last][:, None]))
    weight = np.exp(taste + chain) * category * open_to
    total = np.cumsum(weight, axis=1, dtype=np.float64)
    draw = rng.random((len(total), 1)) * total[:, -1:]
    return np.minimum((total <= draw).sum(axis=1), weight.shape[1] - 1)
