"""What the number of seed users is chosen by, besides the settings of a run."""

from __future__ import annotations

from typing import NamedTuple

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Those of the paper's Figure 6, and a few more."""


class Options(NamedTuple):
    """What a command asks for besides its settings.

    Attributes:
        fractions: seed users as shares of all users, at least 3, in (0, 1].
        repeats: samplings of each, with seeds of their own.
        answer_tokens: tokens expected of an answer; 0: see `prompts`.
        by_activity: whether users count as much as they have training interactions.
        validate: whether to train at every fraction.
        seeds: training seeds of each.
        test: whether to tell test metrics too.
    """

    fractions: tuple[float, ...] = FRACTIONS
    repeats: int = 3
    answer_tokens: float = 0.0
    by_activity: bool = False
    validate: bool = False
    seeds: int = 1
    test: bool = False
