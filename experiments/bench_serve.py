r"""Load on the server of recommendations: rate, latency, what is lost, and memory, on this machine.

    python -m experiments.bench_serve --bundle=f_item=DIR --bundle=reland=DIR --json=FILE.json
    python -m experiments.bench_serve --bundle=reland=DIR --swaps=1000
    python -m experiments.bench_serve --bundle=reland=DIR --minutes=30 --swaps=30 --pause=60

Each bundle is served by a process of its own, one after the other. First as many requests as connections are
kept under way: what is answered then is the capacity. Then requests come at shares of it, whether answers do
or not; latency counts from the moment that a request is due. With --swaps the bundle and another one, whose
histories are different, take each other's place so often, and with --minutes requests go on
for so long; both at --rate. The generator shares the cores with the server.
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
from reland_jax.bundle import MANIFEST_FILE, read_manifest
from reland_jax.files import inventory, write_json, write_sealed
from reland_jax.serve import Reland
from reland_jax.storage import load_splits, save_splits
from reland_jax.types import Ragged, RelandError

_LISTENING = re.compile(r"listening on http://([\d.]+):(\d+)")
_READY = re.compile(r"ready after ")
_SWAPPED = re.compile(rb'^reland_swaps_total\{.*result="(\w+)"\} (\d+)', re.MULTILINE)


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
        """How many bundles were put into service since its start.

        Raises:
            RelandError: it refused one.
        """
        with urllib.request.urlopen(f"http://localhost:{self.port}/metrics") as answer:
            found = {each[1]: int(each[2]) for each in _SWAPPED.finditer(answer.read())}
        if b"refused" in found:
            raise RelandError("the server refused a bundle, which its log explains")
        return found.get(b"in_service", 0)


def main() -> None:
    """Measures, and prints a line for every stretch."""
    given, records = flags.FLAGS, list[dict[str, Any]]()
    for named in given.bundle:
        name, _, folder = named.rpartition("=")
        name = name or Path(folder).name
        print(f"{name}:")
        records.append({"name": name} | measured(Path(folder)))
        print(f"  {records[-1]['swaps']:,} exchanged bundles")
    if given.json:
        write_json(Path(given.json), {"cores": len(os.sched_getaffinity(0)), "records": records})


def measured(folder: Path) -> dict[str, Any]:
    """Load on the server of one bundle."""
    users = np.random.default_rng(0).permutation(Reland.load(folder).user_ids)[:5000].tolist()
    bodies = [json.dumps({"user": user, "k": flags.FLAGS.k}).encode() for user in users]
    with tempfile.TemporaryDirectory() as place, serving(_link(Path(place) / "bundle", folder)) as served:
        return asyncio.run(_measured(served, folder, Path(place), bodies))


async def _measured(served: Served, folder: Path, place: Path, bodies: list[bytes]) -> dict[str, Any]:
    given, loads, memory = flags.FLAGS, dict[str, dict[str, Any]](), [served.mebibytes()]

    def keep(name: str, load: Load) -> None:
        loads[name] = load._asdict()
        memory.append(served.mebibytes())
        _print(name, load, memory[-1])

    async with Clients(served.host, served.port, bodies).open(given.connections) as clients:
        await clients.as_fast_as_possible(given.connections, min(given.seconds, 3.0))
        keep("capacity", full := await clients.as_fast_as_possible(given.connections, given.seconds))
        for share in shares(given.shares):
            keep(f"{share:.0%}", await clients.at_rate(share * full.answered, given.seconds))
        if given.swaps or given.minutes:
            await _for_long(served, (folder, place), clients, given.rate or full.answered / 2, keep)
    return {"loads": loads, "mebibytes": memory, "swaps": served.swaps()}


async def _for_long(
    served: Served,
    places: tuple[Path, Path],
    clients: Clients,
    rate: float,
    keep: Callable[[str, Load], None],
) -> None:
    """Requests until the time is over and all bundles are exchanged."""
    given, exchanging, part = flags.FLAGS, asyncio.create_task(_exchanged(served, *places)), 0
    while part < given.minutes or not exchanging.done():
        if exchanging.done():
            exchanging.result()
        part += 1
        keep(f"part {part}", await clients.at_rate(rate, 60.0 if given.minutes else given.seconds))
    exchanging.result()


async def _exchanged(served: Served, folder: Path, place: Path) -> None:
    """The bundle and another one in its place, in turn."""
    if flags.FLAGS.swaps:
        await asyncio.to_thread(_save_another, folder, place / "other")
    for number in range(flags.FLAGS.swaps):
        _link(place / "bundle", (place / "other", folder)[number % 2])
        while await asyncio.to_thread(served.swaps) <= number:
            await asyncio.sleep(0.02)
        await asyncio.sleep(flags.FLAGS.pause)


def _save_another(folder: Path, other: Path) -> None:
    """The same recommender for users who had not yet had the newest of their training items."""
    shutil.copytree(folder, other)
    (other / MANIFEST_FILE).unlink()
    splits = load_splits(folder / "splits")
    train = splits.train
    newest = np.zeros(len(train.items), bool)
    newest[train.indptr[1:][train.lengths() > 1] - 1] = True
    row = np.repeat(np.arange(train.num_rows), train.lengths())[~newest]
    indptr = np.searchsorted(row, np.arange(train.num_rows + 1)).astype(np.int64)
    shorter = splits._replace(train=Ragged(indptr, train.items[~newest]))
    save_splits(shorter, other / "splits")
    write_sealed(other / MANIFEST_FILE, read_manifest(folder) | {"files": inventory(other)})


def _link(name: Path, folder: Path) -> Path:
    """Points a link to a folder, at one stroke."""
    aside = name.with_suffix(".new")
    aside.symlink_to(folder.absolute())
    aside.replace(name)
    return name


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


def _print(name: str, load: Load, used: float) -> None:
    counts = ", ".join(f"{count:,} x {status or 'lost'}" for status, count in load.statuses.items())
    rates = f"{load.asked:8,.0f} asked/s {load.answered:8,.0f} answered/s"
    late = f"p50 {load.p50:7.1f} ms  p99 {load.p99:7.1f} ms"
    print(f"  {name:12} {rates}  {late}  {used:6.0f} MiB  {counts}", flush=True)


def define_flags() -> None:
    """Registers the flags."""
    flags.DEFINE_multi_string("bundle", None, "NAME=FOLDER of a bundle; repeatable.", required=True)
    flags.DEFINE_integer("k", 10, "Length of a list.", lower_bound=1)
    flags.DEFINE_float("seconds", 30.0, "Seconds of every stretch of load.", lower_bound=0.1)
    flags.DEFINE_list("shares", ["25", "50", "80", "120"], "Load in percent of the capacity.")
    flags.DEFINE_integer("connections", 64, "Connections that are kept open.", lower_bound=1)
    flags.DEFINE_integer("queue", 1024, "Requests that may wait in the server.", lower_bound=1)
    flags.DEFINE_integer("swaps", 0, "How often the bundle is replaced under load.", lower_bound=0)
    flags.DEFINE_float("pause", 0.0, "Seconds between two replacements.", lower_bound=0.0)
    flags.DEFINE_integer("minutes", 0, "Minutes for which requests go on at least.", lower_bound=0)
    flags.DEFINE_float("rate", 0.0, "Requests a second meanwhile; 0: half of the capacity.", lower_bound=0.0)
    define_path("json", None, "JSON file of the results.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
