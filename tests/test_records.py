"""Records as the plain values of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from reland_jax.records import stored, to_plain


class Inner(NamedTuple):
    count: int
    short: Mapping[int, int]


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    score: float = dataclasses.field(metadata=stored("ndcg@10"))
    more: Mapping[str, Any] = dataclasses.field(metadata=stored(""))


def test_records_become_nested_mappings_under_the_names_of_files() -> None:
    value = Outer("a", Inner(3, {10: 2}), 0.5, {"extra": (1, 2)})
    found = to_plain({"rows": [value]})
    assert found == {
        "rows": [{"name": "a", "inner": {"count": 3, "short": {"10": 2}}, "ndcg@10": 0.5, "extra": [1, 2]}]
    }
    assert list(found["rows"][0]) == ["name", "inner", "ndcg@10", "extra"], "files keep their order"


def test_what_is_not_finite_becomes_null() -> None:
    found = to_plain([math.nan, -math.inf, 1.0, 2, None, True])
    assert json.dumps(found, allow_nan=False) == "[null, null, 1.0, 2, null, true]"
