"""Splits against hand-made tables and loops over users, and the law that nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.data.splits import ratio_counts, split
from reland_jax.types import IdMap, Interactions, RelandError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)

# Interactions of a user -> (train, valid, test) of the 80/10/10 split, worked out by hand.
RATIO_TABLE = {
    1: (1, 0, 0), 2: (1, 0, 1), 3: (1, 1, 1), 4: (2, 1, 1), 5: (3, 1, 1), 6: (4, 1, 1), 7: (5, 1, 1),
    8: (6, 1, 1), 9: (7, 1, 1), 10: (8, 1, 1), 11: (9, 1, 1), 12: (10, 1, 1), 13: (11, 1, 1),
    14: (12, 1, 1), 15: (13, 1, 1), 16: (14, 1, 1), 17: (15, 1, 1), 18: (16, 1, 1), 19: (17, 1, 1),
    20: (16, 2, 2), 21: (17, 2, 2), 22: (18, 2, 2), 23: (19, 2, 2), 24: (20, 2, 2), 25: (21, 2, 2),
    30: (24, 3, 3), 70: (56, 7, 7), 99: (81, 9, 9),
}  # fmt: skip


def _interactions(lengths: list[int], fixed: np.ndarray | None = None) -> Interactions:
    """User ``u`` has `lengths[u]` rows; items count up, so every row is recognisable by its item."""
    user = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    item = np.arange(1, len(user) + 1, dtype=np.int32)
    users = np.array([f"u{number}" for number in range(len(lengths))])
    items = np.array(["", *(f"i{number}" for number in item)])
    ids = IdMap(users, items)
    return Interactions(user, item, np.arange(len(user), dtype=np.float64), ids, {}, {}, fixed)


def _formula(total: int) -> tuple[int, int, int]:
    """The rounding rule for one user, with floats, as the reference states it."""
    counts = [0, int(0.1 * total), int(0.1 * total)]
    counts[0] = total - sum(counts)
    for which in (2, 1):
        if counts[0] <= 1:
            break
        if 0 < 0.1 * total < 1:
            counts[which] += 1
            counts[0] -= 1
    return counts[0], counts[1], counts[2]


def test_ratio_counts_equal_the_hand_made_table() -> None:
    lengths = np.array(list(RATIO_TABLE))
    got = list(zip(*(part.tolist() for part in ratio_counts(lengths)), strict=True))
    assert got == list(RATIO_TABLE.values())


def test_ratio_counts_equal_the_rule_in_floats() -> None:
    lengths = np.arange(1, 3000)
    got = np.stack(ratio_counts(lengths), axis=1)
    assert got.tolist() == [list(_formula(int(total))) for total in lengths]


@given(LENGTHS, st.sampled_from(("leave_one_out", "ratio")))
def test_parts_in_order_are_the_whole_history(lengths: list[int], protocol: str) -> None:
    interactions = _interactions(lengths)
    splits = split(interactions, protocol)
    for user in range(len(lengths)):
        parts = [part.row(user) for part in (splits.train, splits.valid, splits.test)]
        assert np.concatenate(parts).tolist() == interactions.item[interactions.user == user].tolist()


def test_leave_one_out_for_every_length() -> None:
    lengths = list(range(1, 41))
    splits = split(_interactions(lengths), "leave_one_out")
    for user, total in enumerate(lengths):
        sizes = tuple(part.lengths()[user] for part in (splits.train, splits.valid, splits.test))
        assert sizes == ((total - 2, 1, 1) if total >= 3 else (total, 0, 0))


def test_fixed_split_with_a_validation_part_is_taken_as_it_is() -> None:
    fixed = np.array([0, 2, 1, 0, 0, 0, 2], np.int8)
    splits = split(_interactions([4, 3], fixed), "fixed")
    assert [splits.train.row(user).tolist() for user in (0, 1)] == [[1, 4], [5, 6]]
    assert [splits.valid.row(user).tolist() for user in (0, 1)] == [[3], []]
    assert [splits.test.row(user).tolist() for user in (0, 1)] == [[2], [7]]


@given(LENGTHS, st.integers(0, 1000))
def test_fixed_split_holds_out_one_training_item(lengths: list[int], seed: int) -> None:
    fixed = (2 * np.random.default_rng(seed).integers(0, 2, size=sum(lengths))).astype(np.int8)
    interactions = _interactions(lengths, fixed)
    splits = split(interactions, "fixed")
    for user in range(len(lengths)):
        mine = interactions.user == user
        offered = interactions.item[mine & (fixed == 0)].tolist()
        train, valid = splits.train.row(user).tolist(), splits.valid.row(user).tolist()
        assert len(valid) == (1 if len(offered) >= 2 else 0)
        assert sorted(train + valid) == offered
        assert splits.test.row(user).tolist() == interactions.item[mine & (fixed == 2)].tolist()
    assert (interactions.fixed_split == fixed).all()
    assert split(interactions, "fixed").valid.items.tolist() == splits.valid.items.tolist()


@given(LENGTHS, st.integers(0, 1000))
def test_fixed_split_holds_out_one_test_item_if_asked_to(lengths: list[int], seed: int) -> None:
    """Training stays whole, and a user with one test item keeps it."""
    fixed = (2 * np.random.default_rng(seed).integers(0, 2, size=sum(lengths))).astype(np.int8)
    interactions = _interactions(lengths, fixed)
    splits = split(interactions, "fixed", "test")
    for user in range(len(lengths)):
        mine = interactions.user == user
        offered = interactions.item[mine & (fixed == 2)].tolist()
        valid, test = splits.valid.row(user).tolist(), splits.test.row(user).tolist()
        assert len(valid) == (1 if len(offered) >= 2 else 0) and sorted(valid + test) == offered
        assert splits.train.row(user).tolist() == interactions.item[mine & (fixed == 0)].tolist()


def test_fixed_hold_out_is_spread_over_the_positions() -> None:
    splits = split(_interactions([4] * 2000, np.zeros(8000, np.int8)), "fixed")
    counts = np.bincount((splits.valid.items - 1) % 4)
    assert counts.min() > 400


def test_faults_say_what_to_use_instead() -> None:
    with pytest.raises(RelandError, match=r"'fixed' needs data with a split column.*'ratio'"):
        split(_interactions([4]), "fixed")
    with pytest.raises(RelandError, match=r"'leave_one' is not known; did you mean 'leave_one_out'"):
        split(_interactions([4]), "leave_one")
