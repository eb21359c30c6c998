"""Identifies processes that hold claims in the journal, and whether they still run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A process, told apart from a later one with the same number.

    Attributes:
        machine: the running system, its host name and name space of process numbers.
        pid: number of the process.
        started: when it started, in ticks since the machine did; "" where the system does not say.
    """

    machine: str
    pid: int
    started: str

    def runs(self) -> bool | None:
        """Whether the process still runs; None if that cannot be seen from here."""
        if self.machine != _machine():
            return None
        if self.started:
            return _started(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return None  # a process has this number, but perhaps another one


class Watch:
    """Detects silent processes among those that cannot be seen from here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is seen yet.

        Args:
            clock: seconds that never go back.
        """
        self._clock, self._seen = clock, dict[str, tuple[float, float]]()

    def is_silent(self, name: str, beat: float, lease: float) -> bool:
        """Whether a process has not sent a heartbeat within its lease.

        Clocks may be wrong: a process whose heartbeat is in the future is silent if the heartbeat has not
        changed for the length of the lease, by this machine's clock.

        Args:
            name: of the process.
            beat: Unix time at which it told last, by its own clock.
            lease: seconds within which it tells again.
        """
        now = self._clock()
        told, since = self._seen.setdefault(name, (beat, now))
        if told != beat:
            self._seen[name], since = (beat, now), now
        return now - since > lease or time.time() - beat > lease


def this_process() -> Owner:
    """The process that calls."""
    return Owner(_machine(), os.getpid(), _started(os.getpid()))


def _machine() -> str:
    """Names the space in which a process number means one process: containers have spaces of their own."""
    return "/".join([socket.gethostname(), _read("/proc/sys/kernel/random/boot_id"), _name_space()])


def _name_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start of a running process; "" for one that has ended or where there is no /proc."""
    # The name of the program, in brackets, may hold anything; what follows the last bracket is regular.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ended = not fields or fields[0] in "ZX"  # a killed process stays as a zombie until its parent looks
    return "" if ended else fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
