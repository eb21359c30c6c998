r"""An experiment on GPU machines of Compute Engine.

    python -m launch.gcp_gpu_vm --project=P --zone=us-central1-a --accelerator=l4 --devices=2 --spot \
        --image=REGION-docker.pkg.dev/P/R/reland-cuda:1 --storage=gs://BUCKET [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/storage/demo

The machines NAME-0, NAME-1, ... belong to a managed instance group, which makes a spot machine that was
taken away again, under its name; the startup script then mounts the storage at /storage and runs the
image, and the job continues from its last checkpoint. At the end machine 0 deletes the group; the instance
template stays (gcloud compute instance-templates delete NAME). The service account needs the roles Compute
Instance Admin, Storage Object User, and Secret Manager Secret Accessor for its secrets.

Fields: the pages "Create a VM with attached GPUs", "Spot VMs" and "Managed instance groups" of Compute
Engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from launch import accelerators, common
from launch.accelerators import Gpu
from launch.common import FOLDER, PORT, Job
from launch.plan import Command, File, Plan
from launch.vm import startup_script


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_google_flags(values, "zone", "us-central1-a")
    common.define_hosts_flag(values)
    values.set_default("accelerator", "l4")
    flags.DEFINE_string(
        "vm_image", "deeplearning-platform-release/common-cu128-ubuntu-2204-nvidia-570",
        "PROJECT/FAMILY of a system image with NVIDIA's driver, docker and its GPU toolkit.", values,
    )  # fmt: skip


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The startup script, the template, the group, and one machine per host."""
    storage = common.parse_storage(values.storage)
    job = common.job_from_flags(values, experiment, storage.MOUNT)
    gpu = accelerators.find(values.accelerator, ("gpu",), "gcp_tpu_vm for TPUs, gcp_batch for CPUs")
    assert isinstance(gpu, Gpu)
    startup = f"{FOLDER}/{job.name}-startup.sh"
    group = ["gcloud", "compute", "instance-groups", "managed"]
    where = [f"--zone={values.zone}", f"--project={values.project}"]
    text = startup_script(
        job, values.image, values.project, storage, ["--gpus=all", *_several(job, values.hosts)],
        _NUMBER_IN_NAME, [*group, "delete", job.name, *where, "--quiet"], is_numbered=values.hosts > 1,
    )  # fmt: skip
    add = (*group, "create-instance", job.name)
    return [
        File(startup, text),
        Command(tuple(_template(job, values, gpu, startup))),
        Command((*group, "create", job.name, f"--template={job.name}", "--size=0", *where)),
        *(Command((*add, f"--instance={job.name}-{number}", *where)) for number in range(values.hosts)),
    ]


_NUMBER_IN_NAME = '"$(short="${HOSTNAME%%.*}"; echo "${short##*-}")"'


def _several(job: Job, hosts: int) -> list[str]:
    """Options of docker run; the machines find each other by name in the project's internal DNS."""
    if hosts == 1:
        return []
    address = f"JAX_COORDINATOR_ADDRESS={job.name}-0:{PORT}"
    return [f"--env=JAX_NUM_PROCESSES={hosts}", f"--env={address}"]


def _template(job: Job, values: flags.FlagValues, gpu: Gpu, startup: str) -> list[str]:
    machine = accelerators.machine_of(gpu, values.devices)
    system_project, _, family = values.vm_image.partition("/")
    return [
        "gcloud", "compute", "instance-templates", "create", job.name, f"--project={values.project}",
        f"--machine-type={machine}",
        *([f"--accelerator=type={gpu.name},count={values.devices}"] if gpu.attached else []),
        "--maintenance-policy=TERMINATE",
        *(["--provisioning-model=SPOT"] if values.spot else []),
        f"--image-project={system_project}", f"--image-family={family}", "--boot-disk-size=200GB",
        f"--metadata-from-file=startup-script={startup}", "--scopes=cloud-platform",
        *([f"--service-account={values.service_account}"] if values.service_account else []),
    ]  # fmt: skip


if __name__ == "__main__":
    common.run(define_flags, plan)
