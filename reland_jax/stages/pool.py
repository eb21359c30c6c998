"""Stage `build_pool`: seed users to rationales."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import Any

from reland_jax.artefacts import Artefact
from reland_jax.config import Config
from reland_jax.flow import Codec, Job, Stage
from reland_jax.pool import build_pool, missing_answers_note, pool_ledger, pool_state, refuse_to_pay_again
from reland_jax.pool.ready import check_ready
from reland_jax.stages.behaviour import ENCODE_USERS
from reland_jax.stages.encoding import check_item_texts
from reland_jax.stages.load import LOAD
from reland_jax.stages.seeds import SAMPLE_SEEDS
from reland_jax.stages.split import SPLIT
from reland_jax.storage import BuiltPool, load_built_pool, pool_identity, save_built_pool, seed_set
from reland_jax.strings import visible

_log = logging.getLogger(__name__)


def _settings(config: Config) -> list[Any]:
    # The content at the path is part of the state, the path is not.
    pool = dataclasses.replace(config.pool, path=None)
    return [pool, pool_state(config.pool), config.data.domain, config.data.text_fields]


def _build_pool(job: Job) -> BuiltPool:
    config, interactions, seeds = job.config, job[LOAD], job[SAMPLE_SEEDS]
    # The text encoder is checked before an LLM is paid.
    check_item_texts(interactions, config)
    pool, problems = build_pool(
        seed_set(seeds),
        job[ENCODE_USERS],
        job[SPLIT],
        interactions,
        config.pool,
        config.data,
        folder=job.workdir,
        llm=config.llm,
        cluster=seeds["cluster_of_user"],
    )
    for problem in problems[:5]:
        _log.warning("pool: %s", visible(f"{problem.user_id}: {problem.why}"))
    _log.info("pool: %d rationales, %d problems", len(pool.rationales), len(problems))
    paid = pool_ledger(config.pool, config.llm, job.workdir)
    return BuiltPool(pool, problems, paid)


def _check(job: Job, made: Artefact) -> None:
    built, config = made.value, job.config
    if missing := len(built.unanswered()):
        count = len(built.pool.rationales)
        told = missing_answers_note(config.pool, config.llm, count, missing, job.made.ask_again)
        _log.warning("pool: %s", told)


def _codec(job: Job) -> Codec[BuiltPool]:
    ids = job[LOAD].ids
    return Codec(partial(save_built_pool, job.config, ids), partial(load_built_pool, ids))


BUILD_POOL: Stage[BuiltPool] = Stage(
    "build_pool",
    reads=(LOAD, SPLIT, ENCODE_USERS, SAMPLE_SEEDS),
    settings=_settings,
    run=_build_pool,
    codec=_codec,
    ready=lambda config, workdir: check_ready(config.pool, config.llm, workdir),
    # Rebuilt from the same answers it is unchanged for later stages; with more answers it is not.
    identify=pool_identity,
    complete=lambda built: not built.unanswered(),
    on_damage=lambda job, why: refuse_to_pay_again(job.config.pool, job.config.llm, job.workdir, why),
    check=_check,
)
