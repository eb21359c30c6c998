r"""An experiment on Kubernetes: a Job on one host, a JobSet on several.

    python -m launch.kubernetes --accelerator=v5e --devices=16 --spot --image=IMAGE --storage=gs://BUCKET \
        [--dry_run] -- --config=experiments/configs/reland.py:demo,sasrec --workdir=/storage/demo

The labels of nodes are those of Google Kubernetes Engine; buckets need its Cloud Storage FUSE driver and a
Kubernetes service account that may read and write the bucket (--service_account). On any other cluster use
--storage=nfs://HOST/SHARE or pvc://CLAIM; the storage is mounted at /storage.

A pod that is evicted or preempted does not count as a failure of a Job. In a JobSet all pods start again
when one is lost. Both then go on from the last checkpoint. JobSet must be installed on the cluster.

A secret is SECRET/KEY of a Secret in the same namespace.

Fields: the pages "Job" of Kubernetes, "JobSet" (v1alpha2), and "Mount Cloud Storage buckets as CSI
ephemeral volumes" and "Deploy TPU workloads" of GKE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from launch import accelerators, common
from launch.accelerators import Gpu, Tpu
from launch.common import FOLDER, PORT, RESTARTS, Job, Storage
from launch.plan import Command, File, Plan
from launch.quoting import for_manifest
from reland_jax.types import RelandError

GROUP = "worker"
"""The name of the replicated job in the JobSet."""


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_image_flags(values)
    common.define_hosts_flag(values)
    common.define_secret_flag(values, "SECRET/KEY")
    flags.DEFINE_string("namespace", "default", "Namespace.", values)
    flags.DEFINE_string("service_account", None, "Kubernetes service account of the pods.", values)
    flags.DEFINE_string("cpu", "8", "CPU cores that a pod asks for.", values)
    flags.DEFINE_string("memory", "32Gi", "Memory that a pod asks for.", values)


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The manifest, and its application."""
    storage = common.parse_storage(values.storage, ("gs", "nfs", "pvc"))
    job = common.job_from_flags(values, experiment, storage.MOUNT)
    hosts = _hosts(values)
    make = manifest_of_job if hosts == 1 else manifest_of_jobset
    path = f"{FOLDER}/{job.name}-kubernetes.json"
    return [
        File(path, for_manifest(make(job, values, storage, hosts))),
        Command(("kubectl", "apply", f"--filename={path}")),
    ]


def _hosts(values: flags.FlagValues) -> int:
    found = accelerators.find(values.accelerator, ("cpu", "gpu", "tpu"))
    if not isinstance(found, Tpu):
        return values.hosts
    if values.hosts > 1:
        raise RelandError("--hosts: the hosts of a TPU slice follow from --devices")
    return found.hosts(values.devices)


def manifest_of_job(job: Job, values: flags.FlagValues, storage: Storage, hosts: int) -> dict[str, Any]:
    """A Job with one pod."""
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    spec = {
        "backoffLimit": RESTARTS,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": disrupted}]},
        "template": _pod(job, values, storage, {}),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(job, values), "spec": spec}


def manifest_of_jobset(job: Job, values: flags.FlagValues, storage: Storage, hosts: int) -> dict[str, Any]:
    """A JobSet with one Indexed Job of as many pods as hosts."""
    variables = {"JAX_NUM_PROCESSES": str(hosts)}
    if isinstance(accelerators.find(values.accelerator, ("cpu", "gpu", "tpu")), Tpu):
        variables["RELAND_TPU"] = "1"
    else:
        variables["JAX_COORDINATOR_ADDRESS"] = f"{job.name}-{GROUP}-0-0.{job.name}:{PORT}"
    indexed = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        # The whole set starts again when a pod fails.
        "backoffLimit": 0,
        "template": _pod(job, values, storage, variables),
    }
    spec = {
        "failurePolicy": {"maxRestarts": RESTARTS},
        "network": {"enableDNSHostnames": True, "subdomain": job.name},
        "replicatedJobs": [{"name": GROUP, "replicas": 1, "template": {"spec": indexed}}],
    }
    kind = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet"}
    return {**kind, "metadata": _metadata(job, values), "spec": spec}


def _metadata(job: Job, values: flags.FlagValues) -> dict[str, str]:
    return {"name": job.name, "namespace": values.namespace}


def _pod(job: Job, values: flags.FlagValues, storage: Storage, variables: dict[str, str]) -> dict[str, Any]:
    selector, resources = _resources(values)
    container = {
        "name": "experiment",
        "image": values.image,
        # Kubernetes replaces $(NAME) in arguments; a doubled dollar stands for one.
        "args": [word.replace("$", "$$") for word in job.worker_arguments()],
        "env": [*({"name": name, "value": value} for name, value in variables.items()), *_secrets(job)],
        "ports": [{"containerPort": PORT}],
        "resources": resources,
        "volumeMounts": [{"name": "storage", "mountPath": storage.MOUNT}],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "storage", **_volume(storage)}],
        "nodeSelector": selector,
    }
    if values.spot:
        taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        spec["tolerations"] = [taint | {"effect": "NoSchedule"}]
    if values.service_account:
        spec["serviceAccountName"] = values.service_account
    fuse = {"annotations": {"gke-gcsfuse/volumes": "true"}} if storage.kind == "gs" else {}
    return {"metadata": fuse, "spec": spec}


def _secrets(job: Job) -> list[dict[str, Any]]:
    references = []
    for variable, place in job.secrets.items():
        secret, _, key = place.partition("/")
        if not key:
            raise RelandError(f"--secret={variable}=...: expected {variable}=SECRET/KEY of a Secret")
        references.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return references


def _resources(values: flags.FlagValues) -> tuple[dict[str, str], dict[str, Any]]:
    """The node selector and the resources of one pod."""
    found = accelerators.find(values.accelerator, ("cpu", "gpu", "tpu"))
    selector = {"cloud.google.com/gke-spot": "true"} if values.spot else {}
    resources: dict[str, Any] = {"requests": {"cpu": values.cpu, "memory": values.memory}}
    if isinstance(found, Gpu):
        selector["cloud.google.com/gke-accelerator"] = found.name
        resources["limits"] = {"nvidia.com/gpu": values.devices}
    if isinstance(found, Tpu):
        selector["cloud.google.com/gke-tpu-accelerator"] = found.gke
        selector["cloud.google.com/gke-tpu-topology"] = accelerators.topology_of(found, values.devices)
        resources["limits"] = {"google.com/tpu": values.devices // found.hosts(values.devices)}
    return selector, resources


def _volume(storage: Storage) -> dict[str, Any]:
    if storage.kind == "pvc":
        return {"persistentVolumeClaim": {"claimName": storage.host}}
    if storage.kind == "nfs":
        return {"nfs": {"server": storage.host, "path": f"/{storage.path}"}}
    options = [*storage.FUSE_OPTIONS, *([f"only-dir={storage.path}"] if storage.path else [])]
    attributes = {"bucketName": storage.host, "mountOptions": ",".join(options)}
    return {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}


if __name__ == "__main__":
    common.run(define_flags, plan)
