r"""The main job: ReLand on one data set with one backbone, from raw interactions to a measured gain.

    python -m experiments.run --config=experiments/configs/reland.py:DATASET,BACKBONE --workdir=DIR \
        [--config.section.key=value ...] [--stages=assign,train] [--seed=N]

Writes DIR/results.json, DIR/report.html, TensorBoard events in DIR/tensorboard, and the artefact of
every stage; run again, it does only what is missing or no longer up to date.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from experiments.harness import command_line
from experiments.harness.about import about
from experiments.harness.logs import log_to_console
from experiments.harness.programs import keep_programs_of
from experiments.harness.remaining import Remaining
from experiments.harness.written import check_own
from reland_jax.config import Config
from reland_jax.files import write_json

if TYPE_CHECKING:
    from reland_jax.flow import Made
    from reland_jax.results import Runs
    from reland_jax.storage import Trained

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    command_line.config_file("demo,sasrec"),
    "Settings: DATASET,BACKBONE, or a file with these after a colon.",
    lock_config=True,
)
_WORKDIR = command_line.required_path("workdir", "Folder of artefacts and results.")
_STAGES = flags.DEFINE_list(
    "stages", [], "Stages to run, made again but for finished trainings; all that are missing if not given."
)
_SEED = flags.DEFINE_integer("seed", None, "Training seed; short for --config.seeds_of_training='(N,)'.")


def main() -> None:
    """Runs the pipeline and prints the comparison of the variants."""
    log_to_console()
    values = _CONFIG.value.to_dict()
    if _SEED.value is not None:
        values["seeds_of_training"] = (_SEED.value,)
    run(Config.from_dict(values), Path(_WORKDIR.value), _STAGES.value)


def run(config: Config, workdir: Path, stages: Sequence[str] = ()) -> dict[str, object]:
    """Runs the pipeline.

    Args:
        config: all settings.
        workdir: folder of artefacts and results.
        stages: names of `reland_jax.stages.FLOW` to run; none means all that are missing.

    Returns:
        The content of results.json; empty if the report stage was not asked for.

    Raises:
        RelandError: bad data, settings or stage names.
    """
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax import flow
    from reland_jax.mesh import join_processes, use_mesh, use_mesh_alone
    from reland_jax.results import environment
    from reland_jax.stages import FLOW

    check_own(workdir, "results.json", "report.html")
    join_processes(os.environ)
    keep_programs_of([config], workdir)
    where = "{devices} x {device} ({backend}), {processors} processors, jax {jax}".format(**environment())
    logging.getLogger("reland_jax").info(where)
    with use_mesh_alone(config.mesh):
        made = flow.run(FLOW, config, workdir, asked=stages)
    if not FLOW.reaches(stages, "train"):
        return {}
    with use_mesh(config.mesh):
        runs = _train(made)
        return _report(made, runs) if FLOW.reaches(stages, "report") else {}


def _train(made: Made) -> dict[str, dict[int, Trained]]:
    """All variants, seed by seed, so that what a stopped job leaves behind compares all of them."""
    from reland_jax.stages import training

    config = made.config
    runs: dict[str, dict[int, Trained]] = {variant: {} for variant in config.variants}
    remaining = Remaining(config)
    for seed in config.seeds_of_training:
        for variant in config.variants:
            runs[variant][seed] = made.make(training(made, variant, seed, on_epoch=remaining.epoch))
            remaining.trained()
    return runs


def _report(made: Made, runs: Runs) -> dict[str, object]:
    """Writes results.json and report.html and prints the comparison."""
    import jax

    from reland_jax.records import to_plain
    from reland_jax.report import console_report, report_content, write_report
    from reland_jax.results import summarise
    from reland_jax.stages import inputs_of, lists_to_show, users_to_show

    config, workdir, inputs = made.config, made.workdir, inputs_of(made)
    results = summarise(config, inputs, runs, made.seconds, about(workdir))
    plain = to_plain(results)
    users, seed = users_to_show(made), config.seeds_of_training[0]
    lists = {name: lists_to_show(made, trained[seed], name, seed, users) for name, trained in runs.items()}
    content = report_content(config, inputs, results, users, lists)
    if jax.process_index() > 0:
        return plain
    write_json(workdir / "results.json", plain, private=True)  # its settings may name users
    write_report(workdir / "report.html", content)
    print(console_report(results))
    print(f"\nresults: {workdir / 'results.json'}\nreport:  {workdir / 'report.html'}")
    return plain


if __name__ == "__main__":
    command_line.run(main)
