"""What the worker adds to the environment of the experiment."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from launch import worker
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[2]


def cluster_spec(pool: str, index: int, hosts: int = 3) -> str:
    """CLUSTER_SPEC of Vertex AI: a first pool of one replica, and a second of the others."""
    cluster = {"workerpool0": ["cmle-0:2222"]}
    if hosts > 1:
        cluster["workerpool1"] = [f"cmle-1-{n}:2222" for n in range(hosts - 1)]
    return json.dumps({"cluster": cluster, "task": {"type": pool, "index": index}, "environment": "cloud"})


@pytest.mark.parametrize(
    ("environment", "number", "address", "index"),
    [
        (
            {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_PROCESS_ID": "1"},
            "2", "localhost:1", "1",
        ),
        (
            {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "JAX_COORDINATOR_ADDRESS": "n1:8476"},
            "4", "n1:8476", "3",
        ),
        (
            {"JAX_NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "0", "JAX_COORDINATOR_ADDRESS": "a.b:8476"},
            "2", "a.b:8476", "0",
        ),
        ({"CLUSTER_SPEC": cluster_spec("workerpool0", 0)}, "3", "cmle-0:8476", "0"),
        ({"CLUSTER_SPEC": cluster_spec("workerpool1", 1)}, "3", "cmle-0:8476", "2"),
    ],
)  # fmt: skip
def test_processes_are_found(environment: dict[str, str], number: str, address: str, index: str) -> None:
    found = worker.process_variables(environment)
    expected = {"JAX_NUM_PROCESSES": number, "JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_ID": index}
    assert found == expected


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"CLUSTER_SPEC": cluster_spec("workerpool0", 0, hosts=1)},
    ],
)
def test_one_process_needs_nothing(environment: dict[str, str]) -> None:
    assert worker.process_variables(environment) == {}


def test_on_tpus_jax_finds_the_rest() -> None:
    given = {"JAX_NUM_PROCESSES": "4", "RELAND_TPU": "1"}
    assert worker.process_variables(given) == {"JAX_NUM_PROCESSES": "4"}


def test_a_process_without_an_index_is_reported() -> None:
    with pytest.raises(RelandError, match="2 processes, but JAX_PROCESS_ID or .* is not set"):
        worker.process_variables({"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "a:1"})
    with pytest.raises(RelandError, match="JAX_COORDINATOR_ADDRESS is not set"):
        worker.process_variables({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"})


def test_secrets_come_from_files_and_from_secret_manager(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    places = [f"A={tmp_path / 'key'}", "B=projects/p/secrets/n/versions/latest"]
    assert worker.read_secrets(places, lambda name: f"value of {name}") == {
        "A": "from a file", "B": "value of projects/p/secrets/n/versions/latest",
    }  # fmt: skip
    with pytest.raises(RelandError, match="--secret=A=.*none: No such file"):
        worker.read_secrets([f"A={tmp_path / 'none'}"])


def test_secret_manager_is_asked_as_the_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        asked.append((request.full_url, dict(request.header_items())))
        text = {"access_token": "t"} if "metadata" in request.full_url else {"payload": {"data": "aGVsbG8="}}
        return io.BytesIO(json.dumps(text).encode())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert worker.fetch_secret("projects/p/secrets/n/versions/3") == "hello"
    assert asked[0][1] == {"Metadata-flavor": "Google"}
    url = "https://secretmanager.googleapis.com/v1/projects/p/secrets/n/versions/3:access"
    assert asked[1] == (url, {"Authorization": "Bearer t"})


def test_the_worker_becomes_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("do-not-print-me")
    (tmp_path / "probe.py").write_text(
        "import json, os, sys\n"
        "names = ('JAX_PROCESS_ID', 'MY_KEY')\n"
        "if __name__ == '__main__':\n"
        "    print(json.dumps([sys.argv[1:], [os.environ[name] for name in names]]))\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path), "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1",
        "JAX_COORDINATOR_ADDRESS": "localhost:1",
    }  # fmt: skip
    command = [sys.executable, "-m", "launch.worker", "--module=probe", f"--secret=MY_KEY={tmp_path / 'key'}"]
    words = ["--config.variants=('id',)", "--a=b c", "--", "--flagfile=x"]
    done = subprocess.run(
        [*command, "--", *words], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    told, last = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert json.loads(last) == [words, ["1", "do-not-print-me"]]
    assert "do-not-print-me" not in "".join(told) + done.stderr
    assert "processes: 2, this one: 1, coordinator: localhost:1" in told[0] and "MY_KEY" in told[1]
