"""Lists against a sort of all scores in NumPy, and how often programs are compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import jax.tree_util
import numpy as np
import pytest

from reland_jax.device import sizes, use_sizes
from reland_jax.eval import Vectors
from reland_jax.models.scores import dot_product
from reland_jax.serve.api import Reland
from reland_jax.serve.listing import nothing
from reland_jax.serve.predicting import Predictor
from reland_jax.types import Ragged, RelandError
from tests.compiles import counted
from tests.serve.toys import model_of, toy_bundle
from tests.stages.toys import REPEATS
from tests.toys import quick_programs, ragged, random_ragged

USERS, NUM_ITEMS = 11, 9


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


def whole_numbers(seed: int) -> tuple[Predictor, Vectors, np.ndarray]:
    """Vectors of small whole numbers, so that many scores are equal, and all scores."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(-1, 2, (USERS, 3)), rng.integers(-1, 2, (NUM_ITEMS + 1, 3))
    score = jax.tree_util.Partial(dot_product)
    vectors = Vectors(jnp.asarray(users, jnp.float32), jnp.asarray(items, jnp.float32), score)
    form = SimpleNamespace(num_items=NUM_ITEMS)
    return Predictor(form, vectors, vectors, nothing(USERS), None), vectors, users @ items.T  # type: ignore[arg-type]


def sorted_lists(
    scores: np.ndarray, users: np.ndarray, masked: Ragged, count: int, allowed: list[int]
) -> list[list[int]]:
    """Best first, of equal scores the smaller number first."""
    lists = []
    for row, user in enumerate(users.tolist()):
        out = set(masked.row(row).tolist())
        left = [item for item in allowed if item not in out]
        lists.append(sorted(left, key=lambda item: (-scores[user, item], item))[:count])
    return lists


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("allowed", [None, [2, 3, 7], [5], []])
def test_lists_are_those_of_a_sort(seed: int, allowed: list[int] | None) -> None:
    predictor, vectors, scores = whole_numbers(seed)
    users = np.array([3, 0, 10, 3, 5, 7])
    masked = random_ragged([0, 2, 5, 9, 1, 3], NUM_ITEMS, seed)
    chosen = None if allowed is None else np.isin(np.arange(NUM_ITEMS + 1), allowed)
    found = predictor.ranked(vectors, users, masked, 4, chosen)
    everything = list(range(1, NUM_ITEMS + 1))
    expected = sorted_lists(scores, users, masked, 4, everything if allowed is None else allowed)
    for row, wanted in enumerate(expected):
        left = found.item[row, len(wanted) :], found.score[row, len(wanted) :]
        assert found.item[row, : len(wanted)].tolist() == wanted
        assert (left[0] == 0).all() and np.isneginf(left[1]).all()
        np.testing.assert_array_equal(found.score[row, : len(wanted)], scores[users[row], wanted])


def test_batches_change_nothing() -> None:
    predictor, vectors, _ = whole_numbers(9)
    users, masked = np.arange(USERS), random_ragged([user % 4 for user in range(USERS)], NUM_ITEMS, 2)
    whole = predictor.ranked(vectors, users, masked, 5)
    with use_sizes(dataclasses.replace(sizes(), score_bytes=3 * 8 * (NUM_ITEMS + 1))):
        parts = predictor.ranked(vectors, users, masked, 5)
    np.testing.assert_array_equal(whole.item, parts.item)
    np.testing.assert_array_equal(whole.score, parts.score)


def test_of_nobody() -> None:
    predictor, vectors, _ = whole_numbers(0)
    assert predictor.ranked(vectors, np.zeros(0, np.int64), nothing(0), 3).item.shape == (0, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reland]:
    """Trains `reland` of a backbone once."""
    known: dict[str, Reland] = {}

    def get(backbone: str) -> Reland:
        if backbone not in known:
            known[backbone] = model_of(toy_bundle(tmp_path_factory.mktemp("work"), backbone))
        return known[backbone]

    return get


@pytest.mark.parametrize(
    "backbone", ["sasrec", *(pytest.param(n, marks=pytest.mark.slow) for n in ("lightgcn", "ease", "ials"))]
)
def test_nothing_is_compiled_after_warming_up(model: Callable[[str], Reland], backbone: str) -> None:
    """One program for users and one for histories of a batch size, whatever k, filter and lengths are."""
    predictor = model(backbone).predictor
    jax.clear_caches()
    with counted() as programs:
        predictor.warm((1, 8), k=6)
    assert programs["jit(best)"] == programs["jit(answer)"] == 2, programs
    some = np.array([False, True, False, True, True, True, True])
    with counted() as programs:
        for count in range(1, 9):
            predictor.users(np.arange(count) % 4, k=count % 6 + 1, allowed=some if count % 2 else None)
            rows = random_ragged([1 + (count + row) % 5 for row in range(count)], 6, count)
            predictor.histories(rows, k=count % 6 + 1, exclude_seen=bool(count % 2))
    assert not programs


@pytest.mark.parametrize("backbone", ["sasrec", "ease"])
def test_a_history_gives_the_same_in_any_batch(model: Callable[[str], Reland], backbone: str) -> None:
    """A longer one than the data have too, of which a sequential backbone reads the newest items."""
    predictor = model(backbone).predictor
    histories = [[1, 2], [6, 5, 3], [4], [2, 4, 5, 1, 3, 3, 4, 2, 1, 5, 2, 3, 1]]
    together, matched = predictor.histories(ragged(histories), 6, exclude_seen=False)
    assert matched is not None
    for row, history in enumerate(histories):
        alone, own = predictor.histories(ragged([history]), 6, exclude_seen=False)
        assert own is not None and own.seed[0].tolist() == matched.seed[row].tolist()
        assert alone.item[0].tolist() == together.item[row].tolist()
        np.testing.assert_allclose(alone.score[0], together.score[row], rtol=1e-4, atol=1e-5)
        masked, _ = predictor.histories(ragged([history]), 6)
        assert set(masked.item[0].tolist()) - {0} == set(range(1, 7)) - set(history)


def test_what_cannot_be_is_refused(model: Callable[[str], Reland]) -> None:
    predictor = model("ease").predictor
    with pytest.raises(RelandError, match="batch_sizes: 7 is not one of 1, 8, 64, 512"):
        predictor.warm((1, 7))
    with pytest.raises(RelandError, match="k=0: a list has at least one item"):
        predictor.users(np.zeros(1, np.int64), 0)
    assert predictor.num_users == REPEATS.num_users and predictor.num_items == 6
