r"""Rankers of several scenarios: backbones, and meta layers of what is known of scenarios and users.

    python -m experiments.scenarios --config=experiments/configs/scenarios.py:DATASET --workdir=DIR \
        [--config.controls="('all',)"] [--config.seeds_of_training="(0,1,2)"] [--config.section.key=value ...]

Trains every backbone, alone and with each control's meta layers, with every seed, and writes
DIR/scenarios.json, DIR/scenarios.md and DIR/scenarios.html: AUC and logloss per scenario, for users of
several scenarios and in all, paired differences with intervals, parameters, rows per second, calls and
tokens. Of several values of `config.rates` and `config.meta_rates` validation with the first seed chooses
one for each model. The files are written after every training seed; given again after a stop the grid
goes on.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.harness import command_line
from experiments.harness.logs import log_to_console
from experiments.harness.written import check_own
from reland_jax.files import write_json, write_text
from reland_jax.scenario_settings import ScenarioJob

if TYPE_CHECKING:
    from experiments.ranking.arms import ArmRun, Prepared
    from experiments.scenario_grid.cells import Cell
    from experiments.scenario_grid.judged import Draws, Judge, ScenarioResults
    from experiments.scenario_grid.known import Known
    from experiments.scenario_grid.search import Found

_WRITTEN = ("scenarios.json", "scenarios.md", "scenarios.html")
_log = logging.getLogger("reland_jax.scenarios")


def run(job: ScenarioJob, workdir: Path) -> ScenarioResults:
    """Trains the cells and judges them.

    Args:
        job: all settings.
        workdir: folder of artefacts and results.

    Raises:
        RelandError: bad data or settings.
    """
    from experiments.ranking.arms import encoded_log
    from experiments.ranking.logs import read_log
    from experiments.scenario_grid.cells import cells_of, memory_of, needs_knowledge, train_cell
    from experiments.scenario_grid.judged import Draws
    from experiments.scenario_grid.known import NOTHING, make_known
    from experiments.scenario_grid.search import searched
    from reland_jax.device import PROGRAMS, keep_programs

    check_own(workdir, *_WRITTEN)
    cells = cells_of(job)
    if job.keep_programs:
        keep_programs(workdir / PROGRAMS)
    prepared = encoded_log(read_log(job.log), job.log)
    known = make_known(prepared, job, workdir) if needs_knowledge(cells) else NOTHING
    memory = {cell: memory_of(prepared, job, cell, known.texts) for cell in cells}
    for cell, size in memory.items():
        if size:
            _log.info("%s: %.1f MB of meta layers in a step", cell.name, size / 1e6)
    found = {cell: searched(prepared, known, job, cell, workdir) for cell in cells}
    runs: dict[Cell, dict[int, ArmRun]] = {cell: {} for cell in cells}
    drawn = Draws(_judge(job, prepared, known), job.draws)
    results: ScenarioResults | None = None
    for seed in job.seeds_of_training:
        for cell, by in found.items():
            runs[cell][seed] = train_cell(prepared, known, by.job, cell, seed, by.workdir)
        results = _judged(job, prepared, known, runs, memory, found, drawn)
        _write(results, workdir)
    assert results is not None  # there is a seed
    return results


def _judge(job: ScenarioJob, prepared: Prepared, known: Known) -> Judge:
    from experiments.scenario_grid.judged import judge_of

    rows = None if known.texts.seed is None else np.asarray(known.texts.seed)
    return judge_of(prepared.log, job.ranker.labels[0], rows)


def _judged(
    job: ScenarioJob,
    prepared: Prepared,
    known: Known,
    runs: Mapping[Cell, dict[int, ArmRun]],
    memory: Mapping[Cell, int],
    found: Mapping[Cell, Found],
    drawn: Draws,
) -> ScenarioResults:
    from experiments.ranking.judged import about
    from experiments.scenario_grid import judged
    from reland_jax.results import environment

    judge = drawn.judge
    told = {name: value for name, value in known._asdict().items() if name != "texts"}
    cells = [judged.cell_results(judge, each, runs[each], memory[each], found[each]) for each in runs]
    return judged.ScenarioResults(
        job.log.name, about(prepared.log), cells, judged.truth_of(prepared.log, judge),
        judged.differences(drawn, runs, job.baseline), told, dataclasses.asdict(job), environment(),
    )  # fmt: skip


def _write(results: ScenarioResults, workdir: Path) -> None:
    from experiments.scenario_grid.view import markdown, page
    from reland_jax.records import to_plain

    write_json(workdir / "scenarios.json", to_plain(results))
    write_text(workdir / "scenarios.md", markdown(results))
    write_text(workdir / "scenarios.html", page(results))


def define_flags() -> None:
    """Registers the flags."""
    command_line.define_job("experiments/configs/scenarios.py:shop", ":DATASET follows the file.")


def main() -> None:
    """Runs the command and prints the tables."""
    from absl import flags

    from experiments.scenario_grid.view import markdown

    log_to_console()
    given = flags.FLAGS
    workdir = Path(given.workdir)
    print(markdown(run(ScenarioJob.from_dict(given.config.to_dict()), workdir)))
    print(f"\nresults: {workdir / 'scenarios.json'}\nreport:  {workdir / 'scenarios.html'}")


if __name__ == "__main__":
    command_line.run(main, define_flags)
