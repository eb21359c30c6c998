"""Provider "store": the current version's rationales, and none written from what is held out now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.config import DataConfig, LLMConfig, PoolConfig
from reland_jax.pool import build_pool, pool_provenance, pool_state
from reland_jax.pool.histories import history_codes
from reland_jax.pool.ready import check_ready
from reland_jax.pool_store.source import register
from reland_jax.pool_store.store import PoolStore
from reland_jax.pool_store.version_files import Origin
from reland_jax.types import IdMap, Interactions, RelandError, Splits
from tests.pool_store.toys import CHANGE, content
from tests.toys import ragged, random_ragged

ITEMS = np.asarray(["", *(f"item-{number}" for number in range(1, 31))], object)
WHOLE = random_ragged([12] * 12, 30)


def splits_with(held_out: int, rows: Any = WHOLE) -> Splits:
    """Everybody's last items are held out, half for validation."""
    lengths = rows.lengths() - held_out
    train = [rows.row(user)[: lengths[user]] for user in range(rows.num_rows)]
    valid = [rows.row(user)[lengths[user] : lengths[user] + held_out // 2] for user in range(rows.num_rows)]
    test = [rows.row(user)[lengths[user] + held_out // 2 :] for user in range(rows.num_rows)]
    return Splits(*(ragged_of(part) for part in (train, valid, test)), 30, "toy")


def ragged_of(rows: list[np.ndarray]) -> Any:
    return ragged([row.tolist() for row in rows])


def store_with(folder: Path, held_out: int) -> PoolStore:
    """A store whose rationales were written from all but so many last items of everybody."""
    whole, splits = content(), splits_with(held_out)
    lengths = splits.train.lengths()
    seeds = whole.pool.seeds.user
    codes = history_codes(splits.train, ITEMS, lengths)
    store = PoolStore(folder)
    with store.locked():
        store.publish(whole._replace(origin=Origin(lengths[seeds], codes[seeds])), CHANGE)
    return store


def build(folder: Path, splits: Splits, users: np.ndarray | None = None, items: np.ndarray = ITEMS) -> Any:
    ids = IdMap(content().population.user_ids if users is None else users, items)
    nothing = np.zeros(0)
    behaviour = np.random.default_rng(5).normal(size=(len(ids.users), 3)).astype(np.float32)
    interactions = Interactions(nothing, nothing, nothing, ids, {}, {})
    config = PoolConfig(provider="store", path=str(folder))
    return *build_pool(None, behaviour, splits, interactions, config, DataConfig(), folder=folder), behaviour


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


@pytest.mark.parametrize("held_out", [0, 1, 2])
def test_all_that_was_shown_is_training_still(tmp_path: Path, held_out: int) -> None:
    """Written with two held out: of use as long as at most these two are."""
    whole = content()
    store_with(tmp_path, 2)
    pool, problems, behaviour = build(tmp_path, splits_with(held_out))
    np.testing.assert_array_equal(pool.seeds.user, whole.pool.seeds.user)
    np.testing.assert_array_equal(pool.behaviour, behaviour[pool.seeds.user])
    assert list(pool.rationales) == list(whole.pool.rationales) and problems == []


def test_a_split_that_holds_out_more_is_guarded(tmp_path: Path) -> None:
    """Written with two held out, used with four: two validation items were shown to the writer."""
    store_with(tmp_path, 2)
    message = "written from 10 training interactions .protocol leave_one_out., but the present 8 do not start"
    with pytest.raises(RelandError, match=f"the reasoning pool is empty.*{message}"):
        build(tmp_path, splits_with(4))


def test_each_seed_user_is_judged_for_itself(tmp_path: Path) -> None:
    store_with(tmp_path, 2)
    user = int(content().pool.seeds.user[1])
    splits = splits_with(2)
    rows = [splits.train.row(row) for row in range(12)]
    rows[user] = rows[user][:-1]
    pool, problems, _ = build(tmp_path, splits._replace(train=ragged_of(rows)))
    assert user not in pool.seeds.user and len(pool.rationales) == 3
    assert [problem.user_id for problem in problems] == [f"user-{user}"]


def test_other_items_and_another_order_are_other_data(tmp_path: Path) -> None:
    store_with(tmp_path, 2)
    splits = splits_with(2)
    swapped = splits._replace(train=ragged_of([splits.train.row(row)[::-1] for row in range(12)]))
    for changed, items in ((swapped, ITEMS), (splits, np.char.add("x", ITEMS.astype(str)))):
        with pytest.raises(RelandError, match="the reasoning pool is empty.*or the data changed"):
            build(tmp_path, changed, items=items)


def test_users_in_another_order_and_users_that_left(tmp_path: Path) -> None:
    store_with(tmp_path, 2)
    whole, splits = content(), splits_with(2)
    order = np.random.default_rng(1).permutation(12)
    left = int(whole.pool.seeds.user[0])
    order = order[order != left]
    parts = (splits.train, splits.valid, splits.test)
    train, valid, test = (ragged_of([part.row(user) for user in order]) for part in parts)
    turned = splits._replace(train=train, valid=valid, test=test)
    pool, problems, _ = build(tmp_path, turned, whole.population.user_ids[order])
    expected = whole.population.user_ids[whole.pool.seeds.user[1:]]
    np.testing.assert_array_equal(whole.population.user_ids[order][pool.seeds.user], expected)
    assert [problem.user_id for problem in problems] == [f"user-{left}"]
    assert "this user is not in the data" in problems[0].why


def test_the_lists_hold_also_for_an_older_version(tmp_path: Path) -> None:
    """Someone names an old version in CURRENT: who was removed since does not come back with it."""
    store = store_with(tmp_path, 2)
    users = content().pool.seeds.user.tolist()
    with store.locked():
        store.remember(users=[f"user-{users[0]}"], seeds=[f"user-{users[1]}"], patterns=["thing2"])
    pool, _, _ = build(tmp_path, splits_with(2))
    assert pool.seeds.user.tolist() == [users[3]]


def test_stamp_and_provenance_follow_the_version(tmp_path: Path) -> None:
    store = store_with(tmp_path, 2)
    config = PoolConfig(provider="store", path=str(tmp_path))
    first, found = pool_state(config), pool_provenance(config, DataConfig(name="d"))
    assert (found["provider"], found["store_version"], found["written_by"]) == ("store", 1, "batch")
    assert found["prompt_version"] == "1" and found["change"]["who"] == "ann"
    with store.locked():
        store.publish(content(seed=1), CHANGE)
    assert pool_state(config) != first
    assert pool_provenance(config, DataConfig(name="d"))["store_version"] == 2


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="not a pool store"):
        build(tmp_path, splits_with(2))
    with pytest.raises(RelandError, match="config.pool.path is None; with provider 'store'"):
        pool_state(PoolConfig(provider="store"))
    with pytest.raises(RelandError, match="/dev/null"):
        check_ready(PoolConfig(provider="store", path="/dev/null"), LLMConfig(), tmp_path)
