"""Bundles after their training: removed users are nowhere, newer histories are read, new items are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from reland_jax.bundle import Bundle, write_bundle
from reland_jax.pool_store import PoolStore
from reland_jax.serve.api import Reland
from reland_jax.serve.changing import (
    check_appendable,
    keep_rationales,
    keep_users,
    matched,
    refreshed,
    with_described,
    with_items,
)
from reland_jax.strings import as_strings
from reland_jax.types import IdMap, Interactions, RelandError
from tests.serve.toys import model_of, toy_bundle
from tests.stages.toys import REPEATS
from tests.toys import quick_programs

STAYS = np.array([True, True, False, True])


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Bundle]:
    """Trains a backbone with a variant once."""
    known: dict[tuple[str, str], Bundle] = {}

    def get(backbone: str, variant: str = "reland") -> Bundle:
        if (backbone, variant) not in known:
            known[backbone, variant] = toy_bundle(tmp_path_factory.mktemp("work"), backbone, variant)
        return known[backbone, variant]

    return get


def lists(model: Reland, **options: object) -> dict[str, list[str]]:
    """Listed items by user."""
    found: dict[str, list[str]] = {}
    for row in model.recommend(k=9, **options).to_pylist():  # type: ignore[arg-type]
        found.setdefault(row["user"], []).append(row["item"])
    return found


@pytest.mark.parametrize("backbone", ["sasrec", "lightgcn", pytest.param("ease", marks=pytest.mark.slow)])
def test_a_removed_user_is_nowhere_in_the_bundle(bundle: Callable, backbone: str, tmp_path: Path) -> None:
    """A user who is no seed user: the others are given the same rationales as before."""
    before, after = bundle(backbone), keep_users(bundle(backbone), STAYS)
    write_bundle(after, tmp_path / "after")
    model = Reland.load(tmp_path / "after")
    left, kept = model._fitted(), np.flatnonzero(STAYS)
    assert left.interactions.ids.users.tolist() == ["u0", "u1", "u3"]
    assert [left.splits.train.row(row).tolist() for row in range(3)] == [
        REPEATS.train.row(user).tolist() for user in kept
    ]
    assert len(left.trained.ranks["test"].user) == 3 and left.trained.ranks["test"].user.max() == 2
    with pytest.raises(RelandError, match="'u2' is not one of the 3 users"):
        model.recommend("u2")
    old = lists(model_of(before))
    assert {user: sorted(items) for user, items in lists(model).items()} == {
        user: sorted(items) for user, items in old.items() if user != "u2"
    }
    assert after.assignment is not None and after.pool is not None
    np.testing.assert_array_equal(after.assignment.seed, before.assignment.seed[STAYS])
    assert after.interactions.ids.users[after.pool.seeds.user].tolist() == ["u3", "u1"]
    if backbone == "sasrec":  # which has nothing of other users
        assert {user: items for user, items in lists(model).items()} == {
            user: items for user, items in old.items() if user != "u2"
        }


def test_with_a_removed_seed_user_its_rationale_goes(bundle: Callable) -> None:
    after = keep_users(bundle("lightgcn"), np.array([True, True, True, False]))
    assert after.pool is not None and after.assignment is not None
    assert after.interactions.ids.users[after.pool.seeds.user].tolist() == ["u1"]
    assert after.assignment.seed.tolist() == [[0]] * 3 and after.rationales.shape[0] == 1
    rows = model_of(after).recommend(k=2).to_pylist()
    assert {row["explanation"] for row in rows} == {"Likes 1.", "Items: 1."}
    with pytest.raises(RelandError, match="leaves no rationale"):
        keep_rationales(bundle("lightgcn"), np.zeros(2, bool))
    with pytest.raises(RelandError, match="leaves no user"):
        keep_users(bundle("lightgcn"), np.zeros(4, bool))


def test_seed_users_are_matched_to_themselves_first(bundle: Callable) -> None:
    made = bundle("lightgcn")
    everything = REPEATS.train.joined(REPEATS.valid).joined(REPEATS.test)
    found = matched(made, everything, 2, np.arange(4))
    assert found.seed[3].tolist() == [0, 1] and found.seed[1].tolist() == [1, 0]
    assert found.cosine[3, 0] == found.cosine[1, 0] == 1.0
    one = matched(made, everything, 1, np.arange(4))
    assert one.seed[[3, 1], 0].tolist() == [0, 1] and one.seed.shape == (4, 1)


def test_what_a_store_removed_is_left_out(bundle: Callable, tmp_path: Path) -> None:
    """Also what it removes later; a blocked text goes with its seed user."""
    with PoolStore(tmp_path / "store").locked() as store:
        store.remember(users=["u2", "u99"])
    with pytest.raises(RelandError, match="there is no pool store here"):
        model_of(bundle("ease")).screen(tmp_path / "stroe")
    model = model_of(bundle("ease")).screen(tmp_path / "store")
    assert list(lists(model)) == ["u0", "u1", "u3"]
    with PoolStore(tmp_path / "store").locked() as store:
        store.remember(patterns=["likes 1"])
    rows = model.screen(tmp_path / "store").recommend(k=1).to_pylist()
    assert {row["explanation"] for row in rows} == {"Likes 3.", "Items: 3."}


def today(histories: dict[str, list[str]]) -> Interactions:
    """A table of interactions, with ids of its own."""
    users = sorted(histories)
    items = ["", *sorted({item for row in histories.values() for item in row})]
    rows = [(user, items.index(item)) for user, name in enumerate(users) for item in histories[name]]
    user, item = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    ids = IdMap(as_strings(users), as_strings(items))
    return Interactions(user, item, np.arange(len(user), dtype=np.float64), ids, {}, {})


def test_a_sequence_takes_the_users_and_histories_of_today(
    bundle: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lists are those of new users with these histories; seed users stay."""
    made = bundle("sasrec")
    now = {"a": ["i3", "i1"], "u1": ["i2", "i4", "gone", "i6"], "b": ["i5"]}
    after = refreshed(made, today(now))
    assert after.interactions.ids.users.tolist() == ["a", "b", "u1", "u3"]
    assert after.interactions.ids.users[after.pool.seeds.user].tolist() == ["u3", "u1"]
    assert "1 of 7 interactions are with unknown items" in caplog.text
    found = model_of(after)
    told = found.recommend(["a", "b"], 9).drop_columns("score")
    asked = {"a": ["i3", "i1"], "b": ["i5"]}
    assert told == model_of(made).recommend_from_history(asked, 9).drop_columns("score")
    assert {row["user_id"] for row in [vars(seed) for seed in found.explain("u1").seeds]} == {"u1", "u3"}
    with pytest.raises(RelandError, match="not measured as it is"):
        found.recommend("a", as_measured=True)
    with pytest.raises(RelandError, match="none of the interactions"):
        refreshed(made, today({"a": ["gone"]}))


def test_a_set_keeps_its_users_and_adds_what_they_had_since(
    bundle: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    made = bundle("lightgcn", "id")
    after = refreshed(made, today({"a": ["i3"], "u0": ["i1", "i2", "i6", "i6"]}))
    assert "1 users were not trained" in caplog.text
    before, now = model_of(made), model_of(after)
    np.testing.assert_array_equal(before.vectors().users, now.vectors().users)
    assert set(lists(now)["u0"]) == {"i4", "i5"}
    assert after.splits.train is made.splits.train


@pytest.mark.parametrize("variant", ["id", "reland"])
def test_a_set_that_reads_histories_takes_new_users(
    bundle: Callable, variant: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Their lists are those of new users with these histories, also after their bundle was saved."""
    made = bundle("lightgcn", variant)._replace(by_histories=True)
    now = today({"z": ["i3", "i1"], "u1": ["i2", "i6"], "a": ["i5"]})
    after = refreshed(made, now._replace(user_features={}))
    assert "were not trained" not in caplog.text
    assert after.interactions.ids.users.tolist() == ["u0", "u1", "u2", "u3", "a", "z"]
    write_bundle(after, tmp_path / "bundle")
    found, old = Reland.load(tmp_path / "bundle"), model_of(made)
    had = [f"i{item}" for item in found._everything.row(1).tolist()]
    asked = {"a": ["i5"], "z": ["i3", "i1"], "u1": had}
    users = [*asked] if variant == "id" else ["a", "z"]  # a seed user has itself first
    told = found.recommend(users, 9).drop_columns("score")
    asked = {user: asked[user] for user in users}
    assert told == old.recommend_from_history(asked, 9).drop_columns("score") and len(told) > 8
    if variant == "reland":
        assert {seed.user_id for seed in found.explain("z").seeds} <= {"u1", "u3"}
    again = refreshed(after, today({"b": ["i2"]}))
    assert again.interactions.ids.users.tolist()[-3:] == ["a", "z", "b"]


@pytest.mark.parametrize("backbone", ["sasrec", "lightgcn"])
def test_a_new_item_is_listed_by_its_text(bundle: Callable, backbone: str) -> None:
    """With the text of another item it is the most similar to it, and old lists keep their order."""
    made = bundle(backbone)
    described = with_described(made.interactions, ["i7"], {"title": ["Rose tea"]})
    after = with_items(made, described, made.items[[4]])
    old, new = model_of(made), model_of(after)
    rows = new.recommend(k=9, exclude_seen=False).to_pylist()
    assert {row["user"] for row in rows if row["item"] == "i7"} == {"u0", "u1", "u2", "u3"}
    assert next(row["title"] for row in rows if row["item"] == "i7") == "Rose tea"
    if backbone == "sasrec":  # a graph has no edge for it
        kept = {user: [item for item in row if item != "i7"] for user, row in lists(new).items()}
        assert kept == lists(old)
    assert "i7" in new.similar_items("i4", 9)["similar"].to_pylist()
    table = new.recommend_from_history(["i7", "i2"], 9)
    assert len(table) == 5 and "i7" not in table["item"].to_pylist()
    alone = new.recommend_from_history(["i7"], 9)
    assert np.isfinite(alone["score"].to_numpy()).all()


def test_what_cannot_take_new_items_says_so(bundle: Callable) -> None:
    with pytest.raises(RelandError, match="variant 'id' knows items by their numbers alone"):
        check_appendable(bundle("sasrec", "id"))
    with pytest.raises(RelandError, match="ease is solved for all items at once"):
        check_appendable(bundle("ease"))


def test_histories_keep_their_order_by_user(bundle: Callable) -> None:
    """The rows of a table in any order of users."""
    now = today({"u0": ["i1", "i2"], "u1": ["i2", "i6"]})
    order = np.array([1, 3, 0, 2])
    mixed = now._replace(user=now.user[order], item=now.item[order], time=now.time[order])
    after = refreshed(bundle("lightgcn"), mixed)
    assert [after.splits.test.row(user).tolist() for user in range(4)] == [[], [6], [], []]
