"""Load and fault test of asking an LLM service, against the local server of tests/pool/fault_server.py.

    python -m experiments.bench_pool --prompts=10000 --faults=0.2 --kills=20 --out=bench_pool.json

Three phases. "killed": the asking process is killed (SIGKILL) at random moments and started again until
the pool is whole. "whole": the same prompts and the same faults without a kill, for comparison.
"speed": no faults, a server with a limit of its own; the rate against that limit. The server is a
process of its own. Exit status 1 if a rationale is missing, an answer was lost, a prompt was asked after
its answer was journalled, or the two pools differ.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path
from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.files import write_json
from reland_jax.pool import RationaleRequest, build_prompt, save_pool
from reland_jax.pool.asking.records import JOURNAL_FILE
from reland_jax.pool.asking.secrets import API_KEY, BASE_URL
from reland_jax.pool.providers.openai_chat import OpenAIProvider
from reland_jax.types import IMPORTANT, ReasoningPool, SeedSet

SERVER = Path(__file__).resolve().parents[1] / "tests" / "pool" / "fault_server.py"
PROMPTS_FILE, POOL_FOLDER, PROBLEMS_FILE = "prompts.json", "pool", "problems.json"
WORDS = "rose lavender oat shea butter soap cream serum balm lotion mist oil night day gentle argan".split()

_PROMPTS = flags.DEFINE_integer("prompts", 10_000, "prompts of the two fault phases", lower_bound=1)
_FAULTS = flags.DEFINE_float("faults", 0.2, "share of requests answered with a fault", lower_bound=0.0)
_KILLS = flags.DEFINE_integer("kills", 20, "number of kills of the asking process", lower_bound=0)
_LATENCY = flags.DEFINE_float("latency", 0.2, "seconds of a good answer in the fault phases")
_TIMEOUT = flags.DEFINE_float("timeout", 5.0, "config.llm.timeout_seconds in the fault phases")
_ATTEMPTS = flags.DEFINE_integer("attempts", 12, "config.llm.attempts", lower_bound=1)
_CONCURRENCY = flags.DEFINE_integer("concurrency", 64, "config.llm.concurrency", lower_bound=1)
_SPEED_PROMPTS = flags.DEFINE_integer("speed_prompts", 1024, "prompts of the phase 'speed'; 0 leaves it out")
_SPEED_LATENCY = flags.DEFINE_float("speed_latency", 4.0, "seconds of an answer in the phase 'speed'")
_SPEED_RATE = flags.DEFINE_float(
    "speed_rate", 0.0, "answers per second of the server in the phase 'speed'; 0: no limit"
)
_SEED = flags.DEFINE_integer("seed", 0, "of the faults and the kills")
_OUT = define_path("out", "", "JSON file for the figures")
_WORKER = define_path("worker", "", "internal: folder of the asking process")


class Server:
    """The misbehaving server as a process; ended at the end of the `with` block."""

    def __init__(self, **settings: object) -> None:
        """Starts it.

        Args:
            settings: of `fault_server.Settings`.
        """
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, str(SERVER), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Server:
        """The server itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def get(self, what: str) -> Any:
        """The JSON of `GET /what`."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.address}/{what}", timeout=60) as response:
            return json.load(response)


_NOT_SETTINGS = ("out", "worker", "debug")


def main() -> int:
    """Runs the phases, prints a table and writes the figures."""
    if _WORKER.value:
        _ask(Path(_WORKER.value))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench_pool-") as name:
        figures = _faults(Path(name))
        if _SPEED_PROMPTS.value:
            figures["speed"] = _speed(Path(name) / "speed")
    known = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    figures["settings"] = {flag.name: flag.value for flag in known if flag.name not in _NOT_SETTINGS}
    for key, value in figures.items():
        print(f"{key:<34} {json.dumps(value)}")
    if _OUT.value:
        write_json(Path(_OUT.value), figures)
    whole = figures["identical"] and figures["rationales"] == figures["prompts"]
    return int(bool(figures["lost"] or figures["asked_after_answered"] or not whole))


def _faults(folder: Path) -> dict[str, Any]:
    """The phases "killed" and "whole"."""
    treated = {"seed": _SEED.value, "faults": _FAULTS.value, "latency": _LATENCY.value}
    for name in ("killed", "whole"):
        _write_prompts(folder / name, _PROMPTS.value)
    with Server(**treated) as server:
        started = time.time()
        kept = _kill_often(folder / "killed", server)
        seconds = time.time() - started
        log, most = server.get("log"), server.get("stats")["most_under_way"]
    with Server(**treated) as server:
        started = time.time()
        _finish(_start(folder / "whole", server))
        whole, whole_log = time.time() - started, server.get("log")
    return {
        "prompts": _PROMPTS.value,
        **_verdict(folder / "killed", log, kept),
        "identical": _pool_bytes(folder / "killed") == _pool_bytes(folder / "whole"),
        "kills": len(kept),
        "answered_at_kills": [len(answers) for answers in kept],
        "most_under_way": most,
        "seconds_killed": round(seconds, 1),
        "seconds_whole": round(whole, 1),
        "requests_whole": len(whole_log),
        "problems_killed": len(json.loads((folder / "killed" / PROBLEMS_FILE).read_text("utf-8"))),
    }


def _kill_often(folder: Path, server: Server) -> list[dict[str, str]]:
    """Asks, with kills at random moments; the journalled answers after every kill."""
    chance = random.Random(_SEED.value)
    goals = sorted(chance.randrange(_PROMPTS.value) for _ in range(_KILLS.value))
    kept = []
    for goal in goals:
        worker = _start(folder, server)
        while _answered(server) < goal and worker.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 3.0))
        if worker.poll() is None:
            worker.kill()
            worker.wait()
            kept.append(_journalled(folder))
    _finish(_start(folder, server))
    return kept


def _answered(server: Server) -> int:
    kinds = server.get("stats")["kinds"]
    return sum(kinds.get(kind, 0) for kind in ("good", "no_step1", "spike"))


def _verdict(folder: Path, log: list[list[Any]], kept: list[dict[str, str]]) -> dict[str, Any]:
    """Lost answers and prompts asked twice, from the server's log and the journal."""
    final, times = _journalled(folder), _journalled(folder, "received")
    late = [row for row in log if row[0] in times and row[2] > times[row[0]]]
    lost = {digest for answers in kept for digest, raw in answers.items() if final.get(digest) != raw}
    good = Counter(row[0] for row in log if row[3] in ("good", "no_step1", "spike"))
    return {
        "rationales": _rationales(folder),
        "lost": len(lost),
        "asked_after_answered": len(late),
        "requests": len(log),
        "answered_twice": sum(count - 1 for count in good.values()),
        "treatments": dict(sorted(Counter(row[3] for row in log).items())),
    }


def _speed(folder: Path) -> dict[str, Any]:
    """The rate against the server's own limit."""
    _write_prompts(folder, _SPEED_PROMPTS.value)
    with Server(latency=_SPEED_LATENCY.value, rate=_SPEED_RATE.value) as server:
        started, before = time.time(), _cpu_seconds()
        _finish(_start(folder, server, timeout=60.0))
        cpu = _cpu_seconds() - before
        wall, stats = time.time() - started, server.get("stats")
        times = [row[2] for row in server.get("log")]
    limit = _CONCURRENCY.value / _SPEED_LATENCY.value
    limit = min(limit, _SPEED_RATE.value or limit)
    # The last answers come one latency after they were asked for.
    rate = len(times) / (max(times) - min(times) + _SPEED_LATENCY.value)
    return {
        "limit_per_second": limit,
        "per_second": round(rate, 2),
        "share_of_limit": round(rate / limit, 3),
        "share_with_start_and_pool": round(len(times) / wall / limit, 3),
        "most_under_way": stats["most_under_way"],
        "cpu_ms_per_prompt_with_start": round(1000 * cpu / len(times), 2),
    }


def _cpu_seconds() -> float:
    """CPU time of the processes that were started and have ended."""
    used = os.times()
    return used.children_user + used.children_system


def _write_prompts(folder: Path, count: int) -> None:
    """Prompts with thirty invented titles each, all different."""
    folder.mkdir(parents=True)
    chance = random.Random(1)
    titles = [[" ".join(chance.choices(WORDS, k=6)) for _ in range(30)] for _ in range(count)]
    prompts = [build_prompt([*own, f"number {row}"], "products", 31) for row, own in enumerate(titles)]
    (folder / PROMPTS_FILE).write_text(json.dumps(prompts), "utf-8")


def _start(folder: Path, server: Server, timeout: float | None = None) -> subprocess.Popen[bytes]:
    """Starts the asking process."""
    environment = os.environ | {
        BASE_URL: f"{server.address}/v1",
        API_KEY: "no-secret",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "experiments.bench_pool", f"--worker={folder}"]
    command += [f"--timeout={timeout or _TIMEOUT.value}", f"--attempts={_ATTEMPTS.value}"]
    return subprocess.Popen([*command, f"--concurrency={_CONCURRENCY.value}"], env=environment)


def _finish(worker: subprocess.Popen[bytes]) -> None:
    if worker.wait():
        raise SystemExit(f"the asking process ended with status {worker.returncode}")


def _ask(folder: Path) -> None:
    """The asking process: the prompts of a folder, through its journal, into its pool."""
    prompts = json.loads((folder / PROMPTS_FILE).read_text("utf-8"))
    llm = LLMConfig(concurrency=_CONCURRENCY.value, timeout_seconds=_TIMEOUT.value, attempts=_ATTEMPTS.value)
    requests = [RationaleRequest(f"user-{row}", prompt) for row, prompt in enumerate(prompts)]
    result = OpenAIProvider(PoolConfig(provider="openai"), llm, folder).rationales(requests)
    rows = [row for row, rationale in enumerate(result.rationales) if rationale is not None]
    user = np.asarray(rows, np.int32)
    seeds = SeedSet(user, np.zeros_like(user), np.full(len(user), IMPORTANT, np.int8))
    kept = [rationale for rationale in result.rationales if rationale is not None]
    pool = ReasoningPool(seeds, np.zeros((len(rows), 1), np.float32), kept)
    ids = [request.user_id for request in requests]
    save_pool(pool, ids, folder / POOL_FOLDER, provenance={"provider": "openai", "created": "-"})
    problems = [problem._asdict() for problem in result.problems]
    (folder / PROBLEMS_FILE).write_text(json.dumps(problems), "utf-8")


def _journalled(folder: Path, what: str = "raw") -> dict[str, Any]:
    """Hash of the prompt -> a column of its accepted answer, read without the code under test."""
    if not (folder / JOURNAL_FILE).exists():
        return {}
    query = f"SELECT prompt_hash, {what} FROM received JOIN asked USING (key) WHERE kind = 'accepted'"
    database = sqlite3.connect(folder / JOURNAL_FILE)
    try:
        return dict(database.execute(query).fetchall())
    except sqlite3.OperationalError:  # killed before there were tables
        return {}
    finally:
        database.close()


def _pool_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / POOL_FOLDER).iterdir())}


def _rationales(folder: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(next((folder / POOL_FOLDER).glob("*.parquet"))).num_rows


if __name__ == "__main__":
    command_line.run(main)
