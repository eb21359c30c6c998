"""Metrics of predicted probabilities, in float64, each by its definition.

Two different things are called GAUC, and both are given: the mean of the users' AUC weighted by impressions
(DIN), and the plain mean. Either is over the users that have both classes, so how many users and impressions
these are belongs to the number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reland_jax.types import RelandError

CLIP = 1e-7
"""Probabilities are taken to be at least this far from 0 and 1 in a logloss."""
BINS = 10


class Grouped(NamedTuple):
    """AUC of every user that has both classes.

    Attributes:
        user: ``<int64>[g]``, increasing.
        auc: ``<float64>[g]``.
        impressions: ``<int64>[g]``, of the user.
        users: users in all, also those of one class.
        rows: impressions in all.
    """

    user: np.ndarray
    auc: np.ndarray
    impressions: np.ndarray
    users: int
    rows: int

    @property
    def weighted(self) -> float | None:
        """Mean weighted by impressions; None where no user has both classes."""
        return float(np.average(self.auc, weights=self.impressions)) if len(self.auc) else None

    @property
    def mean(self) -> float | None:
        """Plain mean; None where no user has both classes."""
        return float(self.auc.mean()) if len(self.auc) else None

    @property
    def covered_users(self) -> float:
        """The share of users that have both classes."""
        return len(self.auc) / self.users if self.users else 0.0

    @property
    def covered_impressions(self) -> float:
        """The share of impressions that are theirs."""
        return float(self.impressions.sum()) / self.rows if self.rows else 0.0


class Ordered(NamedTuple):
    """Where every positive stands among the negatives, for AUCs of several weightings of the same rows.

    Attributes:
        positive: ``<int64>[p]``, rows with label 1, in the order of their scores.
        negative: ``<int64>[q]``, rows with label 0, in the order of theirs.
        below: ``<int64>[p]``, how many negatives score less than each positive.
        tied: ``<int64>[t]``, places in `positive` of those with negatives of an equal score.
        upto: ``<int64>[t]``, how many negatives score no more than each of these.
    """

    positive: np.ndarray
    negative: np.ndarray
    below: np.ndarray
    tied: np.ndarray
    upto: np.ndarray


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """The share of pairs of a positive and a negative that are in the right order; ties count half.

    Args:
        label: ``<int>[n]`` of 0 and 1.
        score: ``<float>[n]``.

    Returns:
        In [0, 1]; None where one of the classes is missing.

    Raises:
        RelandError: shapes that differ, a label that is not 0 or 1, or a score that is not finite.
    """
    label, score = checked(label, score)
    found = ordered(label, score)
    return ordered_auc(found, np.ones(len(found.positive)), np.ones(len(found.negative)))


def ordered(label: np.ndarray, score: np.ndarray) -> Ordered:
    """The order of scores, ``<float64>[n]`` of rows with labels of 0 and 1."""
    positive, negative = (rows[np.argsort(score[rows], kind="stable")] for rows in _classes(label))
    below, upto = (np.searchsorted(score[negative], score[positive], side) for side in ("left", "right"))
    tied = np.flatnonzero(below != upto)
    return Ordered(positive, negative, below, tied, upto[tied])


def _classes(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(label == 1), np.flatnonzero(label == 0)


def ordered_auc(found: Ordered, positive: np.ndarray, negative: np.ndarray) -> float | None:
    """AUC where each row counts as often as its weight; None where one of the classes has none.

    Args:
        found: order of the rows.
        positive: ``<float64>[p]``, weights of `Ordered.positive`, not negative.
        negative: ``<float64>[q]``, those of `Ordered.negative`.
    """
    less = np.concatenate(([0.0], np.cumsum(negative)))
    pairs = positive.sum() * less[-1]
    equal = less[found.upto] - less[found.below[found.tied]]
    won = (positive * less[found.below]).sum() + (positive[found.tied] * equal).sum() / 2
    return float(won / pairs) if pairs else None


def grouped_auc(user: np.ndarray, label: np.ndarray, score: np.ndarray) -> Grouped:
    """AUC of every user that has both classes; no loop over users.

    Args:
        user: ``<int>[n]``.
        label: ``<int>[n]`` of 0 and 1.
        score: ``<float>[n]``.

    Raises:
        RelandError: see `auc`.
    """
    label, score = checked(label, score)
    if not len(label):
        return Grouped(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), 0, 0)
    names, group = np.unique(user, return_inverse=True)
    order = np.lexsort((score, group))
    of, ranked, hit = group[order], score[order], label[order]
    new = np.concatenate(([True], (of[1:] != of[:-1]) | (ranked[1:] != ranked[:-1])))
    starts = np.flatnonzero(new)
    positive, negative = np.add.reduceat(hit, starts), np.add.reduceat(1 - hit, starts)
    count, positives = np.bincount(group), np.bincount(group, label)
    negatives = count - positives
    # Negatives of the same user that are below a run of ties: those below it in all, less earlier users'.
    below = np.cumsum(negative) - negative - (np.cumsum(negatives) - negatives)[of[starts]]
    won = np.bincount(of[starts], positive * (below + negative / 2), minlength=len(names))
    both = np.flatnonzero((positives > 0) & (negatives > 0))
    return Grouped(
        names[both].astype(np.int64),
        won[both] / (positives * negatives)[both],
        count[both],
        len(names),
        len(label),
    )


def row_losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Logloss of every row in nats, ``<float64>[n]``; probabilities are clipped by `CLIP`."""
    label, probability = checked(label, probability)
    p = np.clip(probability, CLIP, 1 - CLIP)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


def logloss(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Mean logloss in nats; None where there are no rows."""
    losses = row_losses(label, probability)
    return float(losses.mean()) if len(losses) else None


def normalised_entropy(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Logloss over that of always saying the share of positives of these rows; None without both classes."""
    label, probability = checked(label, probability)
    rate = label.mean() if len(label) else 0.0
    if not 0 < rate < 1:
        return None
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return float(row_losses(label, probability).mean() / entropy)


def calibration(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Positives that are predicted over those that there are; 1 is best, None without any."""
    label, probability = checked(label, probability)
    return float(probability.sum() / label.sum()) if label.sum() else None


def calibration_error(label: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float | None:
    """Expected calibration error: the mean over rows of how far their bin is off.

    The bins are of equal numbers of rows, by their predictions; rows of the same prediction keep their order,
    so that they may lie in two bins.

    Args:
        label: ``<int>[n]`` of 0 and 1.
        probability: ``<float>[n]``.
        bins: number of bins, at least 1.
    """
    label, probability = checked(label, probability)
    if not len(label):
        return None
    order = np.argsort(probability, kind="stable")
    of = np.arange(len(label)) * bins // len(label)
    off = np.bincount(of, probability[order] - label[order])
    return float(np.abs(off).sum() / len(label))


def relative_improvement(ours: float, baseline: float) -> float | None:
    """RelaImpr of two AUCs, ``(ours - 0.5) / (baseline - 0.5) - 1``; None where the baseline's is 0.5."""
    return (ours - 0.5) / (baseline - 0.5) - 1 if baseline != 0.5 else None


def checked(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores in float64.

    Raises:
        RelandError: shapes that differ, a label that is not 0 or 1, or a score that is not finite.
    """
    label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise RelandError(
            f"labels have shape {label.shape} and scores {score.shape}: one of each per row is needed"
        )
    for what, values, wrong in (
        ("label", label, ~np.isin(label, (0, 1))),
        ("score", score, ~np.isfinite(score)),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            needed = "0 or 1" if what == "label" else "a finite number"
            count = int(wrong.sum())
            raise RelandError(
                f"{what} of row {row} is {values[row]} ({count:,} such rows): {needed} is needed"
            )
    return label, score
