"""The table of variants: their names, what they read, and the pairs that are compared."""

from __future__ import annotations

import pytest

from reland_jax.text.ablations import ABLATED
from reland_jax.types import RelandError
from reland_jax.variants import ABLATIONS, BY_NAME, EXPECTED, HEURISTIC, PAIRS, RELAND, VARIANTS, find_variant


def test_names_are_those_of_settings_and_stay() -> None:
    assert VARIANTS == ("id", "f_item", "reland") and ABLATIONS == (
        "permuted", "noise", "seed_id", "heuristic",
    )  # fmt: skip
    assert tuple(BY_NAME) == (*VARIANTS, "reland_only", *ABLATIONS)
    assert [(one.reads_texts, one.reads_rationales) for one in map(find_variant, VARIANTS)] == [
        (False, False), (True, False), (True, True),
    ]  # fmt: skip


def test_an_ablation_reads_what_the_method_reads_and_is_compared_with_it() -> None:
    for one in map(find_variant, ABLATIONS):
        assert (one.reads_texts, one.reads_rationales) == (True, True)
    assert {one.ablation for one in map(find_variant, ABLATIONS)} == {*ABLATED, HEURISTIC.ablation}
    assert [pair.base for pair in PAIRS if pair.base in ABLATIONS] == list(ABLATIONS)
    assert {pair.name for pair in PAIRS if "reland_only" in pair} == {"reland>reland_only", "reland_only>id"}
    assert [pair.name for pair in EXPECTED] == ["reland>id", "reland>f_item", "f_item>id"]
    assert not RELAND.ablation


def test_an_unknown_name_is_reported_with_the_nearest() -> None:
    with pytest.raises(RelandError, match=r"^--variant: 'relnd' is not known; did you mean 'reland'\?$"):
        find_variant("relnd", "--variant")
