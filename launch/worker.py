r"""Starts one process of an experiment on the machine where it runs.

    python -m launch.worker [--module=experiments.run] [--secret=VARIABLE=PLACE ...] -- FLAGS...

The entry point of the images in launch/docker, and what the other launchers run. It does two things and
then becomes the experiment:

*Several processes.* Exports what `jax.distributed.initialize` needs, from what the platform gives:

- ``JAX_NUM_PROCESSES``: number of processes of the job. Not set, or 1: a single process, and
  `jax.distributed` is not needed;
- ``JAX_COORDINATOR_ADDRESS``: host:port of process 0;
- ``JAX_PROCESS_ID``: index of this process, 0 to number - 1.

JAX itself reads the second only; a training program passes all three, and
``cluster_detection_method="deactivate"``: else JAX, where it finds Slurm, gives each process one GPU of its
node only. On TPUs with several hosts only the first is set, because JAX finds the others, and the order of
the hosts, by itself.

*Secrets.* Looks up the values of secrets and puts them into the environment of the experiment. PLACE is
the path of a file that holds the value, or ``projects/P/secrets/NAME/versions/V`` of Secret Manager, read
as the machine's service account. Values are never printed.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.harness.command_line import run_with_operands
from launch.common import PORT, parse_secrets
from reland_jax.files import resolve
from reland_jax.types import RelandError

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
SECRET_MANAGER = "https://secretmanager.googleapis.com/v1/"


def define_flags(values: flags.FlagValues) -> None:
    """Registers the flags."""
    flags.DEFINE_string("module", "experiments.run", "The experiment.", values)
    flags.DEFINE_multi_string("secret", [], "VARIABLE=PLACE; can be repeated.", flag_values=values)


def main(words: Sequence[str]) -> None:
    """Becomes the experiment.

    Raises:
        RelandError: the module is not a command, it cannot be told which process this is, or a secret cannot
            be read.
    """
    _check_module(flags.FLAGS.module)
    variables = process_variables(os.environ)
    secrets = read_secrets(flags.FLAGS.secret)
    number = variables.get("JAX_NUM_PROCESSES", "1")
    found = "found by JAX" if variables else "none needed"
    index, address = (variables.get(name, found) for name in ("JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"))
    names = ", ".join(secrets) or "none"
    print(f"[worker] processes: {number}, this one: {index}, coordinator: {address}", flush=True)
    print(f"[worker] secrets: {names}", flush=True)
    command = [sys.executable, "-m", flags.FLAGS.module, *words]
    os.execve(sys.executable, command, {**os.environ, **variables, **secrets})


def _check_module(module: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin:
        raise RelandError(f"--module={module}: there is no such module here; such as experiments.run")
    if "__main__" not in Path(found.origin).read_text(encoding="utf-8"):
        raise RelandError(f"--module={module}: no command but a part of others; such as experiments.run")


def process_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The three variables for `jax.distributed`, from what the platform gives; none for one process.

    Knows Slurm, Vertex AI (CLUSTER_SPEC), Indexed Jobs of Kubernetes, and hosts of TPUs, where the
    launcher sets RELAND_TPU.

    Raises:
        RelandError: several processes, and it cannot be told which one this is.
    """
    if "CLUSTER_SPEC" in environment:
        return _of_vertex(json.loads(environment["CLUSTER_SPEC"]))
    number = environment.get("JAX_NUM_PROCESSES") or environment.get("SLURM_NTASKS") or "1"
    if number == "1":
        return {}
    if "RELAND_TPU" in environment:
        return {"JAX_NUM_PROCESSES": number}
    names = ("JAX_PROCESS_ID", "SLURM_PROCID", "JOB_COMPLETION_INDEX")
    index = next((environment[name] for name in names if name in environment), None)
    address = environment.get("JAX_COORDINATOR_ADDRESS")
    if index is None or address is None:
        lacking = "JAX_COORDINATOR_ADDRESS" if index else " or ".join(names)
        raise RelandError(f"{number} processes, but {lacking} is not set: use a launcher of launch/")
    return {"JAX_NUM_PROCESSES": number, "JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_ID": index}


def _of_vertex(spec: Mapping[str, Any]) -> dict[str, str]:
    """Replicas in the order of the worker pools; the first is process 0."""
    pools = sorted(spec["cluster"].items())
    replicas = [(pool, index) for pool, hosts in pools for index in range(len(hosts))]
    if len(replicas) == 1:
        return {}
    this = (spec["task"]["type"], int(spec["task"]["index"]))
    first = pools[0][1][0].partition(":")[0]
    return {
        "JAX_NUM_PROCESSES": str(len(replicas)),
        "JAX_COORDINATOR_ADDRESS": f"{first}:{PORT}",
        "JAX_PROCESS_ID": str(replicas.index(this)),
    }


def read_secrets(given: Sequence[str], fetch: Callable[[str], str] | None = None) -> dict[str, str]:
    """Values of secrets by variable.

    Args:
        given: ``VARIABLE=PLACE``.
        fetch: reads a version of Secret Manager; for tests.

    Raises:
        RelandError: a secret cannot be read; its value is in no message.
    """
    read = fetch or fetch_secret
    return {
        variable: (read(place) if place.startswith("projects/") else _read_file(variable, place))
        for variable, place in parse_secrets(given).items()
    }


def _read_file(variable: str, path: str) -> str:
    try:
        return resolve(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise RelandError(f"--secret={variable}={path}: {error.strerror or error}") from None


def fetch_secret(version: str) -> str:
    """Reads a version of a secret as the machine's service account.

    Raises:
        RelandError: not on Google Cloud, or no permission.
    """
    try:
        token = _get(METADATA, {"Metadata-Flavor": "Google"})["access_token"]
        payload = _get(f"{SECRET_MANAGER}{version}:access", {"Authorization": f"Bearer {token}"})["payload"]
    except urllib.error.HTTPError as error:
        raise RelandError(
            f"{version}: {error.reason}. The service account needs the role Secret Manager Secret Accessor"
        ) from None
    except OSError as error:
        raise RelandError(f"{version}: {error}. Only a machine of Google Cloud can read it") from None
    return base64.b64decode(payload["data"]).decode("utf-8")


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    run_with_operands(main)
