"""Plans carried out on this machine, by the launcher itself and by the script that a dry run prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from absl import flags

from launch import common, local, plan
from launch.plan import Command, File, Together, execute, script
from reland_jax.types import RelandError

REPOSITORY = Path(__file__).resolve().parents[2]

# An experiment that leaves a note named after its process, whether it is its first start, and its id. At
# the first start process 1 is killed when all are there; the others would stay, and take no notice of
# SIGTERM, like a process that waits for another inside jax.distributed.
PROBE = """
import os, pathlib, signal, sys, time
index, number = os.environ["JAX_PROCESS_ID"], int(os.environ["JAX_NUM_PROCESSES"])
notes = pathlib.Path(sys.argv[1].partition("=")[2])
again = (notes / f"{index}-first").exists()
if not again:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
note = f"{os.getpid()} {number} {os.environ['JAX_COORDINATOR_ADDRESS']} {' '.join(sys.argv[2:])}"
(notes / f"{index}-{'again' if again else 'first'}").write_text(note)
if not again:
    while len(list(notes.glob("*-first"))) < number:
        time.sleep(0.01)
    if index == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose one experiment is `PROBE`; the current folder."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "probe.py").write_text(
        f'if __name__ == "__main__":{textwrap.indent(PROBE, "    ")}'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "REPOSITORY", tmp_path)
    monkeypatch.setattr(plan, "GRACE", 1)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tmp_path


def is_alive(process: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def local_plan(*own: str, words: tuple[str, ...]) -> plan.Plan:
    """The plan of `launch.local` for the probe."""
    values = flags.FlagValues()
    local.define_flags(values)
    rest = values(["local", "--module=experiments.probe", *own, "--", *words])[1:]
    return local.plan(values, rest)


@pytest.mark.parametrize(("printed", "number"), [(False, 3), (True, 2)])
def test_when_a_process_is_killed_all_are_stopped_and_started_again(
    probe: Path, printed: bool, number: int
) -> None:
    words = (f"--workdir={probe}", "--a=it's $HOME")
    steps = local_plan(f"--processes={number}", "--restarts=1", words=words)
    if printed:
        subprocess.run(["bash", "-c", script(steps)], check=True, timeout=60)
    else:
        execute(steps)
    for start in ("first", "again"):
        notes = [(probe / f"{index}-{start}").read_text().split(" ", 1) for index in range(number)]
        assert [rest for _, rest in notes] == [f"{number} localhost:8476 --a=it's $HOME"] * number
        assert len({process for process, _ in notes}) == number
        assert not any(is_alive(int(process)) for process, _ in notes)


@pytest.mark.parametrize("printed", [False, True])
def test_without_restarts_left_the_launcher_fails(printed: bool) -> None:
    steps = [Together((Command((sys.executable, "-c", "raise SystemExit(3)")),) * 2, restarts=1)]
    if printed:
        assert subprocess.run(["bash", "-c", script(steps)], timeout=30).returncode == 1
    else:
        with pytest.raises(RelandError, match="a process ended with status 3"):
            execute(steps)


@pytest.mark.parametrize("printed", [False, True])
def test_a_launcher_that_is_stopped_stops_what_it_started(tmp_path: Path, printed: bool) -> None:
    body = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    notes = [tmp_path / "0", tmp_path / "1"]
    steps = [Together(tuple(Command((sys.executable, "-c", body, str(note))) for note in notes))]
    program = f"""
from launch import common
from launch.plan import Command, Together
common.run(common.define_job_flags, lambda values, words: {steps!r})
"""
    command = ["bash", "-c", script(steps)] if printed else [sys.executable, "-c", program]
    launcher = subprocess.Popen(command, cwd=REPOSITORY)
    while not all(note.exists() and note.read_text() for note in notes):
        time.sleep(0.02)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == (-signal.SIGTERM if printed else 128 + signal.SIGTERM)
    assert not any(is_alive(int(note.read_text())) for note in notes)


def test_missing_and_failing_commands_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RelandError, match="no-such-program is not installed here"):
        execute([File("a/b.txt", "text\n"), Command(("no-such-program",))])
    assert (tmp_path / "a" / "b.txt").read_text() == "text\n"
    with pytest.raises(RelandError, match="false ended with status 1"):
        execute([Command(("false",))])


def test_a_printed_script_stops_at_the_first_failure(tmp_path: Path) -> None:
    steps = [Command(("false",)), File("made.txt", "text\n")]
    assert subprocess.run(["bash", "-c", script(steps)], cwd=tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []


TALKS = """
import os
import jax
names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
address, number, index = (os.environ[name] for name in names)
jax.distributed.initialize(address, int(number), int(index), cluster_detection_method="deactivate")
mesh = jax.make_mesh((jax.device_count(),), ("all",))
here = jax.sharding.NamedSharding(mesh, jax.P("all"))
values = jax.make_array_from_callback((4,), here, lambda at: jax.numpy.arange(4.0)[at])
total = jax.jit(lambda x: x.sum(), out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))(values)
print(f"{index}: {jax.process_count()} {jax.device_count()} {float(total)}", flush=True)
"""


@pytest.mark.slow
def test_the_processes_compute_together(probe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (probe / "experiments" / "probe.py").write_text(TALKS)
    execute(local_plan("--processes=2", "--cpu_devices=2", "--port=18479", words=(f"--workdir={probe}",)))
    printed = capfd.readouterr().out
    assert {"0: 2 4 6.0", "1: 2 4 6.0"} < set(printed.splitlines())
