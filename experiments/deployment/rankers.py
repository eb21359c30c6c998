"""The rankers of the arms: trained further on every day that is over, and judged on the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.deployment.days import before, beginning, iso, whole_log
from experiments.deployment.features import Arrays
from experiments.deployment.tables import Table, without_texts
from reland_jax import events
from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.deploy_settings import DeployJob
from reland_jax.events import Batches, Encoded, Encoding, Events
from reland_jax.events.shop import rationale_vectors
from reland_jax.events.storing import load_encoded, save_encoded
from reland_jax.files import remove
from reland_jax.flow import Codec, Job, Stage
from reland_jax.rankers import (
    ARMS,
    OWN,
    Program,
    RankerData,
    RankerState,
    ReadBatch,
    Scores,
    Texts,
    arm_texts,
    create_ranker,
    field_schema,
    find_arm,
    fresh_state,
    predict_rows,
    train_ranker,
    warm_started,
)

_LONG = 2000
"""Steps of a day from which on its training keeps checkpoints."""
_ARRAYS: Codec[Arrays] = Codec(lambda arrays, folder: save_arrays(arrays, folder), load_arrays)


class Reads(NamedTuple):
    """The stages that those of rankers read.

    Attributes:
        catalogue: users and items.
        encoding: vocabularies and scales, of the days before the first pool.
        items: vectors of the items' texts.
        logs: by day.
        tables: by day, from the first pool on.
    """

    catalogue: Stage[Events]
    encoding: Stage[Encoding]
    items: Stage[np.ndarray]
    logs: Mapping[int, Stage[Events]]
    tables: Mapping[int, Stage[Table]]

    def before(self, day: int) -> list[Stage[Events]]:
        """The logs of earlier days."""
        return [stage for each, stage in self.logs.items() if each < day]

    def of(self, day: int) -> tuple[Stage[Any], ...]:
        """What the rows of a day are read with."""
        table = (self.tables[day],) if day in self.tables else ()
        log = (self.logs[day],) if day in self.logs else ()
        return (self.catalogue, self.encoding, self.items, *log, *table)


def encoding_stage(
    job: DeployJob, catalogue: Stage[Events], logs: Sequence[Stage[Events]], day: int
) -> Stage[Encoding]:
    """Vocabularies, scales and lengths by the rows before a day; what comes later is unseen.

    No feature may be a label.
    """

    def run(made: Job) -> Encoding:
        log = before(made, catalogue, logs, day)
        rows = np.arange(log.num_rows)
        events.refuse_leaks(log, rows)
        return events.fit(log, rows, min_count=job.log.min_count, longest=job.log.longest)

    def save(encoding: Encoding, folder: Any, nothing: Events) -> None:
        save_encoded(encoding, events.encode(encoding, nothing), folder)

    return Stage(
        f"encoding/{iso(day)}", (catalogue, *logs), lambda config: [job.log.min_count, job.log.longest], run,
        lambda made: Codec(partial(save, nothing=made[catalogue]), lambda folder: load_encoded(folder)[0]),
    )  # fmt: skip


def program_of(job: DeployJob, encoding: Encoding, name: str, num_users: int) -> Program:
    """What is compiled for an arm; where it embeds seed users, it does so by the users that they are."""
    labels = [each.name for each in encoding.schema.labels]
    config = dataclasses.replace(job.ranker, labels=tuple(labels[: len(job.ranker.labels)]))
    schema = field_schema(encoding, labels)
    ranker = create_ranker(config, schema, find_arm(name), num_users)
    return Program(ranker, job.train, ReadBatch(events.gather, schema))


def texts_of(job: DeployJob, name: str, texts: Texts, table: Table) -> Texts:
    """What an arm reads of a table's texts."""
    arm = find_arm(name)
    found = arm_texts(arm, texts, own_texts(job, table) if arm.source == OWN else None, job.seed)
    if not arm.reads_seed_ids:
        return found
    # The number of a seed user means another user in the next pool; the user's own number stays.
    assert found.seed is not None
    seed = np.asarray(found.seed)
    return found._replace(seed=np.where(seed >= 0, table.seed_users[seed], -1).astype(np.int32))


def own_texts(job: DeployJob, table: Table) -> np.ndarray:
    """Every user's own text in the shop, ``<float32>[U, T]``; zero before the first pool, as in all arms."""
    shop = whole_log(job.log).shop
    assert shop is not None
    own = rationale_vectors(shop.world)
    return own if (table.seed_users >= 0).any() else np.zeros_like(own)


def table_of(made: Job, job: DeployJob, reads: Reads, day: int, seeds: int) -> Table:
    """The table of a day; before the first pool that of nobody."""
    if day in reads.tables:
        return made[reads.tables[day]]
    return without_texts(made[reads.catalogue].num_users, seeds, made[reads.items].shape[1])


def data_of(made: Job, job: DeployJob, reads: Reads, name: str, log: Events, table: Table) -> RankerData:
    """The rows of a log and the texts of an arm, as its ranker reads them."""
    encoded = padded(events.encode(made[reads.encoding], log))
    first = int(log.time[0]) if log.num_rows else table.until
    texts = table.texts(np.asarray(made[reads.items]), first)
    return jax.device_put(RankerData(encoded, texts_of(job, name, texts, table)))


def ranker_stage(
    job: DeployJob, reads: Reads, name: str, day: int, yesterday: Stage[Arrays] | None, seeds: int
) -> Stage[Arrays]:
    """The state of an arm's ranker after all days before one, from its state the day before."""
    past = day - 1

    def run(made: Job) -> Arrays:
        log, encoding = made[reads.logs[past]], made[reads.encoding]
        events.refuse_later(log, beginning(log, day), f"the ranker of {iso(day)}")
        program = program_of(job, encoding, name, log.num_users)
        data = data_of(made, job, reads, name, log, table_of(made, job, reads, past, seeds))
        order = Batches(np.arange(log.num_rows), job.train.batch_size, 100_000 * job.seed + past)
        long = order.steps_per_epoch * job.train.max_epochs >= _LONG
        folder = made.checkpoints if long else None
        state = state_of(made[yesterday], program, data) if yesterday is not None else None
        found = train_ranker(
            program, data, order, job.seed, state=state, folder=folder, run={"made_from": made.stamp},
            label=f"{name}, {iso(past)}",
        )  # fmt: skip
        if folder is not None:
            remove(folder)
        return leaves_of(found.state)

    of_past = reads.of(past)
    return Stage(
        f"ranker/{name}/{iso(day)}", of_past if yesterday is None else (*of_past, yesterday),
        lambda config: [job.ranker, job.train, job.seed, name], run, lambda made: _ARRAYS,
    )  # fmt: skip


def without_users(name: str) -> str:
    """The arm that an arm is before the first pool: what it reads of items alone."""
    arm = find_arm(name)
    if not (arm.reads_rationales or arm.reads_seed_ids):
        return name
    return next(
        each.name
        for each in ARMS.values()
        if each.reads_items == arm.reads_items and not (each.reads_rationales or each.reads_seed_ids)
    )


def begun_stage(
    job: DeployJob, reads: Reads, name: str, day: int, plain: Stage[Arrays], seeds: int
) -> Stage[Arrays]:
    """The state of an arm on the day of the first pool: that of the arm without texts of users.

    Had it been trained before, it would have learned to lean on the vector of a text that is not there.
    """
    past = day - 1

    def run(made: Job) -> Arrays:
        log, encoding = made[reads.logs[past]], made[reads.encoding]
        data = data_of(made, job, reads, name, log, table_of(made, job, reads, past, seeds))
        names = name, without_users(name)
        program, plain_one = (program_of(job, encoding, each, log.num_users) for each in names)
        earlier = state_of(made[plain], plain_one, data)
        return leaves_of(warm_started(fresh_state(program, data, job.seed), earlier))

    return Stage(
        f"ranker/{name}/{iso(day)}", (*reads.of(past), plain),
        lambda config: [job.ranker, job.train, job.seed, name, "begun"], run, lambda made: _ARRAYS,
    )  # fmt: skip


def judged_stage(
    job: DeployJob, reads: Reads, day: int, rankers: Mapping[str, Stage[Arrays]], seeds: int
) -> Stage[Arrays]:
    """What the ranker of every arm predicts of a day's rows, and the level of each row's user before it.

    Arrays: "level" ``<int8>[n]``, "reached NAME" and "given NAME" ``<float32>[n, T]``.
    """

    def run(made: Job) -> Arrays:
        log, table = made[reads.logs[day]], table_of(made, job, reads, day, seeds)
        past = before(made, reads.catalogue, reads.before(day), day)
        levels = events.activity_levels(past, np.arange(past.num_rows))
        found = {"level": levels.level[log.user]}
        for name, stage in rankers.items():
            data = data_of(made, job, reads, name, log, table)
            scores = predicted(job, made[reads.encoding], name, data, made[stage], log)
            found |= {f"reached {name}": scores.reached, f"given {name}": scores.given}
        return found

    return Stage(
        f"judged/{iso(day)}", (*reads.of(day), *reads.before(day), *rankers.values()),
        lambda config: [job.seed, list(rankers)], run, lambda made: _ARRAYS,
    )  # fmt: skip


def predicted(
    job: DeployJob, encoding: Encoding, name: str, data: RankerData, state: Arrays, log: Events
) -> Scores:
    """The probabilities of the rows of a log."""
    program = program_of(job, encoding, name, log.num_users)
    params = state_of(state, program, data).params
    return predict_rows(program, params, data, np.arange(log.num_rows))


def leaves_of(state: RankerState) -> Arrays:
    """The arrays of a state, by their places in the tree."""
    return {f"{place:04d}": np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(state))}


def state_of(leaves: Arrays, program: Program, data: RankerData) -> RankerState:
    """The state that `leaves_of` was given, of the same program."""
    tree = jax.tree.structure(jax.eval_shape(lambda: fresh_state(program, data, 0)))
    state: RankerState = jax.tree.unflatten(tree, [leaves[name] for name in sorted(leaves)])
    return state


def padded(encoded: Encoded) -> Encoded:
    """The same with rows up to a power of two that are never read: programs are compiled for few sizes."""
    rows = len(encoded.user)
    more = (1 << max(0, rows - 1).bit_length()) - rows

    def longer(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, more), *[(0, 0)] * (array.ndim - 1)])

    users, items, context = encoded.sides
    return Encoded(
        longer(encoded.user), longer(encoded.item), longer(encoded.labels),
        (users, items, jax.tree.map(longer, context)),
    )  # fmt: skip
