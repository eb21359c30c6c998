r"""An experiment under Slurm: writes a batch script and submits it.

    python -m launch.slurm --hosts=2 --devices=4 --partition=gpu --time=24:00:00 [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/shared/me/demo

One process per node, with all of its GPUs. Needs this repository and its environment (--python) on a file
system that all nodes see, and --workdir on one as well. A preempted job, and one whose node fails, is
queued again by Slurm; one that comes to its time limit queues itself again five minutes before. It then
continues from its last checkpoint.

A secret is the path of a file that only you can read (chmod 600); its value is read on the node.
Directives: the manual page sbatch.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.harness.command_line import define_path
from launch import common
from launch.common import FOLDER, PORT, Job
from launch.plan import Command, File, Plan
from launch.quoting import for_directive, for_shell
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
    define_path("python", ".venv/bin/python", "Interpreter, from the repository's root.", values)


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The batch script, and its submission."""
    job = common.job_from_flags(values, experiment)
    workdir = common.workdir_of(experiment) or ""
    if not workdir.startswith("/") or workdir.startswith("/tmp/"):
        raise RelandError(f"--workdir={workdir}: give an absolute path on a file system that all nodes see")
    if values.python.startswith("-") or not values.python:
        raise RelandError(f"--python={values.python}: give the path of an interpreter")
    path = f"{FOLDER}/{job.name}.sbatch"
    return [File(path, batch_script(job, values)), Command(("sbatch", path))]


def batch_script(job: Job, values: flags.FlagValues) -> str:
    """The text of the batch script."""
    words = [values.python, "-m", "launch.worker", *job.worker_arguments(job.secrets)]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *_directives(job, values),
            "set -euo pipefail",
            "",
            f'JAX_COORDINATOR_ADDRESS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):{PORT}"',
            "export JAX_COORDINATOR_ADDRESS",
            "# Before the time limit: back into the queue, to go on from the last checkpoint.",
            """trap 'scontrol requeue "$SLURM_JOB_ID"' USR1""",
            f"srun --kill-on-bad-exit=1 {for_shell(words)} &",
            "wait $!",
            "",
        ]
    )


def _directives(job: Job, values: flags.FlagValues) -> list[str]:
    chosen = {name: values[name].value for name in ("partition", "account") if values[name].value}
    gpus = {"gpus-per-node": values.devices} if values.devices else {}
    given = {
        "job-name": job.name,
        "nodes": values.hosts,
        "ntasks-per-node": 1,
        "cpus-per-task": values.cpus,
        "mem": values.memory,
        **gpus,
        "time": values.time,
        **chosen,
        "open-mode": "append",
        "output": f"{job.name}-%j.log",
        "signal": "B:USR1@300",
        "chdir": common.REPOSITORY,
    }
    return [*(for_directive(name, value) for name, value in given.items()), "#SBATCH --requeue"]


if __name__ == "__main__":
    common.run(define_flags, plan)
