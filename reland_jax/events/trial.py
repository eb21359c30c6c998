"""An A/B test in the generated shop: either arm could have any user, and the truth is known.

Each visit of a user offers a slate of candidates, of which the arm's ranker shows the best. What comes of
an item that is shown is a function of the user, the day, the visit and the item (common random numbers):
arms differ only where they choose differently.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from reland_jax.events.lifts import Counts
from reland_jax.events.shop import World, true_probabilities
from reland_jax.hashes import hashed, uniform
from reland_jax.types import RelandError

_SCENARIOS = 3
_CLICK, _CONVERSION = 1, 2


@dataclasses.dataclass(frozen=True)
class TrialSettings:
    """How a test is run.

    Attributes:
        days: of the test.
        candidates: items of a slate, drawn by their appeal as in the log; one may be there twice.
        shown: items of a slate that are shown, the best by the arm's ranker, best first.
        visits: mean visits per user and day; active users come more often.
        buckets: into how many parts users are divided by a hash.
        share: buckets of each of the two arms.
        salt: of the hash of users.
        seed: of visits, slates and outcomes.
    """

    days: int = 5
    candidates: int = 20
    shown: int = 5
    visits: float = 1.0
    buckets: int = 10
    share: int = 1
    salt: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for name in ("days", "candidates", "shown", "buckets", "share"):
            if getattr(self, name) < 1:
                raise RelandError(f"{name}={getattr(self, name)} must be at least 1")
        if self.shown > self.candidates:
            raise RelandError(f"shown={self.shown} items cannot be chosen of candidates={self.candidates}")
        if 2 * self.share > self.buckets:
            raise RelandError(f"two arms of share={self.share} buckets need more than buckets={self.buckets}")
        if not self.visits > 0:
            raise RelandError(f"visits={self.visits} must be above 0")


class Slates(NamedTuple):
    """What may be shown; V visits of K candidates.

    Attributes:
        user: ``<int32>[V]``.
        day: ``<int32>[V]``, from 0.
        visit: ``<int32>[V]``, the visit's number.
        scenario: ``<int32>[V]``.
        item: ``<int32>[V, K]`` in ``1 .. I``.
    """

    user: np.ndarray
    day: np.ndarray
    visit: np.ndarray
    scenario: np.ndarray
    item: np.ndarray


class Shown(NamedTuple):
    """What an arm shows, one row for each impression.

    Attributes:
        user: ``<int32>[n]``.
        day: ``<int32>[n]``.
        visit: ``<int32>[n]``.
        scenario: ``<int32>[n]``.
        item: ``<int32>[n]``.
        position: ``<int64>[n]``, 0 at the top.
    """

    user: np.ndarray
    day: np.ndarray
    visit: np.ndarray
    scenario: np.ndarray
    item: np.ndarray
    position: np.ndarray


def draw_slates(world: World, settings: TrialSettings) -> Slates:
    """The visits of all users, and what may be shown at each; the same for both arms."""
    rng = np.random.default_rng([settings.seed, 0])
    users = len(world.activity)
    visits = rng.poisson(settings.visits * users * np.tile(world.activity, (settings.days, 1)).T)
    user, day = (each.astype(np.int32) for each in np.divmod(np.arange(visits.size), settings.days))
    user, day = np.repeat(user, visits.ravel()), np.repeat(day, visits.ravel())
    weight = np.exp(0.5 * world.appeal[1:])
    item = 1 + rng.choice(len(weight), (len(user), settings.candidates), p=weight / weight.sum())
    scenario = rng.integers(_SCENARIOS, size=len(user)).astype(np.int32)
    visit = np.arange(len(user), dtype=np.int32)
    return Slates(user, day, visit, scenario, item.astype(np.int32))


def show(slates: Slates, scores: np.ndarray, count: int) -> Shown:
    """The candidates with the highest scores; of equal ones those that come first.

    Args:
        slates: V visits.
        scores: ``<float>[V, K]``.
        count: how many are shown.

    Raises:
        RelandError: other numbers of scores than of candidates, or one that is no number.
    """
    if scores.shape != slates.item.shape or not np.isfinite(scores).all():
        raise RelandError(f"scores {scores.shape} of candidates {slates.item.shape}: one finite number each")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    item = np.take_along_axis(slates.item, best, 1)
    rows = np.repeat(np.arange(len(item)), count)
    return Shown(
        slates.user[rows], slates.day[rows], slates.visit[rows], slates.scenario[rows],
        item.ravel(), np.tile(np.arange(count), len(item)),
    )  # fmt: skip


def true_scores(world: World, slates: Slates) -> np.ndarray:
    """The scores of a ranker that knows the truth: the probabilities of a click at the top, ``[V, K]``."""
    shape = slates.item.shape
    user, scenario = (np.repeat(each, shape[1]) for each in (slates.user, slates.scenario))
    truth = true_probabilities(world, user, slates.item.ravel(), scenario, np.zeros(len(user)))
    return truth.click.reshape(shape)


def expected(world: World, shown: Shown, days: int) -> Counts:
    """What is shown and the true expectation of what comes of it, per user and day."""
    truth = true_probabilities(world, shown.user, shown.item, shown.scenario, shown.position)
    return _counts(world, shown, days, truth.click, truth.click * truth.conversion)


def outcomes(world: World, shown: Shown, days: int, seed: int) -> Counts:
    """What is shown and what comes of it, per user and day.

    Args:
        world: the truth.
        shown: by one arm, to all users.
        days: of the test.
        seed: of the common random numbers.
    """
    truth = true_probabilities(world, shown.user, shown.item, shown.scenario, shown.position)
    click = uniform(seed, _CLICK, shown.visit, shown.item) < truth.click
    conversion = click & (uniform(seed, _CONVERSION, shown.visit, shown.item) < truth.conversion)
    return _counts(world, shown, days, click, conversion)


def arms_of(num_users: int, settings: TrialSettings) -> tuple[np.ndarray, np.ndarray]:
    """The treated users and those of the baseline, ``<bool>[U]`` each, by a hash of user and salt."""
    bucket = hashed(settings.salt, np.arange(num_users)) % np.uint64(settings.buckets)
    share = settings.share
    return bucket < share, (bucket >= share) & (bucket < 2 * share)


def _counts(world: World, shown: Shown, days: int, click: np.ndarray, conversion: np.ndarray) -> Counts:
    cell = shown.user.astype(np.int64) * days + shown.day
    users = len(world.activity)
    sums = (
        np.bincount(cell, weight, minlength=users * days).astype(np.float64).reshape(users, days)
        for weight in (None, click, conversion)
    )
    return Counts(*sums)
