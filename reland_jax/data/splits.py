"""From interactions to training, validation and test: two protocols (docs/method.md) and fixed splits."""

from __future__ import annotations

import numpy as np

from reland_jax.config import PROTOCOLS, nearest_name
from reland_jax.types import Interactions, Ragged, RelandError, Splits

_TRAIN, _VALID, _TEST = 0, 1, 2
_HOLD_OUT_SEED = 0

NOTHING_HELD_OUT = "nothing held out"
"""The protocol of a model that is used and not measured."""

REFRESHED = "refreshed"
"""The protocol of a served model whose histories are newer than its training."""


def split(interactions: Interactions, protocol: str, validation_from: str = "train") -> Splits:
    """Divides every user's interactions.

    Args:
        interactions: sorted by user and time.
        protocol: "leave_one_out": the last item is for testing, the one before for validation; a user
            with fewer than three keeps all for training. "ratio": the last tenth for testing, the
            tenth before for validation, rounded as in `ratio_counts`. "fixed": the data's own split;
            where it has no validation part, one item of every user with at least two is held out at
            random (always the same one), as such data has no order.
        validation_from: "fixed": the part that such an item is taken from, "train" or "test".

    Raises:
        RelandError: an unknown protocol, or "fixed" for data that fixes no split.
    """
    lengths = np.bincount(interactions.user, minlength=interactions.num_users)
    if protocol == "leave_one_out":
        held_out = (lengths >= 3).astype(np.int64)
        part = _from_the_end(lengths, held_out, held_out)
    elif protocol == "ratio":
        _, valid, test = ratio_counts(lengths)
        part = _from_the_end(lengths, valid, test)
    elif protocol == "fixed":
        part = _fixed_part(interactions, _TEST if validation_from == "test" else _TRAIN)
    else:
        raise RelandError(f"protocol {protocol!r} is not known; {nearest_name(protocol, PROTOCOLS)}")
    rows = [_rows_of(interactions, part == which) for which in (_TRAIN, _VALID, _TEST)]
    return Splits(rows[0], rows[1], rows[2], interactions.num_items, protocol)


def unsplit(interactions: Interactions) -> Splits:
    """All interactions for training, and nothing held out, under the protocol `NOTHING_HELD_OUT`."""
    everything = _rows_of(interactions, np.ones(len(interactions.user), bool))
    none = Ragged(np.zeros(interactions.num_users + 1, np.int64), np.zeros(0, np.int32))
    return Splits(everything, none, none, interactions.num_items, NOTHING_HELD_OUT)


def ratio_counts(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of an 80/10/10 split, rounded as RecBole does (the rule behind the paper's numbers).

    A tenth is rounded down, except that a user with fewer than ten interactions still gives one to
    testing and then one to validation as long as more than one is left for training.

    Args:
        lengths: ``<int64>[U]``, interactions of every user.

    Returns:
        Training, validation and test sizes, each ``<int64>[U]``; they add up to `lengths`.
    """
    valid = lengths // 10
    test = valid.copy()
    train = lengths - valid - test
    for part in (test, valid):
        extra = (train > 1) & (lengths < 10)
        part += extra
        train = train - extra
    return train, valid, test


def _from_the_end(lengths: np.ndarray, valid: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Part of every row, ``<int8>[n]``, when users end with `valid` and then `test` rows."""
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(int(lengths.sum()))
    is_test = left <= np.repeat(test, lengths)
    is_held_out = left <= np.repeat(test + valid, lengths)
    return np.where(is_test, _TEST, np.where(is_held_out, _VALID, _TRAIN)).astype(np.int8)


def _fixed_part(interactions: Interactions, source: int) -> np.ndarray:
    """Part of every row, ``<int8>[n]``, from the data's own split; `source` gives what it lacks."""
    if interactions.fixed_split is None:
        raise RelandError(
            "protocol 'fixed' needs data with a split column and this data has none; "
            "use 'leave_one_out' or 'ratio'"
        )
    part = interactions.fixed_split.copy()
    if not (part == _VALID).any():
        rows = np.flatnonzero(part == source)
        lengths = np.bincount(interactions.user[rows], minlength=interactions.num_users)
        starts = np.cumsum(lengths) - lengths
        draws = np.random.default_rng(_HOLD_OUT_SEED).random(interactions.num_users)
        chosen = starts + np.floor(draws * lengths).astype(np.int64)
        part[rows[chosen[lengths >= 2]]] = _VALID
    return part


def _rows_of(interactions: Interactions, chosen: np.ndarray) -> Ragged:
    """The chosen rows as one list per user."""
    lengths = np.bincount(interactions.user[chosen], minlength=interactions.num_users)
    return Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), interactions.item[chosen])
