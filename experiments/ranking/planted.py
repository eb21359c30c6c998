"""What the planted words of the shop could be worth to a trained ranker, so that a gain can be missed.

The ranker's own logit of a click and what a text truly says of the item, whether its category is one of the
favourites of the user whom the text is about, are put together by a logistic regression. Its AUC, less that
of the ranker, is about what the text can add to this ranker. It depends on whom users are matched with, and
on how much of their tastes the ranker knows without texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.ranking.arms import ArmRun, Prepared
from experiments.ranking.judged import F_ITEM, WORDS
from reland_jax.events import metrics
from reland_jax.types import RelandError

_STEPS = 25
"""Of Newton's method, which needs fewer than ten here."""


def told(prepared: Prepared, runs: Mapping[str, Mapping[int, ArmRun]]) -> list[str]:
    """What the words are worth at most beside `f_item`, in a sentence; nothing without the shop's words."""
    if prepared.texts.seed_users == 0 or F_ITEM not in runs or prepared.log.shop is None:
        return []
    found = worth(prepared, runs[F_ITEM])
    gains = ", ".join(f"{name} {gain:+.4f}" for name, gain in found.items())
    return [
        f"What the planted words can add to the AUC of {F_ITEM} on clicks, by a logistic regression of its "
        f"logits and of what the words truly say, mean over the training seeds: {gains}."
    ]


def worth(prepared: Prepared, runs: Mapping[int, ArmRun]) -> dict[str, float]:
    """What words can add to the AUC of rankers without them on clicks, the mean over training seeds.

    Args:
        prepared: the shop's log with its texts.
        runs: a ranker without rationales, by training seed.

    Returns:
        By arm: "reland", the words of the user's seed user, and "own", those of the user.

    Raises:
        RelandError: the log is not the shop's, or has no words.
    """
    log, seeds, given = prepared.log, prepared.texts.users, prepared.texts.texts.seed
    if log.shop is None or seeds is None or given is None:
        raise RelandError("planted words are known of the generated shop alone, and where seed users are")
    user, item = log.events.user[log.parts.test], log.events.item[log.parts.test]
    label = np.asarray(log.events.labels[log.events.schema.labels[0].name])[log.parts.test]
    about = dict(zip(WORDS, (seeds[np.asarray(given)], np.arange(log.events.num_users)), strict=True))
    world, found = log.shop.world, {}
    for name, whose in about.items():
        says = (world.favourites[whose[user]] == world.category[item][:, None]).any(1)
        gains = [_added(label, run.reached[:, 0].astype(np.float64), says, user) for run in runs.values()]
        found[name] = float(np.mean(gains))
    return found


def _added(label: np.ndarray, probability: np.ndarray, says: np.ndarray, user: np.ndarray) -> float:
    """AUC of both together less that of the probability; each half of the users by the other half's fit."""
    logit = np.log(probability) - np.log1p(-probability)
    columns = np.stack([logit, says, np.ones(len(logit))], 1)
    together, is_even = np.zeros(len(logit)), user % 2 == 0
    for half in (is_even, ~is_even):
        together[half] = columns[half] @ _fitted(columns[~half], label[~half])
    before, after = metrics.auc(label, logit), metrics.auc(label, together)
    assert before is not None and after is not None
    return after - before


def _fitted(columns: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression, by Newton's method from the ranker's logit on."""
    weights = np.array([1.0, 0.0, 0.0])
    for _ in range(_STEPS):
        rate = 1 / (1 + np.exp(-columns @ weights))
        curved = (columns * (rate * (1 - rate))[:, None]).T @ columns + 1e-9 * np.eye(3)
        weights = weights + np.linalg.solve(curved, columns.T @ (label - rate))
    return weights
