r"""An experiment as a job of Google Cloud Batch, on one machine.

    python -m launch.gcp_batch --project=P --region=us-central1 --accelerator=l4 --devices=1 --spot \
        --image=REGION-docker.pkg.dev/P/R/reland-cuda:1 --storage=gs://BUCKET [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/storage/demo

Batch mounts the storage at /storage, and starts the task again on another machine when a spot machine was
taken away (exit code 50001) or the task failed; it continues from its last checkpoint. Secrets are read by
Batch: the job's service account needs the role Secret Manager Secret Accessor. Tasks in containers have no
addresses that the others know, so for several hosts use gcp_gpu_vm or kubernetes.

Fields: the page "projects.locations.jobs" of Batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import accelerators, common
from launch.accelerators import CPU_MACHINE, Gpu
from launch.common import FOLDER, RESTARTS, Job, Storage, secret_version
from launch.plan import Command, File, Plan
from launch.quoting import for_manifest


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_google_flags(values, "region", "us-central1")


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The job's description, and its submission."""
    storage = common.parse_storage(values.storage)
    job = common.job_from_flags(values, experiment, storage.MOUNT)
    path = f"{FOLDER}/{job.name}-batch.json"
    submit = [
        "gcloud", "batch", "jobs", "submit", job.name, f"--location={values.region}",
        f"--project={values.project}", f"--config={path}",
    ]  # fmt: skip
    return [File(path, for_manifest(description(job, values, storage))), Command(tuple(submit))]


def description(job: Job, values: flags.FlagValues, storage: Storage) -> dict[str, Any]:
    """The job as Batch reads it."""
    secrets = {variable: secret_version(values.project, place) for variable, place in job.secrets.items()}
    task = {
        "runnables": [{"container": {"imageUri": values.image, "commands": job.worker_arguments()}}],
        "volumes": [_volume(storage)],
        "environment": {"secretVariables": secrets},
        "maxRetryCount": RESTARTS,
    }
    account = {"serviceAccount": {"email": values.service_account}} if values.service_account else {}
    return {
        "taskGroups": [{"taskCount": 1, "taskSpec": task}],
        "allocationPolicy": {"instances": [_instances(values)], **account},
        "logsPolicy": {"destination": "CLOUD_LOGGING"},
    }


def _volume(storage: Storage) -> dict[str, Any]:
    if storage.kind == "nfs":
        return {"nfs": {"server": storage.host, "remotePath": f"/{storage.path}"}, "mountPath": storage.MOUNT}
    remote = f"{storage.host}/{storage.path}".rstrip("/")
    options = [f"--{option}" for option in storage.FUSE_OPTIONS]
    return {"gcs": {"remotePath": remote}, "mountPath": storage.MOUNT, "mountOptions": options}


def _instances(values: flags.FlagValues) -> dict[str, Any]:
    model = "SPOT" if values.spot else "STANDARD"
    policy: dict[str, Any] = {"provisioningModel": model, "bootDisk": {"sizeGb": 100}}
    found = accelerators.find(values.accelerator, ("cpu", "gpu"), "gcp_tpu_vm")
    if not isinstance(found, Gpu):
        return {"policy": policy | {"machineType": CPU_MACHINE}}
    policy["machineType"] = accelerators.machine_of(found, values.devices)
    policy["accelerators"] = [{"type": found.name, "count": values.devices}]
    return {"installGpuDrivers": True, "policy": policy}


if __name__ == "__main__":
    common.run(define_flags, plan)
