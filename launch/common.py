"""Common parts of all launchers: flags, their checks, and the main program.

A launcher is a function from flags to a plan (`launch.plan`). With ``--dry_run`` the plan is printed as a
bash script that would do the same, and nothing else happens.

The flags of the experiment stand behind ``--`` and are handed on as a list of words, unchanged. Every
launcher starts them through `launch.worker`, which adds the environment for several processes and the
values of secrets on the machine where the job runs.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from absl import flags

from experiments.harness.command_line import run_with_operands
from launch.plan import Plan, execute, script
from reland_jax.config import nearest_name
from reland_jax.files import expanded
from reland_jax.types import RelandError

flags.disclaim_key_flags()

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = "workdir-launch"
"""Where manifests and scripts are written, below the current folder; git ignores it."""

PORT = 8476
"""Port of process 0 that the others connect to."""

RESTARTS = 10
"""How often a platform starts a failed job again, where it lets us say; 10 is the most that Batch takes."""

IMAGE = re.compile(r"\w[\w.-]*(:\d+)?(/\w[\w.-]*)*(:\w[\w.-]*)?(@\w+:[0-9a-fA-F]+)?", re.ASCII)
"""The name of a container image: [HOST[:PORT]/]PATH[:TAG][@DIGEST]."""

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")


@dataclass(frozen=True)
class Job:
    """The job to run, independent of the platform.

    Attributes:
        name: lower case letters, digits and hyphens; names everything that is created.
        module: the Python module, such as experiments.run.
        experiment: its flags, word by word.
        secrets: environment variable -> where the platform keeps its value.
    """

    name: str
    module: str
    experiment: tuple[str, ...]
    secrets: Mapping[str, str]

    def worker_arguments(self, secrets: Mapping[str, str] | None = None) -> list[str]:
        """The words after ``python -m launch.worker``; `secrets` are those that it must look up itself."""
        looked_up = [f"--secret={name}={place}" for name, place in (secrets or {}).items()]
        return [f"--module={self.module}", *looked_up, "--", *self.experiment]


def define_job_flags(values: flags.FlagValues) -> None:
    """Flags of every launcher."""
    flags.DEFINE_bool("dry_run", False, "Print what would be written and run, do nothing.", values)
    flags.DEFINE_string("name", "reland", "Name of the job: lower case letters, digits, hyphens.", values)
    flags.DEFINE_string("module", "experiments.run", "The experiment: a module of experiments/.", values)


def define_secret_flag(values: flags.FlagValues, place: str) -> None:
    """The flag --secret; `place` describes the part after the equals sign on this platform."""
    flags.DEFINE_multi_string(
        "secret", [], f"VARIABLE={place}, never the value itself; can be repeated.", flag_values=values
    )


def define_google_flags(values: flags.FlagValues, place: str, default: str) -> None:
    """Flags of the launchers for Google Cloud; `place` is "zone" or "region"."""
    flags.DEFINE_string("project", None, "Google Cloud project.", values, required=True)
    flags.DEFINE_string(place, default, f"Google Cloud {place}.", values)
    flags.DEFINE_string("service_account", None, "E-mail address of the job's service account.", values)
    define_image_flags(values)
    define_secret_flag(values, "NAME of a secret in Secret Manager, or NAME/VERSION")


def define_image_flags(values: flags.FlagValues) -> None:
    """Flags of the launchers that run a container on rented machines."""
    flags.DEFINE_string(
        "image", None, "Container image, built from launch/docker and pushed.", values, required=True
    )
    flags.DEFINE_string(
        "storage", None, "Keeps --workdir: gs://BUCKET[/FOLDER] or nfs://HOST/SHARE.", values, required=True
    )
    flags.DEFINE_string("accelerator", "cpu", "See launch/accelerators.py.", values)
    flags.DEFINE_integer("devices", 1, "GPUs of each host, or chips of the TPU slice.", 1, flag_values=values)
    flags.DEFINE_bool("spot", False, "Cheaper machines that may be taken away at any moment.", values)


def define_hosts_flag(values: flags.FlagValues) -> None:
    """The flag --hosts, for launchers whose machines are not counted by --devices alone."""
    flags.DEFINE_integer("hosts", 1, "Machines with one process each.", 1, flag_values=values)


def job_from_flags(values: flags.FlagValues, experiment: Sequence[str], mount: str | None = None) -> Job:
    """The job, checked.

    Args:
        values: parsed flags of the launcher.
        experiment: the words behind ``--``.
        mount: folder of the storage that survives the machine; --workdir must lie below it. None means
            that the launcher's own disk is meant.

    Raises:
        RelandError: a bad name, module or secret, a --workdir that would be lost, or the value of a
            secret among the experiment's flags.
    """
    if not NAME.fullmatch(values.name):
        raise RelandError(
            f"--name={values.name}: up to 40 lower case letters, digits and hyphens, beginning with a letter"
        )
    check_module(values.module)
    check_workdir(experiment, mount)
    if "image" in values:
        check_image(values.image)
    secrets = parse_secrets(values.secret) if "secret" in values else {}
    check_no_secrets([*experiment, *secrets.values()])
    return Job(values.name, values.module, tuple(experiment), secrets)


def check_module(module: str) -> None:
    """Raises `RelandError` unless the module is a command: a file at the top of experiments/."""
    known = sorted(f"experiments.{path.stem}" for path in (REPOSITORY / "experiments").glob("*.py"))
    if module in known:
        return
    if (REPOSITORY / f"{module.replace('.', '/')}.py").is_file() and module.startswith("experiments."):
        raise RelandError(f"--module={module}: no command but a part of others; known are {', '.join(known)}")
    raise RelandError(f"--module={module}: {nearest_name(module, known)}")


def workdir_of(experiment: Sequence[str]) -> str | None:
    """The last --workdir among the experiment's flags, with ``~`` replaced; None if there is none."""
    given = [word.partition("=")[2] for word in experiment if re.match(r"--?workdir=", word)]
    return expanded(given[-1]) if given else None


def check_workdir(experiment: Sequence[str], mount: str | None) -> None:
    """Raises `RelandError` if the experiment has no --workdir, or one that is lost with the machine."""
    workdir = workdir_of(experiment)
    below = f", a folder below {mount}, which survives the machine" if mount else ""
    if not workdir:
        raise RelandError(
            f"the experiment's flags need --workdir=DIR{below}; they stand behind --, as in"
            " ... -- --config=experiments/configs/reland.py:demo,sasrec --workdir=DIR"
        )
    if mount and not os.path.normpath(workdir).startswith(mount.rstrip("/") + "/"):
        raise RelandError(
            f"--workdir={workdir} would be lost with the machine, and with it the checkpoints: give a"
            f" folder below {mount}, such as --workdir={mount.rstrip('/')}/workdir"
        )


def parse_secrets(given: Sequence[str]) -> dict[str, str]:
    """Environment variable -> place of its value, from ``VARIABLE=PLACE``.

    Raises:
        RelandError: a bad name, or something that looks like the value; the value is not repeated.
    """
    secrets = {}
    for entry in given:
        variable, _, place = entry.partition("=")
        if not VARIABLE.fullmatch(variable) or not place:
            raise RelandError("--secret: expected VARIABLE=PLACE, such as OPENAI_API_KEY=openai-key")
        if place.startswith("sk-") or place == os.environ.get(variable):
            raise RelandError(
                f"--secret={variable}=...: this looks like the value itself. Store it with the platform"
                " (docs/launch.md says how) and give the name it has there"
            )
        secrets[variable] = place
    return secrets


def check_image(image: str) -> None:
    """Raises `RelandError` unless this can be the name of a container image."""
    if not IMAGE.fullmatch(image):
        raise RelandError(
            f"--image={image!r} is not a name of a container image, such as"
            " us-docker.pkg.dev/PROJECT/REPOSITORY/reland-cuda:1"
        )


def check_no_secrets(words: Sequence[str]) -> None:
    """Raises `RelandError` if the value of a secret of this shell is among the words."""
    for variable, value in os.environ.items():
        if SECRET_VARIABLE.search(variable) and len(value) >= 8 and any(value in word for word in words):
            raise RelandError(
                f"the value of {variable} is among the flags, where logs would show it; use --secret instead"
            )


def secret_version(project: str, place: str) -> str:
    """The full name of a version in Secret Manager, from NAME or NAME/VERSION.

    Raises:
        RelandError: not such a name.
    """
    name, _, version = place.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name) or not re.fullmatch(r"\d*|latest", version):
        raise RelandError("--secret: expected VARIABLE=NAME or VARIABLE=NAME/VERSION of Secret Manager")
    return f"projects/{project}/secrets/{name}/versions/{version or 'latest'}"


@dataclass(frozen=True)
class Storage:
    """Storage that survives the machine.

    Attributes:
        kind: "gs" (a bucket), "nfs" (a share) or "pvc" (a volume claim of Kubernetes).
        host: the bucket, the server or the claim.
        path: the folder of the bucket or the share, without slashes around it; may be empty.
    """

    kind: str
    host: str
    path: str

    MOUNT = "/storage"
    FUSE_OPTIONS = ("implicit-dirs", "rename-dir-limit=100000")
    """Of Cloud Storage FUSE. Artefacts are folders that are renamed when complete, which a bucket
    without hierarchical namespace does only up to the limit, and not at once."""


def parse_storage(url: str, kinds: Sequence[str] = ("gs", "nfs")) -> Storage:
    """Reads --storage.

    Raises:
        RelandError: another kind of storage, or one without a name.
    """
    found = re.fullmatch(r"(\w+)://(\w[\w.-]*)(?:/([\w./-]*))?", url, re.ASCII)
    if not found or found[1] not in kinds:
        examples = {"gs": "gs://BUCKET[/FOLDER]", "nfs": "nfs://HOST/SHARE", "pvc": "pvc://CLAIM"}
        raise RelandError(f"--storage={url}: expected {' or '.join(examples[kind] for kind in kinds)}")
    return Storage(found[1], found[2], (found[3] or "").strip("/"))


Planner = Callable[[flags.FlagValues, Sequence[str]], Plan]


def run(define_flags: Callable[[flags.FlagValues], None], plan: Planner) -> None:
    """The main program of a launcher: parses the flags, then prints or carries out the plan."""
    define_flags(flags.FLAGS)
    signal.signal(signal.SIGTERM, _end)
    run_with_operands(
        lambda words: carry_out(plan, flags.FLAGS, words), hint="Flags of the experiment stand behind --"
    )


def _end(number: int, frame: object) -> NoReturn:
    """As an exception, so that what this launcher has started is stopped as well."""
    sys.exit(128 + number)


def carry_out(plan: Planner, values: flags.FlagValues, experiment: Sequence[str]) -> None:
    """Prints the plan under --dry_run, else carries it out.

    Raises:
        RelandError: flags that do not fit, or a command that cannot be run or fails.
    """
    steps = plan(values, experiment)
    if values.dry_run:
        print(script(steps), end="")
    else:
        execute(steps)
