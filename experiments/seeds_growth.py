"""How time and memory of seed sampling grow with the number of users.

    python -m experiments.seeds_growth --users=250000,500000,1000000 --vectors=VECTORS.npy --workdir=DIR

K-means with --clusters clusters, the same for every number of users, then the two samplings: the pipeline's
stage as it is (`choose_seeds`). Users are drawn from a mixture of Gaussians fitted on the behaviour vectors
of --vectors (such as encode_users/array.npy of a workdir); without it, on planted clusters. Each number of
users is measured in a process of its own, so that peak memory is its own. Let nothing else run meanwhile,
or look at processor time only. Every step is shown as it ends.

Writes DIR/seeds_growth.json after every measurement and DIR/seeds_growth.svg. The same command continues
after an interruption.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

# Nothing here imports jax before a measurement does: see `experiments.growth`.
from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.harness.written import read_records
from experiments.scaling.measuring import (
    COLOURS,
    GIBIBYTE,
    MARKERS,
    dress_axes,
    growth_exponent,
    measured_apart,
    peak_bytes,
)
from reland_jax.artefacts import fingerprint
from reland_jax.files import write_sealed
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = ("start", "near centres", "all centres", "sampling")
"""Parts of the time: the start; iterations in which users are compared with centres near their own; those
with all centres, the last assignment among them; the two samplings."""

_BLOCK = 65_536

Record = dict[str, Any]
Moment = tuple[str, float, float]
"""What was said, and seconds and processor seconds so far."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all measurements share.

    Attributes:
        clusters: K.
        seeds: S.
        dim: D.
        devices: virtual devices that the processor is divided into.
        iterations: see `SeedsConfig`; `tolerance` too.
        tolerance: see `iterations`.
        components: of the mixture, at most.
        vectors: file that the mixture is fitted on, empty for planted clusters.
    """

    clusters: int
    seeds: int
    dim: int
    devices: int
    iterations: int
    tolerance: float
    components: int
    vectors: str


class _Clock(logging.Handler):
    """Notes when each step of the clustering ends, and shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One step has ended."""
        self.note(record.getMessage())

    def note(self, said: str) -> None:
        """Keeps what was said, with the time."""
        self.moments.append((said, time.perf_counter(), time.process_time()))
        since = [now - then for now, then in zip(self.moments[-1][1:], self.moments[0][1:], strict=True)]
        print(f"{since[0]:9.1f} s {since[1]:9.1f} s of processor time  {said}", file=sys.stderr, flush=True)


def measure(users: int, setup: Setup) -> Record:
    """Seconds and memory of choosing seed users; to be called once in a process.

    Returns:
        "users"; "seconds" and "cpu_seconds", of which "phase_seconds" and "phase_cpu_seconds" are the
        parts by `PHASES`; "iterations" of K-means, and the "complete" ones among them; "inertia"; "chosen",
        seed users by each sampling; "vector_bytes"; "base_bytes", the peak resident memory before; and
        "peak_bytes".
    """
    import jax

    from reland_jax.config import SeedsConfig
    from reland_jax.seeds import choose_seeds

    vectors, activity = population(users, setup)
    mesh = jax.make_mesh((setup.devices,), ("data",)) if setup.devices > 1 else None
    config = SeedsConfig(setup.seeds / users, setup.clusters, setup.iterations, setup.tolerance)
    clock, log = _Clock(), logging.getLogger("reland_jax.seeds")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(clock)
    base = peak_bytes()
    clock.note(f"{users:,} users")
    chosen, clustering = choose_seeds(vectors, activity, config, mesh)
    clock.note("sampling")
    return {
        "users": users,
        **time_by_phase(clock.moments),
        "iterations": clustering.iterations,
        "complete": sum("all centres" in said and "iteration" in said for said, *_ in clock.moments),
        "inertia": clustering.inertia,
        "chosen": np.bincount(chosen.how, minlength=2).tolist(),
        "vector_bytes": vectors.nbytes,
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "machine": f"{len(os.sched_getaffinity(0))} cores, jax {jax.__version__} {jax.default_backend()}",
    }


def population(users: int, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Vectors ``<float32>[U, D]`` and interactions ``<int64>[U]``, made block by block."""
    from experiments.scaling.mixture import mixture_like

    mixture = mixture_like(setup.vectors, setup.components, setup.dim)
    rng, vectors = np.random.default_rng(1), np.empty((users, setup.dim), np.float32)
    for start in range(0, users, _BLOCK):
        part = vectors[start : start + _BLOCK]
        part[:] = mixture.draw(rng, len(part))
    return vectors, rng.integers(3, 50, users)


def time_by_phase(moments: Sequence[Moment]) -> dict[str, Any]:
    """ "seconds", "cpu_seconds" and their parts by phase; the time before each moment is that phase's."""
    parts = {name: np.zeros(2) for name in PHASES}
    for (_, *before), (said, *after) in zip(moments, moments[1:], strict=False):
        phase = next((name for name in PHASES if name in said), "start")
        parts[phase] += np.subtract(after, before)
    wall, processor = ({name: float(each[i]) for name, each in parts.items()} for i in range(2))
    sums = {"seconds": sum(wall.values()), "cpu_seconds": sum(processor.values())}
    return {**sums, "phase_seconds": wall, "phase_cpu_seconds": processor}


def measure_apart(users: int, setup: Setup) -> Record:
    """Starts a process for `measure`, lets it show its progress, and reads the record that it prints.

    Raises:
        RelandError: the process failed.
    """
    asked = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={setup.devices}"
    try:
        return measured_apart(
            "experiments.seeds_growth", {"measure": users, **dataclasses.asdict(setup)},
            {"XLA_FLAGS": asked.strip()}, show=True,
        )  # fmt: skip
    except RelandError as error:
        raise RelandError(f"{users:,} users: {error}") from None


def run(sizes: Sequence[int], setup: Setup, workdir: Path) -> dict[int, Record]:
    """Measures what is missing, keeps each record at once, and returns, prints and draws all.

    Args:
        sizes: numbers of users; the small ones come first.
        setup: what they share.
        workdir: folder of seeds_growth.json and seeds_growth.svg.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "seeds_growth.json"
    records = read_records(path)
    found = {}
    for users in sorted(set(sizes)):
        key = f"{users} {fingerprint(users, setup)}"
        if key not in records:
            records[key] = measure_apart(users, setup)
        found[users] = records[key]
        write_sealed(path, {"setup": dataclasses.asdict(setup) | {"vectors": ""}, "records": records})
    draw(found, setup, workdir / "seeds_growth.svg")
    print(f"{table(found)}\n\nrecords: {path}\nplot:    {workdir / 'seeds_growth.svg'}")
    return found


def table(found: Mapping[int, Record]) -> str:
    """Every measurement, and below them the exponents, as text; peak is above what there was before."""
    heads = ("users", "s", "processor s", *PHASES, "near", "all", "vectors GiB", "peak above GiB")
    rows: list[tuple[str, ...]] = [heads]
    for users, each in found.items():
        near = each["iterations"] - each["complete"]
        above = each["peak_bytes"] - each["base_bytes"]
        parts = (f"{each['phase_cpu_seconds'][name]:.0f}" for name in PHASES)
        memory = (f"{size / GIBIBYTE:.2f}" for size in (each["vector_bytes"], above))
        times = (f"{each['seconds']:.0f}", f"{each['cpu_seconds']:.0f}")
        rows.append((f"{users:,}", *times, *parts, str(near), str(each["complete"]), *memory))
    slope = growth_exponent(list(found), [each["cpu_seconds"] for each in found.values()])
    rows += [] if slope is None else [("exponent", "", f"{slope:.2f}")]
    return "\n" + "\n".join("".join(f"{value:>15}" for value in row) for row in rows)


def draw(found: Mapping[int, Record], setup: Setup, path: Path) -> None:
    """Writes minutes, processor time by phase and memory against users as an SVG."""
    from matplotlib.figure import Figure

    from reland_jax.report.plots import save_svg

    figure = Figure(figsize=(12, 4), layout="constrained")  # not pyplot's: no display needed
    left, middle, right = figure.subplots(1, 3)
    records = list(found.values())
    totals = {"elapsed": "seconds", "processor time": "cpu_seconds"}
    lines = {label: [each[name] / 60 for each in records] for label, name in totals.items()}
    users = np.array(list(found))
    straight = lines["processor time"][0] * users / users[0]
    left.plot(users, straight, ":", color="#6b7280", linewidth=1, label="in proportion to users")
    _panel(left, found, lines, "minutes")
    parts = {name: [each["phase_cpu_seconds"][name] / 60 for each in records] for name in PHASES}
    _panel(middle, found, parts, "processor time by part, minutes")
    memory = {"at the peak": "peak_bytes", "before K-means": "base_bytes", "vectors": "vector_bytes"}
    sizes = {label: [each[name] / GIBIBYTE for each in records] for label, name in memory.items()}
    _panel(right, found, sizes, "resident memory, GiB")
    figure.suptitle(f"K = {setup.clusters:,} at every size, D = {setup.dim}", fontsize=10)
    save_svg(figure, path, "seeds_growth")


def _panel(axes: Axes, found: Mapping[int, Record], lines: Mapping[str, Sequence[float]], title: str) -> None:
    for (label, values), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
        axes.plot(list(found), values, color=colour, marker=marker, markersize=5, label=label)
    dress_axes(axes, title)
    axes.legend(frameon=False, fontsize=8)


def sizes_of(given: Sequence[str], clusters: int) -> list[int]:
    """Numbers of users from a flag.

    Raises:
        RelandError: none, or one that is not a whole number from `clusters` on.
    """
    for each in given:
        if not (each.isascii() and each.isdigit() and int(each) >= clusters):
            raise RelandError(f"--users: {each!r} is not a whole number from --clusters={clusters} on")
    if not given:
        raise RelandError("--users is empty; use numbers such as 250000,500000")
    return [int(each) for each in given]


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    flags.DEFINE_list("users", ["250000", "500000", "1000000", "2000000"], "Numbers of users.")
    define_path("workdir", "", "Folder of seeds_growth.json and seeds_growth.svg.")
    flags.DEFINE_integer("clusters", 37_500, "K at every number of users.", lower_bound=1)
    flags.DEFINE_integer("seeds", 75_000, "S.", lower_bound=1)
    flags.DEFINE_integer("dim", 64, "D.", lower_bound=1)
    flags.DEFINE_integer("devices", 1, "Virtual devices to divide the processor into.", lower_bound=1)
    flags.DEFINE_integer("iterations", 50, "Upper bound on Lloyd iterations.", lower_bound=0)
    flags.DEFINE_float("tolerance", 1e-4, "Relative improvement of the inertia below which Lloyd stops.")
    flags.DEFINE_integer("components", 200, "Gaussians of the mixture.", lower_bound=1)
    define_path("vectors", "", "File of behaviour vectors that the mixture is fitted on.")
    flags.DEFINE_integer("measure", 0, "Internal: only measures this many users and prints the record.")


def main() -> None:
    """Measures, prints and draws."""
    given = flags.FLAGS
    vectors = str(Path(given.vectors).resolve()) if given.vectors else ""
    names = [field.name for field in dataclasses.fields(Setup) if field.name != "vectors"]
    values: dict[str, Any] = {name: given[name].value for name in names}
    setup = Setup(**values, vectors=vectors)
    if given.measure:
        print(json.dumps(measure(given.measure, setup)))
        return
    if not given.workdir:
        raise RelandError("--workdir is missing; it is the folder of seeds_growth.json and .svg")
    run(sizes_of(given.users, setup.clusters), setup, Path(given.workdir))


if __name__ == "__main__":
    command_line.run(main, define_flags)
