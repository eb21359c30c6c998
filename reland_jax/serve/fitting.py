"""From settings to a bundle: the stages of the command line, as far as a variant needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reland_jax import flow
from reland_jax.artefacts import Artefact
from reland_jax.bundle import Bundle
from reland_jax.config import Config
from reland_jax.flow import Flow, Made, Stage
from reland_jax.mesh import use_mesh
from reland_jax.retrieval import FoldIn, learn_matching
from reland_jax.stages import (
    ASSIGN,
    BUILD_POOL,
    ENCODE_USERS,
    FLOW,
    ITEMS,
    LOAD,
    SPLIT,
    rationale_stage,
    trained_recommender,
    training,
)
from reland_jax.storage import BuiltPool
from reland_jax.variants import find_variant


def fitted(config: Config, variant: str, seed: int, workdir: Path) -> Bundle:
    """Trains one variant with one seed, or reads back what is up to date in the workdir.

    Stages that the variant does not read are not run: `id` asks no LLM and encodes no text.

    Raises:
        RelandError: bad data or settings, see `reland_jax.flow.run`.
    """
    config = dataclasses.replace(config, variants=(variant,), seeds_of_training=(seed,))
    config.validate()
    with use_mesh(config.mesh):
        begun = flow.run(FLOW, config, workdir, until=SPLIT.name)
        made = flow.run(_flow_of(training(begun, variant, seed)), config, workdir, known=begun)
        stage = training(made, variant, seed)
        trained = made.make(stage)
    # Read back as one device has them: on a mesh their rows may be filled up.
    trained = trained._replace(params=trained_recommender(made, variant, seed)[1])
    pool = made[BUILD_POOL].pool if BUILD_POOL.name in made.artefacts else None
    return Bundle(
        config, variant, seed, made[LOAD], made[SPLIT], _found(made, ITEMS),
        _found(made, rationale_stage(find_variant(variant))), pool, _found(made, ASSIGN), _matching(made),
        trained, made.origin(stage),
    )  # fmt: skip


def made_of(bundle: Bundle) -> Made:
    """A run that came as far as the training of a bundle, all of it in memory.

    Only `stages.recommender_of` is asked of it; it has no workdir, and nothing is stored.
    """
    built = None if bundle.pool is None else BuiltPool(bundle.pool, [], {})
    rationales = rationale_stage(find_variant(bundle.variant))
    values: dict[Stage[Any], Any] = {
        LOAD: bundle.interactions, SPLIT: bundle.splits, ITEMS: bundle.items, rationales: bundle.rationales,
        BUILD_POOL: built, ASSIGN: bundle.assignment,
    }  # fmt: skip
    made = Made(bundle.config, Path())
    for stage, value in values.items():
        if value is not None:
            made.artefacts[stage.name] = Artefact(value, stage.name, 0.0, fresh=False)
    return made


def _flow_of(last: Stage[Any]) -> Flow:
    """The stages that a training depends on, in order."""
    needed = {stage.name for stage in _read_by(last)}
    return dataclasses.replace(FLOW, stages=tuple(stage for stage in FLOW.stages if stage.name in needed))


def _read_by(stage: Stage[Any]) -> Iterator[Stage[Any]]:
    """All stages that a stage reads, and those that they read; LOAD always, for ids and titles."""
    yield LOAD
    for each in stage.reads:
        yield each
        yield from _read_by(each)


def _found(made: Made, stage: Stage[Any]) -> Any:
    found = made.artefacts.get(stage.name)
    return None if found is None else found.value


def _matching(made: Made) -> FoldIn | None:
    """How a new user is matched to seed users, where there are any."""
    behaviour = _found(made, ENCODE_USERS)
    return None if behaviour is None else learn_matching(behaviour, made[SPLIT].train, made[SPLIT].num_items)
