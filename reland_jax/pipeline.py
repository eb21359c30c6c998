"""ReLand from raw interactions to a measured gain, one stage after the other (paper, Figure 2).

Every stage is a function of the artefacts before it and of its settings. Its artefact is a folder of
the workdir, stamped with the hash of both; a stage whose artefact is up to date is not run again, so changing
one setting reruns only the stages that depend on it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax import artefacts
from reland_jax.artefacts import Artefact, fingerprint
from reland_jax.config import LINEAR, Config, ModelConfig, TrainConfig, nearest_name
from reland_jax.data import (
    data_fingerprint,
    item_entities,
    load_interactions,
    raw_state,
    report_line,
    report_text,
    split,
)
from reland_jax.encoding import check_item_texts, encode_items, encode_text, whitened
from reland_jax.eval import evaluation_notes, held_out, mean_metrics, per_user_metrics
from reland_jax.eval.cold import ColdUserWeights, impute_cold_users
from reland_jax.files import sweep_folder
from reland_jax.mesh import of_first_process, on_host, own_devices, use_mesh_together
from reland_jax.models import (
    MODELS,
    Ease,
    Recommender,
    Tables,
    create_recommender,
    training_graph,
)
from reland_jax.pool import build_pool, pool_ledger, pool_state, refuse_to_pay_again, told_of_missing
from reland_jax.pool.ready import check_ready
from reland_jax.report.choice import users_to_show
from reland_jax.report.tensorboard import scalar_writer
from reland_jax.retrieval import assign_with_cold, profile_weights, profiles
from reland_jax.seeds import add_texts, choose_seeds
from reland_jax.storage import (
    BuiltPool,
    Inputs,
    Seeding,
    Trained,
    TrainingSummary,
    load_array,
    load_assignment,
    load_built_pool,
    load_seeding,
    load_splits,
    load_texts,
    load_trained,
    pool_identity,
    save_array,
    save_assignment,
    save_built_pool,
    save_interactions,
    save_splits,
    save_texts,
    save_trained,
)
from reland_jax.storage import load_interactions as load_stored_interactions
from reland_jax.strings import visible
from reland_jax.text import ablated, encoder_state
from reland_jax.train import ClosedForm, Evaluator, Task, check_users, create_task, fit, param_shapes
from reland_jax.types import PARTS, Assignment, Interactions, ReasoningPool, RelandError, SeedSet, Splits
from reland_jax.variants import ID, Variant, find_variant

STAGES = (
    "load",
    "split",
    "encode_users",
    "sample_seeds",
    "build_pool",
    "encode_text",
    "assign",
    "train",
    "report",
)

TOGETHER = ("encode_users", "train")
"""Stages that all processes of a job compute together; the others are left to the first one."""

VERSIONS = dict.fromkeys(STAGES, 1)
"""Of what a stage computes: one that comes to give other results of equal inputs gets the next number, and
artefacts that an earlier program made are made again."""

TEXT_CACHE = "text_cache"
"""Folder of the vectors of texts by encoder."""

NO_CLUSTER = -1
"""Cluster of a user without training items."""

_log = logging.getLogger(__name__)


class StagesDone(Exception):
    """Raised at the first stage after the last one that was asked for."""


class Pipeline:
    """Runs stages in a workdir.

    Attributes:
        config: all settings.
        workdir: where artefacts live.
    """

    def __init__(
        self,
        config: Config,
        workdir: str | Path,
        stages: Sequence[str] = (),
        trainings: str = "train",
        ask_again: bool = True,
    ) -> None:
        """Checks the stage names.

        Args:
            config: all settings.
            workdir: where artefacts live; made if it does not exist.
            stages: the stages to run, again if need be; none means all that are not up to date.
            trainings: folder of the trained variants, so that several backbones can share a workdir.
            ask_again: whether missing answers of a pool are requested again; a job of several processes uses
                the pool as it is.

        Raises:
            RelandError: an unknown stage.
        """
        if jax.process_count() > 1 and set(stages) - {"train", "report"}:
            raise RelandError("--stages: with several processes only train and report can be asked for")
        for stage in stages:
            if stage not in STAGES:
                raise RelandError(f"--stages: {stage!r} is not a stage; {nearest_name(stage, STAGES)}")
        self.config, self.workdir, self._stages = config, Path(workdir), tuple(stages)
        self._trainings, self._ask_again = trainings, ask_again and jax.process_count() == 1
        self.workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:  # what killed runs were writing
            for folder in (self.workdir, self.workdir / trainings, self.workdir / TEXT_CACHE):
                sweep_folder(folder)
        self.seconds: dict[str, float] = {}
        self._pool_follows = False
        self._encoder_state = ""

    def start(self, stage: str) -> bool:
        """Whether a stage is to be run.

        Raises:
            StagesDone: neither this stage nor a later one is.
        """
        later = STAGES[STAGES.index(stage) :]
        if self._stages and not set(later) & set(self._stages):
            raise StagesDone
        return not self._stages or stage in self._stages

    def seeding(self) -> Seeding:
        """The stages before the pool: data, split, behaviour vectors and seed users.

        Raises:
            StagesDone: the stages asked for end before.
            RelandError: bad data or settings, or a missing artefact of a stage that was not asked for.
        """
        config = self.config
        loaded = self._stage(
            "load", [config.data, raw_state(config.data)], lambda: load_interactions(config.data),
            save_interactions, load_stored_interactions, identify=data_fingerprint,
        )  # fmt: skip
        interactions = loaded.value
        if (report := interactions.report) is not None:
            _log.info("%s", report_text(report) if loaded.fresh else report_line(report))
        users_to_show(config.report_users, interactions.ids.users)  # a wrong id is told before the trainings
        # Of what the data hold: files that were copied or touched cost a reading, and not every stage.
        divided = self._stage(
            "split", [loaded.fingerprint, config.data],
            lambda: self.split(interactions), save_splits, load_splits,
        )  # fmt: skip
        splits = divided.value
        self._tell_targets(splits)
        if config.model.backbone in LINEAR:
            check_users(splits.train)  # told before anything is asked for
        behaviour = self._stage(
            "encode_users",
            [divided.fingerprint, config.encoder, config.eval, config.data.max_length]
            + ([self._text_state(), config.text.max_tokens] if config.encoder.text_weight else []),
            lambda: self._encode_users(interactions, splits), save_array, load_array,
        )  # fmt: skip
        seeds = self._stage(
            "sample_seeds", [behaviour.fingerprint, config.seeds],
            lambda: _sample_seeds(behaviour.value, splits, config),
            artefacts.save_arrays, partial(load_seeding, interactions.num_users),
        )  # fmt: skip
        chosen = SeedSet(*(seeds.value[name] for name in SeedSet._fields))
        clusters = seeds.value["cluster_of_user"]
        return Seeding(interactions, splits, behaviour.value, chosen, clusters, seeds.fingerprint)

    def prepare(self) -> Inputs:
        """Phases 1 and 2 up to the assignment: everything that training needs.

        Raises:
            StagesDone: the stages asked for end before.
            RelandError: bad data or settings, or a missing artefact of a stage that was not asked for.
        """
        config, workdir = self.config, self.workdir
        self._pool_follows = not self._stages or "build_pool" in self._stages
        seeding = self.seeding()
        interactions = seeding.interactions
        built = self._stage(
            "build_pool", [seeding.fingerprint, config.pool, pool_state(config.pool), config.data],
            lambda: _build_pool(seeding, config, workdir),
            partial(save_built_pool, config, interactions.ids), partial(load_built_pool, interactions.ids),
            # Asked for again with the same answers, it is the same to later stages; with more, it is not.
            identify=lambda made: fingerprint(seeding.fingerprint, config.data, pool_identity(made)),
            on_damage=partial(refuse_to_pay_again, config.pool, config.llm, workdir),
            complete=lambda built: not built.unanswered(),
        )  # fmt: skip
        pool = built.value.pool
        if missing := len(built.value.unanswered()):
            told = told_of_missing(config.pool, config.llm, len(pool.rationales), missing, self._ask_again)
            _log.warning("pool: %s", told)
        texts = self._stage(
            "encode_text", [built.fingerprint, dataclasses.replace(config.text, encoder=self._text_state())],
            lambda: encode_text(interactions, pool, config, workdir / TEXT_CACHE), save_texts, load_texts,
        )  # fmt: skip
        assignment = self._stage(
            "assign", [built.fingerprint, config.retrieval, config.fusion.neighbours],
            lambda: _assign(seeding, pool, config), save_assignment,
            partial(load_assignment, interactions.num_users, len(pool.rationales)),
        )  # fmt: skip
        both = fingerprint(texts.fingerprint, assignment.fingerprint)
        return Inputs(
            interactions, seeding.splits, seeding.clusters, built.value, texts.value, assignment.value, both
        )

    def train(self, inputs: Inputs, variant: str, seed: int) -> Trained:
        """Trains and evaluates one variant with one training seed."""
        config = dataclasses.replace(self.config.train, seed=seed)
        splits = inputs.splits
        made_from: list[Any] = [VERSIONS["train"], self.config.model, config, self.config.eval]
        made_from += [self.config.data.max_length, *splits.train, *splits.valid, *splits.test]
        if (entities := _entities(self.config.model, inputs.interactions)) is not None:
            made_from += [entities]
        reads = find_variant(variant)
        if reads.reads_texts:
            made_from += [inputs.texts.items, self.config.fusion.item_scale]
        if reads.reads_rationales:
            made_from += [self.config.fusion, inputs.fingerprint]
        if reads.ablation:
            made_from += [reads.ablation]
        if borrowed := _borrowed(inputs, self.config):
            made_from += [*borrowed]
        if self.config.model.backbone in LINEAR:
            made_from += [self.config.ease]
        name = f"{self._trainings}/{variant}-seed{seed}"
        task = self.task(inputs, variant)
        stamp = fingerprint(*made_from)
        return self._stage(
            name, [stamp], lambda: self._fit(task, splits, config, name, stamp),
            save_trained, partial(load_trained, param_shapes(task, config)), stage="train",
        ).value  # fmt: skip

    def task(self, inputs: Inputs, variant: str) -> Task | ClosedForm:
        """The recommender of a variant with its data."""
        config, reads = self.config, find_variant(variant)
        k = inputs.rationales_each(config)
        model = _recommender(config, inputs.splits, reads, k)
        tables = Tables[np.ndarray](
            item_text=inputs.texts.items if reads.reads_texts else None,
            propagation=_graph(config.model, inputs.splits, inputs.interactions),
        )
        if reads.reads_rationales:
            rationales = ablated(inputs.texts.rationales, reads.ablation)
            seed, cosine = (each[:, : max(k, config.fusion.neighbours)] for each in inputs.assignment)
            tables = tables._replace(rationale=rationales, seed=seed, cosine=cosine if k > 1 else None)
        task = create_task(model, tables, inputs.splits, config.train, config.data.max_length)
        if (found := _borrowed(inputs, config)) is None:
            return task
        cold = ColdUserWeights(*map(jnp.asarray, found))
        return task._replace(vectors=lambda params, part: impute_cold_users(task.vectors(params, part), cold))

    def split(self, interactions: Interactions) -> Splits:
        """Training, validation and test by the protocol of the config."""
        return split(interactions, self.config.data.protocol)

    def _text_state(self) -> str:
        """Fingerprint of the text encoder's files, which are read once in a run."""
        if not self._encoder_state:
            self._encoder_state = encoder_state(self.config.text.encoder)
        return self._encoder_state

    # --- stages --------------------------------------------------------------------------------

    def _tell_targets(self, splits: Splits) -> None:
        held = held_out(splits, self.config.eval)
        evaluated = (f"{one.users:,} users by {one.targets:,} {part} items" for part, one in held.items())
        _log.info("evaluation: %s", ", ".join(evaluated))
        for note in evaluation_notes(held, splits.protocol, self.config.eval.mask_history):
            _log.info("evaluation: %s", note)

    def _encode_users(self, interactions: Interactions, splits: Splits) -> np.ndarray:
        """M of Eq. 1 from training interactions only, with the item texts appended."""
        if self._pool_follows and jax.process_index() == 0:
            check_ready(self.config.pool, self.config.llm, self.workdir)
        if self.config.encoder.text_weight and jax.process_index() == 0:
            check_item_texts(interactions, self.config)
        with use_mesh_together(self.config.mesh):
            behaviour = self._encode_behaviour(interactions, splits)
        weight = self.config.encoder.text_weight
        # Texts are the first process's alone: the others take the artefact, and this stays unused.
        if not weight or jax.process_index() > 0:
            return behaviour
        items = encode_items(interactions, self.config, self.workdir / TEXT_CACHE)
        directions = self.config.encoder.text_directions
        return add_texts(behaviour, splits.train, whitened(items, items, directions), weight)

    def _encode_behaviour(self, interactions: Interactions, splits: Splits) -> np.ndarray:
        """A lightweight backbone's vectors of all users."""
        encoder = self.config.encoder
        config = dataclasses.replace(self.config, model=encoder.model, train=encoder.train)
        task = id_task(config, splits, interactions)
        evaluator = Evaluator(task, splits, dataclasses.replace(self.config.eval, mask_history=True))
        stamp = fingerprint(
            VERSIONS["encode_users"], encoder, self.config.data.max_length, *splits.train, *splits.valid,
            *([] if (entities := _entities(encoder.model, interactions)) is None else [entities]),
        )  # fmt: skip
        result = fit(
            task, evaluator, encoder.train, self._checkpoints("encode_users", stamp),
            run={"made_from": stamp}, label="behaviour encoder",
        )  # fmt: skip
        # "valid" vectors have read the training history and nothing after it.
        return on_host(task.vectors(result.params, "valid").users)[: splits.num_users]

    def _fit(
        self, task: Task | ClosedForm, splits: Splits, config: TrainConfig, name: str, stamp: str
    ) -> Trained:
        evaluator = Evaluator(task, splits, self.config.eval)
        with scalar_writer(self.workdir / "tensorboard" / name.replace("/", "-")) as write:
            result = fit(
                task, evaluator, config, self._checkpoints(name, stamp),
                run={"made_from": stamp}, label=name,
                on_epoch=lambda entry: write(int(entry["epoch"]), entry),
            )  # fmt: skip
        ranks = {part: evaluator.ranks(result.params, part) for part in PARTS}
        cutoffs = self.config.eval.cutoffs
        valid, test = (mean_metrics(per_user_metrics(ranks[part], cutoffs)) for part in PARTS)
        evaluations = [e["evaluation_seconds"] for e in result.history if "evaluation_seconds" in e]
        summary = TrainingSummary(
            valid=valid,
            test=test,
            epochs=len(result.history),
            best_epoch=result.best_epoch,
            objective=config.objective,
            seconds_per_epoch=result.seconds_per_epoch,
            compile_seconds=result.compile_seconds,
            examples_per_second=task.targets / result.seconds_per_epoch,
            evaluation_seconds=float(np.median(evaluations)),
            history=result.history,
        )
        return Trained(on_host(result.params) if jax.process_count() > 1 else result.params, summary, ranks)

    # --- helpers -------------------------------------------------------------------------------

    def _checkpoints(self, name: str, stamp: str) -> Path:
        # A folder per stamp: after a change of settings a run starts anew and keeps the old checkpoints.
        return self.workdir / "checkpoints" / f"{name}-{stamp}"

    def _stage(
        self,
        name: str,
        made_from: Sequence[Any],
        compute: Callable[[], Any],
        save: Callable[[Any, Path], None],
        load: Callable[[Path], Any],
        stage: str = "",
        identify: Callable[[Any], str] | None = None,
        on_damage: Callable[[str], None] = lambda why: None,
        complete: Callable[[Any], bool] = lambda value: True,
    ) -> Artefact:
        stage = stage or name
        stamp, folder = fingerprint(stage, VERSIONS[stage], *made_from), self.workdir / name
        asked, first = self.start(stage), jax.process_index() == 0
        # A training may take days at scale: naming its stage continues it and never repeats it.
        force = stage in self._stages and stage != "train"
        together = stage in TOGETHER and jax.process_count() > 1
        artefact = None
        if asked and together:
            # Processes may see a shared folder differently, but either all of them compute or none.
            due = first and (force or not artefacts.is_whole(folder, stamp))
            asked = bool(of_first_process(due))
        if asked and (first or together):
            artefact = artefacts.make(
                folder, stamp, compute=compute, save=save, load=load, identify=identify, force=force,
                write=first, together=together, on_damage=on_damage,
                complete=lambda value: not self._ask_again or complete(value),
            )  # fmt: skip
        if asked and not first and stage != "train":
            artefact = artefacts.wait_for(folder, stamp, load)
        artefact = artefact or artefacts.require(folder, stamp, stage, load)
        kept = "up to date, took" if complete(artefact.value) else "incomplete, as it was left; took"
        done = "done" if artefact.fresh else kept
        _log.info("%s: %s %.1f s", name, done, artefact.seconds)
        self.seconds[name] = artefact.seconds
        return artefact


def id_task(config: Config, splits: Splits, interactions: Interactions | None = None) -> Task | ClosedForm:
    """The variant `id` of the config's backbone with its data, which needs neither texts nor a pool.

    Args:
        config: all settings.
        splits: of the interactions.
        interactions: for the entities of GAT's graph; without them it is one of users and items only.
    """
    tables = Tables(propagation=_graph(config.model, splits, interactions))
    model = _recommender(config, splits, ID, config.retrieval.neighbours)
    return create_task(model, tables, splits, config.train, config.data.max_length)


def _recommender(config: Config, splits: Splits, variant: Variant, rationales: int) -> Recommender | Ease:
    return create_recommender(
        config.model, config.fusion, variant,
        num_users=splits.num_users, num_items=splits.num_items,
        max_length=config.data.max_length, embedding_l2=config.train.embedding_l2,
        rationales=rationales, ease=config.ease,
    )  # fmt: skip


def _entities(model: ModelConfig, interactions: Interactions | None) -> np.ndarray | None:
    """The entities of the items, for a backbone whose graph has any."""
    if interactions is None or not MODELS[model.backbone].heterogeneous:
        return None
    return item_entities(interactions, model.entities)


def _graph(model: ModelConfig, splits: Splits, interactions: Interactions | None) -> Any:
    return training_graph(model, splits.train, splits.num_items, _entities(model, interactions))


def _sample_seeds(behaviour: np.ndarray, splits: Splits, config: Config) -> dict[str, np.ndarray]:
    activity = splits.train.lengths()
    # Nothing can be written about a user without training items, and its vector was never trained.
    warm = np.flatnonzero(activity)
    devices = own_devices(config.mesh)
    seeds, clustering = choose_seeds(behaviour[warm], activity[warm], config.seeds, devices)
    cluster_of_user = np.full(len(activity), NO_CLUSTER, np.int32)
    cluster_of_user[warm] = clustering.cluster
    user = warm[seeds.user].astype(np.int32)
    return {**seeds._asdict(), "user": user, "cluster_of_user": cluster_of_user}


def _build_pool(seeding: Seeding, config: Config, folder: Path) -> BuiltPool:
    # Whether the encoder works is checked before an LLM is paid.
    check_item_texts(seeding.interactions, config)
    pool, problems = build_pool(
        seeding.seeds, seeding.behaviour, seeding.splits, seeding.interactions, config.pool, config.data,
        folder=folder, llm=config.llm, cluster=seeding.clusters,
    )  # fmt: skip
    for problem in problems[:5]:
        _log.warning("pool: %s", visible(f"{problem.user_id}: {problem.why}"))
    _log.info("pool: %d rationales, %d remarks", len(pool.rationales), len(problems))
    paid = pool_ledger(config.pool, config.llm, folder)
    return BuiltPool(pool, problems, paid)


def _assign(seeding: Seeding, pool: ReasoningPool, config: Config) -> Assignment:
    activity = seeding.splits.train.lengths()
    # A file may bring seed users without training items; none can be like them.
    rows = np.flatnonzero(activity[pool.seeds.user])
    if (wanted := config.retrieval.neighbours) > len(rows):
        _log.warning("assign: config.retrieval.neighbours=%d, and there are %d seed users", wanted, len(rows))
    count = max(config.retrieval.neighbours, min(config.fusion.neighbours, len(rows)))
    profile = profiles(seeding.interactions.user_features, len(activity))
    found = assign_with_cold(
        seeding.behaviour, pool.seeds.user[rows], activity, profile,
        dataclasses.replace(config.retrieval, neighbours=count),
    )  # fmt: skip
    return found._replace(seed=rows[found.seed].astype(np.int32))


def _borrowed(inputs: Inputs, config: Config) -> ColdUserWeights | None:
    """The seed users that stand in for each cold user, with weights; None if no user is cold."""
    activity, seeds = inputs.splits.train.lengths(), inputs.built.pool.seeds.user
    if activity.all():
        return None
    profile = profiles(inputs.interactions.user_features, len(activity))
    found = profile_weights(profile, activity, config.retrieval.cold_mismatch)
    source = seeds[inputs.assignment.seed[found.warm, 0]]
    return ColdUserWeights(found.cold, found.cold_profile, found.weight, source, found.warm_profile)
