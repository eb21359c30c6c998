"""A server as a process of its own, on a port that the system chooses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")


class Process:
    """A running server.

    Attributes:
        process: it.
        url: where it listens.
        said: its lines on stderr so far.
    """

    def __init__(self, *flags: str, **environment: str) -> None:
        """Starts it, and waits until it listens."""
        command = [sys.executable, "-m", "experiments.serve", "--port=0", *flags]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.said, self.url = list[str](), ""
        threading.Thread(target=self._read, daemon=True).start()
        self.until(lambda: bool(self.url))

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line)
            if found := _LISTENING.search(line):
                self.url = found[1]

    def until(self, is_so: Any, seconds: float = 120.0) -> None:
        """Waits until something is so."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end and self.process.poll() is None, "".join(self.said)
            time.sleep(0.02)

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body; POST where one is given."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def is_ready(self) -> bool:
        """Whether its programs are compiled."""
        return self.call("/readyz")[0] == 200


@contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Process]:
    """A server that is ready, and is ended afterwards."""
    found = Process(*flags, **environment)
    try:
        found.until(found.is_ready)
        yield found
    finally:
        found.process.kill()
        found.process.wait()
