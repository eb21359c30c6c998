r"""Rows per second and memory of rankers of several scenarios, without meta layers and with each form.

    python -m experiments.bench_scenarios --config=experiments/configs/scenarios.py:shop --json=FILE \
        [--config.backbones="('star',)"] [--forms=none,low_rank,full] [--steps=64] [--repeats=5]

Every backbone is trained for some steps of the training rows of the log, with random vectors in the place of
knowledge. Each measurement is a process of its own, one after the other, so that peak memory is its own; let
nothing else run meanwhile. A step's memory is that of its compiled program: what it is given, what it gives,
and what lies between. Its growth by the meta layers stands beside what `meta_bytes` predicts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

# Nothing here imports jax before a measurement does, in its own process (see `experiments.growth`).
from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.scaling.measuring import measured_apart, peak_bytes
from reland_jax.files import write_json
from reland_jax.scenario_settings import BACKBONES, FULL, LOW_RANK, ScenarioJob
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from reland_jax.rankers import Program

NONE = "none"
FORMS = (NONE, LOW_RANK, FULL)
_WIDE = 32
"""Numbers of a vector of knowledge."""


def measure(job: ScenarioJob, backbone: str, form: str, steps: int, repeats: int) -> dict[str, Any]:
    """One backbone with one form of meta layers.

    Args:
        job: log, sizes and training.
        backbone: its name.
        form: one of `FORMS`.
        steps: of a repetition.
        repeats: repetitions; the median counts.

    Returns:
        "rows_per_second", "step_bytes", "predicted_bytes" of the meta layers, "peak_bytes" of the process,
        "parameters" beside the table, and "numbers" of all fields of a row.

    Raises:
        RelandError: the log has fewer training rows than the steps need.
    """
    from experiments.ranking.arms import encoded_log
    from experiments.ranking.logs import read_log
    from experiments.scenario_grid.cells import BACKBONE, Cell, memory_of, program_of
    from reland_jax.events import Batches
    from reland_jax.rankers import RankerData, Texts, parameter_counts, step_bytes, train_ranker

    train = dataclasses.replace(job.train, max_epochs=repeats, validations=1)
    plan = dataclasses.replace(job.scenarios, meta_form=LOW_RANK if form == NONE else form)
    job = dataclasses.replace(job, train=train, scenarios=plan)
    prepared = encoded_log(read_log(job.log), job.log)
    cell = Cell(backbone, BACKBONE if form == NONE else "knowledge")
    program, size = program_of(prepared, job, cell), job.train.batch_size
    rows = prepared.log.parts.train[: steps * size]
    if len(rows) < steps * size:
        raise RelandError(
            f"--steps={steps}: {steps * size:,} rows are needed, and training has {len(rows):,}"
        )
    texts = _random_texts(prepared.log.events.num_users, program, form)
    data, alone = RankerData(prepared.encoded, texts), program_of(prepared, job, Cell(backbone, BACKBONE))
    between = step_bytes(alone, RankerData(prepared.encoded, Texts()), size, ("temp",))
    found = train_ranker(program, data, Batches(rows, size, 0), 0, label=cell.name)
    return {
        "rows_per_second": found.rows_per_second, "step_bytes": step_bytes(program, data, size),
        "predicted_bytes": memory_of(prepared, job, cell, texts, between), "peak_bytes": peak_bytes(),
        "parameters": parameter_counts(found.params)["dense"],
        "numbers": len(prepared.schema.features) * job.ranker.width,
    }  # fmt: skip


def _random_texts(users: int, program: Program, form: str) -> Any:
    import numpy as np

    from reland_jax.rankers import ScenarioRanker, Texts

    if form == NONE:
        return Texts()
    assert isinstance(program.ranker, ScenarioRanker)
    rng = np.random.default_rng(0)
    of_users, of_scenarios = (
        rng.normal(size=(rows, _WIDE)).astype(np.float32) for rows in (users, program.ranker.scenarios)
    )
    return Texts(rationales=of_users, seed=np.arange(users, dtype=np.int32), scenarios=of_scenarios)


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per backbone and form; `found` is by "BACKBONE,FORM"."""
    header = (
        "backbone", "meta layers", "parameters", "rows/s", "peak of the process, MB", "step, MB",
        "more than without, MB", "predicted, MB",
    )  # fmt: skip
    rows = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, each in found.items():
        backbone, form = name.split(",")
        plain = found.get(f"{backbone},{NONE}")
        more = f"{(each['step_bytes'] - plain['step_bytes']) / 1e6:.1f}" if plain and form != NONE else ""
        rows.append(
            f"| {backbone} | {form} | {each['parameters']:,} | {each['rows_per_second']:,.0f} | "
            f"{each['peak_bytes'] / 1e6:,.0f} | {each['step_bytes'] / 1e6:.1f} | {more} | "
            f"{each['predicted_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(rows)


def run(backbones: Sequence[str], forms: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Measures every backbone with every form, each in a process of its own.

    Args:
        backbones: names.
        forms: of `FORMS`.
        values: flags of the measurement, by name.

    Returns:
        "BACKBONE,FORM" -> see `measure`.

    Raises:
        RelandError: an unknown name, or a process failed.
    """
    for name, known in [*((name, BACKBONES) for name in backbones), *((name, FORMS) for name in forms)]:
        if name not in known:
            raise RelandError(f"{name!r} is not measured here; known are {', '.join(known)}")
    found = {}
    for backbone in backbones:
        for form in forms:
            only = f"{backbone},{form}"
            found[only] = measured_apart("experiments.bench_scenarios", {**values, "only": only})
            print(f"{only}: {found[only]}", flush=True)
    return found


def define_flags() -> None:
    """Registers the flags."""
    from ml_collections import config_flags

    default = "experiments/configs/scenarios.py:shop"
    config_flags.DEFINE_config_file(
        "config", default, "Settings; :DATASET follows the file.", lock_config=True
    )
    define_path("json", None, "JSON file of the results")
    flags.DEFINE_list("forms", list(FORMS), "Forms of meta layers; none is the backbone alone.")
    flags.DEFINE_integer("steps", 64, "Steps of a repetition.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Repetitions; the median counts.", lower_bound=1)
    flags.DEFINE_string("only", None, "BACKBONE,FORM: measured in this process, for the one that started it.")


def main() -> None:
    """Measures, or starts the processes that do, and prints the table."""
    given = flags.FLAGS
    job = ScenarioJob.from_dict(given.config.to_dict())
    if given.only:
        backbone, form = given.only.split(",")
        print(json.dumps(measure(job, backbone, form, given.steps, given.repeats)))
        return
    load = [os.getloadavg()[0]]
    asked = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
    found = run(job.backbones, given.forms, asked)
    print(table(found))
    if given.json:
        about = {"config": dataclasses.asdict(job), "asked": asked, "load": [*load, os.getloadavg()[0]]}
        write_json(Path(given.json), {"found": found, **about})


if __name__ == "__main__":
    command_line.run(main, define_flags)
