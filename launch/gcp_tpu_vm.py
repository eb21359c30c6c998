r"""An experiment on Cloud TPU VMs, asked for as a queued resource.

    python -m launch.gcp_tpu_vm --project=P --zone=us-west4-a --accelerator=v5e --devices=16 --spot \
        --image=REGION-docker.pkg.dev/P/R/reland-tpu:1 --storage=gs://BUCKET [--dry_run] -- \
        --config=experiments/configs/reland.py:demo,sasrec --workdir=/storage/demo

The request waits in Google's queue; when it is granted, the startup script mounts the storage at /storage
and runs the image on every host. A spot slice that is taken away must be asked for anew: the launcher
stays, looks every minute, and does so; the job continues from its last checkpoint. It may be stopped and
started again at any moment. At the end the slice deletes itself. The service account needs the roles TPU
Admin, Storage Object User, and Secret Manager Secret Accessor for its secrets.

Fields: the pages "Manage queued resources" and "Manage TPU Spot VMs" of Cloud TPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from launch import accelerators, common
from launch.accelerators import Tpu
from launch.common import FOLDER, Job
from launch.plan import Command, File, Plan
from launch.quoting import for_shell
from launch.vm import startup_script

_WATCH = """\
#!/usr/bin/env bash
# Asks for the TPU slice of the job {name}, again whenever it was taken away, until the job is done.
set -uo pipefail

state() {{ {describe}; }}
create() {{ {create}; }}

state >/dev/null 2>&1 || create || exit 1
while sleep 60; do
  if ! now="$(state 2>&1)"; then
    if [[ "$now" == *NOT_FOUND* ]]; then
      echo "{name} has ended; its log in the storage says how"
      exit 0
    fi
    echo "$now"
    continue
  fi
  echo "$(date +%T) {name}: $now"
  case "$now" in
    SUSPENDED) {delete} && create ;;
    FAILED) exit 1 ;;
  esac
done
"""


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    common.define_job_flags(values)
    common.define_google_flags(values, "zone", "us-west4-a")
    values.set_default("accelerator", "v5e")


def plan(values: flags.FlagValues, experiment: Sequence[str]) -> Plan:
    """The startup script, the script that asks for the slice and watches it, and a call of the latter."""
    storage = common.parse_storage(values.storage)
    job = common.job_from_flags(values, experiment, storage.MOUNT)
    tpu = accelerators.find(values.accelerator, ("tpu",), "gcp_gpu_vm or gcp_batch")
    assert isinstance(tpu, Tpu)
    accelerators.topology_of(tpu, values.devices)
    startup, watch = f"{FOLDER}/{job.name}-startup.sh", f"{FOLDER}/{job.name}-watch.sh"
    hosts = tpu.hosts(values.devices)
    several = [f"--env=JAX_NUM_PROCESSES={hosts}", "--env=RELAND_TPU=1"] if hosts > 1 else []
    text = startup_script(
        job, values.image, values.project, storage, ["--privileged", *several], _WORKER_NUMBER,
        [*_delete(job, values), "--async"],
    )  # fmt: skip
    return [
        File(startup, text),
        File(watch, _watch_script(job, values, tpu, startup)),
        Command(("bash", watch)),
    ]


_WORKER_NUMBER = (
    '"$(curl -fsS -H Metadata-Flavor:Google'
    ' http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number)"'
)


def _where(values: flags.FlagValues) -> list[str]:
    return [f"--zone={values.zone}", f"--project={values.project}"]


def _delete(job: Job, values: flags.FlagValues) -> list[str]:
    words = ["gcloud", "compute", "tpus", "queued-resources", "delete", job.name, *_where(values)]
    return [*words, "--force", "--quiet"]


def _watch_script(job: Job, values: flags.FlagValues, tpu: Tpu, startup: str) -> str:
    resource = ["gcloud", "compute", "tpus", "queued-resources"]
    create = [
        *resource, "create", job.name, f"--node-id={job.name}", *_where(values),
        f"--accelerator-type={tpu.accelerator_type(values.devices)}", f"--runtime-version={tpu.runtime}",
        f"--metadata-from-file=startup-script={startup}",
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
        *([f"--service-account={values.service_account}"] if values.service_account else []),
        *(["--spot"] if values.spot else []),
    ]  # fmt: skip
    describe = [*resource, "describe", job.name, *_where(values), "--format=value(state.state)"]
    return _WATCH.format(
        name=job.name, create=for_shell(create), describe=for_shell(describe),
        delete=for_shell(_delete(job, values)),
    )  # fmt: skip


if __name__ == "__main__":
    common.run(define_flags, plan)
