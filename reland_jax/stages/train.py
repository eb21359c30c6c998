"""Stages `train/VARIANT-seedN`: one variant trained with one seed, and measured."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reland_jax.config import LINEAR, Config, EvalConfig, ScoreConfig
from reland_jax.data import REFRESHED
from reland_jax.eval import Vectors, best_items, mean_metrics, per_user_metrics
from reland_jax.eval.cold import ColdUserWeights, impute_cold_users
from reland_jax.flow import Codec, Job, Made, Stage
from reland_jax.mesh import on_host
from reland_jax.models import Linear, Recommender, Tables
from reland_jax.report import CASES, LIST_LENGTH, cases_to_show
from reland_jax.report.tensorboard import scalar_writer
from reland_jax.retrieval import profile_weights, profiles
from reland_jax.stages.assign import ASSIGN, drawn_among, given
from reland_jax.stages.load import LOAD
from reland_jax.stages.pool import BUILD_POOL
from reland_jax.stages.recommender import graph_of, has_entities, linear_settings, model_of, reads_phrases
from reland_jax.stages.split import SPLIT
from reland_jax.stages.texts import ITEMS, RATIONALES, rationale_stage
from reland_jax.storage import (
    Lists,
    Metrics,
    Trained,
    TrainingSummary,
    load_trained,
    load_trained_params,
    save_trained,
)
from reland_jax.text import ablated
from reland_jax.train import (
    ClosedForm,
    Evaluator,
    FitResult,
    FixedEpochs,
    Task,
    create_task,
    fit_together,
    param_shapes,
    solve,
    with_late_scores,
    with_linear_scores,
)
from reland_jax.types import PARTS, RelandError, Splits, TargetRanks
from reland_jax.variants import SEED_ID, Variant, find_variant

LINEAR_WEIGHTS = "linear_weights"
"""Artefact of a recommender that is served: the weights of the linear model that it stands upon."""

LISTED = 1000
"""Users whose lists are kept, for the report's coverage and novelty."""

OnEpoch = Callable[[dict[str, float]], None]


def training(
    made: Made,
    name: str,
    seed: int,
    folder: str = "train",
    *,
    parts: Sequence[str] = PARTS,
    epochs: int | None = None,
    on_epoch: OnEpoch = lambda entry: None,
) -> Stage[Trained]:
    """The stage that trains a variant with a seed.

    Args:
        made: the artefacts; for users without training items this includes their stand-in seed users.
        name: name of the variant.
        seed: training seed.
        folder: folder of the trained variants, so that several backbones can share a workdir.
        parts: parts of the split that are evaluated at the end.
        epochs: so many are trained, and nothing is validated, as where nothing is held out; None stops by the
            validations.
        on_epoch: called with every new entry of the history; may raise an error to stop the training.
    """
    variant, cold = find_variant(name), _has_cold_users(made)
    reads: dict[Stage[Any], bool] = {
        SPLIT: True,
        LOAD: has_entities(made.config.model) or cold,
        ITEMS: variant.reads_texts,
        rationale_stage(variant, made.config): variant.reads_rationales,
        BUILD_POOL: cold,
        ASSIGN: variant.reads_rationales or cold,
    }

    def stages(job: Job) -> dict[int, Stage[Trained]]:
        """The stages of the seeds that are trained together, by seed."""
        seeds = seeds_beside(job.config, seed) if job.kept and epochs is None else (seed,)
        return {each: job.stage if each == seed else training(made, name, each, folder) for each in seeds}

    return Stage(
        f"{folder}/{name}-seed{seed}",
        reads=tuple(stage for stage, read in reads.items() if read),
        settings=lambda config: _settings(config, variant, seed, cold, epochs),
        run=lambda job: _train(job, variant, stages(job), parts, epochs, on_epoch),
        codec=lambda job: Codec(save_trained, load_trained),
        together=True,
        # It may take days at scale, so naming it continues it and never repeats it.
        repeats=False,
    )


def recommender_of(made: Made, name: str) -> Task | ClosedForm:
    """The recommender of a variant with its data."""
    return _task(Job(made, training(made, name, 0), ""), find_variant(name))


def trained_recommender(
    made: Made, name: str, seed: int, folder: str = "train"
) -> tuple[Task | ClosedForm, Any]:
    """The recommender of a finished training, and its parameters.

    Args:
        made: with the training.
        name: of the variant.
        seed: of the training.
        folder: of the trained variants.
    """
    task, stage = recommender_of(made, name), training(made, name, seed, folder)
    return task, trained_params(made, stage, task)


def trained_params(made: Made, stage: Stage[Trained], task: Task | ClosedForm) -> Any:
    """The parameters of a finished training.

    Args:
        made: with the training.
        stage: of the training.
        task: the recommender of its variant.
    """
    shapes = param_shapes(task, made.config.train)
    return made.read(stage, partial(load_trained_params, shapes))


def _settings(config: Config, variant: Variant, seed: int, cold: bool, epochs: int | None) -> list[Any]:
    train = dataclasses.replace(config.train, seed=seed)
    found: list[Any] = [variant.ablation, config.model, train, config.eval, config.data.max_length]
    if len(group := seeds_beside(config, seed)) > 1:  # the size of the group changes the order of sums
        found += [{"together": len(group)}]
    if variant.reads_texts:
        found += [config.fusion.item_scale]
        if not variant.reads_rationales and config.fusion.adaptor != "attention":
            found += [config.fusion]
    if variant.reads_rationales:
        found += [config.fusion, config.retrieval.neighbours]
    if cold:
        found += [config.retrieval.cold_mismatch]
    if config.score != ScoreConfig() and config.model.backbone not in LINEAR:
        found += [config.score] + ([config.ease] if config.score.linear is not None else [])
    if (linear := linear_settings(config)) is not None:
        found += [linear]
    if epochs is not None:
        found += [{"epochs": epochs}]
    return found


def seeds_beside(config: Config, seed: int) -> tuple[int, ...]:
    """The training seeds that are trained together with this one, itself included.

    The groups depend only on the settings, not on finished trainings. The linear models have no seeds.
    """
    seeds, size = config.seeds_of_training, config.train.together
    if seed not in seeds or config.model.backbone in LINEAR:
        return (seed,)
    begin = seeds.index(seed) // size * size
    return seeds[begin : begin + size]


def _has_cold_users(made: Made) -> bool:
    """Whether users without training items are represented by others who are like them.

    A served bundle may have users that came after the training. They are read by what they had since; where
    it has no pool, there are no others.
    """
    splits = made[SPLIT]
    after_training = splits.protocol == REFRESHED and BUILD_POOL.name not in made.artefacts
    return not (splits.train.lengths().all() or after_training)


def linear_weights(made: Made, name: str) -> sparse.csr_array | None:
    """The weights of the linear model that a variant stands upon (`train.solve`); None without one."""
    job = Job(made, training(made, name, 0), "")
    model, tables = _read(job, find_variant(name))
    if not isinstance(model, Recommender) or model.beside.linear is None:
        return None
    return solve(model, tables, made[SPLIT], made.config.ease)


def _task(job: Job, variant: Variant) -> Task | ClosedForm:
    config, splits = job.config, job[SPLIT]
    model, tables = _read(job, variant)
    if isinstance(model, Recommender):
        found = job.made.artefacts.get(LINEAR_WEIGHTS)
        solved = None if found is None else found.value
        tables = with_linear_scores(model, tables, splits, config.ease, solved)
        tables = with_late_scores(model, tables)
    task = create_task(
        model, tables, splits, config.train, config.data.max_length, config.eval.history
    )
    if not _has_cold_users(job.made):
        return task
    if isinstance(model, Recommender) and not model.multiplies:
        if splits.protocol == REFRESHED:
            return task
        raise RelandError(
            "config.fusion.reading='set' and config.score.linear add scores of single items, of which there "
            "is no mean for users without training items; take 'vector' and None, or leave these users out"
        )
    cold = _cold_users(job)
    return task._replace(vectors=lambda params, part: impute_cold_users(task.vectors(params, part), cold))


def _read(job: Job, variant: Variant) -> tuple[Recommender | Linear, Tables[np.ndarray]]:
    """The model of a variant, and the tables that it reads, but for those of single items."""
    config, splits = job.config, job[SPLIT]
    interactions = job[LOAD] if has_entities(config.model) else None
    tables = Tables[np.ndarray](
        item_text=job[ITEMS] if variant.reads_texts else None,
        propagation=graph_of(config.model, splits, interactions),
    )
    each = 0
    if variant.reads_rationales:
        each = given(job[ASSIGN], config).seed.shape[1]
        seed, cosine = drawn_among(job[ASSIGN], config)
        rationales = rationales_of(job, variant)
        if reads_phrases(config) and config.model.backbone not in LINEAR:
            rationales = rationales[:, : config.fusion.phrases]
        tables = tables._replace(rationale=rationales, seed=seed, cosine=cosine if each > 1 else None)
    return model_of(config, splits, variant, each), tables


def rationales_of(job: Job | Made, variant: Variant) -> np.ndarray:
    """The rationales ``<float32>[S, T]``, or what a variant has in their place."""
    if variant == SEED_ID and job.config.model.backbone in LINEAR:  # which learns a weight for each
        return np.eye(len(job[RATIONALES]), dtype=np.float32)
    return ablated(job[rationale_stage(variant, job.config)], variant.ablation)


def _cold_users(job: Job) -> ColdUserWeights:
    """The seed users that stand in for each cold user, with weights."""
    activity, seeds = job[SPLIT].train.lengths(), job[BUILD_POOL].pool.seeds.user
    profile = profiles(job[LOAD].user_features, len(activity))
    found = profile_weights(profile, activity, job.config.retrieval.cold_mismatch)
    source = seeds[job[ASSIGN].seed[found.warm, 0]]
    arrays = (found.cold, found.cold_profile, found.weight, source, found.warm_profile)
    return ColdUserWeights(*map(jnp.asarray, arrays))


def users_to_show(made: Made, count: int = CASES) -> np.ndarray:
    """The users that the report shows in full, ``<int64>[n]``; training does not depend on them.

    Args:
        made: with the split.
        count: how many, if so many are tested; the first ones are the same for every count.
    """
    tested = np.flatnonzero(made[SPLIT].test.lengths())
    return cases_to_show(made.config.report_users, made[LOAD].ids.users, tested, count)


def lists_to_show(
    made: Made, trained: Trained, name: str, seed: int, users: np.ndarray, folder: str = "train"
) -> np.ndarray:
    """The recommendations of a finished training for users, ``<int32>[n, K]``.

    They were stored with the training. For other users than those, all users are encoded again.

    Args:
        made: with the training.
        trained: what it found.
        name: of the variant.
        seed: of the training.
        users: ``<int64>[n]``.
        folder: of the trained variants.
    """
    if (known := trained.lists.of(users)) is not None:
        return known
    task, params = trained_recommender(made, name, seed, folder)
    return _lists(task.vectors(params, "test"), made[SPLIT], users, made.config.eval)


def _lists(vectors: Vectors, splits: Splits, users: np.ndarray, config: EvalConfig) -> np.ndarray:
    return best_items(vectors, splits, users, LIST_LENGTH, config.mask_history)


def _train(
    job: Job,
    variant: Variant,
    stages: Mapping[int, Stage[Trained]],
    parts: Sequence[str],
    epochs: int | None,
    on_epoch: OnEpoch,
) -> Trained:
    """Trains all seeds of `stages`, including the job's; stores the artefacts of the others first.

    So if the artefact of a seed is complete, those of its group exist too.
    """
    task = _task(job, variant)
    evaluator, trained = _evaluator(job, task, epochs), dict[int, Trained]()
    results = _fitted(job, task, evaluator, stages, on_epoch)
    for seed, result in zip(stages, results, strict=True):
        trained[seed] = _measured(job, task, evaluator, result, parts, len(stages))
    own = next(seed for seed, stage in stages.items() if stage is job.stage)
    for seed in stages.keys() - {own}:
        job.made.make(dataclasses.replace(stages[seed], run=partial(_measured_already, trained[seed])))
    return trained[own]


def _evaluator(job: Job, task: Task | ClosedForm, epochs: int | None) -> Evaluator | FixedEpochs:
    if epochs is not None:
        return FixedEpochs(epochs)
    return Evaluator(task, job[SPLIT], job.config.eval)


def _measured_already(trained: Trained, job: Job) -> Trained:
    del job
    return trained


def _fitted(
    job: Job,
    task: Task | ClosedForm,
    evaluator: Evaluator | FixedEpochs,
    stages: Mapping[int, Stage[Trained]],
    on_epoch: OnEpoch,
) -> list[FitResult]:
    with contextlib.ExitStack() as stack:
        writers = {
            seed: stack.enter_context(
                scalar_writer(job.workdir / "tensorboard" / stage.name.replace("/", "-"))
            )
            for seed, stage in stages.items()
            if job.kept and jax.process_index() == 0  # the numbers of all processes are the same
        }

        def tell(seed: int, entry: dict[str, float]) -> None:
            if write := writers.get(seed):
                write(int(entry["epoch"]), entry)
            if stages[seed] is job.stage:
                on_epoch(entry)

        return fit_together(
            task,
            evaluator,
            job.config.train,
            tuple(stages),
            job.checkpoints,
            run={"made_from": job.stamp},
            label=job.stage.name,
            on_epoch=tell,
        )


def _measured(
    job: Job,
    task: Task | ClosedForm,
    evaluator: Evaluator | FixedEpochs,
    result: FitResult,
    parts: Sequence[str],
    together: int,
) -> Trained:
    ranks: dict[str, TargetRanks] = {}
    lists, cutoffs = Lists(), job.config.eval.cutoffs
    for part in parts:
        if isinstance(evaluator, FixedEpochs):
            break
        vectors = task.vectors(result.params, part)
        ranks[part] = evaluator.rank(part, vectors)
        if part == "test":  # while all users are encoded
            users = users_to_show(job.made, LISTED)
            lists = Lists(users, _lists(vectors, job[SPLIT], users, job.config.eval))
    means = {part: mean_metrics(per_user_metrics(rank, cutoffs)) for part, rank in ranks.items()}
    params = on_host(result.params) if jax.process_count() > 1 else result.params
    objective = job.config.train.objective
    return Trained(params, _summary(result, means, together * task.targets, objective), ranks, lists)


def _summary(
    result: FitResult, means: Mapping[str, Metrics], targets: int, objective: str
) -> TrainingSummary:
    evaluations = [e["evaluation_seconds"] for e in result.history if "evaluation_seconds" in e]
    return TrainingSummary(
        valid=means.get("valid", {}),
        test=means.get("test", {}),
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        objective=objective,
        seconds_per_epoch=result.seconds_per_epoch,
        compile_seconds=result.compile_seconds,
        examples_per_second=targets / result.seconds_per_epoch,
        evaluation_seconds=float(np.median(evaluations)) if evaluations else 0.0,
        history=result.history,
    )
