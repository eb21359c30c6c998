r"""Several processes of an experiment on this machine.

    python -m launch.local --processes=2 [--gpus_per_process=1 | --cpu_devices=4] [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=DIR

Every process gets the variables of `launch.worker`. When one fails, all are stopped (SIGTERM, and SIGKILL
ten seconds later) and, with --restarts, started again: the experiment continues from its last checkpoint, so
DIR needs nothing but a disk. They are stopped with the launcher, too. Secrets are inherited from this shell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from launch import common
from launch.common import PORT, Job
from launch.plan import Command, Plan, Together


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    flags.DEFINE_integer("processes", 1, "Number of processes.", 1, flag_values=values)
    flags.DEFINE_integer(
        "gpus_per_process", None, "GPUs of each process; if not given, all see all.", 1, flag_values=values
    )
    flags.DEFINE_integer("cpu_devices", None, "Virtual CPU devices of each process.", 1, flag_values=values)
    flags.DEFINE_integer("port", PORT, "Port of process 0.", 1, 65535, flag_values=values)
    flags.DEFINE_integer(
        "restarts", 0, "How many times all are started again after a failure.", 0, flag_values=values
    )


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """One command per process, all at once."""
    job = common.job_from_flags(values, experiment)
    processes = [_process(job, values, index) for index in range(values.processes)]
    return [Together(tuple(processes), values.restarts)]


def _process(job: Job, values: flags.FlagValues, index: int) -> Command:
    variables = {}
    if values.processes > 1:
        variables["JAX_NUM_PROCESSES"] = str(values.processes)
        variables["JAX_COORDINATOR_ADDRESS"] = f"localhost:{values.port}"
        variables["JAX_PROCESS_ID"] = str(index)
    if values.gpus_per_process:
        first = index * values.gpus_per_process
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(first + n) for n in range(values.gpus_per_process))
    if values.cpu_devices:
        variables["JAX_PLATFORMS"] = "cpu"
        variables["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={values.cpu_devices}"
    return Command((sys.executable, "-m", "launch.worker", *job.worker_arguments()), variables)


if __name__ == "__main__":
    common.run(define_flags, plan)
