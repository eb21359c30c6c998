r"""An experiment under Slurm: writes a batch script and submits it.

    python -m launch.slurm --hosts=2 --devices=4 --partition=gpu --time=24:00:00 [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/shared/me/demo

One process per node, with all of its GPUs. Needs this repository and its environment (--python) on a file
system that all nodes see, and --workdir on one as well. A preempted job, and one whose node fails, is
queued again by Slurm; one that comes to its time limit queues itself again five minutes before. It then
goes on from its last checkpoint.

A secret is the path of a file that only you can read (chmod 600); its value is read on the node.
Directives: the manual page sbatch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from absl import flags

from launch import common
from launch.common import FOLDER, PORT, Job
from launch.plan import Command, File, Plan
from reland_jax.types import RelandError


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_secret_flag(values, "PATH of a file with the value")
    common.define_hosts_flag(values)
    flags.DEFINE_integer("devices", 0, "GPUs of each node.", 0, flag_values=values)
    flags.DEFINE_integer("cpus", 8, "CPU cores of each node.", 1, flag_values=values)
    flags.DEFINE_string("memory", "32G", "Memory of each node.", values)
    flags.DEFINE_string("time", "24:00:00", "Time limit, as Slurm writes it.", values)
    flags.DEFINE_string("partition", None, "Partition; the cluster's default if not given.", values)
    flags.DEFINE_string("account", None, "Account; yours if not given.", values)
    flags.DEFINE_string("python", ".venv/bin/python", "Interpreter, from the repository's root.", values)


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The batch script, and its submission."""
    job = common.job_from_flags(values, experiment)
    workdir = next(word.partition("=")[2] for word in reversed(experiment) if "workdir=" in word)
    if not workdir.startswith("/") or workdir.startswith("/tmp/"):
        raise RelandError(f"--workdir={workdir}: give an absolute path on a file system that all nodes see")
    path = f"{FOLDER}/{job.name}.sbatch"
    return [File(path, batch_script(job, values)), Command(("sbatch", path))]


def batch_script(job: Job, values: flags.FlagValues) -> str:
    """The text of the batch script."""
    words = [values.python, "-m", "launch.worker", *job.worker_arguments(job.secrets)]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {directive}" for directive in _directives(job, values)),
            "set -euo pipefail",
            "",
            f'JAX_COORDINATOR_ADDRESS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):{PORT}"',
            "export JAX_COORDINATOR_ADDRESS",
            "# Before the time limit: back into the queue, to go on from the last checkpoint.",
            """trap 'scontrol requeue "$SLURM_JOB_ID"' USR1""",
            f"srun --kill-on-bad-exit=1 {shlex.join(words)} &",
            "wait $!",
            "",
        ]
    )


def _directives(job: Job, values: flags.FlagValues) -> list[str]:
    chosen = [f"--{name}={values[name].value}" for name in ("partition", "account") if values[name].value]
    gpus = [f"--gpus-per-node={values.devices}"] if values.devices else []
    return [
        f"--job-name={job.name}",
        f"--nodes={values.hosts}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={values.cpus}",
        f"--mem={values.memory}",
        *gpus,
        f"--time={values.time}",
        *chosen,
        "--requeue",
        "--open-mode=append",
        f"--output={job.name}-%j.log",
        "--signal=B:USR1@300",
        f"--chdir={common.REPOSITORY}",
    ]


if __name__ == "__main__":
    common.run(define_flags, plan)
