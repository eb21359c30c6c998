"""Batches against brute force: every training target once per epoch, with its context; negatives; vectors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.config import FusionConfig, ModelConfig, TrainConfig
from reland_jax.eval import plan_ranking, rank_targets
from reland_jax.models import SequenceBatch, Tables, create_recommender
from reland_jax.train import Task, create_task
from reland_jax.train.pairs import sample_negatives
from reland_jax.train.state import init_state
from reland_jax.types import Ragged, RelandError, Splits
from reland_jax.variants import ID
from tests.toys import ragged, random_ragged

NUM_ITEMS, MAX_LENGTH = 30, 4
TRAIN = random_ragged([3, 9, 1, 0, 2, 14, 5, 6, 2, 11, 4], NUM_ITEMS)
VALID = ragged([[1], [2], [], [], [3], [4], [5], [6], [], [7], [8]])
SPLITS = Splits(TRAIN, VALID, VALID, NUM_ITEMS, "leave_one_out")
CONFIG = TrainConfig(objective="shifted", batch_size=13, steps_per_dispatch=2)


def make_task(config: TrainConfig, splits: Splits = SPLITS, backbone: str = "") -> Task:
    backbone = backbone or ("lightgcn" if config.objective in ("bpr", "softmax") else "sasrec")
    model = create_recommender(
        ModelConfig(backbone=backbone, dim=4, layers=1, heads=1, inner=4), FusionConfig(), ID,
        num_users=splits.num_users, num_items=splits.num_items, max_length=MAX_LENGTH, embedding_l2=0.0,
    )  # fmt: skip
    return create_task(model, Tables(), splits, config, MAX_LENGTH)


def epoch_of(task: Task, seed: int) -> list[Any]:
    """All batches of an epoch, on the host."""
    key = jax.random.key(seed)
    order, batch = jax.jit(task.epoch_order)(task.data, key), jax.jit(task.batch)
    return [jax.tree.map(np.asarray, batch(task.data, order, step, key)) for step in range(task.steps)]


def examples_of(batch: SequenceBatch) -> list[tuple[int, tuple[int, ...], int]]:
    """(user, context, target) of every used entry: the context is its segment's items up to its place."""
    items, segment = batch.items.reshape(-1), batch.segment.reshape(-1)
    found = []
    for place, user, target, weight in zip(batch.place, batch.user, batch.target, batch.weight, strict=True):
        if weight:
            tokens = np.flatnonzero(segment == segment[place])
            found.append((int(user), tuple(items[tokens[tokens <= place]].tolist()), int(target)))
    return found


def prefixes() -> Counter[tuple[int, tuple[int, ...], int]]:
    """Every item that has a predecessor, with the L items before it."""
    rows = [TRAIN.row(user).tolist() for user in range(TRAIN.num_rows)]
    return Counter(
        (user, tuple(row[max(0, t - MAX_LENGTH) : t]), row[t])
        for user, row in enumerate(rows)
        for t in range(1, len(row))
    )


def shifted() -> Counter[tuple[int, tuple[int, ...], int]]:
    """The same targets; the context begins where the window does, windows being cut from the end."""
    rows = [TRAIN.row(user).tolist() for user in range(TRAIN.num_rows)]
    found: Counter[tuple[int, tuple[int, ...], int]] = Counter()
    for user, row in enumerate(rows):
        for t in range(1, len(row)):
            end = len(row) - 1 - (len(row) - 1 - t) // MAX_LENGTH * MAX_LENGTH
            found[user, tuple(row[max(0, end - MAX_LENGTH) : t]), row[t]] += 1
    return found


@pytest.mark.parametrize(("objective", "expected"), [("prefix", prefixes()), ("shifted", shifted())])
def test_an_epoch_has_every_target_once(objective: str, expected: Counter[Any]) -> None:
    task = make_task(dataclasses.replace(CONFIG, objective=objective))
    assert task.targets == sum(expected.values()) == 47
    first, second = (epoch_of(task, seed) for seed in (0, 1))
    for epoch in (first, second):
        assert Counter(example for batch in epoch for example in examples_of(batch)) == expected
    assert [examples_of(batch) for batch in first] != [examples_of(batch) for batch in second]


def test_an_epoch_has_every_pair_once() -> None:
    task = make_task(dataclasses.replace(CONFIG, objective="bpr", negatives=3))
    pairs = Counter((user, item) for user in range(TRAIN.num_rows) for item in TRAIN.row(user).tolist())
    batches = epoch_of(task, 0)
    found = Counter(
        (int(user), int(item))
        for batch in batches
        for user, item, weight in zip(batch.user, batch.positive, batch.weight, strict=True)
        if weight
    )
    assert found == pairs and task.targets == sum(pairs.values())
    for batch in batches:
        for user, negatives in zip(batch.user, batch.negative, strict=True):
            assert not set(negatives.tolist()) & set(TRAIN.row(user).tolist())


@pytest.mark.parametrize(("per_dispatch", "steps"), [(1, 4), (2, 4), (3, 4), (4, 4), (100, 4)])
def test_steps_fill_whole_dispatches(per_dispatch: int, steps: int) -> None:
    """47 targets in batches of 13 take 4 steps; 3 a dispatch are two dispatches of 2."""
    assert make_task(dataclasses.replace(CONFIG, steps_per_dispatch=per_dispatch)).steps == steps


@pytest.mark.parametrize("candidates", [None, 500])
def test_softmax_compares_every_pair_once_with_the_catalogue_or_a_sample(candidates: int | None) -> None:
    """The sample is the same for a batch, another one with every key, and uniform over all items."""
    config = dataclasses.replace(CONFIG, objective="softmax", candidates=candidates)
    task = make_task(config)
    batches = epoch_of(task, 0)
    used = np.concatenate([each.weight for each in batches]) > 0
    pairs = np.concatenate([np.stack([each.user, each.positive], 1) for each in batches])[used]
    owner = np.repeat(np.arange(TRAIN.num_rows), TRAIN.lengths())
    expected = np.stack([owner, TRAIN.items], 1)
    assert sorted(pairs.tolist()) == sorted(expected.tolist())
    drawn = [each.negative for each in batches]
    if candidates is None:
        assert drawn == [None] * len(batches)
        return
    other = epoch_of(task, 1)[0].negative
    assert all(each.shape == (candidates,) for each in drawn) and (drawn[0] != other).any()
    counts = np.bincount(other, minlength=NUM_ITEMS + 1)
    assert counts[0] == 0 and len(counts) == NUM_ITEMS + 1 and counts[1:].min() > 0.5 * counts[1:].mean()


@pytest.mark.parametrize(("objective", "fitting"), [("bpr", "prefix or shifted"), ("shifted", "bpr")])
def test_an_objective_of_the_other_family_is_refused(objective: str, fitting: str) -> None:
    backbone = "sasrec" if objective == "bpr" else "lightgcn"
    sizes = {"num_users": 11, "num_items": NUM_ITEMS, "max_length": MAX_LENGTH, "embedding_l2": 0.0}
    model = create_recommender(ModelConfig(backbone=backbone), FusionConfig(), ID, **sizes)
    with pytest.raises(RelandError, match=f"{objective}.*trained with {fitting}"):
        create_task(model, Tables(), SPLITS, dataclasses.replace(CONFIG, objective=objective), MAX_LENGTH)


def test_nothing_to_train_on_is_an_error() -> None:
    alone = ragged([[1], [2], []])
    with pytest.raises(RelandError, match="no training targets"):
        make_task(CONFIG, Splits(alone, alone, alone, NUM_ITEMS, "leave_one_out"))


def test_append_puts_rows_behind_rows() -> None:
    joined = TRAIN.joined(VALID)
    for user in range(TRAIN.num_rows):
        assert joined.row(user).tolist() == [*TRAIN.row(user).tolist(), *VALID.row(user).tolist()]


@pytest.mark.parametrize(("part", "at_once"), [("valid", 256), ("test", 256), ("test", 4)])
def test_user_vectors_are_those_of_each_history_alone(
    part: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packed encoder against one unpacked call per user; a user without a history gets zeros."""
    monkeypatch.setattr("reland_jax.train.tasks._encoded_at_once", lambda model: at_once)
    task = make_task(CONFIG)
    params = jax.tree.map(lambda leaf: leaf * 20, init_state(task, CONFIG).params)
    users, items, _ = task.vectors(params, part)
    encode = jax.jit(lambda batch: task.model.apply(params, Tables(), batch, method="user_vectors"))
    for user in range(TRAIN.num_rows):
        row = TRAIN.row(user).tolist() + (VALID.row(user).tolist() if part == "test" else [])
        recent = row[-MAX_LENGTH:]
        if not recent:
            assert not np.asarray(users[user]).any()
            continue
        width = range(MAX_LENGTH)
        rows = [recent + [0] * (MAX_LENGTH - len(recent)), [*width], [int(at < len(recent)) for at in width]]
        entries = ([len(recent) - 1], [user], [1], [1.0])
        alone = encode(SequenceBatch(*(jnp.array([r]) for r in rows), *map(jnp.array, entries)))
        np.testing.assert_allclose(users[user], alone[0], atol=1e-5)
    np.testing.assert_allclose(items, task.model.apply(params, Tables(), method="item_vectors"), atol=1e-6)


# --- views ---------------------------------------------------------------------------------------

VIEW_LENGTH = 3


def viewed_epoch(objective: str, seed: int = 0) -> list[SequenceBatch]:
    config = dataclasses.replace(CONFIG, objective=objective, view_length=VIEW_LENGTH)
    return epoch_of(make_task(config, backbone="duorec"), seed)


def context_of(items: np.ndarray, segment: np.ndarray, place: int) -> tuple[int, ...]:
    """The items of a token's segment up to it, of a batch laid out flat."""
    tokens = np.flatnonzero(segment == segment[place])
    return tuple(items[tokens[tokens <= place]].tolist())


@pytest.mark.parametrize(("objective", "expected"), [("prefix", prefixes()), ("shifted", shifted())])
def test_views_are_sequences_of_the_training_data(objective: str, expected: Counter[Any]) -> None:
    """One of every window beside another one with the same next item, or itself where there is none."""
    known = Counter((context, target) for _, context, target in expected.elements())
    of_target = Counter(target for _, target in known.elements())
    used = 0
    for batch in viewed_epoch(objective):
        views = batch.views
        assert views is not None
        assert sorted(set(batch.segment[batch.segment > 0].tolist())) == [
            slot + 1 for slot in range(len(views.place)) if views.weight[slot]
        ], "not one view of every window"
        flat = batch.items.reshape(-1), batch.segment.reshape(-1)
        for slot in np.flatnonzero(views.weight):
            target = int(views.target[slot])
            own = context_of(*flat, views.place[slot])
            assert flat[1][views.place[slot]] == slot + 1
            assert (own, target) in known, "the item after it is another one"
            other = context_of(views.items.reshape(-1), views.segment.reshape(-1), views.last[slot])
            assert views.position.reshape(-1)[views.last[slot]] == len(other) - 1
            others = Counter(
                context[-VIEW_LENGTH:] for context, following in known.elements() if following == target
            )
            others[own[-VIEW_LENGTH:]] -= of_target[target] > 1
            assert others[other] > 0, "that sequence does not precede the same item, or is itself"
            used += 1
    assert used == {"prefix": 47, "shifted": 16}[objective], "as many as there are windows"


def test_views_change_from_epoch_to_epoch_and_leave_the_batch_as_it_is() -> None:
    first, second = (viewed_epoch("shifted", seed) for seed in (0, 1))
    targets = [np.concatenate([batch.views.target for batch in epoch]) for epoch in (first, second)]
    assert (targets[0] != targets[1]).any()
    plain = epoch_of(make_task(CONFIG), 0)
    for batch, expected in zip(first, plain, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch._replace(views=None), expected)


# --- scores --------------------------------------------------------------------------------------


def test_ranking_uses_the_score_of_the_backbone() -> None:
    """`Task.vectors` of NeuMF carries its own score with the parameters it was asked for."""
    config = dataclasses.replace(CONFIG, objective="bpr")
    task = make_task(config, backbone="neumf")
    start = init_state(task, config).params
    for scale in (1.0, -3.0):
        params = jax.tree.map(lambda leaf, s=scale: s * (leaf + 0.1), start)
        vectors = task.vectors(params, "valid")
        found = rank_targets(plan_ranking(VALID, TRAIN, NUM_ITEMS, 400), vectors).rank
        score = jax.jit(lambda *a: task.model.apply(*a, method="score"))
        scores = np.array(score(params, vectors.users, vectors.items))
        expected = []
        for user in range(VALID.num_rows):
            own, history = scores[user].copy(), TRAIN.row(user)
            scores[user, [0, *history]] = -np.inf
            # A target that the user has had before is ranked all the same, and does not count itself.
            expected += [int((scores[user] >= own[t]).sum()) - (t not in history) for t in VALID.row(user)]
        np.testing.assert_array_equal(found, expected)


# --- negatives -----------------------------------------------------------------------------------

COUNT = 3000


def draw_negatives(rows: Ragged, seed: int) -> np.ndarray:
    """Many for every user, as training draws them, ``[U, COUNT]``."""
    task = make_task(TrainConfig(objective="bpr"), Splits(rows, rows, rows, NUM_ITEMS, "ratio"))
    longest = max(len(set(rows.row(user).tolist())) for user in range(rows.num_rows))
    draw = jax.jit(sample_negatives, static_argnums=(2, 3, 4))
    key = jax.random.key(seed)
    return np.asarray(draw(task.data, jnp.arange(rows.num_rows), COUNT, NUM_ITEMS, longest, key))


@pytest.fixture(scope="module")
def negatives() -> tuple[Ragged, np.ndarray]:
    """Histories, and two draws with the same key followed by one with another, ``[3, U, COUNT]``."""
    rows = random_ragged([0, 1, 2, 3, 28, 30, 15], NUM_ITEMS)
    return rows, np.stack([draw_negatives(rows, seed) for seed in (0, 0, 1)])


def test_negatives_are_items_the_user_does_not_have(negatives: tuple[Ragged, np.ndarray]) -> None:
    """Not even where two of 30 items are left; who has all of them gets any."""
    rows, draws = negatives
    assert draws.min() == 1 and draws.max() == NUM_ITEMS
    for user in (0, 1, 2, 3, 4, 6):
        allowed = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), rows.row(user))
        np.testing.assert_array_equal(np.unique(draws[0, user]), allowed)
    assert len(np.unique(draws[0, 5])) == NUM_ITEMS


def test_an_item_that_a_user_has_twice_counts_once() -> None:
    rows = ragged([[7, 3, 7, 7], [1, 1], [30, 29, 30]])
    draws = draw_negatives(rows, 0)
    for user in range(3):
        allowed = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), rows.row(user))
        np.testing.assert_array_equal(np.unique(draws[user]), allowed)


def test_negatives_are_uniform(negatives: tuple[Ragged, np.ndarray]) -> None:
    """Chi-square within six standard deviations of its expectation."""
    rows, draws = negatives
    for user in (0, 1, 3, 4, 6):
        allowed = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), rows.row(user))
        counts = np.array([(draws[0, user] == item).sum() for item in allowed])
        expected = counts.sum() / len(allowed)
        freedom = len(allowed) - 1
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 6 * np.sqrt(2 * freedom)


def test_negatives_follow_from_the_key(negatives: tuple[Ragged, np.ndarray]) -> None:
    _, (first, again, other) = negatives
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.85
