"""From settings to a bundle: the stages of the command line, as far as a variant needs them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy import sparse

from reland_jax import flow
from reland_jax.artefacts import Artefact
from reland_jax.bundle import BY_HISTORIES, Bundle
from reland_jax.config import Config
from reland_jax.eval import mean_metrics, per_user_metrics
from reland_jax.flow import TEXT_CACHE, Flow, Made, Stage
from reland_jax.mesh import use_mesh
from reland_jax.pool_store import register
from reland_jax.retrieval import Matching, learn_matching
from reland_jax.serve.changing import screened
from reland_jax.serve.readers import Reader
from reland_jax.stages import (
    ASSIGN,
    BUILD_POOL,
    ENCODE_USERS,
    FLOW,
    ITEMS,
    LINEAR_WEIGHTS,
    LOAD,
    SPLIT,
    WHOLE,
    linear_weights,
    rationale_stage,
    recommender_of,
    trained_params,
    training,
)
from reland_jax.stages.encoding import whitened
from reland_jax.storage import BuiltPool, Trained
from reland_jax.train import Evaluator
from reland_jax.types import NDCG, RelandError
from reland_jax.variants import find_variant

REFIT = "refit"
"""Folder of the workdir that a refitted model is kept in, apart from the measured one."""

_log = logging.getLogger(__name__)


def fitted(
    config: Config,
    variant: str,
    seed: int,
    workdir: Path,
    refit: bool = False,
    by_histories: bool | None = None,
) -> Bundle:
    """Trains one variant with one seed, or reads back what is up to date in the workdir.

    Stages that the variant does not read are not run: `id` asks no LLM and encodes no text.

    Args:
        config: settings.
        variant: its name.
        seed: of the training.
        workdir: where artefacts live.
        refit: whether the model is trained once more, on everything, for as many epochs as the measured one
            was best after. Seed users, pool and texts stay.
        by_histories: whether a collaborative backbone reads users by what they had, as new ones; None does if
            the validation is no worse for it.

    Returns:
        The bundle; with a pool of a store without the users that it removed and the texts that it blocks.

    Raises:
        RelandError: bad data or settings, see `reland_jax.flow.run`.
    """
    config = dataclasses.replace(config, variants=(variant,), seeds_of_training=(seed,))
    config.validate()
    if config.fusion.reading == "set" and find_variant(variant).reads_rationales:
        raise RelandError(
            "config.fusion.reading='set': a backbone that reads rationales as sets is trained and measured "
            "by the commands, and not served yet; take 'vector'"
        )
    stored = config.pool.provider == "store"
    if stored:
        register()
    with use_mesh(config.mesh):
        begun = flow.run(FLOW, config, workdir, until=SPLIT.name)
        made = flow.run(_flow_of(training(begun, variant, seed)), config, workdir, known=begun)
        stage = training(made, variant, seed)
        measured = made.make(stage)
        as_served = _with_linear(made, variant)
    bundle = _by_histories(_bundle(as_served, stage, variant, measured), as_served, by_histories)
    if refit:
        whole = unsplit_run(made)
        stage = training(whole, variant, seed, epochs=measured.summary.best_epoch)
        with use_mesh(config.mesh):
            trained = whole.make(stage)
            as_served = _with_linear(whole, variant)
        bundle = bundle._replace(
            splits=whole[SPLIT], trained=_on_one_device(as_served, stage, variant, trained),
            origin=whole.origin(stage), refitted=True, linear=_linear(as_served),
        )  # fmt: skip
    return screened(bundle, Path(config.pool.path_to_read())) if stored else bundle


def _bundle(made: Made, stage: Stage[Trained], variant: str, trained: Trained) -> Bundle:
    """What a run has trained and measured."""
    rationales = _found(made, rationale_stage(find_variant(variant), made.config))
    pool = made[BUILD_POOL].pool if BUILD_POOL.name in made.artefacts else None
    metrics = {"valid": trained.summary.valid, "test": trained.summary.test}
    return Bundle(
        made.config, variant, made.config.seeds_of_training[0], made[LOAD], made[SPLIT], _found(made, ITEMS),
        rationales, pool, _found(made, ASSIGN), _matching(made),
        _on_one_device(made, stage, variant, trained), metrics, made.origin(stage),
        linear=_linear(made),
    )  # fmt: skip


def _with_linear(made: Made, variant: str) -> Made:
    """With the weights of the linear model that a backbone stands upon, where it does; nothing is stored."""
    weights = linear_weights(made, variant)
    return made if weights is None else _knowing(made, weights)


def _knowing(made: Made, weights: sparse.csr_array) -> Made:
    found = Artefact(weights, LINEAR_WEIGHTS, 0.0, fresh=False)
    return dataclasses.replace(made, artefacts=made.artefacts | {LINEAR_WEIGHTS: found})


def _linear(made: Made) -> sparse.csr_array | None:
    found = made.artefacts.get(LINEAR_WEIGHTS)
    return None if found is None else found.value


def _on_one_device(made: Made, stage: Stage[Trained], variant: str, trained: Trained) -> Trained:
    """With parameters as one device has them: on a mesh their rows may be filled up."""
    return trained._replace(params=trained_params(made, stage, recommender_of(made, variant)))


def _by_histories(bundle: Bundle, made: Made, wanted: bool | None) -> Bundle:
    """With users read by their histories, if that is wanted, or if their validation is no worse for it."""
    task = recommender_of(made, bundle.variant)
    reader = Reader(bundle, made, task, bundle.trained.params)
    if not reader.is_set:
        return bundle
    splits, config = bundle.splits, bundle.config.eval
    ranks = Evaluator(task, splits, config).rank("valid", reader.folded(splits.train))
    found = mean_metrics(per_user_metrics(ranks, config.cutoffs))
    before = bundle.trained.summary.valid
    chosen = found[NDCG] >= before[NDCG] if wanted is None else wanted
    how = ("trained vectors, not by histories", "histories, not by trained vectors")[chosen]
    _log.info("users are read by %s; %s: %.4f by histories, %.4f else", how, NDCG, found[NDCG], before[NDCG])
    return bundle._replace(metrics={**bundle.metrics, BY_HISTORIES: found}, by_histories=chosen)


def unsplit_run(made: Made) -> Made:
    """A run as far as `made` with a split in which nothing is held out, in a workdir within the other one."""
    others = set(made.artefacts) - {SPLIT.name} | {TEXT_CACHE}
    whole = dataclasses.replace(
        made,
        workdir=made.workdir / REFIT,
        shared={name: made.shared.get(name, made.workdir) for name in others},
        artefacts=dict(made.artefacts),
        stamps=dict(made.stamps),
        stages=dict(made.stages),
        stated={},
        seconds=dict(made.seconds),
    )
    whole.artefacts[SPLIT.name] = whole.artefact(WHOLE)
    return whole


def made_of(bundle: Bundle) -> Made:
    """A run that came as far as the training of a bundle, all of it in memory.

    Only `stages.recommender_of` is asked of it; it has no workdir, and nothing is stored.
    """
    built = None if bundle.pool is None else BuiltPool(bundle.pool, [], {})
    rationales = rationale_stage(find_variant(bundle.variant), bundle.config)
    values: dict[Stage[Any], Any] = {
        LOAD: bundle.interactions, SPLIT: bundle.splits, ITEMS: bundle.items, rationales: bundle.rationales,
        BUILD_POOL: built, ASSIGN: bundle.assignment,
    }  # fmt: skip
    made = Made(bundle.config, Path())
    for stage, value in values.items():
        if value is not None:
            made.artefacts[stage.name] = Artefact(value, stage.name, 0.0, fresh=False)
    return made if bundle.linear is None else _knowing(made, bundle.linear)


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


def _matching(made: Made) -> Matching | None:
    """How a new user is matched to seed users, where there are any."""
    behaviour, items, encoder = _found(made, ENCODE_USERS), _found(made, ITEMS), made.config.encoder
    if behaviour is None:
        return None
    exact = bool(encoder.text_weight) and items is not None and made.config.text.whiten_items is None
    texts = whitened(items, items, encoder.text_directions) if exact else None
    return learn_matching(behaviour, made[SPLIT].train, made[SPLIT].num_items, texts, encoder.text_weight)
