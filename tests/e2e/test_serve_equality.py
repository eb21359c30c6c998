"""Lists of the API against the full ranking of the main job, for every backbone, variant and user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.grid.plan import plan
from reland_jax import Reland
from reland_jax.config import ScoreConfig
from reland_jax.models import MODELS
from reland_jax.presets import BEST_MARK, NAMES
from reland_jax.storage import load_trained
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished
from tests.e2e.every_way import WAYS, as_served, every_way

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


def assert_equal(line: dict[str, Any]) -> None:
    """The lists of one way are the wanted ones; those of new users, who may have others, are like them."""
    if line["way"] == "new":
        assert line["overlap"] > 0.5, line
    else:
        assert line["different"] == 0 and line["equal"] > 0.98 * line["users"] > 5, line


@pytest.mark.optional("starlette", requirements="serve")
@pytest.mark.parametrize("backbone", (*MODELS, *(name for name in NAMES if name.endswith(BEST_MARK))))
def test_every_way_gives_the_lists_of_full_ranking(
    finished: Callable[[str], Finished], backbone: str, tmp_path: Path
) -> None:
    """API, command, server and exported functions, of all users; and the lists that the main job has kept."""
    done = finished(backbone)
    config = as_served(done.config)
    workdir = done.workdir if config == done.config else tmp_path / "run"
    for line in every_way(config, VARIANTS, workdir, tmp_path):
        assert_equal(line)
    for variant in VARIANTS:
        kept = load_trained(workdir / "train" / f"{variant}-seed0").lists
        model = Reland.load(tmp_path / variant)
        users, mask = np.array(model.user_ids)[kept.user].tolist(), done.config.eval.mask_history
        found = model.recommend(users, kept.item.shape[1], as_measured=True, exclude_seen=mask).to_pandas()
        for user, wanted in zip(users, kept.item, strict=True):
            listed = found.item[found.user == user]
            assert listed.tolist() == np.array(model.item_ids)[wanted[wanted > 0] - 1].tolist()


@pytest.mark.optional("starlette", requirements="serve")
@pytest.mark.parametrize(
    ("backbone", "added"), [("gru4rec", "ranking"), ("sasrec", "training"), ("lightgcn", "ranking")]
)
def test_so_does_a_backbone_upon_a_linear_model(
    finished: Callable[[str], Finished], backbone: str, added: str, tmp_path: Path
) -> None:
    """Its linear scores are those of the bundle, and nothing is solved again."""
    done = finished(backbone)
    score = ScoreConfig(linear=20.0, added=added, folds=2, votes=16, recent=3)
    config = dataclasses.replace(done.config, score=score)
    ways = list(every_way(config, ("f_item", "reland"), done.workdir, tmp_path))
    assert {line["way"] for line in ways} == set(WAYS)
    for line in ways:
        assert_equal(line)


# Hours long, so it is no part of the tests of optional packages; it is skipped without them all the same.
@pytest.mark.shared_data
@pytest.mark.parametrize("backbone", [name for name in MODELS if name != "gat"])
def test_also_of_all_users_of_beauty(backbone: str, tmp_path: Path, shared_data: Path) -> None:
    """After one epoch, with heuristic rationales."""
    pytest.importorskip("starlette")
    quick = ["train.max_epochs=1", "encoder.train.max_epochs=1", f"data.root={shared_data}"]
    for config in plan(["amazon-beauty"], [backbone], VARIANTS, 1, (), quick).values():
        for line in every_way(as_served(config), VARIANTS, tmp_path / "run", tmp_path):
            assert_equal(line)


@pytest.mark.parametrize("backbone", tuple(MODELS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_user_with_the_history_of_an_old_one(
    finished: Callable[[str], Finished], backbone: str, variant: str
) -> None:
    """What reads histories gives the same list, but for items whose scores differ by a rounding.

    What is folded in, and a user who is matched to other seed users, gets a list that is like it.
    """
    done = finished(backbone)
    model = Reland(done.config, variant=variant, workdir=done.workdir).fit(by_histories=False)
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
