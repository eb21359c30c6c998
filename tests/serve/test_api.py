"""The Python API on a small trained recommender."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import reland_jax
from reland_jax.config import Config
from reland_jax.eval import best_items
from reland_jax.presets import preset
from reland_jax.serve import Reland
from reland_jax.strings import as_strings
from reland_jax.types import RelandError
from tests.serve.toys import TITLES, model_of, toy_bundle
from tests.stages.toys import REPEATS
from tests.toys import quick_programs

HAD = [{1, 2, 3}, {1, 2, 3, 4, 5}, {1, 2, 3, 5, 6}, {2, 3, 4, 6}]
"""All items of every user of `REPEATS`."""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Reland]:
    """Trains a backbone with a variant once."""
    known: dict[tuple[str, str], Reland] = {}

    def get(backbone: str, variant: str) -> Reland:
        if (backbone, variant) not in known:
            known[backbone, variant] = model_of(
                toy_bundle(tmp_path_factory.mktemp("work"), backbone, variant)
            )
        return known[backbone, variant]

    return get


EVERY = pytest.mark.parametrize(
    ("backbone", "variant"),
    [
        ("sasrec", "reland"),
        ("lightgcn", "reland"),
        ("ease", "reland"),
        pytest.param("sasrec", "id", marks=pytest.mark.slow),
        pytest.param("ials", "id", marks=pytest.mark.slow),
    ],  # fmt: skip
)


@EVERY
def test_lists_as_measured_are_those_of_full_ranking(model: Callable, backbone: str, variant: str) -> None:
    found, told = model(backbone, variant), {}
    for mask in (False, True):
        told[mask] = found.recommend(None, 6, as_measured=True, exclude_seen=mask).to_pandas()
        lists = best_items(found._reader.measured(), REPEATS, np.arange(4), 6, mask)
        for user in range(4):
            expected = [f"i{item}" for item in lists[user] if item]
            assert told[mask].item[told[mask].user == f"u{user}"].tolist() == expected
    assert len(told[False]) == 24 > len(told[True])


@EVERY
def test_lists_of_today_leave_out_all_that_a_user_had(model: Callable, backbone: str, variant: str) -> None:
    table = model(backbone, variant).recommend(["u3", "u0"], 10)
    rows = table.to_pylist()
    for user in (3, 0):
        mine = [row for row in rows if row["user"] == f"u{user}"]
        assert {row["item"] for row in mine} == {f"i{item}" for item in range(1, 7) if item not in HAD[user]}
        assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
        scores = [row["score"] for row in mine]
        assert scores == sorted(scores, reverse=True)
    assert [row["user"] for row in rows][0] == "u3"
    assert all(row["title"] == TITLES[int(row["item"][1:])] for row in rows)
    assert {row["explanation"] for row in rows} == ({""} if variant == "id" else {"Likes 3.", "Items: 3."})


@pytest.mark.parametrize("backbone", ["sasrec", "ease"])
def test_a_new_user_with_the_history_of_an_old_one_gets_its_list(model: Callable, backbone: str) -> None:
    found = model(backbone, "id")
    histories = {f"u{u}": [f"i{i}" for i in row] for u, row in enumerate(
        [[1, 2, 3, 1, 2, 1], [2, 4, 5, 1, 3], [5, 1, 6, 2, 5, 3], [6, 3, 4, 2, 6]]
    )}  # fmt: skip
    old, new = found.recommend(None, 5), found.recommend_from_history(histories, 5)
    assert new.drop_columns("score") == old.drop_columns("score")
    np.testing.assert_allclose(new["score"].to_numpy(), old["score"].to_numpy(), rtol=1e-5, atol=1e-6)


def test_a_new_user_is_given_the_rationale_of_its_seed_user(model: Callable) -> None:
    rows = model("lightgcn", "reland").recommend_from_history(["i6", "i3"], 2).to_pylist()
    assert len(rows) == 2 and {row["user"] for row in rows} == {""}
    assert {row["explanation"] for row in rows} < {"Items: 3.", "Items: 1."}
    assert not {"i6", "i3"} & {row["item"] for row in rows}


def test_lists_of_some_items_alone(model: Callable) -> None:
    found = model("sasrec", "reland")
    some = found.recommend("u0", 9, items=["i5", "i1", "i4"], exclude_seen=False)
    assert set(some["item"].to_pylist()) == {"i5", "i1", "i4"}
    mint = found.recommend("u0", 9, filter={"title": ["Mint tea", "Mint soap"]}, exclude_seen=False)
    assert set(mint["title"].to_pylist()) == {"Mint tea", "Mint soap"}
    whole = {row["item"]: row["score"] for row in found.recommend("u0", 6, exclude_seen=False).to_pylist()}
    for row in some.to_pylist():
        assert row["score"] == pytest.approx(whole[row["item"]], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("backbone", ["sasrec", "ease"])
def test_similar_items(model: Callable, backbone: str) -> None:
    rows = model(backbone, "reland").similar_items(["i2", "i6"], 9).to_pylist()
    for item in ("i2", "i6"):
        mine = [row for row in rows if row["item"] == item]
        assert {row["similar"] for row in mine} == {f"i{n}" for n in range(1, 7)} - {item}
        assert [row["score"] for row in mine] == sorted((row["score"] for row in mine), reverse=True)
    assert rows[0]["title"] == TITLES[int(rows[0]["similar"][1:])]


def test_an_explanation_says_what_the_list_rests_on(model: Callable) -> None:
    found = model("sasrec", "reland")
    told = found.explain("u1", 4)
    assert [label.item_id for label in told.history] == ["i2", "i4", "i5", "i1", "i3"]
    assert [(seed.user_id, seed.is_own, seed.step1) for seed in told.seeds] == [
        ("u3", False, "Likes 3."), ("u1", True, "Likes 1."),
    ]  # fmt: skip
    assert [seed.weight for seed in told.seeds] == [0.5, 0.5]
    listed = found.recommend("u1", 4).to_pylist()
    assert [(each.item.item_id, each.score) for each in told.items] == [
        (row["item"], row["score"]) for row in listed
    ]
    for each in told.items:
        assert {label.item_id for label in each.history} <= {f"i{item}" for item in HAD[1]}
    assert model("sasrec", "id").explain("u1").seeds == ()


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [
        ("ease", "reland"),
        ("ease", "id"),
        pytest.param("ials", "reland", marks=pytest.mark.slow),
        pytest.param("ials", "id", marks=pytest.mark.slow),
    ],
)
def test_contributions_of_a_linear_model_add_up_to_the_score(
    model: Callable, backbone: str, variant: str
) -> None:
    """Of old users and of new ones, whose repeats count once."""
    found = model(backbone, variant)
    for told in (found.explain("u1", 6), found.explain_history(["i2", "i6", "i2"], 6)):
        had = {label.item_id for label in told.history}
        assert told.items
        for each in told.items:
            added = [part.score for part in each.contributions]
            assert added == sorted(added, reverse=True)
            assert {part.item.item_id for part in each.contributions} == had
            assert sum(added) + each.of_rationales == pytest.approx(each.score, rel=1e-3, abs=1e-4)
            assert (each.of_rationales != 0) == (variant == "reland")
    assert not model("sasrec", "id").explain("u1").items[0].contributions


def test_metrics_are_those_of_the_training(model: Callable) -> None:
    found = model("ease", "reland")
    assert found.evaluate()["test"] == dict(found._fitted().trained.summary.test)


@pytest.mark.parametrize(
    ("backbone", "variant"), [("sasrec", "reland"), pytest.param("ials", "id", marks=pytest.mark.slow)]
)
def test_vectors_give_the_scores(model: Callable, backbone: str, variant: str) -> None:
    found = model(backbone, variant)
    vectors = found.vectors()
    assert vectors.users.shape[0] == 4 and vectors.items.shape[0] == 6
    scores = vectors.users.astype(np.float64) @ vectors.items.T
    for row in found.recommend(None, 6, exclude_seen=False).to_pylist():
        place = vectors.user_ids.tolist().index(row["user"]), vectors.item_ids.tolist().index(row["item"])
        assert row["score"] == pytest.approx(scores[place], rel=1e-4, abs=1e-5)


@EVERY
def test_a_saved_model_recommends_the_same(
    model: Callable, backbone: str, variant: str, tmp_path: Path
) -> None:
    """Also once more saved from what was read."""
    found = model(backbone, variant)
    found.save(tmp_path / "first", licence="for tests")
    first = Reland.load(tmp_path / "first")
    first.save(tmp_path / "second")
    second = Reland.load(tmp_path / "second")
    assert second._fitted().licence == "for tests"
    for each in (first, second):
        assert each.recommend(None, 6) == found.recommend(None, 6)
        assert each.recommend_from_history(["i1", "i5"]) == found.recommend_from_history(["i1", "i5"])
        assert each.explain("u0") == found.explain("u0")
        assert each.evaluate() == found.evaluate()


def test_what_cannot_be_is_refused(model: Callable) -> None:
    with pytest.raises(RelandError, match=r"nothing is fitted yet: call fit\(\)"):
        Reland("demo").recommend("u0")
    assert repr(Reland("demo")) == "Reland(sasrec, reland, seed 0; not fitted yet)"
    assert re.fullmatch(r"Reland\(ease, id, seed 0; \d+ users, \d+ items\)", repr(model("ease", "id")))
    with pytest.raises(RelandError, match="k=0: a list has at least one item"):
        model("ease", "id").recommend("u0", 0)
    with pytest.raises(RelandError, match="change them in the Config"):
        Reland(Config(), settings={"train.max_epochs": 1})
    with pytest.raises(RelandError, match="variant: 'relnd' is not known; did you mean 'reland'"):
        Reland("demo", variant="relnd")
    assert Reland("demo", backbone="ease")._config == preset("demo", "ease")


def test_importing_the_package_stays_light() -> None:
    """`Reland` is there, and jax comes with it alone."""
    code = "import sys, reland_jax; print('jax' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
    assert reland_jax.Reland is Reland
    with pytest.raises(AttributeError, match="no attribute 'Reeland'"):
        reland_jax.Reeland  # noqa: B018


def test_a_user_of_whom_a_profile_alone_is_known(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path, "lightgcn")
    features = {"city": as_strings(["Bern"] * 4)}
    found = model_of(bundle._replace(interactions=bundle.interactions._replace(user_features=features)))
    rows = found.recommend_from_history(profile={"city": "Bern"}, k=6).to_pylist()
    mine = found.recommend("u3", 6, exclude_seen=False).to_pylist()
    assert [row["item"] for row in rows] == [row["item"] for row in mine]
    assert {row["explanation"] for row in rows} == {"Items: 3."}
    with pytest.raises(RelandError, match="none of its 0 items"):
        found.recommend_from_history([])


@pytest.mark.parametrize("backbone", ["sasrec", "ease"])
def test_a_new_user_is_explained_like_an_old_one_of_the_same_history(backbone: str, tmp_path: Path) -> None:
    model = model_of(toy_bundle(tmp_path, backbone))
    old = model.explain(model.user_ids[0])
    new = model.explain_history([label.item_id for label in old.history])
    assert new.history == old.history and new.user_id == ""
    assert {seed.user_id for seed in new.seeds} == {seed.user_id for seed in old.seeds}
    assert not any(seed.is_own for seed in new.seeds)
    listed = model.recommend_from_history([label.item_id for label in old.history])
    assert [each.item.item_id for each in new.items] == listed["item"].to_pylist()
    assert listed["explanation"].to_pylist()[0] == new.seeds[0].step2


def test_what_a_server_looks_up(tmp_path: Path) -> None:
    model = model_of(toy_bundle(tmp_path, "ease"))
    table = model.recommend(k=6, exclude_seen=False).to_pydict()
    titles = dict(zip(model.item_ids, model.item_titles, strict=True))
    assert all(titles[item] == title for item, title in zip(table["item"], table["title"], strict=True))
    nearest = [model.explain(user).seeds[0] for user in model.user_ids]
    assert {seed.is_own for seed in nearest} == {True, False}
    assert model.sentences(model.nearest, range(4)) == [
        seed.step1 if seed.is_own else seed.step2 for seed in nearest
    ]
    allowed = model.allowed(filter={"brand": "Quellin"})
    assert [titles[model.item_ids[number - 1]] for number in np.flatnonzero(allowed)] == [
        "Rose cream",
        "Rose soap",
    ]
