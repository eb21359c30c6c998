"""Arms: trainings that differ in a part of the method, for the paper's Figure 5 and Table 3.

An arm is a variant with changed settings and a source of texts. Arms that share both are one grid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.analysis.findings import Finding, Part, judged, not_testable
from experiments.grid.plan import Key
from experiments.grid.scores import Group, Scores
from reland_jax.eval.significance import Comparison, holm, is_gain, paired_comparison
from reland_jax.report.tables import Table, p_value
from reland_jax.types import COMPARED, NDCG
from reland_jax.variants import ID

SHARED, OWN = "shared", "own"
"""Sources of texts: those of seed users, shared by retrieval; or of every user its own."""
MARGIN = 0.05
"""Quality is comparable if it is not lower by more than this share, by the 95% interval."""


class Arm(NamedTuple):
    """A bar of a figure, or a row of a table.

    Attributes:
        name: for people.
        variant: that is trained.
        source: `SHARED` or `OWN`.
        changes: "section.key=value".
        claim: about `reland` against this arm; "" for none.
    """

    name: str
    variant: str
    source: str = SHARED
    changes: tuple[str, ...] = ()
    claim: str = ""

    @property
    def of_pool(self) -> tuple[str, ...]:
        """Changes of what seed users there are, and what an LLM is told."""
        return tuple(text for text in self.changes if text.startswith(("seeds.", "pool.")))

    @property
    def grid(self) -> str:
        """Name of the grid that it is trained in."""
        return "-".join([self.source, *(change.replace("=", "_") for change in self.changes)])


RELAND = Arm("reland", "reland")
_LOWER = "ReLand is above itself without {}."
FIGURE_5 = (
    Arm("backbone", "id"),
    Arm("f_item", "f_item"),
    Arm("permuted", "permuted"),
    Arm("w/o i.f.", "reland_only", claim=_LOWER.format("item features (w/o i.f.)")),
    Arm("w/o a.s.", "reland", changes=("seeds.sampling=random",),
        claim=_LOWER.format("adaptive sampling of seed users (w/o a.s.)")),
    Arm("w/o r.p.", "reland", changes=("pool.prompt=direct",),
        claim=_LOWER.format("the two steps of its prompt (w/o r.p.)")),
    RELAND,
)  # fmt: skip
_COMPARABLE = "ReLand, which asks about a tenth of the users, is comparable with {}, which asks about all."
_EACH_ITS_OWN = ("retrieval.neighbours=1", "fusion.neighbours=1")


_OF_ADAPTOR = {"attention": (), "hea": ("fusion.adaptor=hea",), "linear": ("fusion.adaptor=linear",)}
_NAMED = {"attention": "itself", "hea": "KAR", "linear": "SLIM (slim_minus: texts by the teacher)"}
_WORDS = "The words of the user's own seed users help (control: {})."


def _table_3() -> tuple[Arm, ...]:
    arms = [Arm("backbone", "id"), Arm("f_item", "f_item")]
    for adaptor, changes in _OF_ADAPTOR.items():
        for variant in ("reland", "permuted", "noise", "heuristic"):
            text = SHARED if variant == "reland" else variant
            is_control = adaptor == "attention" and variant in ("permuted", "noise")
            claim = _WORDS.format(variant) if is_control else ""
            arms.append(Arm(f"{text}; {adaptor}", variant, SHARED, changes, claim))
        own = (*changes, *_EACH_ITS_OWN)
        arms.append(Arm(f"{OWN}; {adaptor}", "reland", OWN, own, _COMPARABLE.format(_NAMED[adaptor])))
    return tuple(arms)


TABLE_3 = _table_3()
"""{text: shared, permuted, noise, heuristic, own} x {adaptor}; KAR is own with hea, SLIM own with linear."""


def arms_part(
    name: str,
    title: str,
    arms: Sequence[Arm],
    grids: Mapping[str, Sequence[Group]],
    idle: Mapping[str, str],
) -> Part:
    """The arms of all data sets and backbones, each against `reland`.

    Args:
        name: of the part.
        title: of the part.
        arms: in the order of the table.
        grids: `Arm.grid` -> its groups.
        idle: `Arm.grid` -> why it says nothing.
    """
    keys = dict.fromkeys(_key(group) for groups in grids.values() for group in groups)
    findings: list[Finding] = []
    tables = []
    for key in keys:
        runs = {arm: found for arm in arms if (found := _runs(arm, key, grids))}
        base = runs.get(_reference(arms))
        compared = {} if base is None else _compared(base, {a: r for a, r in runs.items() if r is not base})
        weak = _below_backbone(arms, runs)
        findings += [_finding(arm, key, compared, idle, weak) for arm in arms if arm.claim]
        tables.append(_table(key, runs, compared))
    if not keys:
        claimed = [arm for arm in arms if arm.claim]
        findings = [not_testable(arm.claim, "all data sets", _reason(arm, idle)) for arm in claimed]
    words = [f"{grid}: {why}." for grid, why in idle.items()]
    return Part(name, title, findings, words, tables)


def _reference(arms: Sequence[Arm]) -> Arm:
    """The whole method: shared texts, Eq. 5, nothing changed."""
    return next(arm for arm in arms if arm.variant == RELAND.variant and arm.grid == RELAND.grid)


def _key(group: Group) -> Key:
    return group.config.data.name, group.config.model.backbone


def _runs(arm: Arm, key: Key, grids: Mapping[str, Sequence[Group]]) -> dict[int, Scores]:
    found = [group.runs.get(arm.variant, {}) for group in grids.get(arm.grid, ()) if _key(group) == key]
    return found[0] if found else {}


def _compared(
    base: Mapping[int, Scores], others: Mapping[Arm, Mapping[int, Scores]]
) -> dict[Arm, tuple[Comparison, float]]:
    """`reland` against every arm in test NDCG@10, over shared training seeds, with p-values after Holm."""
    found = {}
    for arm, runs in others.items():
        seeds = sorted(base.keys() & runs.keys())
        if seeds:
            ours, theirs = (
                np.mean([each[seed].test[NDCG] for seed in seeds], axis=0) for each in (base, runs)
            )
            found[arm] = paired_comparison(ours, theirs)
    adjusted = holm([one.p_value for one in found.values()]).tolist()
    return {arm: (one, p) for (arm, one), p in zip(found.items(), adjusted, strict=True)}


def _reason(arm: Arm, idle: Mapping[str, str]) -> str:
    return idle.get(arm.grid) or f"{arm.name} or reland was not trained"


def _below_backbone(arms: Sequence[Arm], runs: Mapping[Arm, Mapping[int, Scores]]) -> set[Arm]:
    """Arms with a test NDCG@10 below that of the plain backbone."""
    means = {
        arm: float(np.mean([one.test[NDCG].mean() for one in seeds.values()])) for arm, seeds in runs.items()
    }
    plain = next((means[arm] for arm in arms if arm.variant == ID.name and arm in means), -np.inf)
    return {arm for arm, mean in means.items() if mean < plain}


def _finding(
    arm: Arm,
    key: Key,
    compared: Mapping[Arm, tuple[Comparison, float]],
    idle: Mapping[str, str],
    weak: Collection[Arm],
) -> Finding:
    about = ", ".join(key)
    if arm not in compared or arm.grid in idle:
        return not_testable(arm.claim, about, _reason(arm, idle))
    one, p = compared[arm]
    told = f"NDCG@10 {_difference(one)}, after Holm p = {p_value(p)}"
    if arm.source == OWN and arm in weak:
        why = "it is below the plain backbone here, so it is not shown as it could be"
        return not_testable(arm.claim, about, why, told)
    if arm.source == OWN:
        holds = one.low >= -MARGIN * one.mean_baseline
        return judged(arm.claim, about, told, holds, f"by the interval, lower by at most {MARGIN:.0%} or not")
    return judged(
        arm.claim, about, told, is_gain(one.difference, p), "a gain with p < 0.05 after Holm, or none"
    )


def _difference(one: Comparison) -> str:
    return f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def _table(
    key: Key, runs: Mapping[Arm, Mapping[int, Scores]], compared: Mapping[Arm, tuple[Comparison, float]]
) -> Table:
    rows = []
    for arm, seeds in runs.items():
        means = [np.mean([one.test[metric].mean() for one in seeds.values()]) for metric in COMPARED]
        cells = ["", ""]
        if arm in compared:
            one, p = compared[arm]
            cells = [_difference(one), p_value(p)]
        rows.append((arm.name, str(len(seeds)), *(f"{mean:.4f}" for mean in means), *cells))
    header = ("arm", "seeds", *(f"test {metric.upper()}" for metric in COMPARED))
    return Table(
        f"{', '.join(key)}. The last columns: reland minus the arm in NDCG@10, 95% interval over users.",
        (*header, "reland over it", "p after Holm"),
        rows,
    )
