"""From behaviour before a day to the table of that day: encoder, vectors, pool and assignment, as stages.

Items that came after the training of the encoder are left out of histories.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.deployment.days import as_training, before, beginning, iso, whole_log
from experiments.deployment.encoders import (
    Encoder,
    encoded,
    encoder_of,
    laid_out,
    load_encoder,
    reader_of,
    save_encoder,
)
from experiments.deployment.tables import Table, load_table, save_table
from experiments.ranking.texts import all_for_training, given_stage, settings_of, training_clicks
from reland_jax import flow
from reland_jax.artefacts import fingerprint, load_arrays, save_arrays
from reland_jax.config import Config, ModelConfig, RetrievalConfig, TrainConfig
from reland_jax.deploy_settings import DeployJob
from reland_jax.events import Events, shop
from reland_jax.flow import Codec, Job, Stage
from reland_jax.pool.contract import HEURISTIC
from reland_jax.retrieval import search
from reland_jax.retrieval.assign import own_first
from reland_jax.seeds import add_texts
from reland_jax.stages import BUILD_POOL, ENCODE_USERS, FLOW, LOAD, RATIONALES, SAMPLE_SEEDS, SPLIT
from reland_jax.stages.behaviour import train_encoder
from reland_jax.stages.encoding import encode_items, whitened
from reland_jax.storage import (
    load_array,
    load_interactions,
    load_splits,
    save_array,
    save_interactions,
    save_splits,
)
from reland_jax.types import Interactions, Ragged

Arrays = Mapping[str, np.ndarray]
_ARRAYS: Codec[Arrays] = Codec(lambda arrays, folder: save_arrays(arrays, folder), load_arrays)


def stage_settings(job: DeployJob) -> Config:
    """The settings of the main job's stages in a deployment."""
    config = settings_of(whole_log(job.log), job.texts)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, max_length=job.rhythm.max_length)
    )
    if job.rhythm.encoder != "sasrec":
        return config
    epochs = job.texts.encoder_epochs
    encoder = dataclasses.replace(
        config.encoder,
        model=ModelConfig(backbone="sasrec", layers=2, heads=2, dropout=0.5),
        train=TrainConfig(objective="shifted", max_epochs=epochs, eval_every=epochs),
    )
    return dataclasses.replace(config, encoder=encoder)


def items_stage(job: DeployJob, catalogue: Stage[Events]) -> Stage[np.ndarray]:
    """Vectors of the items' texts, ``<float32>[I + 1, T]``."""

    def run(made: Job) -> np.ndarray:
        log = whole_log(job.log)
        if log.shop is not None:
            return shop.item_vectors(log.shop.world)
        about = training_clicks(as_training(log, made[catalogue]))
        found = encode_items(about, made.config, made.cache)
        return whitened(found, found, made.config.text.whiten_items)

    return Stage(
        "items", (catalogue,), lambda config: [config.text, config.data], run,
        lambda made: Codec(save_array, load_array), identify=fingerprint,
    )  # fmt: skip


def clicks_before(
    made: Job, job: DeployJob, catalogue: Stage[Events], logs: Sequence[Stage[Events]], day: int
) -> Interactions:
    """The clicks before a day."""
    return training_clicks(as_training(whole_log(job.log), before(made, catalogue, logs, day)))


def encoder_stage(
    job: DeployJob, catalogue: Stage[Events], logs: Sequence[Stage[Events]], day: int
) -> Stage[Encoder]:
    """The behaviour encoder, trained on clicks before a day."""

    def run(made: Job) -> Encoder:
        clicks = clicks_before(made, job, catalogue, logs, day)
        splits = all_for_training(clicks)
        return encoder_of(*train_encoder(made, clicks, splits), splits, made.config)

    return Stage(
        f"encoder/{iso(day)}", (catalogue, *logs),
        lambda config: [config.encoder, config.eval, config.data.max_length],
        run, lambda made: Codec(save_encoder, load_encoder),
    )  # fmt: skip


def known_history(clicks: Interactions, known: np.ndarray, longest: int | None = None) -> Ragged:
    """Every user's clicks on known items, oldest first, the last ones if there are more than `longest`.

    Args:
        clicks: by user, then time.
        known: ``<bool>[I + 1]``.
        longest: None keeps all.
    """
    kept = known[clicks.item]
    user, item = clicks.user[kept], clicks.item[kept]
    lengths = np.bincount(user, minlength=clicks.num_users)
    if longest is not None:
        after = np.cumsum(lengths)[user] - np.arange(len(user))
        user, item = user[after <= longest], item[after <= longest]
        lengths = np.minimum(lengths, longest)
    return Ragged(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), item.astype(np.int32))


def vectors_stage(
    job: DeployJob,
    catalogue: Stage[Events],
    items: Stage[np.ndarray],
    encoder: Stage[Encoder],
    logs: Sequence[Stage[Events]],
    day: int,
) -> Stage[np.ndarray]:
    """Every user's vector by behaviour before a day, ``<float32>[U, D + T]``; zero without any."""

    def run(made: Job) -> np.ndarray:
        clicks = clicks_before(made, job, catalogue, logs, day)
        history = known_history(clicks, made[encoder].known)
        vectors = encoded(reader_of(made[encoder]), laid_out(history, made[encoder].max_length))
        weight = made[encoder].text_weight
        return add_texts(vectors, history, made[items], weight) if weight else vectors

    return Stage(
        f"vectors/{iso(day)}", (catalogue, items, encoder, *logs),
        lambda config: [], run,
        lambda made: Codec(save_array, load_array),
    )  # fmt: skip


def pool_stage(
    job: DeployJob,
    catalogue: Stage[Events],
    items: Stage[np.ndarray],
    vectors: Stage[np.ndarray],
    logs: Sequence[Stage[Events]],
    day: int,
) -> Stage[Arrays]:
    """Seed users and their rationales by behaviour before a day, through the stages of the main job.

    Their artefacts, and the journal of what an LLM was asked, are in the folder ``pools/DAY`` of the workdir.
    Arrays: "user" ``<int32>[S]``, "rationales" ``<float32>[S, T]``, "behaviour" ``<float32>[S, D]``, and
    "cost" ``<int64>[3]``, of an LLM: users asked about, tokens read and tokens written.
    """

    def run(made: Job) -> Arrays:
        m, world = made[vectors], whole_log(job.log).shop
        # Who has no vector has clicked no item that the encoder knows.
        clicks = _of_users(clicks_before(made, job, catalogue, logs, day), np.any(m != 0, axis=1))
        found = flow.run(
            FLOW, made.config, made.workdir / "pools" / iso(day), replace=_replaced(clicks, m),
            shared={flow.TEXT_CACHE: made.cache}, until="sample_seeds" if world else "encode_text",
        )  # fmt: skip
        return _of_shop(found, m, world.world) if world else _of_pool(found, m)

    return Stage(
        f"pool/{iso(day)}", (catalogue, items, vectors, *logs),
        lambda config: [config.seeds, config.pool, config.text, config.data], run, lambda made: _ARRAYS,
    )  # fmt: skip


def _of_users(clicks: Interactions, chosen: np.ndarray) -> Interactions:
    rows = np.flatnonzero(chosen[clicks.user])
    return clicks._replace(user=clicks.user[rows], item=clicks.item[rows], time=clicks.time[rows])


def _replaced(clicks: Interactions, vectors: np.ndarray) -> dict[str, Stage[Any]]:
    """The stages of the main job that hand on what is at hand."""
    loaded, splits = Codec(save_interactions, load_interactions), all_for_training(clicks)
    given: list[Stage[Any]] = [
        given_stage(LOAD.name, clicks, loaded, clicks.user, clicks.item),
        given_stage(SPLIT.name, splits, Codec(save_splits, load_splits), "all"),
        given_stage(ENCODE_USERS.name, vectors, Codec(save_array, load_array), vectors),
    ]
    return {stage.name: stage for stage in given}


def _of_shop(found: flow.Made, vectors: np.ndarray, world: shop.World) -> Arrays:
    users = found[SAMPLE_SEEDS]["user"]
    said = shop.rationale_vectors(world)[users]
    return {"user": users, "rationales": said, "behaviour": vectors[users], "cost": np.zeros(3, np.int64)}


def _of_pool(found: flow.Made, vectors: np.ndarray) -> Arrays:
    pool = found[BUILD_POOL].pool
    asked = [each for each in pool.rationales if each.model != HEURISTIC]
    tokens = sum(each.prompt_tokens for each in asked), sum(each.response_tokens for each in asked)
    return {
        "user": pool.seeds.user, "rationales": found[RATIONALES], "behaviour": vectors[pool.seeds.user],
        "cost": np.array([len(asked), *tokens], np.int64),
    }  # fmt: skip


def table_stage(
    job: DeployJob, catalogue: Stage[Events], vectors: Stage[np.ndarray], pool: Stage[Arrays], day: int
) -> Stage[Table]:
    """The table of a day: vectors of that day, seed users and rationales of the last pool."""

    def run(made: Job) -> Table:
        m, there = made[vectors], made[pool]
        seed, cosine = nearest(m, there["user"], there["behaviour"], made.config.retrieval)
        size = seeds_of(job, len(m))
        rationales = np.zeros((size, there["rationales"].shape[1]), np.float32)
        rationales[: len(there["user"])] = there["rationales"]
        users = np.full(size, -1, np.int32)
        users[: len(there["user"])] = there["user"]
        return Table(beginning(made[catalogue], day), seed, cosine, rationales, users)

    return Stage(
        f"table/{iso(day)}", (catalogue, vectors, pool),
        lambda config: [config.retrieval, job.texts.fraction],
        run, lambda made: Codec(save_table, load_table),
    )  # fmt: skip


def nearest(
    vectors: np.ndarray, users: np.ndarray, seeds: np.ndarray, config: RetrievalConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's seed user and their cosine (Eq. 3); -1 and 0 for a user whose vector is zero.

    A seed user is its own, with cosine 1.

    Args:
        vectors: ``<float32>[U, D]``.
        users: ``<int32>[S]``, the seed users.
        seeds: ``<float32>[S, D]``, their vectors on the day of the pool.
        config: engine and tile.
    """
    seed, cosine = (each.copy() for each in search(vectors, np.asarray(seeds), 1, config))
    own = np.full(len(vectors), -1, np.int32)
    own[users] = np.arange(len(users))
    own_first(seed, cosine, own)
    there = np.any(vectors != 0, axis=1) | (own >= 0)
    matched = np.where(there, seed[:, 0], -1).astype(np.int32)
    return matched, np.where(there, cosine[:, 0], 0).astype(np.float32)


def seeds_of(job: DeployJob, num_users: int) -> int:
    """S, the most seed users that a pool may have."""
    return max(1, round(job.texts.fraction * num_users))
