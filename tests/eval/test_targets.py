"""Held-out items: counted against a plain loop over users, and what is said about them."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.config import EvalConfig
from reland_jax.eval.targets import (
    HeldOut,
    check_targets,
    distinct_targets,
    evaluation_notes,
    had_before,
    held_out,
)
from reland_jax.types import Ragged, RelandError, Splits
from tests.toys import ragged

NUM_ITEMS = 9


def random_splits(seed: int) -> Splits:
    """40 users with few items and many repeats; some have no item in a part, or none at all."""
    rng = np.random.default_rng(seed)

    def part(most: int) -> Ragged:
        return ragged([rng.integers(1, NUM_ITEMS + 1, rng.integers(most + 1)).tolist() for _ in range(40)])

    return Splits(part(14), part(3), part(4), NUM_ITEMS, "ratio")


def counted(splits: Splits, part: str, mask: bool, cutoffs: tuple[int, ...]) -> HeldOut:
    """The same, user by user."""
    users = targets = given = before = 0
    lengths = []
    for user in range(splits.num_users):
        row = getattr(splits, part).row(user).tolist()
        history = set(splits.train.row(user).tolist())
        history |= set(splits.valid.row(user).tolist()) if part == "test" else set()
        users, targets, given = users + bool(row), targets + len(set(row)), given + len(row)
        before += len(set(row) & history)
        if row:
            masked = history if mask else set()
            lengths.append(min(NUM_ITEMS - len(masked - {target}) for target in row))
    short = {k: sum(length <= k for length in lengths) for k in cutoffs}
    short = {k: number for k, number in short.items() if number}
    return HeldOut(users, 40 - users, targets, given - targets, before, short)


@pytest.mark.parametrize("cutoffs", [(2, 5), (5, 10, 20), (1,)])
@pytest.mark.parametrize("mask", [True, False])
def test_counts_equal_those_of_a_loop_over_users(mask: bool, cutoffs: tuple[int, ...]) -> None:
    for seed in range(5):
        splits = random_splits(seed)
        found = held_out(splits, EvalConfig(mask_history=mask, cutoffs=cutoffs))
        assert found == {part: counted(splits, part, mask, cutoffs) for part in ("valid", "test")}


def test_repeats_are_found_in_any_of_the_histories() -> None:
    targets = ragged([[1, 2, 3], [], [3, 3, 9]])
    first, second = ragged([[2], [1], [9, 9]]), ragged([[], [], [3, 1]])
    assert had_before(targets, first, second).tolist() == [False, True, False, True, True, True]
    assert had_before(targets, first).tolist() == [False, True, False, False, False, True]
    assert had_before(targets).tolist() == [False] * 6
    assert had_before(ragged([[], []]), ragged([[1], []])).tolist() == []


def test_distinct_targets_keep_their_order_and_empty_rows() -> None:
    found = distinct_targets(ragged([[4, 2, 4], [], [1, 1], [2]]))
    assert [found.row(user).tolist() for user in range(4)] == [[4, 2], [], [1], [2]]
    untouched = ragged([[4, 2], [4]])
    assert distinct_targets(untouched) is untouched


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    plain = HeldOut(40, 0, 40, 0, 0, {})
    assert evaluation_notes({"valid": plain, "test": plain}, "leave_one_out", True) == []


def test_notes_say_who_is_left_out_and_what_was_had_before() -> None:
    plain = HeldOut(40, 0, 40, 0, 0, {})
    test = HeldOut(30, 10, 33, 2, 11, {10: 4, 20: 30})
    notes = " ".join(evaluation_notes({"valid": plain, "test": test}, "leave_one_out", True))
    assert "10 of 40 users have no test item" in notes and "at least 3 interactions" in notes
    assert "11 of 33 test items are items that the user has had before" in notes
    assert "new to the user, unlike the rest of the history." in notes
    assert "2 held-out interactions" in notes
    assert "with a test item (30 in all): HR@10 of 4, HR@20 of 30 can only be 1" in notes
    assert "validation" not in notes
    unmasked = " ".join(evaluation_notes({"valid": plain, "test": test}, "fixed", False))
    assert "as is the rest of the history." in unmasked and "the data fix who has any" in unmasked


@pytest.mark.parametrize(("part", "name"), [("valid", "validation"), ("test", "test")])
def test_a_part_without_any_item_is_refused_by_name(part: str, name: str) -> None:
    splits = random_splits(0)
    check_targets(splits)
    with pytest.raises(RelandError, match=f"of 40 users none has a {name} item by .*'ratio'"):
        check_targets(splits._replace(**{part: ragged([[]] * 40)}))


def test_a_split_without_training_items_is_refused() -> None:
    with pytest.raises(RelandError, match="an item to learn from: of 40 users none has a training"):
        check_targets(random_splits(0)._replace(train=ragged([[]] * 40)))
