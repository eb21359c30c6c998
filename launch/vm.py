"""The startup script of rented virtual machines: mounts the storage and runs the container.

It runs at every start of the machine, so a machine that was taken away and comes back continues from the
last checkpoint. A failed container is started again twice; then the machines are given back, like after
success, so that nothing is left that costs money. The log of every machine is left in the storage.
"""

from __future__ import annotations

from collections.abc import Sequence

from launch.common import Job, Storage, secret_version
from launch.quoting import for_shell

_SCRIPT = """\
#!/usr/bin/env bash
# Startup script of the job {name}.
set -uo pipefail
exec > >(tee -a /var/log/reland.log) 2>&1
export HOME=/root  # startup scripts have none, and docker keeps its access to registries there

index={index}
mkdir -p {mount}
{mounting}
{login}
# Without the storage nothing would survive, so nothing is run.
for try in 1 2 3; do
  mountpoint -q {mount} || break
  docker rm -f {name} 2>/dev/null
  {run} && break
  echo "try $try of {name} failed"
  sleep 10
done
cp /var/log/reland.log "{mount}/{name}-$index.log"
if [[ "$index" == 0 ]]; then
  {finish}
fi
"""

_BUCKET = """\
if ! command -v gcsfuse >/dev/null; then
  curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg -o /usr/share/keyrings/gcsfuse.asc
  echo "deb [signed-by=/usr/share/keyrings/gcsfuse.asc] https://packages.cloud.google.com/apt \\
gcsfuse-$(lsb_release -cs) main" >/etc/apt/sources.list.d/gcsfuse.list
  apt-get update -qq && apt-get install -qqy gcsfuse
fi
mountpoint -q {mount} || gcsfuse {options} {bucket} {mount}"""

_SHARE = """\
command -v mount.nfs >/dev/null || {{ apt-get update -qq && apt-get install -qqy nfs-common; }}
mountpoint -q {mount} || mount -t nfs {share} {mount}"""


def startup_script(
    job: Job,
    image: str,
    project: str,
    storage: Storage,
    docker: Sequence[str],
    index: str,
    finish: Sequence[str],
    *,
    is_numbered: bool = False,
) -> str:
    """The text of the script.

    Args:
        job: what is run.
        image: the container's image.
        project: the project that keeps the secrets.
        storage: what is mounted at `Storage.MOUNT`, on the machine and in the container.
        docker: further options of docker run.
        index: a shell expression for the index of this machine.
        finish: the command of machine 0 that gives all machines back.
        is_numbered: whether the container is told the index, as JAX_PROCESS_ID.
    """
    secrets = {variable: secret_version(project, place) for variable, place in job.secrets.items()}
    docker_run = [
        "docker", "run", "--rm", f"--name={job.name}", "--net=host",
        f"--volume={Storage.MOUNT}:{Storage.MOUNT}", *docker,
    ]  # fmt: skip
    numbered = ['--env=JAX_PROCESS_ID="$index"'] if is_numbered else []
    host = image.partition("/")[0]
    login = [for_shell(["docker", "pull", image])]
    if host.endswith(("-docker.pkg.dev", "gcr.io")):
        login.insert(0, for_shell(["gcloud", "auth", "configure-docker", host, "--quiet"]))
    return _SCRIPT.format(
        name=job.name,
        index=index,
        mount=Storage.MOUNT,
        mounting=_mounting(storage),
        login="\n".join(login),
        run=" ".join([for_shell(docker_run), *numbered, for_shell([image, *job.worker_arguments(secrets)])]),
        finish=for_shell(finish),
    )


def _mounting(storage: Storage) -> str:
    if storage.kind == "nfs":
        share = for_shell([f"{storage.host}:/{storage.path}"])
        return _SHARE.format(mount=Storage.MOUNT, share=share)
    options = [*(f"--{option}" for option in storage.FUSE_OPTIONS), "-o", "allow_other"]
    if storage.path:
        options.append(f"--only-dir={storage.path}")
    return _BUCKET.format(mount=Storage.MOUNT, options=for_shell(options), bucket=for_shell([storage.host]))
