"""Ids that people use: unknown ones are named or told, filters are those of a loop."""

from __future__ import annotations

import numpy as np
import pytest

from reland_jax.report.cases import Labels
from reland_jax.serve.choosing import Numbers, allowed_items, table_of
from reland_jax.serve.listing import Ranked
from reland_jax.types import RelandError
from tests.serve.toys import BRANDS, TITLES, described
from tests.stages.toys import REPEATS
from tests.toys import inputs_of

INTERACTIONS = described(inputs_of(REPEATS).interactions)
NUMBERS = Numbers(INTERACTIONS)


def test_users_and_items_by_their_ids() -> None:
    assert NUMBERS.users(["u2", "u0", "u2"]).tolist() == [2, 0, 2]
    assert NUMBERS.users(None).tolist() == [0, 1, 2, 3] and NUMBERS.users("u3").tolist() == [3]
    assert NUMBERS.items(["i6", "i1"]).tolist() == [6, 1]


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        ("users", "u22", "'u22' is not one of the 4 users .*did you mean 'u2'.*a new user is given by"),
        ("items", "i11", "'i11' is not one of the 6 items .*did you mean 'i1'"),
        ("items", "", "'' is not one of the 6 items"),
    ],
)
def test_unknown_ids_are_refused(what: str, name: str, message: str) -> None:
    """The padding item, whose id is empty, is nobody's."""
    with pytest.raises(RelandError, match=message):
        getattr(NUMBERS, what)(name)


def test_unknown_items_of_a_history_are_told_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    found = NUMBERS.histories({"Anna": ["i2", "new", "i1", "i2"], "Ben": ["i3"]})
    assert [found.row(row).tolist() for row in range(2)] == [[2, 1, 2], [3]]
    assert [record.getMessage() for record in caplog.records] == [
        "the history of 'Anna': 1 unknown items passed over"
    ]
    with pytest.raises(RelandError, match="history of 'Ben': none of its 1 items"):
        NUMBERS.histories({"Anna": ["i2"], "Ben": ["new"]})
    with pytest.raises(RelandError, match="the history: none of its 0 items"):
        NUMBERS.histories({"": []})


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (None, {"brand": "Zorvane"}),
        ([5, 1, 3], {"brand": ["Zorvane", "Quellin"]}),
        ([5, 6, 6], None),
        (None, {"brand": "Zorvane", "title": ["Mint tea", "Rose soap"]}),
    ],
)
def test_filters(chosen: list[int] | None, wanted: dict[str, str | list[str]] | None) -> None:
    columns = {"brand": BRANDS, "title": TITLES}
    expected = [
        item for item in range(1, 7)
        if (chosen is None or item in chosen)
        and all(columns[name][item] in np.atleast_1d(v).tolist() for name, v in (wanted or {}).items())
    ]  # fmt: skip
    given = None if chosen is None else np.array(chosen, np.int32)
    found = allowed_items(INTERACTIONS, given, wanted)
    assert found is not None and np.flatnonzero(found).tolist() == expected


def test_filters_that_cannot_be() -> None:
    assert allowed_items(INTERACTIONS, None, None) is None
    with pytest.raises(RelandError, match="filter: 'brnd' is not a field of the items; did you mean 'brand'"):
        allowed_items(INTERACTIONS, None, {"brnd": "Quellin"})
    with pytest.raises(RelandError, match="no item is left"):
        allowed_items(INTERACTIONS, None, {"brand": "Zorvane", "title": TITLES[BRANDS.index("Quellin")]})
    with pytest.raises(RelandError, match="filter: no item has brand='quellin'; did you mean 'Quellin'"):
        allowed_items(INTERACTIONS, None, {"brand": "quellin"})


def test_the_table_of_lists() -> None:
    ranked = Ranked(np.array([[4, 1], [6, 0]]), np.array([[2.5, 1.0], [0.5, -np.inf]], np.float32))
    found = table_of(["u1", "u0"], ranked, Labels(INTERACTIONS), ["Likes mint.", ""])
    assert found.column_names == ["user", "rank", "item", "score", "title", "explanation"]
    anna = {"user": "u1", "explanation": "Likes mint."}
    assert found.to_pylist() == [
        {**anna, "rank": 1, "item": "i4", "score": 2.5, "title": "Mint tea"},
        {**anna, "rank": 2, "item": "i1", "score": 1.0, "title": "Rose cream"},
        {"user": "u0", "explanation": "", "rank": 1, "item": "i6", "score": 0.5, "title": "Lemon cream"},
    ]
