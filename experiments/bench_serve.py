r"""Load on the server of recommendations: rate, latency, what is lost, and memory, on this machine.

    python -m experiments.bench_serve --bundle=f_item=DIR --bundle=reland=DIR --json=FILE.json
    python -m experiments.bench_serve --bundle=reland=DIR --swaps=1000

Each bundle is served by a process of its own, one after the other. First as many requests as connections are
kept under way: what is answered then is the capacity. Then requests come at shares of it, whether answers do
or not; latency counts from the moment that a request is due. With --swaps a copy of the bundle is replaced so
often, at half of the capacity. The generator shares the cores with the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.speed.load import Clients, Load, shares
from reland_jax.files import write_json
from reland_jax.serve import Reland
from reland_jax.types import RelandError

_LISTENING = re.compile(r"listening on http://([\d.]+):(\d+)")
_READY = re.compile(r"ready after ")
_SWAPPED = re.compile(rb'^reland_swaps_total\{.*result="in_service"\} (\d+)', re.MULTILINE)


class Served(NamedTuple):
    """A server that runs.

    Attributes:
        process: it.
        host: where it listens.
        port: where it listens.
    """

    process: subprocess.Popen[str]
    host: str
    port: int

    def mebibytes(self) -> float:
        """Resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def swaps(self) -> int:
        """How many bundles were put into service since its start."""
        with urllib.request.urlopen(f"http://localhost:{self.port}/metrics") as answer:
            found = _SWAPPED.search(answer.read())
        return int(found[1]) if found else 0


def main() -> None:
    """Measures, and prints a table."""
    given, records = flags.FLAGS, list[dict[str, Any]]()
    for named in given.bundle:
        name, _, folder = named.rpartition("=")
        records.append({"name": name or Path(folder).name} | measured(Path(folder)))
        _print(records[-1])
    if given.json:
        write_json(Path(given.json), {"cores": len(os.sched_getaffinity(0)), "records": records})


def measured(folder: Path) -> dict[str, Any]:
    """Load on the server of one bundle."""
    users = np.random.default_rng(0).permutation(Reland.load(folder).user_ids)[:5000].tolist()
    bodies = [json.dumps({"user": user, "k": flags.FLAGS.k}).encode() for user in users]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "bundle"
        shutil.copytree(folder, copy)
        with serving(copy) as served:
            return asyncio.run(_measured(served, copy, bodies))


async def _measured(served: Served, folder: Path, bodies: list[bytes]) -> dict[str, Any]:
    given, loads, memory = flags.FLAGS, dict[str, dict[str, Any]](), [served.mebibytes()]

    def keep(name: str, load: Load) -> None:
        loads[name] = load._asdict()
        memory.append(served.mebibytes())

    async with Clients(served.host, served.port, bodies).open(given.connections) as clients:
        await clients.as_fast_as_possible(given.connections, min(given.seconds, 3.0))
        keep("capacity", full := await clients.as_fast_as_possible(given.connections, given.seconds))
        for share in shares(given.shares):
            keep(f"{share:.0%}", await clients.at_rate(share * full.answered, given.seconds))
        if given.swaps:
            await _swapped(served, folder, clients, full.answered / 2, keep)
    return {"loads": loads, "mebibytes": memory, "swaps": served.swaps()}


async def _swapped(
    served: Served, folder: Path, clients: Clients, rate: float, keep: Callable[[str, Load], None]
) -> None:
    model, wanted = await asyncio.to_thread(Reland.load, folder), flags.FLAGS.swaps

    async def exchange() -> None:
        for number in range(wanted):
            await asyncio.to_thread(model.save, folder)
            while await asyncio.to_thread(served.swaps) <= number:
                await asyncio.sleep(0.02)

    exchanging, part = asyncio.create_task(exchange()), 0
    while not exchanging.done():
        keep(f"swaps, part {(part := part + 1)}", await clients.at_rate(rate, flags.FLAGS.seconds))
    exchanging.result()


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A server of one bundle that is ready.

    Raises:
        RelandError: it ended before.
    """
    given = flags.FLAGS
    command = [
        sys.executable, "-m", "experiments.serve", f"--bundle={folder}", "--port=0", "--watch=0.05",
        f"--queue={given.queue}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield _until_ready(process)
    finally:
        process.terminate()
        process.wait()


def _until_ready(process: subprocess.Popen[str]) -> Served:
    place, said = ("", 0), list[str]()
    assert process.stderr
    for line in process.stderr:
        said.append(line)
        if found := _LISTENING.search(line):
            place = found[1], int(found[2])
        if place[1] and _READY.search(line):
            # Nothing that it says may fill the pipe.
            subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            return Served(process, *place)
    raise RelandError(f"the server ended: {''.join(said[-1:]).strip()}")


def _print(record: dict[str, Any]) -> None:
    memory = record["mebibytes"]
    print(f"{record['name']}: {record['swaps']} swaps, memory {memory[0]:.0f} to {memory[-1]:.0f} MiB")
    for name, load in record["loads"].items():
        counts = ", ".join(f"{count:,} x {status or 'lost'}" for status, count in load["statuses"].items())
        rates = f"{load['asked']:8,.0f} asked/s {load['answered']:8,.0f} answered/s"
        print(f"  {name:16} {rates}  p50 {load['p50']:7.1f} ms  p99 {load['p99']:7.1f} ms  {counts}")


def define_flags() -> None:
    """Registers the flags."""
    flags.DEFINE_multi_string("bundle", None, "NAME=FOLDER of a bundle; repeatable.", required=True)
    flags.DEFINE_integer("k", 10, "Length of a list.", lower_bound=1)
    flags.DEFINE_float("seconds", 30.0, "Seconds of every stretch of load.", lower_bound=0.1)
    flags.DEFINE_list("shares", ["25", "50", "80", "120"], "Load in percent of the capacity.")
    flags.DEFINE_integer("connections", 64, "Connections that are kept open.", lower_bound=1)
    flags.DEFINE_integer("queue", 1024, "Requests that may wait in the server.", lower_bound=1)
    flags.DEFINE_integer("swaps", 0, "How often the bundle is replaced under load.", lower_bound=0)
    define_path("json", None, "JSON file of the results.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
