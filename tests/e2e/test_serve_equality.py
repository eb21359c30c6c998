"""Lists of the API against the full ranking of the main job, for every backbone, variant and user."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reland_jax import Reland
from reland_jax.models import MODELS
from reland_jax.storage import load_trained
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished

K = 10
pytestmark = pytest.mark.slow


def lists_of(model: Reland, history: dict[str, list[str]] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``<str>[U, K]`` and scores of all users, as they are today or by histories; "" at an end."""
    table = model.recommend(k=K) if history is None else model.recommend_from_history(history, K)
    found = table.to_pandas()
    row = {user: number for number, user in enumerate(model.user_ids)}
    items, scores = np.full((len(row), K), "", object), np.full((len(row), K), -np.inf)
    place = found.user.map(row).to_numpy(), found["rank"].to_numpy() - 1
    items[place], scores[place] = found.item, found.score
    return items, scores


@pytest.mark.parametrize("backbone", tuple(MODELS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_lists_are_those_of_full_ranking(
    finished: Callable[[str], Finished], backbone: str, variant: str
) -> None:
    """The kept lists, and of all users every test item at its kept rank, or before it among equal scores."""
    done = finished(backbone)
    kept = load_trained(done.workdir / "train" / f"{variant}-seed0")
    model = Reland(done.config, variant=variant, workdir=done.workdir).fit()
    mask, ids = done.config.eval.mask_history, np.array(["", *model.item_ids])
    table = model.recommend(k=K, as_measured=True, exclude_seen=mask).to_pandas()
    lists = {user: rows for user, rows in table.groupby("user", sort=False)}
    for user, expected in zip(kept.lists.user.tolist(), kept.lists.item, strict=True):
        wanted = ids[expected[expected > 0]][:K].tolist()
        assert lists[model.user_ids[user]].item.tolist() == wanted
    looked_at, ranks = 0, kept.ranks["test"]
    fresh = np.ones(len(ranks.item), bool) if ranks.had_before is None else ~ranks.had_before
    for user, item, rank in zip(*(each[fresh & (ranks.rank < K)] for each in ranks[:3]), strict=True):
        rows = lists[model.user_ids[user]]
        place = rows.item.tolist().index(ids[item])
        scores = rows.score.to_numpy()
        assert place == rank or (place < rank and scores[place] == scores[rank])
        looked_at += 1
    assert looked_at > 5


@pytest.mark.parametrize("backbone", tuple(MODELS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_user_with_the_history_of_an_old_one(
    finished: Callable[[str], Finished], backbone: str, variant: str
) -> None:
    """What reads histories gives the same list, but for items whose scores differ by a rounding.

    What is folded in, and a user who is matched to other seed users, gets a list that is like it.
    """
    done = finished(backbone)
    model = Reland(done.config, variant=variant, workdir=done.workdir).fit()
    bundle = model._fitted()
    history = {
        user: [model.item_ids[item - 1] for item in model._everything.row(row).tolist()]
        for row, user in enumerate(model.user_ids)
    }
    (old, scores), (new, again) = lists_of(model), lists_of(model, history)
    overlap = np.mean([len({*one} & {*two}) / K for one, two in zip(old, new, strict=True)])
    print(f"overlap of {backbone} {variant}: {overlap:.4f}")
    reads_histories = MODELS[backbone].build is None or MODELS[backbone].sequential
    if reads_histories and bundle.pool is None:
        np.testing.assert_allclose(again, scores, rtol=1e-3, atol=1e-4)
        assert overlap > 0.999 and (old == new).mean() > 0.99
    else:
        assert overlap > 0.5
