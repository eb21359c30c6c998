r"""Rankers of impressions: what texts are worth as features of a click and conversion model.

    python -m experiments.ranker --config=experiments/configs/ranker.py:DATASET,NETWORK[,TASK] --workdir=DIR \
        [--config.arms="('all',)"] [--config.seeds_of_training="(0,1,2)"] [--config.section.key=value ...]

Trains every arm (id, f_item, reland, seed_id, permuted, noise, own) with every seed, and writes
DIR/ranker.json, DIR/ranker.md and DIR/ranker.html: metrics of clicks and conversions, per scenario and per
activity level, and paired differences with intervals. With ``--config.search=True`` arms have the same trials
of dropout and penalty (`ranking.search.TRIALS`), and the best by validation is trained with all seeds; arms
that stand beside reland have what was chosen for it. Given again after a stop it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.harness import command_line
from experiments.harness.logs import log_to_console
from experiments.harness.written import check_own
from experiments.ranking.search import Chosen, folder_name, tuned, with_settings
from reland_jax.files import write_json, write_text
from reland_jax.ranker_settings import RankerJob

if TYPE_CHECKING:
    from experiments.ranking.arms import ArmRun, Prepared
    from experiments.ranking.judged import RankerResults

_RELAND = "reland"
_WRITTEN = ("ranker.json", "ranker.md", "ranker.html")


def run(job: RankerJob, workdir: Path) -> RankerResults:
    """Trains the arms and judges them.

    Args:
        job: all settings.
        workdir: folder of artefacts and results.

    Raises:
        RelandError: bad data or settings.
    """
    from experiments.ranking.arms import arms_to_train, prepare
    from experiments.ranking.view import markdown, page
    from reland_jax.device import PROGRAMS, keep_programs
    from reland_jax.records import to_plain

    check_own(workdir, *_WRITTEN)
    if job.keep_programs:
        keep_programs(workdir / PROGRAMS)
    prepared = prepare(job, workdir)
    names = arms_to_train(job, prepared.texts)
    train = partial(_trained, prepared, job, workdir)
    chosen = _searched(names, partial(train, seed=job.seeds_of_training[0])) if job.search else {}
    runs: dict[str, dict[int, ArmRun]] = {name: {} for name in names}
    # Seed by seed, so that what a stopped job leaves behind compares all arms.
    for seed in job.seeds_of_training:
        for name in names:
            runs[name][seed] = train(name, chosen[name].settings if chosen else {}, seed)
    results = _judged(job, prepared, runs, chosen)
    write_json(workdir / "ranker.json", to_plain(results))
    write_text(workdir / "ranker.md", markdown(results))
    write_text(workdir / "ranker.html", page(results))
    return results


def _searched(names: Sequence[str], train: Callable[[str, Mapping[str, float]], ArmRun]) -> dict[str, Chosen]:
    """The settings of every arm; those that stand beside `reland` have what is chosen for it."""
    from reland_jax.rankers import find_arm

    found: dict[str, Chosen] = {}
    for name in sorted(names, key=lambda name: name != _RELAND):
        arm = find_arm(name)
        beside = _RELAND in found and (arm.reads_rationales or arm.reads_seed_ids)
        found[name] = Chosen(found[_RELAND].settings) if beside else tuned(name, partial(train, name))
    return {name: found[name] for name in names}


def _trained(
    prepared: Prepared, job: RankerJob, workdir: Path, name: str, settings: Mapping[str, Any], seed: int
) -> ArmRun:
    """A training of an arm, of a trial in a folder of its own."""
    from experiments.ranking.arms import train_arm

    own = workdir / "trials" / folder_name(settings) if settings else workdir
    return train_arm(prepared, with_settings(job, settings), name, seed, own)


def _judged(
    job: RankerJob, prepared: Prepared, runs: dict[str, dict[int, ArmRun]], chosen: Mapping[str, Chosen]
) -> RankerResults:
    import dataclasses

    from experiments.ranking.judged import (
        RankerResults,
        about,
        about_levels,
        arm_results,
        differences,
        differences_by_level,
        judge_of,
        truth_of,
    )
    from experiments.ranking.planted import told
    from reland_jax.results import environment

    judge = judge_of(prepared.log, job.ranker)
    return RankerResults(
        job.log.name, [*about(prepared.log), *told(prepared, runs)], about_levels(judge),
        {name: arm_results(judge, of_seeds) for name, of_seeds in runs.items()},
        truth_of(judge), differences(judge, job, runs), differences_by_level(judge, job, runs),
        prepared.texts.writer,
        dataclasses.asdict(job), environment(), chosen,
    )  # fmt: skip


def define_flags() -> None:
    """Registers the flags."""
    command_line.define_job(
        "experiments/configs/ranker.py:shop,masknet_parallel", ":DATASET,NETWORK[,TASK] follows the file."
    )


def main() -> None:
    """Runs the command and prints the tables."""
    from absl import flags

    from experiments.ranking.view import markdown

    log_to_console()
    given = flags.FLAGS
    workdir = Path(given.workdir)
    print(markdown(run(RankerJob.from_dict(given.config.to_dict()), workdir)))
    print(f"\nresults: {workdir / 'ranker.json'}\nreport:  {workdir / 'ranker.html'}")


if __name__ == "__main__":
    command_line.run(main, define_flags)
