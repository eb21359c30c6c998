"""The variants of a recommender, as values in one table: what each reads, and which compare with which."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from reland_jax.fields import nearest_name
from reland_jax.types import RelandError


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant of a recommender.

    Attributes:
        name: as it is called in settings, on the command line and in results.
        reads_texts: whether items are represented by their texts too.
        reads_rationales: whether users are given the rationales of their seed users.
        ablation: what takes the place of the rationales; "" where nothing does.
    """

    name: str
    reads_texts: bool = False
    reads_rationales: bool = False
    ablation: str = ""


ID = Variant("id")
"""The plain backbone."""

F_ITEM = Variant("f_item", reads_texts=True)
"""The backbone with item texts."""

RELAND = Variant("reland", reads_texts=True, reads_rationales=True)
"""The whole method."""

RELAND_ONLY = Variant("reland_only", reads_rationales=True)
"""The backbone with rationales and without item texts, the paper's ablation "w/o i.f."."""

PERMUTED = dataclasses.replace(RELAND, name="permuted", ablation="permuted")
"""`RELAND` with the rationales of other seed users."""

NOISE = dataclasses.replace(RELAND, name="noise", ablation="noise")
"""`RELAND` with random vectors for rationales."""

SEED_ID = dataclasses.replace(RELAND, name="seed_id", ablation="seed_id")
"""`RELAND` with a learned vector for each seed user, of the width of a rationale.

A match with a seed user is also a cluster of users; this is what it is worth without any words."""

HEURISTIC = dataclasses.replace(RELAND, name="heuristic", ablation="heuristic")
"""`RELAND` with what counts over the histories of the same seed users say, and no LLM."""

BY_NAME = {each.name: each for each in (ID, F_ITEM, RELAND, RELAND_ONLY, PERMUTED, NOISE, SEED_ID, HEURISTIC)}
"""All variants by name, in the order of tables."""

VARIANTS = (ID.name, F_ITEM.name, RELAND.name)
"""The three models of the paper's Table 2, from the plain backbone to the whole method."""

ABLATIONS = tuple(each.name for each in BY_NAME.values() if each.ablation)
"""`RELAND` with something that no LLM has written in the place of the rationales."""


class Pair(NamedTuple):
    """Two variants to compare, by name; the method says that `ours` is better."""

    ours: str
    base: str

    @property
    def name(self) -> str:
        """As results call it: "reland>id"."""
        return f"{self.ours}>{self.base}"


EXPECTED = (Pair(RELAND.name, ID.name), Pair(RELAND.name, F_ITEM.name), Pair(F_ITEM.name, ID.name))
"""Comparisons of the paper."""

PAIRS = (
    *EXPECTED,
    *(Pair(RELAND.name, ablation) for ablation in ABLATIONS),
    Pair(RELAND.name, RELAND_ONLY.name),
    Pair(RELAND_ONLY.name, ID.name),
)
"""All comparisons of variants."""


def find_variant(name: str, where: str = "variant") -> Variant:
    """The variant of a name.

    Args:
        name: of `BY_NAME`.
        where: setting or flag that has it, for the error.

    Raises:
        RelandError: there is none of this name; the nearest is named.
    """
    if name not in BY_NAME:
        raise RelandError(f"{where}: {name!r} is not known; {nearest_name(name, tuple(BY_NAME))}")
    return BY_NAME[name]
