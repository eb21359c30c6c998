"""The rule by which every approximate engine chooses its search effort."""

from __future__ import annotations


def wanted_share(recall: float, sample: int) -> float:
    """The share of a sample's exact neighbours that must be found for a recall to hold beyond the sample.

    Two standard errors of the sample are added, so that a setting that just reaches the recall by luck is
    not taken.

    Args:
        recall: the share wanted of all users, in (0, 1).
        sample: number of users of the sample, at least 1.
    """
    return min(recall + 2 * (recall * (1 - recall) / sample) ** 0.5, 1.0)
