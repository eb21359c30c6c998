"""The plans of the launchers: what reaches the experiment, comes back after a preemption, stays secret.

Nothing is started here: the plans are looked at, and printed as --dry_run does.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from absl import flags

from launch import common, gcp_batch, gcp_gpu_vm, gcp_tpu_vm, kubernetes, local, slurm, vertex_ai, worker
from launch.plan import Command, File, Plan, Together, script
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHERS = (local, slurm, gcp_tpu_vm, gcp_gpu_vm, vertex_ai, gcp_batch, kubernetes)
GOOGLE = (gcp_tpu_vm, gcp_gpu_vm, vertex_ai, gcp_batch)
IMAGE = "us-docker.pkg.dev/p/r/reland:1"

NEEDED: dict[ModuleType, list[str]] = {
    local: [],
    slurm: [],
    kubernetes: [f"--image={IMAGE}", "--storage=gs://bucket/folder"],
    **{each: ["--project=p", f"--image={IMAGE}", "--storage=gs://bucket/folder"] for each in GOOGLE},
}
WORKDIR = {each: "/storage/run" for each in LAUNCHERS} | {vertex_ai: "/gcs/bucket/run", slurm: "/shared/run"}

AWKWARD = (
    "--config=experiments/configs/reland.py:demo,sasrec",
    "--config.variants=('id','reland')",
    '--config.data.name=a folder/it\'s "mine"',
    "--config.text.note=$HOME `date` $(date) $$ \\ ! * ; & | > #",
    "--config.pool.path=ümlaut.jsonl",
    "--set=",
    "-v",
)
"""Words that a shell, Kubernetes or a format string would change."""


def make_plan(launcher: ModuleType, *own: str, experiment: Sequence[str] | None = None) -> Plan:
    """The plan of a launcher, with flags of a fresh registry."""
    values = flags.FlagValues()
    launcher.define_flags(values)
    words = [f"--workdir={WORKDIR[launcher]}"] if experiment is None else experiment
    rest = values(["launcher", *NEEDED[launcher], *own, "--", *words])[1:]
    assert list(rest) == list(words)
    return launcher.plan(values, rest)


def files_of(plan: Plan) -> dict[str, str]:
    """Texts of the files of a plan by the end of their names."""
    return {step.path.partition("reland")[2]: step.text for step in plan if isinstance(step, File)}


def json_of(plan: Plan) -> dict[str, Any]:
    """The one manifest of a plan."""
    (text,) = files_of(plan).values()
    return json.loads(text)


def commands_of(plan: Plan) -> list[Command]:
    """The commands of a plan, in order."""
    return [step for step in plan if isinstance(step, Command)]


def task_of(plan: Plan) -> dict[str, Any]:
    """The task of a job of Batch."""
    return json_of(plan)["taskGroups"][0]["taskSpec"]


def container_of(plan: Plan) -> dict[str, Any]:
    """The container of a Job or a JobSet."""
    spec = json_of(plan)["spec"]
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return spec["template"]["spec"]["containers"][0]


def undouble(words: Sequence[str]) -> list[str]:
    """What Kubernetes makes of arguments; a single dollar before a bracket would be a variable."""
    assert not any(re.search(r"(?<!\$)(\$\$)*\$\(", word) for word in words)
    return [word.replace("$$", "$") for word in words]


def line_with(text: str, part: str) -> list[str]:
    """The words that bash makes of the line with `part`."""
    (line,) = (line for line in text.splitlines() if part in line and not line.startswith("#"))
    return shlex.split(line)


WORKER_WORDS: dict[ModuleType, Callable[[Plan], list[str]]] = {
    local: lambda plan: list(plan[0].commands[0].words),
    slurm: lambda plan: line_with(files_of(plan)[".sbatch"], "srun")[:-1],
    gcp_tpu_vm: lambda plan: line_with(files_of(plan)["-startup.sh"], "docker run")[:-2],
    gcp_gpu_vm: lambda plan: line_with(files_of(plan)["-startup.sh"], "docker run")[:-2],
    vertex_ai: lambda plan: json_of(plan)["workerPoolSpecs"][0]["containerSpec"]["args"],
    gcp_batch: lambda plan: task_of(plan)["runnables"][0]["container"]["commands"],
    kubernetes: lambda plan: undouble(container_of(plan)["args"]),
}
"""How to read, from a plan, the words that start the worker on its machine."""


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_flags_of_the_experiment_arrive_unchanged(launcher: ModuleType) -> None:
    experiment = [*AWKWARD, f"--workdir={WORKDIR[launcher]}/a b"]
    words = WORKER_WORDS[launcher](make_plan(launcher, experiment=experiment))
    behind = words[words.index("--") + 1 :]
    assert behind == experiment
    values = flags.FlagValues()
    worker.define_flags(values)
    assert values(["worker", *words[words.index("--") :]])[1:] == experiment


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_dry_run_prints_a_script_and_does_nothing(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a command was started"))
    values = flags.FlagValues()
    launcher.define_flags(values)
    experiment = [*AWKWARD, f"--workdir={WORKDIR[launcher]}"]
    rest = values(["launcher", "--dry_run", *NEEDED[launcher], "--", *experiment])[1:]
    common.carry_out(launcher.plan, values, rest)
    printed = capsys.readouterr().out
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run(["bash", "-n"], input=printed, text=True, capture_output=True).stderr == ""
    for command in commands_of(make_plan(launcher, experiment=experiment)):
        assert f"\n{command}\n" in printed


def test_what_a_dry_run_prints_writes_the_same_files(tmp_path: Path) -> None:
    plan = [step for step in make_plan(gcp_tpu_vm, experiment=[*AWKWARD, "--workdir=/storage/run"])]
    files = [step for step in plan if isinstance(step, File)]
    subprocess.run(["bash", "-c", script(files)], cwd=tmp_path, check=True)
    for file in files:
        assert (tmp_path / file.path).read_text() == file.text


@pytest.mark.parametrize("launcher", [slurm, gcp_tpu_vm, gcp_gpu_vm])
@pytest.mark.parametrize("storage", ["gs://bucket/folder", "nfs://host/share"])
def test_scripts_are_clean(launcher: ModuleType, storage: str, tmp_path: Path) -> None:
    own = [] if launcher is slurm else [f"--storage={storage}"]
    for text in files_of(make_plan(launcher, *own)).values():
        path = tmp_path / "script.sh"
        path.write_text(text)
        subprocess.run(["bash", "-n", str(path)], check=True)
        if shutil.which("shellcheck"):
            done = subprocess.run(["shellcheck", "--shell=bash", str(path)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_local_processes_know_each_other() -> None:
    (step,) = make_plan(local, "--processes=3", "--gpus_per_process=2", "--restarts=5")
    assert isinstance(step, Together) and step.restarts == 5
    assert [each.variables["JAX_PROCESS_ID"] for each in step.commands] == ["0", "1", "2"]
    assert [each.variables["CUDA_VISIBLE_DEVICES"] for each in step.commands] == ["0,1", "2,3", "4,5"]
    assert {each.variables["JAX_COORDINATOR_ADDRESS"] for each in step.commands} == {"localhost:8476"}
    assert {each.variables["JAX_NUM_PROCESSES"] for each in step.commands} == {"3"}


def test_one_local_process_needs_no_variables() -> None:
    (step,) = make_plan(local)
    assert step.commands[0].variables == {}
    (step,) = make_plan(local, "--cpu_devices=8")
    expected = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    assert step.commands[0].variables == expected


def test_slurm_has_one_task_per_node_and_comes_back() -> None:
    plan = make_plan(slurm, "--hosts=4", "--devices=8", "--partition=gpu", "--time=01:00:00")
    text = files_of(plan)[".sbatch"]
    directives = set(re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE))
    assert {"--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--partition=gpu"} < directives
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@300", "--time=01:00:00"} < directives
    assert """trap 'scontrol requeue "$SLURM_JOB_ID"' USR1""" in text
    assert "--account" not in text
    assert commands_of(plan) == [Command(("sbatch", "workdir-launch/reland.sbatch"))]


def write_tools(folder: Path, tools: dict[str, str]) -> None:
    """Stand-ins for programs."""
    for name, body in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)


def test_a_slurm_script_puts_itself_back_before_the_time_limit(tmp_path: Path) -> None:
    srun = 'echo "srun $JAX_COORDINATOR_ADDRESS" >>log; kill -USR1 $PPID; exec sleep 2'
    write_tools(tmp_path, {"scontrol": 'echo "scontrol $*" >>log; echo node1', "srun": srun})
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    environment["SLURM_JOB_NODELIST"] = "node[1-2]"
    text = files_of(make_plan(slurm, "--hosts=2"))[".sbatch"]
    subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environment, timeout=20)
    expected = ["scontrol show hostnames node[1-2]", "srun node1:8476", "scontrol requeue 17"]
    assert (tmp_path / "log").read_text().splitlines() == expected


@pytest.mark.parametrize(
    ("accelerator", "chips", "kind", "runtime", "hosts"),
    [
        ("v5e", 8, "v5litepod-8", "v2-alpha-tpuv5-lite", 1),
        ("v5e", 16, "v5litepod-16", "v2-alpha-tpuv5-lite", 4),
        ("v6e", 32, "v6e-32", "v2-alpha-tpuv6e", 8),
        ("v5p", 8, "v5p-16", "v2-alpha-tpuv5", 2),
        ("v4", 4, "v4-8", "tpu-ubuntu2204-base", 1),
    ],
)
def test_tpu_slices(accelerator: str, chips: int, kind: str, runtime: str, hosts: int) -> None:
    files = files_of(make_plan(gcp_tpu_vm, f"--accelerator={accelerator}", f"--devices={chips}", "--spot"))
    create = files["-watch.sh"]
    assert f"--accelerator-type={kind} --runtime-version={runtime} " in create and " --spot" in create
    several = f"--env=JAX_NUM_PROCESSES={hosts} --env=RELAND_TPU=1"
    assert (several in files["-startup.sh"]) == (hosts > 1)


GCLOUD = """\
echo "$4 $5" >>calls
case "$4" in
  describe) state="$(head -n 1 states)"; sed -i 1d states
    [[ "$state" == NOT_FOUND ]] && { echo "ERROR: NOT_FOUND" >&2; exit 1; }
    echo "$state" ;;
esac
"""


def test_a_tpu_slice_that_was_taken_away_is_asked_for_again(tmp_path: Path) -> None:
    watch = files_of(make_plan(gcp_tpu_vm, "--spot"))["-watch.sh"]
    write_tools(tmp_path, {"gcloud": GCLOUD, "sleep": ""})
    states = ["NOT_FOUND", "WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDED", "ACTIVE", "NOT_FOUND"]
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", watch], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and "reland has ended" in done.stdout
    calls = [call for call in (tmp_path / "calls").read_text().splitlines() if "describe" not in call]
    assert calls == ["create reland", "delete reland", "create reland"]


def test_gpu_machines_come_back_under_their_names() -> None:
    plan = make_plan(gcp_gpu_vm, "--accelerator=a100-80gb", "--devices=4", "--hosts=2", "--spot")
    template, group, *machines = (each.words for each in commands_of(plan))
    assert "--machine-type=a2-ultragpu-4g" in template and "--provisioning-model=SPOT" in template
    assert not any(word.startswith("--accelerator") for word in template)
    assert "--template=reland" in group and "--size=0" in group
    assert [machine[6] for machine in machines] == ["--instance=reland-0", "--instance=reland-1"]
    startup = files_of(plan)["-startup.sh"]
    assert "--env=JAX_COORDINATOR_ADDRESS=reland-0:8476" in startup
    assert '--env=JAX_PROCESS_ID="$index"' in startup


def test_gpus_beside_a_machine_are_asked_for() -> None:
    plan = make_plan(gcp_gpu_vm, "--accelerator=t4", "--devices=2")
    words = commands_of(plan)[0].words
    assert "--machine-type=n1-standard-16" in words and "--accelerator=type=nvidia-tesla-t4,count=2" in words
    assert "--provisioning-model=SPOT" not in words


def run_startup(text: str, folder: Path, mounted: bool, status: int, host: str) -> list[str]:
    """Runs a startup script on a machine of stand-ins; returns what was called."""
    (folder / "bin").mkdir()
    tools = {
        "docker": f'[[ "$1" == run ]] && exit {status}; exit 0',
        "mountpoint": f"exit {0 if mounted else 1}",
        **dict.fromkeys(("gcloud", "gcsfuse", "cp", "mkdir", "sleep", "tee"), "exit 0"),
    }
    noted = {name: f'echo "{name} $*" >>{folder}/calls\n{body}' for name, body in tools.items()}
    write_tools(folder / "bin", noted)
    script = text.replace("exec > >(tee -a /var/log/reland.log) 2>&1", f"HOSTNAME={host}")
    environment = {"PATH": f"{folder}/bin"}
    subprocess.run(["/bin/bash", "-c", script], env=environment, capture_output=True, timeout=30)
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("mounted", "status", "host", "runs", "deleted"),
    [
        (True, 0, "reland-0", 1, True),
        (True, 1, "reland-0", 3, True),
        (True, 0, "reland-1", 1, False),
        (True, 0, "reland-0.us-central1-a.c.p.internal", 1, True),
        (False, 0, "reland-0", 0, True),
    ],
)
def test_machines_run_the_job_and_are_given_back(
    mounted: bool, status: int, host: str, runs: int, deleted: bool, tmp_path: Path
) -> None:
    calls = run_startup(files_of(make_plan(gcp_gpu_vm))["-startup.sh"], tmp_path, mounted, status, host)
    assert sum(call.startswith("docker run") for call in calls) == runs
    given_back = "gcloud compute instance-groups managed delete reland --zone=us-central1-a --project=p"
    assert (f"{given_back} --quiet" in calls) == deleted


def test_vertex_has_a_first_pool_of_one() -> None:
    own = ["--accelerator=h100", "--devices=8", "--hosts=3", "--spot", "--service_account=a@b"]
    plan = make_plan(vertex_ai, *own)
    spec = json_of(plan)
    assert [pool["replicaCount"] for pool in spec["workerPoolSpecs"]] == [1, 2]
    machine = {"machineType": "a3-highgpu-8g", "acceleratorType": "NVIDIA_H100_80GB", "acceleratorCount": 8}
    assert all(pool["machineSpec"] == machine for pool in spec["workerPoolSpecs"])
    assert spec["scheduling"] == {"restartJobOnWorkerRestart": True, "strategy": "SPOT"}
    assert spec["serviceAccount"] == "a@b"


def test_vertex_on_other_machines() -> None:
    (pool,) = json_of(make_plan(vertex_ai))["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "n2-standard-16"}
    (pool,) = json_of(make_plan(vertex_ai, "--accelerator=v5e", "--devices=4"))["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"}


def test_batch_tries_again_on_another_machine() -> None:
    plan = make_plan(gcp_batch, "--accelerator=l4", "--devices=2", "--spot")
    job, task = json_of(plan), task_of(plan)
    assert task["maxRetryCount"] == 10
    assert task["volumes"][0]["gcs"] == {"remotePath": "bucket/folder"}
    instances = job["allocationPolicy"]["instances"][0]
    assert instances["installGpuDrivers"] and instances["policy"]["provisioningModel"] == "SPOT"
    assert instances["policy"]["accelerators"] == [{"type": "nvidia-l4", "count": 2}]
    assert instances["policy"]["machineType"] == "g2-standard-24"


def test_a_kubernetes_job_does_not_count_preemptions() -> None:
    plan = make_plan(kubernetes, "--accelerator=l4", "--devices=2", "--spot")
    manifest = json_of(plan)
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    rule = manifest["spec"]["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "Ignore" and rule["onPodConditions"][0]["type"] == "DisruptionTarget"
    pod = manifest["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert container_of(plan)["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    assert commands_of(plan)[0].words[:2] == ("kubectl", "apply")


def test_a_jobset_has_a_pod_per_host() -> None:
    manifest = json_of(make_plan(kubernetes, "--accelerator=v5e", "--devices=16"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["spec"]["failurePolicy"] == {"maxRestarts": 10}
    indexed = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (indexed["parallelism"], indexed["completions"], indexed["backoffLimit"]) == (4, 4, 0)
    pod = indexed["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}


def test_pods_with_gpus_find_the_first() -> None:
    plan = make_plan(kubernetes, "--accelerator=h100", "--devices=8", "--hosts=2", "--name=my-job")
    variables = {each["name"]: each["value"] for each in container_of(plan)["env"]}
    address = "my-job-worker-0-0.my-job:8476"
    assert variables == {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": address}


@pytest.mark.parametrize(
    ("storage", "volume"),
    [
        ("pvc://claim", {"persistentVolumeClaim": {"claimName": "claim"}}),
        ("nfs://10.0.0.2/share", {"nfs": {"server": "10.0.0.2", "path": "/share"}}),
    ],
)
def test_kubernetes_storage(storage: str, volume: dict[str, Any]) -> None:
    manifest = json_of(make_plan(kubernetes, f"--storage={storage}"))
    (found,) = manifest["spec"]["template"]["spec"]["volumes"]
    assert found == {"name": "storage", **volume}
    assert manifest["spec"]["template"]["metadata"] == {}


SECRET = "sk-do-not-print-me-0123456789"
PLACES = dict.fromkeys(GOOGLE, "openai-key") | {slurm: "/shared/me/openai-key", kubernetes: "llm/key"}


@pytest.mark.parametrize("launcher", [each for each in LAUNCHERS if each is not local])
def test_secrets_are_named_and_never_written(launcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    printed = script(make_plan(launcher, f"--secret=OPENAI_API_KEY={PLACES[launcher]}"))
    assert SECRET not in printed and "OPENAI_API_KEY" in printed
    named = {kubernetes: '"name": "llm"', slurm: "OPENAI_API_KEY=/shared/me/openai-key"}
    assert named.get(launcher, "projects/p/secrets/openai-key/versions/latest") in printed


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_value_of_a_secret_is_refused(launcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(RelandError, match="value of OPENAI_API_KEY is among the flags") as caught:
        make_plan(launcher, experiment=[f"--workdir={WORKDIR[launcher]}", f"--config.pool.model={SECRET}"])
    assert SECRET not in str(caught.value)
    if launcher is not local:
        with pytest.raises(RelandError, match="looks like the value itself") as caught:
            make_plan(launcher, f"--secret=OPENAI_API_KEY={SECRET}")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("launcher", "own", "experiment", "message"),
    [
        (gcp_gpu_vm, ["--accelerator=a100-80g"], None, "did you mean 'a100-80gb'"),
        (gcp_gpu_vm, ["--accelerator=v5e"], None, "not here .* use gcp_tpu_vm for TPUs"),
        (gcp_batch, ["--accelerator=v6e"], None, "use gcp_tpu_vm"),
        (gcp_gpu_vm, ["--devices=3"], None, "--devices=3: machines have 1, 2, 4, 8 of nvidia-l4"),
        (gcp_tpu_vm, ["--devices=12"], None, "slices of v5litepod have 1, 4, 8, 16"),
        (vertex_ai, ["--accelerator=v5e", "--devices=16"], None, "use gcp_tpu_vm or kubernetes"),
        (vertex_ai, ["--storage=nfs://host/share"], None, "expected gs://BUCKET"),
        (kubernetes, ["--accelerator=v5e", "--devices=16", "--hosts=4"], None, "follow from --devices"),
        (kubernetes, ["--secret=OPENAI_API_KEY=name"], None, "expected OPENAI_API_KEY=SECRET/KEY"),
        (gcp_batch, ["--secret=OPENAI_API_KEY=a b"], None, "VARIABLE=NAME or VARIABLE=NAME/VERSION"),
        (gcp_batch, ["--storage=bucket"], None, "expected gs://BUCKET.* or nfs://HOST"),
        (gcp_batch, ["--name=My_Job"], None, "lower case letters, digits and hyphens"),
        (local, ["--module=experiments.runn"], None, "did you mean 'experiments.run'"),
        (local, [], ["--config=x"], "need --workdir=DIR"),
        (gcp_batch, [], ["--workdir=workdir"], "would be lost with the machine.*--workdir=/storage/workdir"),
        (vertex_ai, [], ["--workdir=/gcs/bucket2/x"], "give a folder below /gcs/bucket"),
        (slurm, [], ["--workdir=workdir"], "absolute path on a file system that all nodes see"),
    ],
)
def test_mistakes_are_reported(
    launcher: ModuleType, own: list[str], experiment: list[str] | None, message: str
) -> None:
    with pytest.raises(RelandError, match=message):
        make_plan(launcher, *own, experiment=experiment)


def test_flags_without_the_dashes_are_told_where_to_stand() -> None:
    command = [sys.executable, "-m", "launch.local", "--workdir=x", "--dry_run"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1 and "Flags of the experiment stand behind --" in done.stderr
    assert "Traceback" not in done.stderr


def test_launchers_load_no_jax() -> None:
    names = ", ".join(each.__name__ for each in (*LAUNCHERS, worker))
    program = f"import {names}, sys; print(sorted({{'jax', 'flax', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def documented() -> list[list[str]]:
    """The commands of docs/launch.md, word by word."""
    text = (REPOSITORY / "docs" / "launch.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(python -m launch.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(block) for block in blocks]


def test_the_documented_commands_work(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = {each.__name__: each for each in LAUNCHERS}
    assert sorted(words[2] for words in documented()) == sorted(by_name)
    for words in documented():
        launcher, values = by_name[words[2]], flags.FlagValues()
        launcher.define_flags(values)
        rest = values(words[2:])[1:]
        assert values.dry_run
        common.carry_out(launcher.plan, values, rest)
    assert "reland-tpu:1" in capsys.readouterr().out
