"""What a GPU or TPU does with this project, in minutes: one JSON of measurements.

    python -m experiments.device_check --out=FILE.json [--minutes=8] [--small] [--backbones=sasrec,lightgcn]

Needs no data: interactions are generated with the users, items and statistics of Amazon Beauty. Measured are
the peaks of the device (products in float32 and bfloat16, memory), training steps of every backbone (float32
and bfloat16, one seed and five at once) with their share of the peaks, full rankings, the assignment of a
million users to 10,000 seed users, text encoding by MiniLM (random weights of its shape if it is not
installed), K-means, and random bits. Compiling is told apart.

The parts are measured in order of importance. One is left out if the longest of its kind so far would go
beyond the minutes; what was left out is listed, and so is what failed, with its error. FILE is written after
every part, so nothing is lost if the machine goes away. --small measures little of everything, for CPUs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path
from experiments.speed.device_parts import BEAUTY, SMALL, Bench, Part, Scale, parts
from experiments.speed.device_view import row, table
from experiments.speed.machine import measure_machine
from reland_jax.config import ENCODERS, nearest_name
from reland_jax.device import sizes
from reland_jax.files import write_json
from reland_jax.types import RelandError

AT_LEAST = 5.0
"""Seconds that a part is expected to take before any of its kind has been measured."""


class Budget:
    """Seconds left, and how long parts of a kind have taken.

    Attributes:
        longest: seconds of the longest part of every kind.
    """

    def __init__(self, seconds: float) -> None:
        """Args: seconds from now."""
        self._end = time.perf_counter() + seconds
        self.longest: dict[str, float] = {}

    def has_room(self, kind: str) -> bool:
        """Whether another part of the kind would end in time, if it took as long as the longest."""
        return time.perf_counter() + self.longest.get(kind, AT_LEAST) <= self._end

    def spent(self, kind: str, seconds: float) -> None:
        """Notes the seconds of a part."""
        self.longest[kind] = max(self.longest.get(kind, 0.0), seconds)


def run(out: Path, scale: Scale, minutes: float, backbones: tuple[str, ...]) -> dict[str, Any]:
    """Measures until the time is used up, and writes the file after every part.

    Args:
        out: where the JSON goes.
        scale: how much is measured.
        minutes: for everything.
        backbones: whose steps and rankings are measured.

    Returns:
        The content of the file.

    Raises:
        RelandError: there is such a file already.
    """
    if out.exists():
        raise RelandError(f"--out={out}: the file exists; move it away, or choose another one")
    out.parent.mkdir(parents=True, exist_ok=True)
    budget = Budget(60 * minutes)
    small = scale.users < BEAUTY.users
    machine = measure_machine(0.1, 1 << 20) if small else measure_machine()
    found: dict[str, Any] = {
        "minutes": minutes, "scale": scale._asdict(), "machine": machine._asdict(),
        "sizes": dataclasses.asdict(sizes()),
        "seconds": {}, "left_out": [], "failed": {},
    }  # fmt: skip
    for part in parts(Bench(scale, machine), backbones):
        _measure(part, found, budget)
        found["peak_device_bytes"] = _peak_bytes()
        write_json(out, found)
    return found


def _measure(part: Part, found: dict[str, Any], budget: Budget) -> None:
    """Adds what one part finds, or why there is nothing."""
    if not budget.has_room(part.kind):
        found["left_out"].append(part.name)
        return
    start = time.perf_counter()
    try:
        measured = part.run()
    # A part that does not fit into this device's memory, say, must not cost the parts after it.
    except Exception as error:
        found["failed"][part.name] = f"{type(error).__name__}: {error}"[:2000]
        print(f"{part.name}: failed: {type(error).__name__}", flush=True)
    else:
        found.setdefault(part.section, []).append(measured)
        print(f"{part.name}: {row(part.section, measured)}", flush=True)
    seconds = time.perf_counter() - start
    found["seconds"][part.name] = seconds
    budget.spent(part.kind, seconds)


def _peak_bytes() -> int | None:
    """Most memory of the first device in use so far, where it tells."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def define_flags() -> None:
    """Registers the flags."""
    required_path("out", "The JSON file.")
    flags.DEFINE_float("minutes", 8.0, "For everything.", lower_bound=0.1)
    flags.DEFINE_bool("small", False, "Little of everything, for CPUs.")
    flags.DEFINE_list("backbones", list(ENCODERS), "Whose steps and rankings are measured.")


def backbones_of(given: Iterable[str]) -> tuple[str, ...]:
    """The backbones that were asked for.

    Raises:
        RelandError: one is unknown.
    """
    names = tuple(given)
    if unknown := [name for name in names if name not in ENCODERS]:
        raise RelandError(f"--backbones: {unknown[0]!r}: {nearest_name(unknown[0], ENCODERS)}")
    return names


def main() -> int:
    """Measures, writes the file and prints a table; 1 if a part failed."""
    given = flags.FLAGS
    names = backbones_of(given.backbones)
    found = run(Path(given.out), SMALL if given.small else BEAUTY, given.minutes, names)
    print(table(found))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
