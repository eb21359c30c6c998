r"""Networks of rankers beside each other on one log, each tuned with the same budget.

    python -m experiments.ranker_ladder --config=experiments/configs/ranker.py:DATASET,NETWORK \
        --workdir=DIR [--networks=logistic,dnn,...] [--config.seeds_of_training="(0,1,2,3,4)"] \
        [--settings_of=EARLIER/ladder.json]

Every network is trained once with each of `ranking.search.TRIALS`, with the first training seed. The trial of
the smallest validation logloss is chosen, and trained with all seeds; the test rows are looked at after that.
Writes DIR/ladder.json and DIR/ladder.md. The NETWORK after the colon is not read. With ``--settings_of``
there are no trials: each network has the settings that an earlier ladder has chosen. Given again after a stop
it goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.harness import command_line
from experiments.harness.logs import log_to_console
from experiments.harness.written import check_own
from experiments.ranking.search import Chosen, folder_name, trials_table, tuned, with_settings
from reland_jax.fields import nearest_name
from reland_jax.files import read_json, write_json, write_text
from reland_jax.ranker_settings import NETWORKS, RankerJob
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from experiments.ranking.arms import ArmRun, Prepared
    from experiments.ranking.judged import RankerResults

_ARM, _BASELINE = "id", "dnn"
_WRITTEN = ("ladder.json", "ladder.md")


def run(
    job: RankerJob,
    networks: Sequence[str],
    workdir: Path,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Chosen], RankerResults]:
    """Tunes, trains and judges the networks, and writes the results.

    Args:
        job: all settings but the network and those of the trials.
        networks: names.
        workdir: folder of artefacts and results.
        settings: network -> settings in the place of trials.

    Raises:
        RelandError: bad data or settings.
    """
    from experiments.ranking.arms import encoded_log
    from experiments.ranking.logs import check_classes, read_log
    from reland_jax.device import PROGRAMS, keep_programs
    from reland_jax.records import to_plain

    check_own(workdir, *_WRITTEN)
    for name in networks:
        if name not in NETWORKS or (settings is not None and name not in settings):
            raise RelandError(f"--networks: {name!r}: {nearest_name(name, list(settings or NETWORKS))}")
    if job.keep_programs:
        keep_programs(workdir / PROGRAMS)
    log = read_log(job.log)
    check_classes(log, job.ranker)
    prepared = encoded_log(log, job.log, workdir=workdir)
    train = partial(_trained, prepared, job, workdir)
    first = partial(train, seed=job.seeds_of_training[0])
    chosen = {
        name: tuned(name, partial(first, name)) if settings is None else Chosen(settings[name])
        for name in networks
    }
    runs: dict[str, dict[int, ArmRun]] = {name: {} for name in networks}
    for seed in job.seeds_of_training:
        for name in networks:
            runs[name][seed] = train(name, chosen[name].settings, seed)
    results = _judged(prepared, job, runs)
    plain = {name: each._asdict() for name, each in chosen.items()}
    write_json(workdir / "ladder.json", {"chosen": plain, "results": to_plain(results)})
    write_text(workdir / "ladder.md", markdown(chosen, results))
    return chosen, results


def _trained(
    prepared: Prepared, job: RankerJob, workdir: Path, network: str, settings: Mapping[str, Any], seed: int
) -> ArmRun:
    from experiments.ranking.arms import train_arm

    own = with_settings(job, {"network": network, **settings})
    return train_arm(prepared, own, _ARM, seed, workdir / f"{network}-{folder_name(settings)}")


def _judged(prepared: Prepared, job: RankerJob, runs: dict[str, dict[int, ArmRun]]) -> RankerResults:
    """The results in the form of a comparison of arms, with networks in their place."""
    from experiments.ranking import judged
    from reland_jax.results import environment

    judge = judged.judge_of(prepared.log, job.ranker)
    pairs = [(name, _BASELINE) for name in runs if name != _BASELINE and _BASELINE in runs]
    config = dataclasses.asdict(job)
    config["ranker"]["network"] = "networks beside each other"
    return judged.RankerResults(
        job.log.name, judged.about(prepared.log), judged.about_levels(judge),
        {name: judged.arm_results(judge, of_seeds) for name, of_seeds in runs.items()},
        judged.truth_of(judge), judged.differences(judge, job, runs, pairs), [], "nobody",
        config, environment(),
    )  # fmt: skip


def markdown(chosen: Mapping[str, Chosen], results: RankerResults) -> str:
    """The tables."""
    from experiments.ranking import view
    from reland_jax.report.tables import to_markdown

    return f"{view.markdown(results)}\n{to_markdown(trials_table('network', chosen))}\n"


def define_flags() -> None:
    """Registers the flags."""
    default = "experiments/configs/ranker.py:shop,dnn"
    command_line.define_job(default, ":DATASET,NETWORK follows the file, NETWORK is not read.")
    flags.DEFINE_list("networks", list(NETWORKS), "Networks to compare.")
    flags.DEFINE_string("settings_of", None, "ladder.json whose chosen settings are taken, without trials.")


def main() -> None:
    """Runs the command and prints the tables."""
    log_to_console()
    given = flags.FLAGS
    workdir, settings = Path(given.workdir), None
    if given.settings_of:
        settings = {
            name: each["settings"] for name, each in read_json(Path(given.settings_of))["chosen"].items()
        }
    chosen, results = run(RankerJob.from_dict(given.config.to_dict()), given.networks, workdir, settings)
    print(markdown(chosen, results))


if __name__ == "__main__":
    command_line.run(main, define_flags)
