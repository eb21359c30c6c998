"""HR, NDCG and MRR at K against ranx and against a brute force over full ranked lists."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from reland_jax.eval.metrics import mean_metrics, per_user_metrics
from reland_jax.types import RelandError, TargetRanks

CUTOFFS = (5, 10, 20)
NUM_ITEMS = 40


def random_ranks(targets_per_user: int, num_users: int = 30) -> TargetRanks:
    """Users 0, 2, 4, ... with up to so many targets, each at its own place of the user's list."""
    rng = np.random.default_rng(targets_per_user)
    counts = rng.integers(1, targets_per_user + 1, num_users)
    places = [rng.permutation(NUM_ITEMS)[:count] for count in counts]
    user = np.repeat(2 * np.arange(num_users), counts).astype(np.int32)
    rank = np.concatenate(places).astype(np.int32)
    return TargetRanks(user, rank + 1, rank)


def brute_force(ranks: TargetRanks, k: int) -> dict[str, list[float]]:
    """Metrics of every user, from a list of NUM_ITEMS places marked relevant or not."""
    found: dict[str, list[float]] = {"hr": [], "ndcg": [], "mrr": []}
    for user in sorted(set(ranks.user.tolist())):
        relevant = [place in ranks.rank[ranks.user == user] for place in range(NUM_ITEMS)]
        hits = [place for place in range(k) if relevant[place]]
        best = sum(1 / math.log2(place + 2) for place in range(min(k, sum(relevant))))
        found["hr"].append(float(bool(hits)))
        found["ndcg"].append(sum(1 / math.log2(place + 2) for place in hits) / best)
        found["mrr"].append(1 / (hits[0] + 1) if hits else 0.0)
    return found


@pytest.mark.parametrize("targets", [1, 6, 30])
def test_against_brute_force(targets: int) -> None:
    ranks = random_ranks(targets)
    measured = per_user_metrics(ranks, CUTOFFS)
    assert set(measured) == {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in CUTOFFS}
    for k in CUTOFFS:
        for name, expected in brute_force(ranks, k).items():
            np.testing.assert_allclose(measured[f"{name}@{k}"], expected, atol=1e-12)


@pytest.mark.parametrize("targets", [1, 6])
def test_against_ranx(monkeypatch: pytest.MonkeyPatch, targets: int) -> None:
    """The means of an independent library, from the same ranked lists."""
    # Compiling ranx takes a minute and running its Python a second.
    monkeypatch.setitem(os.environ, "NUMBA_DISABLE_JIT", "1")
    from ranx import Qrels, Run, evaluate

    ranks = random_ranks(targets)
    qrels: dict[str, dict[str, int]] = {}
    for user, rank in zip(ranks.user.tolist(), ranks.rank.tolist(), strict=True):
        qrels.setdefault(f"u{user}", {})[f"place{rank}"] = 1
    ranked = {f"place{place}": float(NUM_ITEMS - place) for place in range(NUM_ITEMS)}
    names = {"hr": "hit_rate", "ndcg": "ndcg", "mrr": "mrr"}
    wanted = [f"{theirs}@{k}" for theirs in names.values() for k in CUTOFFS]
    theirs = evaluate(Qrels(qrels), Run(dict.fromkeys(qrels, ranked)), wanted)
    ours = mean_metrics(per_user_metrics(ranks, CUTOFFS))
    for name, value in ours.items():
        kind, k = name.split("@")
        assert value == pytest.approx(theirs[f"{names[kind]}@{k}"], abs=1e-9), name
    assert 0 < ours["ndcg@5"] < ours["ndcg@20"] <= 1


def test_the_order_of_rows_does_not_matter() -> None:
    ranks = random_ranks(6)
    mixed = np.random.default_rng(0).permutation(len(ranks.user))
    again = per_user_metrics(TargetRanks(*(array[mixed] for array in ranks[:3])), CUTOFFS)
    for name, values in per_user_metrics(ranks, CUTOFFS).items():
        np.testing.assert_allclose(again[name], values, atol=1e-12)


def test_targets_had_before_can_all_be_first() -> None:
    """User 0 has a perfect list, with two new targets and two had before; user 1 has one of each kind."""
    rank = np.array([1, 0, 0, 0, 3, 1], np.int32)
    before = np.array([False, True, False, True, False, True])
    ranks = TargetRanks(np.repeat(np.int32([0, 1]), [4, 2]), np.arange(6, dtype=np.int32), rank, before)
    found = per_user_metrics(ranks, (1, 5))
    np.testing.assert_allclose(found["ndcg@5"], [1, (1 / math.log2(5) + 1 / math.log2(3)) / 2], atol=1e-12)
    np.testing.assert_allclose(found["ndcg@1"], [1, 0], atol=1e-12)
    assert found["mrr@5"].tolist() == [1, 0.5] and found["hr@1"].tolist() == [1, 0]


def test_a_negative_rank_is_refused() -> None:
    """It is what a count of comparisons with NaN would come to, and would read as a perfect hit."""
    ranks = TargetRanks(np.array([0, 1], np.int32), np.array([3, 4], np.int32), np.array([2, -1], np.int32))
    with pytest.raises(RelandError, match="target 1 has a negative rank"):
        per_user_metrics(ranks, (10,))
