"""The plan of a launcher: files to write and commands to run, in order, printed or executed.

Printed, it is a bash script that does the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.quoting import check_word, for_shell
from reland_jax.files import write_text
from reland_jax.types import RelandError

GRACE = 10
"""Seconds between asking the processes on this machine to end and ending them: one that waits for the
others inside `jax.distributed` takes no notice of SIGTERM."""


@dataclass(frozen=True)
class File:
    """A file to write: its path, relative to the current folder, and its text."""

    path: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command to run: its words, and environment variables beyond the launcher's own."""

    words: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The command for a shell, quoted."""
        values = [f"{name}={for_shell([value])}" for name, value in self.variables.items()]
        return " ".join([*values, for_shell(self.words)])


@dataclass(frozen=True)
class Together:
    """Commands that run at the same time; when one fails, the others are stopped and all start again.

    Attributes:
        commands: one per process.
        restarts: how many times all are started again.
    """

    commands: tuple[Command, ...]
    restarts: int = 0


Plan = Sequence[File | Command | Together]


def script(plan: Plan) -> str:
    """The plan as a bash script that does the same."""
    return "".join(f"{line}\n" for line in ("set -e", *map(_shell, plan)))


def _shell(step: File | Command | Together) -> str:
    if isinstance(step, File):
        end = "END"
        while end in step.text:
            end += "_"
        path = for_shell([step.path])
        folder = for_shell([os.path.dirname(step.path) or "."])
        return f"mkdir -p {folder}\ncat >{path} <<'{end}'\n{step.text.rstrip()}\n{end}"
    if isinstance(step, Command):
        return str(step)
    return _TOGETHER.format(
        restarts=step.restarts,
        grace=GRACE,
        commands="\n".join(f"  {command} & processes+=($!)" for command in step.commands),
    )


_TOGETHER = """\
# All at once; if one fails, all are stopped; restarts: {restarts}.
stop() {{
  kill $(jobs -pr) || return 0
  for second in {{1..{grace}}}; do [[ $(jobs -pr) ]] || return 0; sleep 1; done
  kill -KILL $(jobs -pr)
}} 2>/dev/null
together() {{
  processes=()
{commands}
  while running="$(jobs -pr)"; do
    for process in "${{processes[@]}}"; do
      kill -0 "$process" 2>/dev/null || wait "$process" || {{ stop; wait; return 1; }}
    done
    [[ $running ]] || return 0
    sleep 0.2
  done
}}
trap stop EXIT
restarts={restarts}
until together; do ((restarts--)) || exit 1; done"""


def execute(plan: Plan) -> None:
    """Writes the files and runs the commands.

    Raises:
        RelandError: a command is not installed or fails.
    """
    for step in plan:
        if isinstance(step, File):
            _write(Path(step.path), step.text)
        elif isinstance(step, Command):
            _say(str(step))
            if status := _wait_for_all([_start(step)]):
                raise RelandError(f"{step.words[0]} ended with status {status}")
        else:
            _run_together(step)


def _say(text: str) -> None:
    print(f"[launch] {text}", file=sys.stderr, flush=True)


def _write(path: Path, text: str) -> None:
    write_text(path, text)
    _say(f"wrote {path}")


def _start(command: Command) -> subprocess.Popen[bytes]:
    for word in (*command.words, *command.variables.values()):
        check_word(word)
    try:
        return subprocess.Popen(command.words, env=os.environ | dict(command.variables))
    except FileNotFoundError:
        raise RelandError(
            f"{command.words[0]} is not installed here; --dry_run prints what can be run where it is"
        ) from None


def _run_together(step: Together) -> None:
    left = step.restarts
    while status := _wait_for_all([_start(command) for command in step.commands]):
        _say(f"a process ended with status {status}; {left} restarts left")
        if not left:
            raise RelandError(f"a process ended with status {status}")
        left -= 1


def _wait_for_all(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Status of the first that fails, after stopping the others; 0 if none does."""
    waiting = list(processes)
    try:
        while waiting:
            for process in list(waiting):
                try:
                    status = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                waiting.remove(process)
                if status:
                    return status
        return 0
    finally:
        _stop(waiting)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
