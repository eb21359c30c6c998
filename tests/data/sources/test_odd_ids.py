"""Remarks on ids that may have been meant otherwise."""

from __future__ import annotations

import re

import pytest

from reland_jax.data.sources.odd_ids import odd_ids
from reland_jax.data.sources.raw import tokens


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["NULL", "u", "NULL"], "2 rows have the user id 'NULL', which is taken for one user"),
        (["u", "None"], "1 rows have the user id 'None'"),
        (["u", "N/A"], "'N/A'"),
        (["-1", "7"], "'-1'"),
        (["7", "Undefined"], "'Undefined'"),
        (["ann", "Ann"], "1 user ids differ from others only in capitals.* such as 'ann' and 'Ann'"),
        (["caf\u00e9", "cafe\u0301", "x"], "1 user ids differ from others only in .*accents"),
        (["7", "007", "7.0"], "2 user ids differ from others .* such as '7' and '007'"),
        (["\ufeffu", "u"], "1 user ids differ from others"),
        ([" u", "v"], "1 user ids begin or end in a space, such as ' u'"),
        (["1.0", "2.0"], "whole numbers written with a point, such as '1.0'.* '1' in another file"),
        (["9.78014E+12", "4"], "1 user ids are numbers as a spreadsheet rounds them, such as '9.78014E"),
    ],
)
def test_what_may_have_been_meant_otherwise_is_reported(ids: list[str], told: str) -> None:
    (note,) = odd_ids("user", tokens(ids))
    assert re.search(told, note)


def test_usual_ids_are_not_remarked_on() -> None:
    assert odd_ids("item", tokens(["B00E1", "0", "42", "u-1", "natalie", "Zoë", "1.5"])) == []
    assert odd_ids("item", tokens([])) == []
