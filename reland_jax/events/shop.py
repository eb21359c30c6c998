"""A generated shop: impressions, clicks and conversions of which the true probabilities are known.

The logit of a click has products of two fields (age and category, scenario and price), which no logistic
regression of the fields learns. Every user also has two favourite categories, which no feature shows; groups
of users can share them (`ShopSettings.tastes`). What a rationale says is these favourites; so how much the
words are worth is set by `ShopSettings.strength`, and a ranker that reads them and gains nothing has a fault.
At strength 0 the words say nothing that matters. A seed user's words are worth that only to a user who shares
its favourites, and so need groups of users that do.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from reland_jax.data.sources.raw import Tokens
from reland_jax.events.contract import DAY_MS, Events, Feature, Label, Multi, Schema
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Ragged, RelandError

CATEGORIES = (
    "Teas", "Candles", "Soaps", "Lipsticks", "Shampoos", "Serums",
    "Spreads", "Sweets", "Diffusers", "Scrubs", "Masks", "Nail Polish",
)  # fmt: skip
_SCENARIOS = ("home", "search", "cart", "gifts", "outlet", "news", "video", "deals")
_ALIKE = 3
_STYLES = 2
_TAGS = ("new", "offer", "refill", "gift", "organic", "travel")
_AGES, _CITIES, _BRANDS, _POSITIONS = 6, 10, 24, 10
_FAVOURITES = 2
_START_MS = 1_704_067_200_000  # 1 January 2024
_SHARE = _FAVOURITES / len(CATEGORIES)
_PAIRS = len(CATEGORIES) * (len(CATEGORIES) - 1) // 2


@dataclasses.dataclass(frozen=True)
class ShopSettings:
    """How large the shop is, and how much its rationales say.

    Attributes:
        users: number of users.
        items: number of items.
        days: days of the log, from 1 January 2024 in UTC.
        rows: impressions.
        strength: what a favourite category adds to the logit of a click; 0.7 times that to the conversion's.
        shares: of the impressions, one for each scenario, which may be tiny; empty: three scenarios alike.
        specific: how much scenarios differ, as the standard deviation of what a category adds to the logit of
            a click in scenarios of a style. Every second scenario is of the same style.
        seed: of everything.
        tastes: groups of users with the same two favourite categories; 0: every user has its own. Of seed
            users, who are few, a user finds one with its favourites only where tastes are shared.
        alone: share of users who belong to no group and have favourites of their own.
    """

    users: int = 1000
    items: int = 200
    days: int = 14
    rows: int = 20_000
    strength: float = 1.5
    shares: tuple[float, ...] = ()
    specific: float = 0.0
    seed: int = 20240914
    tastes: int = 0
    alone: float = 0.1

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for name in ("users", "items", "days", "rows"):
            if getattr(self, name) < 1:
                raise RelandError(f"{name}={getattr(self, name)} must be at least 1")
        if len(self.shares) > len(_SCENARIOS) or min(self.shares, default=1.0) <= 0:
            raise RelandError(f"shares={self.shares} must be at most {len(_SCENARIOS)} numbers above 0")
        if not 0 <= self.tastes <= _PAIRS:
            raise RelandError(f"tastes={self.tastes} must be 0 to {_PAIRS}, the pairs of categories")
        if not 0 <= self.alone <= 1:
            raise RelandError(f"alone={self.alone} must be a share of users, 0 to 1")

    @property
    def scenarios(self) -> int:
        """Number of scenarios."""
        return len(self.shares) or _ALIKE


class World(NamedTuple):
    """Users, items and effects, as they truly are.

    Attributes:
        age: ``<int32>[U]``, visible.
        city: ``<int32>[U]``, visible.
        tenure: ``<float64>[U]``, days since the registration; visible, and of no effect.
        activity: ``<float64>[U]``, share of the impressions.
        favourites: ``<int32>[U, 2]``, categories; not visible.
        category: ``<int32>[I + 1]``; row 0 of every array of items is the padding item's.
        brand: ``<int32>[I + 1]``.
        price: ``<float64>[I + 1]``.
        appeal: ``<float64>[I + 1]``, not visible; what the item itself adds to the logit of a click.
        tags: ``I + 1`` rows.
        by_age: ``<float64>[ages, categories]`` of the logit of a click.
        by_scenario: ``<float64>[scenarios, 2]`` of the logit of a click, for cheap and for dear items.
        by_city: ``<float64>[cities, brands]`` of the logit of a conversion.
        strength: of the favourites.
        by_style: ``<float64>[scenarios, categories]`` of the logit of a click; nearly the same in scenarios
            of one style.
    """

    age: np.ndarray
    city: np.ndarray
    tenure: np.ndarray
    activity: np.ndarray
    favourites: np.ndarray
    category: np.ndarray
    brand: np.ndarray
    price: np.ndarray
    appeal: np.ndarray
    tags: Ragged
    by_age: np.ndarray
    by_scenario: np.ndarray
    by_city: np.ndarray
    strength: float
    by_style: np.ndarray


class Truth(NamedTuple):
    """True probabilities of impressions.

    Attributes:
        click: ``<float64>[n]``.
        conversion: ``<float64>[n]``, given a click.
    """

    click: np.ndarray
    conversion: np.ndarray


class Shop(NamedTuple):
    """A generated log, and the truth about its rows.

    Attributes:
        events: the log.
        truth: of its rows.
        world: what is behind it.
    """

    events: Events
    truth: Truth
    world: World


def generate(settings: ShopSettings) -> Shop:
    """The shop of these settings; always the same one."""
    rng = np.random.default_rng(settings.seed)
    world = make_world(settings, rng)
    n = settings.rows
    user = rng.choice(settings.users, n, p=world.activity).astype(np.int32)
    weight = np.exp(0.5 * world.appeal[1:])
    item = (1 + rng.choice(settings.items, n, p=weight / weight.sum())).astype(np.int32)
    scenario = _scenarios(settings, user, rng)
    position = rng.integers(_POSITIONS, size=n)
    time = _START_MS + np.sort(rng.integers(settings.days * DAY_MS, size=n))
    truth = true_probabilities(world, user, item, scenario, position)
    click = rng.random(n) < truth.click
    conversion = click & (rng.random(n) < truth.conversion)
    events = Events(
        schema_of_shop(), user, item, time, Tokens(scenario, as_strings(_SCENARIOS[: settings.scenarios])),
        {"click": click.astype(np.int8), "conversion": conversion.astype(np.int8)},
        _features(world, position), _ids(settings),
    )  # fmt: skip
    return Shop(events, truth, world)


def make_world(settings: ShopSettings, rng: np.random.Generator) -> World:
    """Draws users, items and effects."""
    users, rows = settings.users, settings.items + 1
    activity = rng.lognormal(0.0, 1.0, users)
    tags = rng.random((rows, len(_TAGS))) < 0.25
    tags[0] = False
    return World(
        age=rng.integers(_AGES, size=users).astype(np.int32),
        city=rng.integers(_CITIES, size=users).astype(np.int32),
        tenure=np.floor(rng.exponential(400.0, users)),
        activity=activity / activity.sum(),
        favourites=_in_groups(settings, np.argsort(rng.random((users, len(CATEGORIES))), 1)[:, :_FAVOURITES]),
        category=rng.integers(len(CATEGORIES), size=rows).astype(np.int32),
        brand=rng.integers(_BRANDS, size=rows).astype(np.int32),
        price=np.round(rng.lognormal(2.5, 0.6, rows), 2),
        appeal=rng.normal(0.0, 0.5, rows),
        tags=Ragged(np.concatenate(([0], np.cumsum(tags.sum(1)))), np.nonzero(tags)[1].astype(np.int32)),
        by_age=rng.normal(0.0, 1.0, (_AGES, len(CATEGORIES))),
        by_scenario=rng.normal(0.0, 0.6, (settings.scenarios, 2)),
        by_city=rng.normal(0.0, 0.6, (_CITIES, _BRANDS)),
        strength=settings.strength,
        by_style=_by_style(settings),
    )


def _scenarios(settings: ShopSettings, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scenario of every impression ``<int32>[n]``: mostly the user's own, otherwise any."""
    at_home = rng.random(len(user)) < 0.6
    if not settings.shares:
        return np.where(at_home, user % _ALIKE, rng.integers(_ALIKE, size=len(user))).astype(np.int32)
    shares = np.array(settings.shares) / sum(settings.shares)
    home = rng.choice(len(shares), settings.users, p=shares)
    return np.where(at_home, home[user], rng.choice(len(shares), len(user), p=shares)).astype(np.int32)


def _in_groups(settings: ShopSettings, own: np.ndarray) -> np.ndarray:
    """Favourites ``<int32>[U, 2]``: those of the user's group, or its own; drawn apart, as `_by_style`."""
    if not settings.tastes:
        return own.astype(np.int32)
    rng = np.random.default_rng([settings.seed, 2])
    pairs = np.stack(np.triu_indices(len(CATEGORIES), 1), axis=1)
    groups = rng.permutation(pairs)[: settings.tastes]
    shared = groups[rng.integers(settings.tastes, size=len(own))]
    return np.where(rng.random((len(own), 1)) < settings.alone, own, shared).astype(np.int32)


def _by_style(settings: ShopSettings) -> np.ndarray:
    """What categories add in every scenario; drawn apart, so that it changes nothing else of the shop."""
    rng = np.random.default_rng([settings.seed, 1])
    style = rng.normal(0.0, settings.specific, (_STYLES, len(CATEGORIES)))
    own = rng.normal(0.0, 0.2 * settings.specific, (settings.scenarios, len(CATEGORIES)))
    return style[np.arange(settings.scenarios) % _STYLES] + own


def true_probabilities(
    world: World, user: np.ndarray, item: np.ndarray, scenario: np.ndarray, position: np.ndarray
) -> Truth:
    """What is true of impressions, shown or not.

    Args:
        world: see `World`.
        user: ``<int>[n]``.
        item: ``<int>[n]`` in ``1 .. I``.
        scenario: ``<int>[n]``.
        position: ``<int>[n]`` in the list that the user was shown, 0 at the top.
    """
    category = world.category[item]
    favourite = (world.favourites[user] == category[:, None]).any(1) - _SHARE
    dear = (world.price[item] > np.exp(2.5)).astype(np.int64)
    click = -0.8 - 0.08 * position + world.appeal[item] + world.by_age[world.age[user], category]
    click = click + world.by_scenario[scenario, dear] + world.strength * favourite
    click = click + world.by_style[scenario, category]
    conversion = -0.4 - 0.6 * (np.log(world.price[item]) - 2.5) + 0.7 * world.strength * favourite
    conversion = conversion + world.by_city[world.city[user], world.brand[item]]
    return Truth(_logistic(click), _logistic(conversion))


def rationales(world: World) -> np.ndarray:
    """What a truthful writer says about every user, ``<str>[U]``."""
    pairs = np.array(CATEGORIES, dtype=object)[world.favourites]
    return as_strings([f"The user likes {first} and {second}." for first, second in pairs.tolist()])


def rationale_vectors(world: World, width: int = 32, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Vectors that say what `rationales` do, ``<float32>[U, width]``.

    Args:
        world: see `World`.
        width: of a vector.
        noise: standard deviation of what is added to each number; the numbers' own is 1.
        seed: of the directions of the categories and of the noise.
    """
    rng = np.random.default_rng(seed)
    said = _directions(rng, width)[world.favourites].sum(1)
    return (said + noise * rng.standard_normal(said.shape)).astype(np.float32)


def item_vectors(world: World, width: int = 32, seed: int = 0) -> np.ndarray:
    """Vectors of every item's category, as the rationales say it, ``<float32>[I + 1, width]``.

    Args:
        world: see `World`.
        width: of a vector.
        seed: of the directions of the categories, as of `rationale_vectors`.
    """
    vectors = _directions(np.random.default_rng(seed), width)[world.category].astype(np.float32)
    vectors[0] = 0.0
    return vectors


def _directions(rng: np.random.Generator, width: int) -> np.ndarray:
    """One direction for each category, ``<float64>[categories, width]``."""
    return rng.normal(0.0, np.sqrt(1 / _FAVOURITES), (len(CATEGORIES), width))


def scenario_vectors(world: World, width: int = 8, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Vectors that say of which style every scenario is, ``<float32>[scenarios, width]``.

    Args:
        world: see `World`.
        width: of a vector.
        noise: standard deviation of what is added to each number; the numbers' own is 1.
        seed: of the directions of the styles and of the noise.
    """
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(_STYLES, width))[np.arange(len(world.by_style)) % _STYLES]
    return (said + noise * rng.standard_normal(said.shape)).astype(np.float32)


def schema_of_shop() -> Schema:
    """The schema of the generated log."""
    return Schema(
        "user_id", "item_id", "time", (Label("click"), Label("conversion", given="click")),
        (
            Feature("age", "categorical", "user"), Feature("city", "categorical", "user"),
            Feature("tenure", "numeric", "user", log=True), Feature("category", "categorical", "item"),
            Feature("brand", "categorical", "item"), Feature("price", "numeric", "item", log=True),
            Feature("tags", "multi", "item"), Feature("position", "numeric", "context"),
        ),
        "scenario", "milliseconds",
    )  # fmt: skip


def _features(world: World, position: np.ndarray) -> dict[str, Tokens | Multi | np.ndarray]:
    def named(code: np.ndarray, word: str) -> Tokens:
        return Tokens(code, as_strings([f"{word} {number}" for number in range(int(code.max()) + 1)]))

    return {
        "age": named(world.age, "age"),
        "city": named(world.city, "city"),
        "tenure": world.tenure,
        "category": Tokens(world.category, as_strings(CATEGORIES)),
        "brand": named(world.brand, "brand"),
        "price": world.price,
        "tags": Multi(world.tags, as_strings(_TAGS)),
        "position": position.astype(np.float64),
    }


def _ids(settings: ShopSettings) -> IdMap:
    users = [f"U{number:06d}" for number in range(settings.users)]
    items = [f"P{number:05d}" for number in range(1, settings.items + 1)]
    return IdMap(as_strings(users), as_strings(["", *items]))


def _logistic(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
