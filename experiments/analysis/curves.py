"""The paper's Figure 7: validation by epoch, as bands over training seeds, and a number for stability."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.findings import Finding, Part, judged, not_testable
from experiments.grid.scores import Scores
from reland_jax.report.plots import Band, curve_bands
from reland_jax.report.tables import MISSING, Table
from reland_jax.types import NDCG
from reland_jax.variants import BY_NAME, ID, RELAND, VARIANTS

TITLE = "Figure 7: validation by epoch"
_ABOVE = "At equal numbers of epochs ReLand is above the backbone."
_STABLE = "ReLand's training is more stable."
_ENDS = "ReLand ends above the backbone."
_LITTLE = "An epoch takes only a little longer."
MOSTLY, A_LITTLE = 0.9, 1.25
"""The share of epochs in which the mean has to lie above, and the ratio of seconds that is a little."""
_FEWEST = 2


class Curve(NamedTuple):
    """A training.

    Attributes:
        epochs: that were validated, ascending.
        scores: validation NDCG@10 of each.
        seconds: of an epoch, the median, without compilation and validation.
    """

    epochs: Sequence[int]
    scores: Sequence[float]
    seconds: float


Curves = Mapping[str, Mapping[int, Curve]]
"""Variant -> training seed -> curve."""


def trained_curves(folder: Path) -> dict[str, dict[int, Curve]]:
    """The curves of the finished trainings of a backbone, in folders VARIANT-seedN."""
    found: dict[str, dict[int, Curve]] = {}
    for variant in BY_NAME:
        for path in sorted(folder.glob(f"{variant}-seed*/summary.json")):
            seed = path.parent.name.removeprefix(f"{variant}-seed")
            summary = json.loads(path.read_text(encoding="utf-8"))
            rows = [(int(row["epoch"]), float(row[NDCG])) for row in summary["history"] if NDCG in row]
            if seed.isdecimal() and rows:
                epochs, scores = zip(*rows, strict=True)
                found.setdefault(variant, {})[int(seed)] = Curve(epochs, scores, summary["seconds_per_epoch"])
    return found


def ends_of(runs: Mapping[str, Mapping[int, Scores]]) -> dict[str, dict[int, Curve]]:
    """Curves of kept cells, of which only the best epoch is known."""
    return {
        variant: {
            seed: Curve([one.summary.best_epoch], [one.summary.valid[NDCG]], one.summary.seconds_per_epoch)
            for seed, one in seeds.items()
        }
        for variant, seeds in runs.items()
        if seeds
    }


def as_plain(dataset: str, backbone: str, curves: Curves, barred: str = "") -> dict[str, Any]:
    """What is kept of the curves of a backbone; `barred` says why they tell nothing about an LLM."""
    plain = {
        variant: {str(seed): one._asdict() for seed, one in seeds.items()}
        for variant, seeds in curves.items()
    }
    return {"curves": plain, "dataset": dataset, "backbone": backbone, "barred": barred}


def from_plain(plain: Mapping[str, Any]) -> dict[str, dict[int, Curve]]:
    """The opposite of `as_plain`."""
    return {
        variant: {int(seed): Curve(**one) for seed, one in seeds.items()}
        for variant, seeds in plain["curves"].items()
    }


def band(seeds: Mapping[int, Curve]) -> Band:
    """Mean and range over training seeds, of the epochs that all of them have."""
    shared = sorted(set.intersection(*({*one.epochs} for one in seeds.values())))
    scores = [dict(zip(one.epochs, one.scores, strict=True)) for one in seeds.values()]
    values = np.array([[each[epoch] for epoch in shared] for each in scores])
    return Band(shared, values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist())


def stability(curve: Curve) -> float:
    """The standard deviation of changes from validation to validation, after the first steep part.

    That part ends at a third of the way to the best epoch. Smaller is more stable; NaN for fewer than two
    changes.
    """
    best = curve.epochs[int(np.argmax(curve.scores))]
    late = [score for epoch, score in zip(curve.epochs, curve.scores, strict=True) if epoch >= best / 3]
    return float(np.std(np.diff(late))) if len(late) > _FEWEST else float("nan")


def curves_part(kept: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> Part:
    """Figure 7 with its claims.

    Args:
        kept: contents as of `as_plain`.
        missing: data set -> why there are none.
    """
    findings: list[Finding] = []
    tables, drawings = [], []
    for place, plain in enumerate(kept):
        about, found = f"{plain['dataset']}, {plain['backbone']}", from_plain(plain)
        findings += _findings(about, found, plain.get("barred", ""))
        tables.append(_table(about, found))
        if _is_whole(found):
            bands = {variant: band(found[variant]) for variant in VARIANTS if variant in found}
            caption = f"{about}: mean and range over training seeds, of the epochs that all seeds reached."
            drawings.append((curve_bands(bands, f"bands-{place}"), caption))
    claims = (_ABOVE, _STABLE, _ENDS, _LITTLE)
    findings += [not_testable(claim, name, why) for name, why in missing.items() for claim in claims]
    words = [
        "Stability: standard deviation of the changes of validation NDCG@10 from validation to validation, "
        "from a third of the way to the best epoch on; smaller is more stable."
    ]
    return Part("figure7", TITLE, findings, words, tables, drawings)


def _is_whole(curves: Curves) -> bool:
    """Whether more is known than best epochs."""
    return all(len(one.epochs) > 1 for seeds in curves.values() for one in seeds.values())


def _findings(about: str, curves: Curves, barred: str) -> list[Finding]:
    claims = (_ABOVE, _STABLE, _ENDS, _LITTLE)
    if not (ID.name in curves and RELAND.name in curves):
        return [not_testable(claim, about, "id or reland was not trained") for claim in claims]
    base, ours = curves[ID.name], curves[RELAND.name]
    seeds = sorted(base.keys() & ours.keys())
    judgements = [
        (_ABOVE, *_above(base, ours), f"the mean is above in {MOSTLY:.0%} of the epochs, or it is not"),
        (_STABLE, *_stable(base, ours, seeds), "it is smaller with every training seed, or it is not"),
        (_ENDS, *_ends(base, ours, seeds), "its best epoch is above with every training seed, or it is not"),
    ]
    few = f"{len(seeds)} training seed; at least {_FEWEST} are needed" if len(seeds) < _FEWEST else ""
    found = []
    for claim, told, holds, why in judgements:
        if claim != _ENDS and not _is_whole(curves):
            found.append(not_testable(claim, about, "only the best epoch of each training is kept"))
        elif barred or few:
            found.append(not_testable(claim, about, barred or few, told))
        else:
            found.append(judged(claim, about, told, holds, why))
    ratio = _seconds(ours) / max(_seconds(base), 1e-12)
    told = f"{_seconds(ours):.2f} s against {_seconds(base):.2f} s, {ratio:.2f} times"
    why = f"at most {A_LITTLE:g} times the seconds, or more; of trainings on one machine, as it was loaded"
    return [*found, judged(_LITTLE, about, told, ratio <= A_LITTLE, why)]


def _above(base: Mapping[int, Curve], ours: Mapping[int, Curve]) -> tuple[str, bool]:
    theirs, mine = (band(each) for each in (base, ours))
    means = dict(zip(theirs.epochs, theirs.mean, strict=True))
    pairs = [(m, means[e]) for e, m in zip(mine.epochs, mine.mean, strict=True) if e in means]
    share = float(np.mean([a > b for a, b in pairs])) if pairs else 0.0
    return f"above in {share:.0%} of {len(pairs)} validations", share >= MOSTLY


def _stable(
    base: Mapping[int, Curve], ours: Mapping[int, Curve], seeds: Sequence[int]
) -> tuple[str, bool]:
    theirs, mine = ([stability(each[seed]) for seed in seeds] for each in (base, ours))
    told = f"{np.mean(mine):.5f} against {np.mean(theirs):.5f}"
    return told, all(a < b for a, b in zip(mine, theirs, strict=True))


def _ends(base: Mapping[int, Curve], ours: Mapping[int, Curve], seeds: Sequence[int]) -> tuple[str, bool]:
    theirs, mine = ([max(each[seed].scores) for seed in seeds] for each in (base, ours))
    told = f"best {np.mean(mine):.4f} against {np.mean(theirs):.4f}"
    return told, all(a > b for a, b in zip(mine, theirs, strict=True))


def _seconds(seeds: Mapping[int, Curve]) -> float:
    return float(np.median([one.seconds for one in seeds.values()]))


def _table(about: str, curves: Curves) -> Table:
    rows = []
    for variant, seeds in curves.items():
        best = [max(one.scores) for one in seeds.values()]
        at = [one.epochs[int(np.argmax(one.scores))] for one in seeds.values()]
        steady = float(np.mean([stability(one) for one in seeds.values()]))
        rows.append((
            variant, str(len(seeds)), f"{np.mean(best):.4f}", f"{np.ptp(best):.4f}",
            f"{min(at)} to {max(at)}", MISSING if np.isnan(steady) else f"{steady:.5f}",
            f"{_seconds(seeds):.2f}",
        ))  # fmt: skip
    header = ("variant", "seeds", "best valid NDCG@10", "range over seeds", "best epoch", "stability")
    return Table(f"{about}.", (*header, "s / epoch"), rows)
