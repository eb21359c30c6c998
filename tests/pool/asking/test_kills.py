"""Killed at any moment, and two at a time: nothing is asked after its answer, and the result is the same."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pool import fault_server

PROMPTS = 150
WORKER = """
import sys, json
from pathlib import Path
from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.openai_chat import OpenAIProvider
folder, out, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
requests = [RationaleRequest(f"u{number}", f"prompt {number}") for number in range(count)]
llm = LLMConfig(concurrency=16, timeout_seconds=1.0, attempts=20)
result = OpenAIProvider(PoolConfig(provider="openai", model="m"), llm, folder).rationales(requests)
out.write_text(json.dumps([rationale and rationale._asdict() for rationale in result.rationales]))
"""


class Server(fault_server.Process):
    """The misbehaving server in a process of its own."""

    def __init__(self) -> None:
        super().__init__(faults=0.2, latency=0.05, spike=0.2, long_spike=9, wait=0.2)

    def worker(self, folder: Path, out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, str(folder), str(folder / out), str(PROMPTS)]
        return subprocess.Popen(command, env=os.environ | self.environment)

    def wait_for(self, asked: int, worker: subprocess.Popen[bytes]) -> None:
        while worker.poll() is None and self.get("stats")["asked"] < asked:
            time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.end()


def accepted(folder: Path) -> dict[str, tuple[str, float]]:
    """Hash of the prompt -> raw answer and its time, of accepted answers; not by the code under test."""
    query = "SELECT prompt_hash, raw, received FROM received JOIN asked USING (key) WHERE kind = 'accepted'"
    database = sqlite3.connect(folder / "journal.sqlite")
    try:
        return {digest: (raw, at) for digest, raw, at in database.execute(query)}
    finally:
        database.close()


def check(folder: Path, server: Server, out: str) -> None:
    """Everything is answered, nothing was asked after it was, and the answers are the only possible ones."""
    final = accepted(folder)
    rationales = json.loads((folder / out).read_text())
    assert len(rationales) == len(final) == PROMPTS and all(rationales)
    assert all(served[2] <= final[served[0]][1] for served in server.get("log"))
    for rationale in rationales:
        possible = {fault_server.content_of(rationale["prompt_hash"], kind) for kind in ("good", "no_step1")}
        assert rationale["response"] in possible


def test_killed_twice(server: Server, tmp_path: Path) -> None:
    chance, kept = random.Random(0), []
    for goal in (60, 120):
        worker = server.worker(tmp_path, "out.json")
        server.wait_for(goal, worker)
        time.sleep(chance.uniform(0.0, 0.1))
        assert worker.poll() is None, "it was done before it could be killed"
        worker.kill()
        worker.wait()
        kept.append(accepted(tmp_path))
    assert server.worker(tmp_path, "out.json").wait() == 0
    check(tmp_path, server, "out.json")
    final = accepted(tmp_path)
    assert all(final[digest] == answer for answers in kept for digest, answer in answers.items())
    assert 0 < len(kept[1]) < PROMPTS
    # What was asked twice was under way at a kill, or came too late on a busy machine.
    good = Counter(row[0] for row in server.get("log") if row[3] in ("good", "no_step1"))
    assert set(good) <= set(final)


def test_two_processes_at_once_one_of_them_killed(server: Server, tmp_path: Path) -> None:
    doomed, other = server.worker(tmp_path, "doomed.json"), server.worker(tmp_path, "other.json")
    server.wait_for(80, doomed)
    doomed.kill()
    doomed.wait()
    third = server.worker(tmp_path, "third.json")
    assert other.wait() == third.wait() == 0
    check(tmp_path, server, "other.json")
    assert (tmp_path / "other.json").read_bytes() == (tmp_path / "third.json").read_bytes()
