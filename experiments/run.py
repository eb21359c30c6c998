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
from experiments.harness.written import check_own
from reland_jax.config import Config
from reland_jax.files import write_json

if TYPE_CHECKING:
    from reland_jax.pipeline import Pipeline
    from reland_jax.results import Runs
    from reland_jax.storage import Inputs, Trained

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    "experiments/configs/reland.py:demo,sasrec",
    "Settings; :DATASET,BACKBONE follows the file.",
    lock_config=True,
)
_WORKDIR = command_line.required_path("workdir", "Folder of artefacts and results.")
_STAGES = flags.DEFINE_list(
    "stages", [], "Stages to run, made again but for finished trainings; all that are missing if not given."
)
_SEED = flags.DEFINE_integer("seed", None, "Training seed; short for --config.seeds_of_training='(N,)'.")


def main() -> None:
    """Runs the pipeline and prints the comparison of the variants."""
    _log_to_console()
    values = _CONFIG.value.to_dict()
    if _SEED.value is not None:
        values["seeds_of_training"] = (_SEED.value,)
    run(Config.from_dict(values), Path(_WORKDIR.value), _STAGES.value)


def run(config: Config, workdir: Path, stages: Sequence[str] = ()) -> dict[str, object]:
    """Runs the pipeline.

    Args:
        config: all settings.
        workdir: folder of artefacts and results.
        stages: names of `reland_jax.pipeline.STAGES` to run; none means all that are missing.

    Returns:
        The content of results.json; empty if the report stage was not asked for.

    Raises:
        RelandError: bad data, settings or stage names.
    """
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax.mesh import join_processes, use_mesh, use_mesh_alone
    from reland_jax.pipeline import Pipeline, StagesDone
    from reland_jax.results import environment

    check_own(workdir, "results.json", "report.html")
    join_processes(os.environ)
    where = "{devices} x {device} ({backend}), {processors} processors, jax {jax}".format(**environment())
    logging.getLogger("reland_jax").info(where)
    pipeline = Pipeline(config, workdir, stages)
    try:
        with use_mesh_alone(config.mesh):
            inputs = pipeline.prepare()
        with use_mesh(config.mesh):
            runs = _train(pipeline, inputs)
            pipeline.start("report")
            return _report(pipeline, inputs, runs)
    except StagesDone:
        return {}


def _train(pipeline: Pipeline, inputs: Inputs) -> dict[str, dict[int, Trained]]:
    """All variants, seed by seed, so that what a stopped job leaves behind compares all of them."""
    config = pipeline.config
    runs: dict[str, dict[int, Trained]] = {variant: {} for variant in config.variants}
    for seed in config.seeds_of_training:
        for variant in config.variants:
            runs[variant][seed] = pipeline.train(inputs, variant, seed)
    return runs


def _report(pipeline: Pipeline, inputs: Inputs, runs: Runs) -> dict[str, object]:
    """Writes results.json and report.html and prints the comparison."""
    import jax
    import numpy as np

    from reland_jax.eval import best_items
    from reland_jax.records import to_plain
    from reland_jax.report import LIST_LENGTH, cases_to_show, comparison_table, report_content, write_report
    from reland_jax.results import summarise

    config, workdir, splits = pipeline.config, pipeline.workdir, inputs.splits
    results = summarise(config, inputs, runs, pipeline.seconds)
    plain = to_plain(results)
    tested = np.flatnonzero(splits.test.lengths())
    users = cases_to_show(config.report_users, inputs.interactions.ids.users, tested)
    first, masked = config.seeds_of_training[0], config.eval.mask_history
    lists = {}
    for variant, trained in runs.items():
        vectors = pipeline.task(inputs, variant).vectors(trained[first].params, "test")
        lists[variant] = best_items(vectors, splits, users, LIST_LENGTH, masked)
    content = report_content(config, inputs, results, users, lists)
    if jax.process_index() > 0:
        return plain
    write_json(workdir / "results.json", plain, private=True)  # its settings may name users
    write_report(workdir / "report.html", content)
    print(comparison_table(results))
    print(f"\nresults: {workdir / 'results.json'}\nreport:  {workdir / 'report.html'}")
    return plain


def _log_to_console() -> None:
    """Lines of this package on stderr, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("reland_jax")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False


if __name__ == "__main__":
    command_line.run(main)
