"""Training of the arms of a comparison on one log, each an artefact of the workdir."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.ranking.logs import Log, check_classes, read_log
from experiments.ranking.texts import NONE, LogTexts, arms_of, make_texts
from reland_jax import artefacts, events
from reland_jax.artefacts import fingerprint, load_arrays, save_arrays
from reland_jax.events import Batches, Encoded, Encoding, metrics
from reland_jax.events.shards import ShardBatches, as_read
from reland_jax.events.streamed import Streamed
from reland_jax.files import read_json, remove, write_json
from reland_jax.ranker_settings import LogConfig, RankerConfig, RankerJob
from reland_jax.rankers import (
    Arm,
    FieldSchema,
    Order,
    Parameters,
    Program,
    RankerData,
    ReadBatch,
    arm_texts,
    create_ranker,
    field_schema,
    find_arm,
    parameter_counts,
    predict_rows,
    train_ranker,
)
from reland_jax.train import save_params
from reland_jax.types import RelandError

_ALL = "all"
_VERSION = 1
"""Of the code of a training: increased when equal inputs give other results."""


class Prepared(NamedTuple):
    """A log as rankers read it.

    Attributes:
        log: with its split.
        encoding: learned from its training rows.
        encoded: the log as arrays of the host.
        schema: the fields.
        texts: what arms read.
        identity: hash of all of it.
        shards: encoded training rows, where they are not in memory.
    """

    log: Log
    encoding: Encoding
    encoded: Encoded
    schema: FieldSchema
    texts: LogTexts
    identity: str
    shards: Sequence[Path] = ()


class ArmRun(NamedTuple):
    """One arm, trained with one seed.

    Attributes:
        reached: ``<float32>[n, T]``, of test rows: the probability of each label and all before it.
        given: ``<float32>[n, T]``, of each label given those before it.
        summary: "history", "best" (place in it), "rows_per_second", "seconds", "parameters".
        params: what was learned; None where the run was read back, whose folder has them.
    """

    reached: np.ndarray
    given: np.ndarray
    summary: Mapping[str, Any]
    params: Parameters | None = None


def prepare(job: RankerJob, workdir: Path) -> Prepared:
    """Reads a log, refuses leaks, fits the encoding, and makes the texts that the arms need.

    Raises:
        RelandError: see `read_log`, `check_classes`, `events.refuse_leaks` and `make_texts`.
    """
    log = read_log(job.log)
    check_classes(log, job.ranker)
    texts = NONE if set(job.arms) == {"id"} else make_texts(log, job.texts, workdir / "texts")
    return encoded_log(log, job.log, texts, workdir)


def encoded_log(
    log: Log, config: LogConfig, texts: LogTexts = NONE, workdir: Path | None = None
) -> Prepared:
    """The encoding of a log, fitted to its training rows, once leaks are refused.

    Args:
        log: with its parts.
        config: its settings.
        texts: what arms read.
        workdir: of the shards of a log that is streamed.

    Raises:
        RelandError: see `events.refuse_leaks`; or the log is streamed and there is no workdir for it.
    """
    sizes = {"min_count": config.min_count, "longest": config.longest}
    if log.streamed is None:
        events.refuse_leaks(log.events, log.parts.train)
        encoding = events.fit(log.events, log.parts.train, **sizes)
    else:
        assert log.streamed.training.seen is not None
        encoding = log.streamed.training.seen.encoding(**sizes)
    encoded = events.encode(encoding, log.events)
    labels = [each.name for each in log.events.schema.labels]
    arrays = [*jax.tree.leaves(encoded), *log.parts[:3]]
    shards = _shards(log, log.streamed, encoding, workdir) if log.streamed else None
    identity = fingerprint(*arrays, *([shards.fingerprint] if shards else []))
    schema = field_schema(encoding, labels)
    return Prepared(log, encoding, encoded, schema, texts, identity, shards.value if shards else ())


def _shards(log: Log, streamed: Streamed, encoding: Encoding, workdir: Path | None) -> artefacts.Artefact:
    """The encoded training rows of a log that is streamed, made once."""
    if workdir is None:
        raise RelandError("config.log.streamed=True: this command keeps its log in memory; set it to False")
    schema = dataclasses.asdict(streamed.schema)
    made_from = fingerprint(
        "shards", _VERSION, streamed.files.checksums(), schema, streamed.dropped, streamed.division.spans,
        streamed.division.warm_until, *encoding.known.values(), encoding.lengths,
    )  # fmt: skip
    folder = workdir / "shards"
    made = artefacts.make(
        folder, made_from, compute=lambda: None,
        save=lambda _, aside: events.streamed.write_training(streamed, encoding, log.events.ids, aside),
        load=lambda _: None,
    )  # fmt: skip
    return made._replace(value=sorted(folder.glob("*.parquet")))


def arms_to_train(job: RankerJob, texts: LogTexts) -> list[str]:
    """The arms of a job.

    Raises:
        RelandError: one that is not known, or that the data do not allow.
    """
    allowed = arms_of(texts)
    wanted = [arm for name in job.arms for arm in (allowed if name == _ALL else [find_arm(name).name])]
    for name in wanted:
        if name not in allowed:
            raise RelandError(
                f"config.arms: {name!r} reads texts that this log does not have; it allows "
                f"{', '.join(allowed)}"
            )
    return list(dict.fromkeys(wanted))


def train_arm(prepared: Prepared, job: RankerJob, name: str, seed: int, workdir: Path) -> ArmRun:
    """Trains an arm with a seed, or reads what an earlier call left.

    Raises:
        RelandError: network, task or arm do not go together, or see `train_ranker`.
    """
    arm = find_arm(name)
    data, program = data_of(prepared, arm, job.texts.seed), program_of(prepared, job, arm)
    of_texts = [np.asarray(each) for each in data.texts if each is not None]
    stamp = fingerprint("ranker", _VERSION, prepared.identity, *of_texts, job.ranker, job.train, name, seed)
    return train_kept(prepared, program, data, seed, f"{name}-seed{seed}", stamp, workdir)


def train_kept(
    prepared: Prepared, program: Program, data: RankerData, seed: int, name: str, stamp: str, workdir: Path
) -> ArmRun:
    """Trains a ranker with a seed on the training rows of a log, or reads what an earlier call left.

    Args:
        prepared: the log, with its parts.
        program: what is trained.
        data: what it reads, on the host.
        seed: of the training.
        name: of the folder and of the progress bar.
        stamp: of everything that the result depends on.
        workdir: of artefacts.

    Raises:
        RelandError: see `train_ranker`.
    """
    checkpoints = workdir / "checkpoints" / f"{name}-{stamp}"
    made = artefacts.make(
        workdir / "arms" / name, stamp,
        compute=partial(_trained, prepared, program, data, seed, checkpoints, name),
        save=_save, load=_load,
    )  # fmt: skip
    remove(checkpoints)
    run: ArmRun = made.value
    return run


def program_of(prepared: Prepared, job: RankerJob, arm: Arm) -> Program:
    """What is compiled for an arm."""
    ranker = create_ranker(job.ranker, prepared.schema, arm, prepared.texts.seed_users)
    return Program(ranker, job.train, ReadBatch(events.gather, prepared.schema))


def data_of(prepared: Prepared, arm: Arm, seed: int) -> RankerData:
    """What an arm reads."""
    texts = arm_texts(arm, prepared.texts.texts, prepared.texts.own, seed)
    return RankerData(prepared.encoded, texts)


def _trained(
    prepared: Prepared, program: Program, data: RankerData, seed: int, checkpoints: Path, name: str
) -> ArmRun:
    start = time.perf_counter()
    parts, data = prepared.log.parts, jax.device_put(data)
    trained = train_ranker(
        *_training_rows(prepared, program, data, seed), seed,
        validate=partial(_validated, prepared, program, data), folder=checkpoints,
        run={"made_from": checkpoints.name}, label=name,
    )  # fmt: skip
    found = predict_rows(program, trained.params, data, parts.test)
    summary = {
        "history": trained.history, "best": trained.best, "rows_per_second": trained.rows_per_second,
        "seconds": time.perf_counter() - start, "parameters": parameter_counts(trained.params),
    }  # fmt: skip
    return ArmRun(np.asarray(found.reached), np.asarray(found.given), summary, trained.params)


def _training_rows(
    prepared: Prepared, program: Program, data: RankerData, seed: int
) -> tuple[Program, RankerData, Order]:
    """The rows of every step, by their numbers in memory, or themselves from shards."""
    size = program.config.batch_size
    if not prepared.shards:
        return program, data, Batches(prepared.log.parts.train, size, seed)
    from_shards = program._replace(read=ReadBatch(as_read, prepared.schema))
    return from_shards, data._replace(log=None), ShardBatches(prepared.shards, size, seed)


def _validated(
    prepared: Prepared, program: Program, data: RankerData, params: Parameters
) -> dict[str, float]:
    """Mean logloss and AUC over the labels that are learned, on validation rows."""
    rows, config = _judged_rows(prepared, program.ranker.config), program.ranker.config
    reached = np.asarray(predict_rows(program, params, data, rows).reached, np.float64)
    labels = prepared.log.events.labels
    pairs = [(labels[name][rows], reached[:, at]) for at, name in enumerate(config.labels)]
    aucs = [metrics.auc(label, score) for label, score in pairs]
    if None in aucs:
        raise RelandError("the validation rows are of one class only; choose other days for validation")
    losses = [metrics.row_losses(label, score).mean() for label, score in pairs]
    return {"logloss": float(np.mean(losses)), "auc": float(np.mean(np.array(aucs, np.float64)))}


def _judged_rows(prepared: Prepared, config: RankerConfig) -> np.ndarray:
    """Validation rows, of those that are like the ones trained on."""
    rows = prepared.log.parts.valid
    return rows[prepared.log.events.labels[config.trained_on][rows] == 1] if config.trained_on else rows


def _save(run: ArmRun, folder: Path) -> None:
    assert run.params is not None
    save_arrays({"reached": run.reached, "given": run.given}, folder)
    write_json(folder / "summary.json", run.summary)
    save_params(jax.device_get(run.params._asdict()), folder / "params")


def _load(folder: Path) -> ArmRun:
    arrays = load_arrays(folder)
    return ArmRun(arrays["reached"], arrays["given"], read_json(folder / "summary.json"))
