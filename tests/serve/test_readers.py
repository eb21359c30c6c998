"""New users are read as trained ones are, as far as the family of the backbone can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from reland_jax.bundle import Bundle
from reland_jax.config import ScoreConfig
from reland_jax.serve.fitting import made_of
from reland_jax.serve.listing import Batch, in_rows
from reland_jax.serve.programs import Form, Known, Matched, answer, match, users_of
from reland_jax.serve.readers import Reader, check_vectors, everything, likeness
from reland_jax.stages import recommender_of
from reland_jax.strings import as_strings
from reland_jax.types import Assignment, RelandError
from tests.serve.toys import toy_bundle
from tests.stages.toys import REPEATS
from tests.toys import quick_programs, ragged

HISTORY = REPEATS.train.joined(REPEATS.valid)
"""What the test part is ranked after."""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Bundle, Reader]]:
    """Trains a backbone with a variant once."""
    known: dict[tuple[str, str], tuple[Bundle, Reader]] = {}

    def get(backbone: str, variant: str) -> tuple[Bundle, Reader]:
        if (backbone, variant) not in known:
            bundle = toy_bundle(tmp_path_factory.mktemp("work"), backbone, variant)
            made = made_of(bundle)
            read = Reader(bundle, made, recommender_of(made, variant), bundle.trained.params)
            known[backbone, variant] = bundle, read
        return known[backbone, variant]

    return get


def programs_of(read: Reader) -> tuple[Form, Known]:
    """What programs for new users are made of."""
    predictor = read.predictor(read.today())
    return predictor._form, predictor._known


@pytest.mark.parametrize("variant", ["id", "reland"])
def test_a_sequence_is_read_as_that_of_a_trained_user(reader: Callable, variant: str) -> None:
    """To the rounding of another batch, in which each has a row of its own."""
    bundle, read = reader("sasrec", variant)
    measured, (form, known) = read.measured(), programs_of(read)
    own = None if bundle.assignment is None else Matched(*bundle.assignment)
    again = users_of(form, known, in_rows(HISTORY, Batch(0, 4, 4), 6), own)
    np.testing.assert_allclose(np.asarray(again), np.asarray(measured.users)[:4], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(known.items), np.asarray(measured.items))


@pytest.fixture(scope="module")
def beside_linear(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sequential backbone to whose rankings the scores of a linear model are added."""
    score = ScoreConfig(linear=3.0, added="ranking", recent=2, votes=4)
    return toy_bundle(tmp_path_factory.mktemp("work"), "sasrec", "reland", score)


def test_a_sequence_beside_a_linear_model_is_read_as_that_of_a_trained_user(beside_linear: Bundle) -> None:
    """Also what the linear model adds: lists and scores are those of the test part."""
    bundle, made = beside_linear, made_of(beside_linear)
    read = Reader(bundle, made, recommender_of(made, "reland"), bundle.trained.params)
    (form, known), measured = programs_of(read), read.measured()
    rows, masked, which = in_rows(HISTORY, Batch(0, 4, 4), 6), np.zeros((4, 1), np.int32), np.arange(7) > 0
    own = Matched(*bundle.assignment)
    again = users_of(form, known, rows, own)
    wanted = np.asarray(measured.score(measured.users[:4], measured.items))
    np.testing.assert_allclose(np.asarray(known.score(again, known.items)), wanted, rtol=1e-4, atol=1e-4)
    plain = np.asarray(again)[:, -form.model.width :] @ np.asarray(known.items)[:, -form.model.width :].T
    assert np.abs(plain - wanted)[:, 1:].max() > 0.1, "the linear model adds nothing"
    found = answer(form, known, rows, masked, which, 6)
    assert np.isfinite(np.asarray(found.score)).all()
    alike = likeness(read, read.today(), np.array([2]))
    assert alike[0].argmax() == 2 and alike.max() < 1.001
    with pytest.raises(RelandError, match="no product of a vector"):
        check_vectors(read)


def test_a_history_of_one_item_is_enough(reader: Callable) -> None:
    _, read = reader("sasrec", "id")
    users = np.asarray(users_of(*programs_of(read), np.array([[3, 0, 0], [5, 0, 0]], np.int32), None))
    assert np.isfinite(users).all() and np.abs(users[0] - users[1]).max() > 1e-3


def test_today_a_sequence_has_all_interactions(reader: Callable) -> None:
    bundle, read = reader("sasrec", "reland")
    today, measured = np.asarray(read.today().users), np.asarray(read.measured().users)
    assert (np.abs(today - measured).max(axis=1) > 1e-4).all()
    rows = in_rows(everything(REPEATS), Batch(0, 4, 4), 6)
    whole = users_of(*programs_of(read), rows, Matched(*bundle.assignment))
    np.testing.assert_allclose(today[:4], np.asarray(whole), rtol=1e-4, atol=1e-5)
    assert everything(REPEATS).row(0).tolist() == [1, 2, 3, 1, 2, 1]


def test_a_linear_model_adds_up_the_rows_of_new_histories(reader: Callable) -> None:
    """An item that somebody had twice counts once."""
    bundle, read = reader("ease", "reland")
    weights = np.asarray(bundle.trained.params["weights"], np.float64)
    histories, (form, known) = [[4, 2, 4], [6]], programs_of(read)
    rows = in_rows(ragged(histories), Batch(0, 2, 2), 4)
    found = answer(form, known, rows, np.zeros((2, 1), np.int32), np.arange(7) > 0, 6)
    assert found.matched is not None and found.matched.seed.shape == (2, 2)
    matched = Assignment(*map(np.asarray, found.matched))
    scores = np.zeros((2, 7), np.float32)
    np.put_along_axis(scores, np.asarray(found.item), np.asarray(found.score), axis=1)
    for row, history in enumerate(histories):
        expected = np.zeros(7)
        for item in set(history):
            expected += weights[item]
        for seed in matched.seed[row].tolist():
            expected += weights[7 + seed] / 2
        np.testing.assert_allclose(scores[row, 1:], expected[1:], rtol=1e-4, atol=1e-5)


def test_a_factorisation_folds_in_as_it_folds_in_its_own_users(reader: Callable) -> None:
    bundle, read = reader("ials", "id")
    measured = read.measured()
    again = users_of(*programs_of(read), in_rows(REPEATS.train, Batch(0, 4, 4), 8), None)
    np.testing.assert_allclose(np.asarray(again), np.asarray(measured.users), rtol=1e-4, atol=1e-5)


def as_new(bundle: Bundle, form: Form, known: Known) -> np.ndarray:
    """All users read as new ones, by their training items and their own seed users."""
    own = None if bundle.assignment is None else Matched(*bundle.assignment)
    return np.asarray(users_of(form, known, in_rows(REPEATS.train, Batch(0, 4, 4), 8), own))


SETS = [("lightgcn", "reland"), ("ngcf", "reland"), pytest.param("neumf", "id", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("backbone", "variant"), SETS)
def test_a_set_is_folded_in_by_its_items(reader: Callable, backbone: str, variant: str) -> None:
    """With more predictors than users the regression gives back what it has learned, but for the ridge."""
    bundle, read = reader(backbone, variant)
    trained = np.asarray(read.measured().users)[:4]
    folded = as_new(bundle, *programs_of(read))
    assert np.abs(folded - trained).max() < 0.1 * np.abs(trained).max()
    np.testing.assert_array_equal(np.asarray(read.today().users)[:4], trained)


@pytest.mark.parametrize(("backbone", "variant"), SETS)
def test_all_users_can_be_read_as_new_ones(reader: Callable, backbone: str, variant: str) -> None:
    """By all interactions, and without any by the trained vector."""
    bundle, read = reader(backbone, variant)
    read = Reader(bundle._replace(by_histories=True), made_of(bundle), read.task, bundle.trained.params)
    own = None if bundle.assignment is None else Matched(*bundle.assignment)
    rows = in_rows(everything(REPEATS), Batch(0, 4, 4), 8)
    expected, today = users_of(*programs_of(read), rows, own), np.asarray(read.today().users)
    np.testing.assert_allclose(today, np.asarray(expected), rtol=1e-4, atol=1e-5)
    some = read.folded(ragged([[1, 2], [], [3], []]))
    measured = np.asarray(read.measured().users)
    assert np.isfinite(np.asarray(some.users)).all()
    np.testing.assert_array_equal(np.asarray(some.users)[[1, 3]], measured[[1, 3]])
    assert np.abs(np.asarray(some.users)[[0, 2]] - measured[[0, 2]]).max(axis=1).min() > 1e-3


@pytest.mark.parametrize(("backbone", "variant"), SETS)
def test_all_but_the_embedding_of_a_user_is_exact(reader: Callable, backbone: str, variant: str) -> None:
    """Repeated items too, which are two edges of a graph."""
    bundle, read = reader(backbone, variant)
    trained, (form, known) = np.asarray(read.measured().users), programs_of(read)
    for user in range(4):
        # What the regression would say if it erred nowhere: of every user the embedding of this one.
        weights = np.zeros_like(known.folding.weights)
        weights[-1] = np.asarray(bundle.trained.params["params"]["user_embedding"])[user]
        folded = as_new(bundle, form, known._replace(folding=known.folding._replace(weights=weights)))
        np.testing.assert_allclose(folded[user], trained[user], rtol=1e-4, atol=1e-5)


def test_new_users_are_matched_to_the_seed_users_of_largest_cosine(reader: Callable) -> None:
    bundle, read = reader("lightgcn", "reland")
    history = ragged([[1, 2], [6, 5, 3], REPEATS.train.row(3).tolist()])
    found = match(programs_of(read)[1], in_rows(history, Batch(0, 3, 3), 5), 2)
    assert found is not None
    learned, seeds = bundle.matching, bundle.pool.behaviour
    for row in range(3):
        had = sorted(set(history.row(row).tolist()))
        features = [learned.items[had].mean(0), (learned.scale[had, None] * learned.items[had]).sum(0)]
        features[1] = features[1] / np.sqrt(len(had))
        vector = np.concatenate([*features, [1.0]]) @ learned.weights
        cosine = seeds @ vector / (np.linalg.norm(seeds, axis=1) * np.linalg.norm(vector))
        order = np.argsort(-cosine)
        assert found.seed[row].tolist() == order.tolist()
        np.testing.assert_allclose(found.cosine[row], cosine[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("variant", ["id", "f_item"])
def test_without_rationales_nobody_is_matched(reader: Callable, variant: str) -> None:
    assert match(programs_of(reader("ease", variant)[1])[1], np.ones((1, 1), np.int32), 1) is None


def test_items_are_alike_by_their_vectors(reader: Callable) -> None:
    _, read = reader("lightgcn", "reland")
    vectors = read.measured()
    rows = np.asarray(vectors.items, np.float64)
    found = likeness(read, vectors, np.array([2, 5]))
    for row, item in enumerate((2, 5)):
        for other in range(1, 7):
            cosine = rows[item] @ rows[other] / np.linalg.norm(rows[item]) / np.linalg.norm(rows[other])
            assert found[row, other] == pytest.approx(cosine, abs=1e-5)


def test_items_of_a_linear_model_are_alike_by_its_weights(reader: Callable) -> None:
    bundle, read = reader("ease", "reland")
    found = likeness(read, read.today(), np.array([2, 5]))
    weights = np.asarray(bundle.trained.params["weights"])
    np.testing.assert_allclose(found[:, 1:7], weights[[2, 5], 1:7], rtol=1e-5, atol=1e-6)


def test_a_linear_model_of_items_has_no_vectors(reader: Callable) -> None:
    check_vectors(reader("ials", "id")[1])
    check_vectors(reader("sasrec", "id")[1])
    with pytest.raises(RelandError, match="no vectors of users and items"):
        check_vectors(reader("ease", "id")[1])


CITY = as_strings(["Bern"] * 4)
"""The city of every user: of one that few have nothing is concluded."""


@pytest.mark.parametrize(("variant", "voted"), [("reland", [3]), ("id", [0, 1, 2, 3])])
def test_a_user_without_history_is_the_mean_of_those_who_are_voted_for(
    reader: Callable, variant: str, voted: list[int]
) -> None:
    """With rationales all vote for the nearest of their seed users, who is the fourth."""
    bundle, read = reader("sasrec", variant)
    interactions = bundle.interactions._replace(user_features={"city": CITY})
    described = Reader(bundle._replace(interactions=interactions), made_of(bundle), read.task, read.params)
    vectors, matched = described.by_profile({"city": "Bern"}, read.today())
    expected = np.mean([np.asarray(read.today().users)[user] for user in voted], axis=0)
    np.testing.assert_allclose(np.asarray(vectors.users), expected[None], rtol=1e-5, atol=1e-6)
    assert matched is None if variant == "id" else matched.seed.tolist() == [[0, 1]]
    with pytest.raises(RelandError, match="profile: 'ciy' is not a field of the users; did you mean 'city'"):
        described.by_profile({"ciy": "Bern"}, read.today())
    with pytest.raises(RelandError, match="the data describe no users"):
        read.by_profile({"city": "Bern"}, read.today())
