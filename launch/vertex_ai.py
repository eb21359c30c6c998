r"""An experiment as a custom job of Vertex AI.

    python -m launch.vertex_ai --project=P --region=us-central1 --accelerator=a100-40gb --hosts=2 \
        --image=REGION-docker.pkg.dev/P/R/reland-cuda:1 --storage=gs://BUCKET [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/gcs/BUCKET/demo

Vertex AI mounts buckets at /gcs/BUCKET. Create the bucket with hierarchical namespace: finished artefacts
are renamed folders, and the mount's options cannot be chosen here. When a machine is taken away or fails,
all are started again, and the job continues from its last checkpoint. Process 0 is the first worker pool;
`launch.worker` reads the others from CLUSTER_SPEC. Vertex AI puts no secrets into the environment, so the
worker looks them up: the service account needs the role Secret Manager Secret Accessor.

Fields: the pages "CustomJobSpec", "Distributed training" and "Use Spot VMs with training" of Vertex AI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import accelerators, common
from launch.accelerators import CPU_MACHINE, Gpu, Tpu
from launch.common import FOLDER, Job, secret_version
from launch.plan import Command, File, Plan
from launch.quoting import for_manifest
from reland_jax.types import RelandError


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_google_flags(values, "region", "us-central1")
    common.define_hosts_flag(values)


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The specification of the job, and its submission."""
    storage = common.parse_storage(values.storage, ("gs",))
    job = common.job_from_flags(values, experiment, f"/gcs/{storage.host}")
    path = f"{FOLDER}/{job.name}-vertex.json"
    create = [
        "gcloud", "ai", "custom-jobs", "create", f"--display-name={job.name}", f"--region={values.region}",
        f"--project={values.project}", f"--config={path}",
    ]  # fmt: skip
    return [File(path, for_manifest(job_spec(job, values))), Command(tuple(create))]


def job_spec(job: Job, values: flags.FlagValues) -> dict[str, Any]:
    """The CustomJobSpec; the first worker pool always has one replica."""
    secrets = {variable: secret_version(values.project, place) for variable, place in job.secrets.items()}
    pool = {
        "machineSpec": _machine(values),
        "replicaCount": 1,
        "containerSpec": {"imageUri": values.image, "args": job.worker_arguments(secrets)},
    }
    pools = [pool] if values.hosts == 1 else [pool, pool | {"replicaCount": values.hosts - 1}]
    scheduling = {"restartJobOnWorkerRestart": True, "strategy": "SPOT" if values.spot else "STANDARD"}
    account = {"serviceAccount": values.service_account} if values.service_account else {}
    return {"workerPoolSpecs": pools, "scheduling": scheduling, **account}


def _machine(values: flags.FlagValues) -> dict[str, Any]:
    found = accelerators.find(values.accelerator, ("cpu", "gpu", "tpu"))
    if isinstance(found, Gpu):
        return {
            "machineType": accelerators.machine_of(found, values.devices),
            "acceleratorType": found.vertex,
            "acceleratorCount": values.devices,
        }
    if isinstance(found, Tpu):
        topology = accelerators.topology_of(found, values.devices)
        if values.hosts > 1 or found.hosts(values.devices) > 1:
            raise RelandError("TPUs of several hosts: use gcp_tpu_vm or kubernetes")
        return {"machineType": f"{found.machine}-{values.devices}t", "tpuTopology": topology}
    return {"machineType": CPU_MACHINE}


if __name__ == "__main__":
    common.run(define_flags, plan)
