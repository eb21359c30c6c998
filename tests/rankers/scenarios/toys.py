"""Rows of three scenarios, of which a batch has two, one row of an unknown one, and one that fills up."""

from __future__ import annotations

import numpy as np

from reland_jax.rankers.scenarios.rows import Rows, scenario_shares

SCENARIOS = 3
CODES = np.array([2, 3, 2, 1, 3, 3, 2, 2], np.int32)


def toy_rows(seed: int = 0) -> Rows:
    """Random fields ``[8, 4, 3]``; the last row is not counted."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(size=(len(CODES), 4, 3)).astype(np.float32)
    domains = rng.normal(size=(5, 3)).astype(np.float32)
    return Rows(
        fields,
        scenario_shares(CODES, SCENARIOS),
        domains[CODES],
        rng.normal(size=(len(CODES), 6)).astype(np.float32),
        np.arange(len(CODES)) < len(CODES) - 1,
    )
