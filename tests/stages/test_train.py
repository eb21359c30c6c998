"""The stages of training: what each variant reads, and of what its artefact depends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reland_jax.artefacts import Artefact
from reland_jax.config import Config, FusionConfig, ModelConfig, RetrievalConfig
from reland_jax.flow import Made
from reland_jax.stages import (
    ASSIGN,
    BUILD_POOL,
    BY_COUNTS,
    ITEMS,
    LOAD,
    RATIONALES,
    SPLIT,
    recommender_of,
    training,
)
from reland_jax.stages.texts import PHRASES, PHRASES_BY_COUNTS
from reland_jax.stages.train import seeds_beside
from reland_jax.storage import Trained
from reland_jax.train import ClosedForm, Evaluator, Task
from reland_jax.types import PARTS, Splits
from reland_jax.variants import ABLATIONS, BY_NAME
from tests.stages.toys import REPEATS, made_of, settings
from tests.toys import inputs_of, ragged

COLD = REPEATS._replace(train=ragged([[1, 2], [2, 4], [], [6, 3]]))
"""The third user has no training items."""


def world(
    config: Config, folder: Path, seed_users: tuple[int, ...] = (0, 1), splits: Splits = REPEATS
) -> Made:
    """Everything that a training may read, with all seed users assigned to everybody."""
    inputs = inputs_of(splits, seed_users)
    return made_of(config, folder, {
        LOAD: inputs.interactions, SPLIT: splits, BUILD_POOL: inputs.built, ITEMS: inputs.texts.items,
        RATIONALES: inputs.texts.rationales, BY_COUNTS: -inputs.texts.rationales,
        ASSIGN: inputs.assignment,
    })  # fmt: skip


@pytest.mark.parametrize("seed_users", [(0,), (2, 0), (0, 1, 2, 3)])
def test_a_user_is_given_as_many_rationales_as_there_are(seed_users: tuple[int, ...], tmp_path: Path) -> None:
    made = world(settings(retrieval=RetrievalConfig(neighbours=3)), tmp_path, seed_users)
    task = recommender_of(made, "reland")
    assert isinstance(task, Task)
    each = min(3, len(seed_users))
    assert task.model.rationales == each and (task.tables.cosine is None) == (each == 1)
    assert task.tables.seed is not None and task.tables.seed.shape == (4, len(seed_users))


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("id", {SPLIT}),
        ("f_item", {SPLIT, ITEMS}),
        ("reland", {SPLIT, ITEMS, RATIONALES, ASSIGN}),
        ("noise", {SPLIT, ITEMS, RATIONALES, ASSIGN}),
        ("seed_id", {SPLIT, ITEMS, RATIONALES, ASSIGN}),
        ("heuristic", {SPLIT, ITEMS, BY_COUNTS, ASSIGN}),
    ],
)
def test_a_variant_reads_what_it_says_and_no_more(name: str, reads: set[object], tmp_path: Path) -> None:
    """Its recommender can be built from that; with cold users, also from what they borrow."""
    made = world(settings(), tmp_path)
    assert set(training(made, name, 0).reads) == reads
    recommender_of(made, name)
    cold = world(settings(), tmp_path, splits=COLD)
    assert set(training(cold, name, 0).reads) == reads | {LOAD, BUILD_POOL, ASSIGN}
    recommender_of(cold, name)


@pytest.mark.parametrize("name", ["reland", *ABLATIONS])
def test_an_ablation_has_other_rationales_and_all_else_of_the_method(name: str, tmp_path: Path) -> None:
    made = world(settings(), tmp_path, (0, 1, 2))
    task = recommender_of(made, name)
    assert isinstance(task, Task) and task.tables.rationale is not None
    same = np.asarray(task.tables.rationale) == made[RATIONALES]
    assert same.all() if name == "reland" else not same.all(axis=1).any()
    same_program = task.model == recommender_of(made, "reland").model
    assert same_program == (name != "seed_id"), "what is learned in the place of rationales is a parameter"


@pytest.fixture(scope="module")
def cold_training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Task]:
    """SASRec on `COLD`, whose seed users are the fourth and the second."""
    made = world(settings(), tmp_path_factory.mktemp("work"), (3, 1), splits=COLD)
    trained, task = made.make(training(made, "id", 0)), recommender_of(made, "id")
    assert isinstance(task, Task)
    return trained, task


def test_test_targets_are_ranked_by_vectors_that_have_read_the_validation_item(
    cold_training: tuple[Trained, Task],
) -> None:
    trained, task = cold_training
    evaluator = Evaluator(task, COLD, settings().eval)
    ranks = {part: evaluator.rank("test", task.vectors(trained.params, part)).rank for part in PARTS}
    assert ranks["test"].tolist() != ranks["valid"].tolist()
    np.testing.assert_array_equal(trained.ranks["test"].rank, ranks["test"])


def test_users_without_training_items_borrow_from_seed_users(cold_training: tuple[Trained, Task]) -> None:
    """All other users vote with equal weight, each for the nearest of its seed users: here the fourth."""
    trained, task = cold_training
    users = np.asarray(task.vectors(trained.params, "test").users)
    np.testing.assert_allclose(users[2], users[3], rtol=1e-5)
    assert np.abs(users[2] - users[0]).max() > 1e-3 and np.abs(users[2] - users[1]).max() > 1e-3


def depends(name: str, folder: Path, splits: Splits = REPEATS, **sections: object) -> bool:
    """Whether the stamp of a training is another one with changed settings."""
    before, after = (world(config, folder, splits=splits) for config in (settings(), settings(**sections)))
    return before.origin(training(before, name, 0)) != after.origin(training(after, name, 0))


def test_settings_of_what_a_variant_does_not_read_do_not_matter(tmp_path: Path) -> None:
    fusion = FusionConfig(dropout=0.7)
    assert [depends(name, tmp_path, fusion=fusion) for name in ("id", "f_item", "reland")] == [
        False,
        False,
        True,
    ]
    given = RetrievalConfig(neighbours=2)  # no more than are drawn among: the assignment is the same
    assert [depends(name, tmp_path, retrieval=given) for name in ("id", "f_item", "reland")] == [
        False,
        False,
        True,
    ]
    item_scale = dataclasses.replace(FusionConfig(), item_scale=0.5)
    assert [depends(name, tmp_path, fusion=item_scale) for name in ("id", "f_item", "reland")] == [
        False,
        True,
        True,
    ]
    machine = dataclasses.replace(settings().train, checkpoint_seconds=7.0)
    assert not any(depends(name, tmp_path, train=machine) for name in BY_NAME)
    borrowing = RetrievalConfig(cold_mismatch=0.9)
    assert depends("id", tmp_path, splits=COLD, retrieval=borrowing) and not depends(
        "id", tmp_path, retrieval=borrowing
    )


def test_every_training_has_an_artefact_of_its_own(tmp_path: Path) -> None:
    made = world(settings(), tmp_path)
    stages = [
        training(made, name, seed, folder)
        for name in BY_NAME
        for seed in (0, 1)
        for folder in ("train", "train/x")
    ]
    assert len({stage.name for stage in stages}) == len(stages)
    assert len({made.origin(training(made, name, seed)) for name in BY_NAME for seed in (0, 1)}) == 2 * len(
        BY_NAME
    )
    assert {stage.family for stage in stages} == {"train"}


def test_each_seed_of_a_group_leaves_the_artefact_that_it_leaves_alone(tmp_path: Path) -> None:
    """Two of three seeds together: all artefacts are there once the first is made, and none is made twice."""
    config = settings(seeds_of_training=(0, 1, 2))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, together=2))
    made = world(config, tmp_path / "together")
    first = made.make(training(made, "id", 0))
    assert sorted(path.name for path in (tmp_path / "together" / "train").glob("id-*")) == [
        "id-seed0",
        "id-seed1",
    ]
    assert not made.artefact(training(made, "id", 1)).fresh
    second, third = (made.make(training(made, "id", seed)) for seed in (1, 2))
    alone = world(settings(seeds_of_training=(0, 1, 2)), tmp_path / "alone")
    for seed, ours in enumerate((first, second, third)):
        theirs = alone.make(training(alone, "id", seed))
        assert ours.summary.valid == pytest.approx(theirs.summary.valid)
        assert ours.summary.history[0]["loss"] == pytest.approx(theirs.summary.history[0]["loss"], rel=1e-6)
    stamps = [(world.stamps["train/id-seed1"], world.stamps["train/id-seed2"]) for world in (made, alone)]
    assert stamps[0][0] != stamps[1][0], "sums are taken in another order"
    assert stamps[0][1] == stamps[1][1], "the third seed was trained alone in both"


def test_groups_are_fixed_by_the_settings() -> None:
    config = settings(seeds_of_training=(3, 1, 4, 5, 9))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, together=2))
    assert [seeds_beside(config, seed) for seed in (3, 1, 5, 9, 7)] == [(3, 1), (3, 1), (4, 5), (9,), (7,)]
    assert seeds_beside(settings(seeds_of_training=(3, 1)), 1) == (1,)


def test_seed_ids_are_one_hot_for_a_linear_model_and_learned_by_a_deep_one(tmp_path: Path) -> None:
    """The deep one starts at random vectors, as wide as a rationale, and training moves them."""
    linear = settings(
        model=ModelConfig(backbone="ease"), train=dataclasses.replace(Config().train, objective="closed_form")
    )
    task = recommender_of(world(linear, tmp_path / "linear", (0, 1, 2)), "seed_id")
    assert isinstance(task, ClosedForm)
    made = world(settings(), tmp_path / "deep", (0, 1, 2))
    trained = made.make(training(made, "seed_id", 0))
    start = recommender_of(made, "noise").tables.rationale  # type: ignore[union-attr]
    learned = trained.params["params"]["fuse"]["rationale"]
    assert learned.shape == made[RATIONALES].shape
    assert (np.asarray(learned) != np.asarray(start)).any()


@pytest.mark.parametrize("name", ["reland", *ABLATIONS])
def test_a_set_of_phrases_is_read_by_every_variant(name: str, tmp_path: Path) -> None:
    """As many of the phrases as the settings say; counts have phrases of their own."""
    phrases = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    made = world(settings(fusion=FusionConfig(reading="set", phrases=4)), tmp_path, (0, 1, 2))
    for stage, value in ((PHRASES, phrases), (PHRASES_BY_COUNTS, -phrases)):
        made.artefacts[stage.name] = Artefact(value, stage.name, 0.0, fresh=False)
    read = PHRASES_BY_COUNTS if name == "heuristic" else PHRASES
    assert set(training(made, name, 0).reads) == {SPLIT, ITEMS, read, ASSIGN}
    task = recommender_of(made, name)
    assert isinstance(task, Task) and task.model.reads_sets
    assert task.tables.rationale is not None and task.tables.late is not None
    assert task.tables.rationale.shape == (3, 4, 6)
    own = (np.asarray(task.tables.rationale) == phrases[:, :4]).all((1, 2))
    assert own.all() if name == "reland" else not own.any()
