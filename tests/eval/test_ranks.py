"""Full ranking against numpy brute force, and the faults that would make a broken model look good."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import MeshConfig
from reland_jax.device import sizes, use_sizes
from reland_jax.eval.lists import recommend
from reland_jax.eval.ranks import FREQUENT, Vectors, plan_ranking, rank_targets
from reland_jax.mesh import MODEL, device_put_rows, use_mesh
from reland_jax.types import Ragged, RelandError
from tests.toys import ragged, random_ragged

NUM_USERS, NUM_ITEMS, DIM = 23, 31, 4
ROW_BYTES = 2 * 4 * (NUM_ITEMS + 1)


def dot_product(users: jax.Array, items: jax.Array) -> jax.Array:
    return jnp.einsum("be,ne->bn" if items.ndim == 2 else "be,bne->bn", users, items)


scored_by = jax.tree_util.Partial(dot_product)


def scored(users: np.ndarray, items: np.ndarray) -> Vectors:
    """Vectors whose score is the dot product."""
    return Vectors(jnp.asarray(users), jnp.asarray(items), jax.tree_util.Partial(dot_product))


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, so that scores are exact and some are tied."""
    rng = np.random.default_rng(0)
    users, items = (rng.integers(-3, 4, (n, DIM)).astype(np.float32) for n in (NUM_USERS, NUM_ITEMS + 1))
    items[0] = 100.0  # the padding item would win every list if it took part
    return users, items


@pytest.fixture(scope="module")
def lists() -> tuple[Ragged, Ragged]:
    """Targets (some users with none, some with several) and masked items, without a common item."""
    rows = random_ragged([(user * 7) % 12 for user in range(NUM_USERS)], NUM_ITEMS)
    number = [user % 4 for user in range(NUM_USERS)]
    both = [(rows.row(user)[:n].tolist(), rows.row(user)[n:].tolist()) for user, n in enumerate(number)]
    return ragged([targets for targets, _ in both]), ragged([masked for _, masked in both])


def brute_force(users: np.ndarray, items: np.ndarray, targets: Ragged, masked: Ragged | None) -> list[int]:
    """Rank of every target: how many other items, not masked, score at least as high."""
    ranks = []
    for user in range(targets.num_rows):
        out = set() if masked is None else set(masked.row(user).tolist())
        scores = users[user] @ items.T
        for target in targets.row(user).tolist():
            others = [i for i in range(1, len(items)) if i != target and i not in out]
            ranks.append(sum(scores[other] >= scores[target] for other in others))
    return ranks


@pytest.mark.parametrize("rows_per_tile", [1, 5, 1000])
def test_ranks_equal_brute_force(
    vectors: tuple[np.ndarray, np.ndarray], lists: tuple[Ragged, Ragged], rows_per_tile: int
) -> None:
    users, items = vectors
    targets, masked = lists
    plan = plan_ranking(targets, masked, NUM_ITEMS, rows_per_tile * ROW_BYTES)
    assert plan.tiles.user.shape[1] == min(rows_per_tile, int((targets.lengths() > 0).sum()))
    found = rank_targets(plan, scored(users, items))
    np.testing.assert_array_equal(found.rank, brute_force(users, items, targets, masked))
    np.testing.assert_array_equal(found.item, targets.items)
    np.testing.assert_array_equal(found.user, np.repeat(np.arange(NUM_USERS), targets.lengths()))


def test_without_a_mask(vectors: tuple[np.ndarray, np.ndarray], lists: tuple[Ragged, Ragged]) -> None:
    plan = plan_ranking(lists[0], None, NUM_ITEMS, 5 * ROW_BYTES)
    expected = brute_force(*vectors, lists[0], None)
    assert expected != brute_force(*vectors, *lists)
    np.testing.assert_array_equal(rank_targets(plan, scored(*vectors)).rank, expected)


def test_ties_lose(lists: tuple[Ragged, Ragged]) -> None:
    """A model that scores everything alike is at the end of the list, not at its top."""
    constant = np.ones((NUM_USERS, DIM), np.float32), np.ones((NUM_ITEMS + 1, DIM), np.float32)
    plan = plan_ranking(lists[0], None, NUM_ITEMS, 5 * ROW_BYTES)
    assert (rank_targets(plan, scored(*constant)).rank == NUM_ITEMS - 1).all()


@pytest.mark.parametrize("rows_per_tile", [1, 5, 1000])
def test_a_target_that_is_masked_is_ranked_among_what_is_left(
    vectors: tuple[np.ndarray, np.ndarray], lists: tuple[Ragged, Ragged], rows_per_tile: int
) -> None:
    """Users with several targets have some of them in the history, and each is masked for the others."""
    targets, history = lists
    rows = [[*history.row(u), *targets.row(u)[u % 2 :], *targets.row(u)[:1]] for u in range(NUM_USERS)]
    masked = ragged(rows)
    plan = plan_ranking(targets, masked, NUM_ITEMS, rows_per_tile * ROW_BYTES)
    again = sum(np.isin(targets.row(user), rows[user]).sum() for user in range(NUM_USERS))
    assert 20 < again == np.asarray(plan.tiles.target_masked).sum()
    expected = brute_force(*vectors, targets, masked)
    assert expected != brute_force(*vectors, targets, history), "targets compete with those of the history"
    np.testing.assert_array_equal(rank_targets(plan, scored(*vectors)).rank, expected)


def test_a_user_who_has_had_everything_has_the_target_alone_in_the_list(
    vectors: tuple[np.ndarray, np.ndarray],
) -> None:
    everything = ragged([list(range(1, NUM_ITEMS + 1))] * NUM_USERS)
    targets = ragged([[user % NUM_ITEMS + 1, 31] for user in range(NUM_USERS)])
    plan = plan_ranking(targets, everything, NUM_ITEMS, 5 * ROW_BYTES)
    assert rank_targets(plan, scored(*vectors)).rank.tolist() == [0] * 2 * NUM_USERS


def test_an_item_that_is_a_target_twice_is_ranked_once(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    """Two interactions of a user with one item; both gains would make an NDCG above 1."""
    plan = plan_ranking(ragged([[7, 3, 7], [], [3, 3]]), None, NUM_ITEMS, 5 * ROW_BYTES)
    found = rank_targets(plan, scored(*vectors))
    assert (found.user.tolist(), found.item.tolist()) == ([0, 0, 2], [7, 3, 3])
    assert found.rank.tolist() == brute_force(*vectors, ragged([[7, 3], [], [3]]), None)


def test_without_masked_targets_nothing_is_carried_for_them(lists: tuple[Ragged, Ragged]) -> None:
    """The program, its memory and its speed stay what they are where nobody has an item again."""
    assert plan_ranking(*lists, NUM_ITEMS, 5 * ROW_BYTES).tiles.target_masked is None
    assert plan_ranking(lists[0], None, NUM_ITEMS, 5 * ROW_BYTES).tiles.target_masked is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("which", "name"), [(0, "user"), (1, "item")])
def test_a_vector_that_is_not_finite_stops(
    vectors: tuple[np.ndarray, np.ndarray], lists: tuple[Ragged, Ragged], which: int, name: str, value: float
) -> None:
    broken = [array.copy() for array in vectors]
    broken[which][7, 1] = value
    plan = plan_ranking(*lists, NUM_ITEMS, 5 * ROW_BYTES)
    with pytest.raises(RelandError, match=f"{name} vector 7 is not finite"):
        rank_targets(plan, scored(*broken))


def test_scores_that_overflow_stop() -> None:
    """Finite vectors can score NaN (inf - inf); such items would never count as better than the target."""
    users = np.array([[1e20, 1e20]], np.float32)
    items = np.array([[0, 0], [1, 0], [1e20, -1e20], [1e20, -1e20]], np.float32)
    plan = plan_ranking(ragged([[1]]), None, 3, 1 << 20)
    with pytest.raises(RelandError, match="user vector 0 .*item vector 2"):
        rank_targets(plan, scored(users, items))


def minus_distance(weight: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
    return -jnp.sum(weight * jnp.square(users[:, None] - items), -1)


def test_any_score_can_rank_and_its_parameters_compile_nothing(
    vectors: tuple[np.ndarray, np.ndarray], lists: tuple[Ragged, Ragged]
) -> None:
    """A score that is no dot product, with other parameters in the second and third ranking."""
    users, items = vectors
    plan = plan_ranking(*lists, NUM_ITEMS, 5 * ROW_BYTES)
    calls: list[tuple[int, ...]] = []

    def traced(weight: jax.Array, users: jax.Array, items: jax.Array) -> jax.Array:
        calls.append(users.shape)
        return minus_distance(weight, users, items)

    for scale in (1, 2, 3):
        weight = np.array([scale, 1, 0, 2], np.float32)
        score = jax.tree_util.Partial(traced, jnp.asarray(weight))
        found = rank_targets(plan, Vectors(jnp.asarray(users), jnp.asarray(items), score))
        scores = -(weight * (users[:, None] - items) ** 2).sum(-1)
        expected = brute_force(scores, np.eye(NUM_ITEMS + 1), *lists)
        np.testing.assert_array_equal(found.rank, expected)
    assert len(calls) == 1, "compiled again for other parameters"


class Shop(NamedTuple):
    """A catalogue in which some items are frequent and score high, and what was bought and is bought next."""

    users: np.ndarray
    items: np.ndarray
    history: Ragged
    targets: Ragged


@pytest.fixture(scope="module")
def shop() -> Shop:
    """150 users, 480 items of which 30 are looked at first; whole numbers, so that some scores are tied."""
    rng = np.random.default_rng(3)
    users, items = (rng.integers(-2, 5, (n, DIM)).astype(np.float32) for n in (150, 481))
    users[:, 0] = 3.0
    items[0] = 100.0
    items[1:61, 0] += 3
    weight = np.r_[np.full(60, 20.0), np.ones(420)] / (60 * 20 + 420)
    rows = [rng.choice(480, 12, replace=False, p=weight) + 1 for _ in range(150)]
    bought = ragged([row[:9].tolist() for row in rows])
    return Shop(users, items, bought, ragged([row[9 : 9 + k % 4].tolist() for k, row in enumerate(rows)]))


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, model=4), MeshConfig(model=8)])
@pytest.mark.parametrize("rows_per_tile", [1, 3, 1000])
@pytest.mark.parametrize("mask", [True, False])
def test_frequent_items_settle_most_users(
    shop: Shop, rows_per_tile: int, mask: bool, mesh: MeshConfig
) -> None:
    users, items, history, targets = shop
    masked = history if mask else None
    expected = np.array(brute_force(users, items, targets, masked))
    with use_mesh(mesh):
        plan = plan_ranking(targets, masked, 480, rows_per_tile * 2 * 4 * 481, history)
        assert len(plan.frequent) == 480 // FREQUENT
        assert plan.users_at_a_time <= rows_per_tile
        vectors = Vectors(
            device_put_rows(users, MODEL), device_put_rows(items, MODEL), jax.tree_util.Partial(dot_product)
        )
        found, exact = rank_targets(plan, vectors, 12).rank, rank_targets(plan, vectors).rank
    np.testing.assert_array_equal(exact, expected)
    inside = expected < 12
    assert 10 < inside.sum() < len(inside) / 2
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert (found[~inside] >= 12).all()
    settled = np.mean(found[expected > 12] == 12)
    assert settled > 0.1 if rows_per_tile < 1000 else settled == 0, "one tile has room for all users"


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, model=4), MeshConfig(model=8)])
@pytest.mark.parametrize("rows_per_tile", [3, 1000])
def test_items_had_again_are_found_by_any_mesh_and_cutoff(
    shop: Shop, rows_per_tile: int, mesh: MeshConfig
) -> None:
    """About every second target is an item of the history."""
    users, items, history, others = shop
    targets = ragged([[*others.row(u), *history.row(u)[: (u + 1) % 3]] for u in range(len(users))])
    expected = np.array(brute_force(users, items, targets, history))
    with use_mesh(mesh):
        plan = plan_ranking(targets, history, 480, rows_per_tile * 2 * 4 * 481, history)
        vectors = Vectors(
            device_put_rows(users, MODEL), device_put_rows(items, MODEL), jax.tree_util.Partial(dot_product)
        )
        found, exact = rank_targets(plan, vectors, 12).rank, rank_targets(plan, vectors).rank
    np.testing.assert_array_equal(exact, expected)
    inside = expected < 12
    again = np.concatenate([np.isin(targets.row(u), history.row(u)) for u in range(len(users))])
    assert 10 < (inside & again).sum() and 40 < (~inside & ~again).sum()
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert (found[~inside] >= 12).all()


def test_a_first_look_leaves_out_what_a_user_has_had() -> None:
    """Twenty frequent items score above the target; who has had them has the target on top."""
    items = np.zeros((481, 1), np.float32)
    items[1:21], items[200] = 3.0, 2.0
    history = ragged([list(range(1, 21)), list(range(1, 31))])
    plan = plan_ranking(ragged([[200], []]), history, 480, 1 << 20, history)
    assert set(range(1, 21)) < set(np.asarray(plan.frequent).tolist())
    assert rank_targets(plan, scored(np.ones((2, 1), np.float32), items), 12).rank.tolist() == [0]
    unmasked = plan_ranking(ragged([[200], []]), None, 480, 1 << 20, history)
    assert rank_targets(unmasked, scored(np.ones((2, 1), np.float32), items), 12).rank[0] >= 12


def test_a_first_look_settles_nothing_that_rounding_might(shop: Shop) -> None:
    """The target is the best, but its score alone comes out lower than many that are computed together."""

    def rounded(users: jax.Array, items: jax.Array) -> jax.Array:
        return dot_product(users, items) * (1 - 2**-8 if items.ndim == 3 else 1)

    items = np.full((481, 1), 99.9, np.float32)
    items[480] = 100.0
    plan = plan_ranking(ragged([[480]]), None, 480, 1 << 20, ragged([list(range(1, 31))]))
    vectors = Vectors(jnp.ones((1, 1)), jnp.asarray(items), jax.tree_util.Partial(rounded))
    assert rank_targets(plan, vectors, 1).rank.tolist() == [0]


def test_another_cutoff_compiles_nothing(shop: Shop) -> None:
    calls: list[tuple[int, ...]] = []

    def traced(users: jax.Array, items: jax.Array) -> jax.Array:
        calls.append(users.shape)
        return dot_product(users, items)

    plan = plan_ranking(shop.targets, shop.history, 480, 1 << 20, shop.history)
    vectors = Vectors(jnp.asarray(shop.users), jnp.asarray(shop.items), jax.tree_util.Partial(traced))
    rank_targets(plan, vectors, 5)
    once = len(calls)
    for cutoff in (7, None):
        rank_targets(plan, vectors, cutoff)
    assert len(calls) == once > 0


def test_nothing_to_rank_is_an_error() -> None:
    with pytest.raises(RelandError, match="no user has an item to rank"):
        plan_ranking(ragged([[], []]), None, NUM_ITEMS, 1 << 20)


def test_recommend_equals_a_sorted_list(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    users, items = vectors
    users = users[:5] + np.random.default_rng(1).normal(0, 0.1, (5, DIM)).astype(np.float32)
    masked = np.array([[3, 4, 0], [0, 0, 0], [1, 0, 0], [7, 8, 9], [2, 0, 0]], np.int32)
    found, scores = recommend(scored(users, items), jnp.arange(5), jnp.asarray(masked), 6, NUM_ITEMS)
    for row in range(5):
        value = users[row] @ items.T
        value[[0, *masked[row]]] = -np.inf
        expected = np.argsort(-value)[:6]
        np.testing.assert_allclose(scores[row], value[expected], rtol=1e-5)
        np.testing.assert_allclose(value[found[row]], value[expected], rtol=1e-5)
        assert len(set(found[row].tolist()) - {0, *masked[row].tolist()}) == 6


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, model=4)])
@pytest.mark.parametrize("count", [6, 7, 10])
def test_recommend_lists_what_is_left_and_nothing_else(mesh: MeshConfig, count: int) -> None:
    """Seven items: a user who has had four of them, one who has had all, and one who is new."""
    items = np.arange(8, dtype=np.float32)[:, None]
    items[0] = 100.0
    masked = np.array([[7, 5, 1, 2, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7], [0] * 7], np.int32)
    with use_mesh(mesh):
        vectors = Vectors(
            *(device_put_rows(a, MODEL) for a in (np.ones((8, 1), np.float32), items)), scored_by
        )
        found, scores = recommend(vectors, jnp.arange(3), jnp.asarray(masked), count, 7)
    length = min(count, 7)
    expected = [[6, 4, 3, 0, 0, 0, 0], [0] * 7, [7, 6, 5, 4, 3, 2, 1]]
    assert found.tolist() == [row[:length] for row in expected]
    np.testing.assert_array_equal(scores, np.where(found > 0, found, -np.inf))


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, model=4)])
def test_turns_that_the_host_counts_change_no_rank(shop: Shop, mesh: MeshConfig) -> None:
    """With up to five targets a user, so that the targets of a group take several turns."""
    users, items, history, others = shop
    targets = ragged([[*others.row(u), *history.row(u)[: (u + 1) % 3]] for u in range(len(users))])
    expected = np.array(brute_force(users, items, targets, history))
    known = dataclasses.replace(sizes(), ranks_in_known_turns=True)
    with use_sizes(known), use_mesh(mesh):
        plan = plan_ranking(targets, history, 480, 3 * 2 * 4 * 481, history)
        vectors = Vectors(
            device_put_rows(users, MODEL), device_put_rows(items, MODEL), jax.tree_util.Partial(dot_product)
        )
        found, exact = rank_targets(plan, vectors, 12).rank, rank_targets(plan, vectors).rank
    assert plan.most_targets > plan.users_at_a_time
    np.testing.assert_array_equal(exact, expected)
    inside = expected < 12
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert (found[~inside] >= 12).all()
