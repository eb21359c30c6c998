"""Bundles that are exchanged while they are served."""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from pathlib import Path

import jax
import pytest

from reland_jax.serve import Reland, sentence
from reland_jax.server.edition import Edition
from reland_jax.server.limits import Limits
from reland_jax.server.refusals import Refusal
from reland_jax.server.shelf import Shelf, names_of
from reland_jax.types import RelandError
from tests.compiles import counted

LIMITS = Limits(batch=8, k=5, history=20)


def shelf_of(folder: Path) -> tuple[Shelf, list[tuple[str, bool]]]:
    """A shelf of one bundle, and what was exchanged."""
    swaps = list[tuple[str, bool]]()
    return Shelf({"a": folder}, LIMITS, lambda *swap: swaps.append(swap)), swaps


def test_a_new_bundle_takes_the_place_of_the_old_one(bundles: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(bundles["reland"], tmp_path / "served")
    shelf, swaps = shelf_of(tmp_path / "served")
    assert not shelf.is_ready
    shelf.warm()
    before = shelf.get("a")
    assert shelf.look() == 0 and shelf.get(None) is before
    Reland.load(bundles["id"]).save(tmp_path / "served")
    assert shelf.look() == 1 and swaps == [("a", True)]
    assert (shelf.get("a").variant, before.variant) == ("id", "reland")
    assert shelf.get("a").version != before.version
    # Who was asked before goes on answering.
    reader = before.reader("u1", None)
    assert before.lists(before.kind(reader, 3, True, ()), [reader])[0].items


def test_an_exchanged_bundle_compiles_nothing_anew_and_leaves_memory_at_once(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.symlink_to(bundles["f_item"])
    shelf, _ = shelf_of(served)
    shelf.warm()
    Reland.load(bundles["f_item"]).save(tmp_path / "again")
    before = weakref.ref(shelf.get("a"))
    arrays = len(jax.live_arrays())
    gc.disable()  # which would hold up all requests
    try:
        served.unlink()
        served.symlink_to(tmp_path / "again")
        with counted() as programs:
            assert shelf.look() == 1
        assert not programs.total(), programs
        assert before() is None and len(jax.live_arrays()) == arrays
    finally:
        gc.enable()


def test_a_damaged_bundle_is_refused_once_and_the_old_one_goes_on(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(bundles["id"], tmp_path / "served")
    shelf, swaps = shelf_of(tmp_path / "served")
    before = shelf.get("a")
    Reland.load(bundles["id"]).save(tmp_path / "served")
    (victim,) = (tmp_path / "served" / "splits").glob("train*items*")
    victim.write_bytes(victim.read_bytes()[:-1])
    with caplog.at_level(logging.ERROR):
        assert [shelf.look() for _ in range(3)] == [0, 0, 0]
    assert swaps == [("a", False)] and shelf.get("a") is before
    assert len(caplog.records) == 1 and "the new bundle is refused" in caplog.text
    shutil.rmtree(tmp_path / "served")
    assert shelf.look() == 0 and shelf.get("a") is before
    Reland.load(bundles["f_item"]).save(tmp_path / "served")
    assert shelf.look() == 1 and shelf.get("a").variant == "f_item"


def test_recommenders_have_names(bundles: dict[str, Path]) -> None:
    folder = str(bundles["id"])
    assert names_of([folder, f"b={folder}"]) == {"id": bundles["id"], "b": bundles["id"]}
    with pytest.raises(RelandError, match="two bundles are called 'id'; write NAME=FOLDER"):
        names_of([folder, folder])
    with pytest.raises(RelandError, match="there is no bundle here"):
        names_of(["nowhere"])
    with pytest.raises(Refusal, match="there is no such model"):
        shelf_of(bundles["id"])[0].get("b")


def test_lists_are_those_of_the_api(bundles: dict[str, Path]) -> None:
    edition, model = Edition("a", bundles["reland"], LIMITS), Reland.load(bundles["reland"])
    users = model.user_ids
    readers = [edition.reader(user, None) for user in users]
    lists = edition.lists(edition.kind(readers[0], 3, True, ()), readers)
    for user, found in zip(users, lists, strict=True):
        table = model.recommend(user, 3).to_pydict()
        assert [edition.item_ids[number - 1] for number in found.items[:3]] == table["item"]
        assert found.scores[:3] == pytest.approx(table["score"], rel=1e-5)
        assert {sentence(found.rationale, found.is_own)} == set(table["explanation"])
    wanted = (("brand", ("Quellin",)),)
    histories = [["i1", "i2"], ["i3", "no such", "i6", "i1"]]
    readers = [edition.reader(None, items) for items in histories]
    assert readers[1].unknown == ("no such",)
    lists = edition.lists(edition.kind(readers[0], 2, False, wanted), readers)
    for items, found in zip(histories, lists, strict=True):
        options = {"exclude_seen": False, "filter": {"brand": "Quellin"}}
        table = model.recommend_from_history(items, 2, **options).to_pydict()
        assert [edition.item_ids[number - 1] for number in found.items[:2]] == table["item"]


def test_what_is_not_known_is_refused_without_a_word_of_others(bundles: dict[str, Path]) -> None:
    edition = Edition("a", bundles["reland"], LIMITS)
    for asked, status, where in (
        (("u", None), 404, "user"),
        ((None, ["x"]), 404, "items"),
        ((None, ["i1"] * 21), 422, "items"),
    ):
        with pytest.raises(Refusal) as refused:
            edition.reader(*asked)
        assert (refused.value.status, refused.value.where) == (status, where)
        assert not any(user in str(refused.value.body()) for user in edition.model.user_ids)
    reader = edition.reader("u1", None)
    with pytest.raises(Refusal, match="'colour' is not a field of the items"):
        edition.lists(edition.kind(reader, 3, True, (("colour", ("red",)),)), [reader])
    with pytest.raises(Refusal, match="no item has brand=.None."):
        edition.lists(edition.kind(reader, 3, True, (("brand", ("None",)),)), [reader])
    with pytest.raises(Refusal) as refused:
        edition.numbers(["i1", "x"])
    assert refused.value.where == "items[1]"


def test_after_the_start_nothing_is_compiled(bundles: dict[str, Path]) -> None:
    """Whatever is asked within the limits."""
    limits = Limits(batch=8, k=6, history=20)
    edition = Edition("a", bundles["reland"], limits)
    edition.warm()
    wanted = (("brand", ("Quellin",)),)
    long = edition.reader(None, ["i1", "i2", "i3", "i4"] * 5)
    short, known = edition.reader(None, ["i1", "i2"]), edition.reader("u1", None)
    with counted() as programs:
        for reader in (long, short, known):
            for k in (1, 6):
                for count in (1, 2, 8):
                    kind = edition.kind(reader, k, count == 2, wanted if count == 8 else ())
                    assert len(edition.lists(kind, [reader] * count)) == count
    assert not programs.total(), programs
    assert len(edition.lists(edition.kind(long, 1, True, ()), [long] * 30)) == 30
