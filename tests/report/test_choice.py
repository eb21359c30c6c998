"""Which users a report shows: ids are compared as they are written, and none is passed over."""

from __future__ import annotations

import pytest

from reland_jax.report.choice import users_to_show
from reland_jax.strings import as_strings
from reland_jax.types import RelandError

USERS = as_strings(["12", "5", "05", "5.0", "anna", "b,c", "c"])


def test_users_come_in_the_order_asked_for_and_once() -> None:
    assert users_to_show(["anna", "5", "12", "5"], USERS).tolist() == [4, 1, 0]
    assert users_to_show([], USERS).tolist() == []


def test_ids_are_texts() -> None:
    """05, 5 and 5.0 are three users, and 5.00 is none."""
    assert users_to_show(["05", "5.0", "5"], USERS).tolist() == [2, 3, 1]
    with pytest.raises(RelandError, match=r"'5.00' is not one of the 7 users .* did you mean '5.0'\?"):
        users_to_show(["5.00"], USERS)


def test_an_id_with_a_comma_is_one_before_it_is_two() -> None:
    assert users_to_show(["b,c"], USERS).tolist() == [5]
    assert users_to_show(["anna, c,12"], USERS).tolist() == [4, 6, 0]


def test_an_unknown_id_beside_known_ones_is_named() -> None:
    with pytest.raises(RelandError, match="report_users: 'nobody' is not one"):
        users_to_show(["anna,nobody", "5"], USERS)
