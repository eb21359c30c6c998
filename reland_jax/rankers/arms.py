"""The arms of a comparison, as values in one table: which texts a ranker reads, and what replaces them."""

from __future__ import annotations

import dataclasses

import numpy as np

from reland_jax.fields import nearest_name
from reland_jax.rankers.text_fields import Texts
from reland_jax.text import ablated
from reland_jax.types import RelandError

PERMUTED, NOISE, OWN = "permuted", "noise", "own"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm. All that have a field for the rationale have one of equal width.

    Attributes:
        name: as settings and results call it.
        reads_items: whether the text of the item is a field.
        reads_rationales: whether a rationale of the user is a field, with the cosine to the seed user.
        reads_seed_ids: whether an embedding of the seed user's number takes the place of the rationale: being
            matched is a cluster of users, and a feature without any words.
        source: which rationale: "" that of the seed user; `PERMUTED` that of another one's; `NOISE`
            a random vector for every seed user; `OWN` the text of the user.
    """

    name: str
    reads_items: bool = False
    reads_rationales: bool = False
    reads_seed_ids: bool = False
    source: str = ""

    @property
    def fields(self) -> int:
        """Number of fields that it adds; they come last."""
        return int(self.reads_items) + 2 * int(self.reads_rationales or self.reads_seed_ids)


ID = Arm("id")
F_ITEM = Arm("f_item", reads_items=True)
RELAND = Arm("reland", reads_items=True, reads_rationales=True)

_ALL = (
    ID,
    F_ITEM,
    RELAND,
    Arm("seed_id", reads_items=True, reads_seed_ids=True),
    *(dataclasses.replace(RELAND, name=source, source=source) for source in (PERMUTED, NOISE, OWN)),
)
ARMS = {each.name: each for each in _ALL}
"""All arms by name, in the order of tables."""


def find_arm(name: str) -> Arm:
    """The arm of a name.

    Raises:
        RelandError: there is none.
    """
    if name not in ARMS:
        raise RelandError(f"arm {name!r} is not known; {nearest_name(name, list(ARMS))}")
    return ARMS[name]


def arm_texts(arm: Arm, texts: Texts, own: np.ndarray | None = None, seed: int = 0) -> Texts:
    """What an arm is given of the texts of `reland`.

    Args:
        arm: of `ARMS`.
        texts: with all that `reland` reads, on the host.
        own: ``<float32>[U, T]``, the text of every user, zero where it has none; for the arm `own`.
        seed: of what is drawn.

    Raises:
        RelandError: something that the arm reads is not there.
    """
    items = _there(arm, texts.items, "item texts") if arm.reads_items else None
    if not (arm.reads_rationales or arm.reads_seed_ids):
        return Texts(items=items)
    if arm.source == OWN:
        own = _there(arm, own, "texts of the users")
        has_one = own.any(axis=1)
        rows = np.where(has_one, np.arange(len(own)), -1).astype(np.int32)
        return Texts(items, own, rows, np.asarray(has_one, np.float32))
    found = _there(arm, texts.seed, "seed users of the users")
    cosine = _there(arm, texts.cosine, "cosines of the users")
    if arm.reads_seed_ids:
        return Texts(items, None, found, cosine)
    rationales = _there(arm, texts.rationales, "rationales")
    if arm.source == PERMUTED:
        found = shuffled(found, seed)
    if arm.source == NOISE:
        rationales = ablated(rationales, NOISE, seed)
    return Texts(items, rationales, found, cosine)


def _there(arm: Arm, array: object, what: str) -> np.ndarray:
    if array is None:
        raise RelandError(f"arm {arm.name!r} reads {what}, and there are none")
    return np.asarray(array)


def shuffled(seeds: np.ndarray, seed: int) -> np.ndarray:
    """The seed users of the users who have one, dealt to them anew ``<int32>[U]``; cosines stay.

    Every user reads what is another fixed user's, or, while that one has none, what the next one in a circle
    of all users has. So a user who gets a first seed user, as some do each day, changes the text of one more.
    """
    has_one, order = seeds >= 0, np.random.default_rng(seed).permutation(len(seeds))
    whose = order
    while (without := has_one & ~has_one[whose]).any():
        whose = np.where(without, order[whose], whose)
    return np.where(has_one, seeds[whose], seeds).astype(seeds.dtype)
