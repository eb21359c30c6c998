"""The held-out items that users are evaluated by, and notes that a reader of the numbers needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.config import EvalConfig
from reland_jax.types import PARTS, Ragged, RelandError, Splits

PART_NAMES = dict(zip(PARTS, ("validation", "test"), strict=True))
"""For people."""

_WHO_HAS_NONE = {
    "leave_one_out": "leave_one_out holds out items of users with at least 3 interactions",
    "ratio": "ratio holds out items of users with at least 3 interactions, and a test item of those with 2",
    "fixed": "the data fix who has any",
}
"""Protocol -> why a user may have no held-out item."""


class HeldOut(NamedTuple):
    """The held-out items of one part of a split, counted.

    Attributes:
        users: users with at least one, who are evaluated.
        users_without: the others, who are not.
        targets: held-out items, each once for a user.
        repeated: held-out interactions with an item that is a target of the user already; they do not count.
        had_before: targets that the user has had before.
        short_lists: cutoff K -> users who have at most K items to rank: their HR@K is 1 whatever a model
            scores. Only cutoffs with such users.
    """

    users: int
    users_without: int
    targets: int
    repeated: int
    had_before: int
    short_lists: Mapping[int, int]


def held_out(splits: Splits, config: EvalConfig) -> dict[str, HeldOut]:
    """By part, "valid" and "test", the held-out items of that part, counted.

    Args:
        splits: of all users.
        config: whether the history is masked, and the cutoffs.
    """
    histories = {"valid": (splits.train,), "test": (splits.train, splits.valid)}
    return {
        part: _held_out(getattr(splits, part), histories[part], splits.num_items, config)
        for part in PART_NAMES
    }


def check_targets(splits: Splits) -> None:
    """Refuses a split without training, validation or test items.

    Raises:
        RelandError: no user has an item of one of the parts.
    """
    for part, name in {"train": "training", **PART_NAMES}.items():
        if not len(getattr(splits, part).items):
            purpose = "learn from" if part == "train" else "rank"
            raise RelandError(
                f"no user has an item to {purpose}: of {splits.num_users:,} users none has a {name} item by "
                f"config.data.protocol={splits.protocol!r} ({_WHO_HAS_NONE[splits.protocol]}); "
                "use another protocol, or data with longer histories"
            )


def distinct_targets(targets: Ragged) -> Ragged:
    """The lists without repeated items of a user; the same object if there are none.

    Args:
        targets: ``U`` rows.
    """
    keys = _keys(targets, _width(targets))
    first = np.unique(keys, return_index=True)[1]
    if len(first) == len(keys):
        return targets
    first = np.sort(first)
    lengths = np.bincount(_owners(targets)[first], minlength=targets.num_rows)
    return Ragged(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), targets.items[first])


def had_before(targets: Ragged, *histories: Ragged) -> np.ndarray:
    """Which targets are items that their user has had before.

    Args:
        targets: ``U`` rows, n items.
        histories: each of ``U`` rows.

    Returns:
        ``<bool>[n]``.
    """
    width = _width(targets, *histories)
    wanted, of_target = np.unique(_keys(targets, width), return_inverse=True)
    found = np.zeros(len(wanted), bool)
    if len(wanted):
        for history in histories:
            keys = _keys(history, width)
            place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            found[place[wanted[place] == keys]] = True
    return found[of_target]


def evaluation_notes(held: Mapping[str, HeldOut], protocol: str, mask_history: bool) -> list[str]:
    """Notes for the reader of the metrics, one sentence each: users left out, and repeated items.

    Args:
        held: see `held_out`.
        protocol: of the split.
        mask_history: whether the history is left out of the ranking.
    """
    notes = []
    for part, name in PART_NAMES.items():
        one = held[part]
        if one.users_without:
            notes.append(
                f"{one.users_without:,} of {one.users + one.users_without:,} users have no {name} item and "
                f"are not evaluated by one; {_WHO_HAS_NONE[protocol]}."
            )
        if one.repeated:
            notes.append(
                f"{one.repeated:,} held-out interactions are with an item that is a {name} item of the same "
                "user already; each item counts once."
            )
        if one.had_before:
            how = "unlike the rest of the history" if mask_history else "as is the rest of the history"
            notes.append(
                f"{one.had_before:,} of {one.targets:,} {name} items are items that the user has had before; "
                f"they are ranked like items that are new to the user, {how}."
            )
        if one.short_lists:
            short = ", ".join(f"HR@{cutoff} of {users:,}" for cutoff, users in one.short_lists.items())
            notes.append(
                f"No more items are ranked than a cutoff has for some users with a {name} item "
                f"({one.users:,} in all): {short} can only be 1, whatever a model scores."
            )
    return notes


def _held_out(given: Ragged, histories: Sequence[Ragged], num_items: int, config: EvalConfig) -> HeldOut:
    targets = distinct_targets(given)
    before = had_before(targets, *histories)
    users = int(np.count_nonzero(targets.lengths()))
    length = _list_lengths(targets, before, histories if config.mask_history else (), num_items, config)
    short = {cutoff: int(np.count_nonzero(length <= cutoff)) for cutoff in sorted(config.cutoffs)}
    return HeldOut(
        users=users,
        users_without=targets.num_rows - users,
        targets=len(targets.items),
        repeated=len(given.items) - len(targets.items),
        had_before=int(np.count_nonzero(before)),
        short_lists={cutoff: users for cutoff, users in short.items() if users},
    )


def _list_lengths(
    targets: Ragged, before: np.ndarray, masked: Sequence[Ragged], num_items: int, config: EvalConfig
) -> np.ndarray:
    """Items in the shortest list that is ranked for every user with a target, ``<int64>[users]``.

    Exact up to the largest cutoff; otherwise any number above it.
    """
    evaluated = targets.lengths() > 0
    had = np.zeros(targets.num_rows, np.int64)
    for history in masked:
        had += history.lengths()
    # Repeats are counted out only where they matter, which is for very few users in data of the usual size.
    near = evaluated & (num_items - had <= max(config.cutoffs))
    if near.any():
        width = num_items + 1
        of_each = [_keys(history, width)[np.repeat(near, history.lengths())] for history in masked]
        keys = np.unique(np.concatenate(of_each)) if of_each else np.zeros(0, np.int64)
        had = np.where(near, np.bincount(keys // width, minlength=len(had)), had)
    # A target that the user has had before is in its own list, but not in those of the user's other targets.
    new = np.bincount(_owners(targets)[~before], minlength=targets.num_rows) > 0
    back = np.zeros_like(had) if not masked else (~new).astype(np.int64)
    return (num_items - had + back)[evaluated]


def _owners(lists: Ragged) -> np.ndarray:
    """``<int64>[n]``, the row of every item."""
    return np.repeat(np.arange(lists.num_rows, dtype=np.int64), lists.lengths())


def _width(*lists: Ragged) -> int:
    return 1 + max((int(each.items.max()) for each in lists if len(each.items)), default=0)


def _keys(lists: Ragged, width: int) -> np.ndarray:
    """One number for every pair of row and item, ``<int64>[n]``."""
    return _owners(lists) * width + lists.items
