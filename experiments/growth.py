"""How the cost of training and evaluation grows with the number of users.

    python -m experiments.growth --backbones=neumf,ngcf,lightgcn,gru4rec,sasrec,duorec --factors=1,2,4,8 \\
        --workdir=DIR [--epochs=2] [--grow_batch=False]

Needs no data. The data sets are generated with the statistics of 5-core Amazon Beauty and 1, 2, 4, ...
times its users; the items stay the same. The variant `id` of every backbone is trained with the settings
of experiments/configs/reland.py. Each measurement is a process of its own, one after the other and the
small ones first, so that peak memory is its own. Let nothing else run meanwhile.

Writes DIR/growth.json after every measurement and DIR/growth.svg. The same command continues after an
interruption.

A step of a collaborative backbone touches all users and items: the graph is propagated whole, and Adam
updates every embedding. With a fixed batch the steps grow with the users too, and an epoch with their
square. So the batch of these backbones grows with the users, unless told otherwise; that of the sequential
ones, whose steps do not depend on the users, stays.

Memory is that of the host, so on an accelerator the device's memory is not included.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from experiments.configs.reland import get_config

# Nothing here imports jax before a measurement does, in its own process: on Linux the peak memory of a
# process begins with that of the one that started it.
from experiments.harness import command_line
from experiments.harness.command_line import define_path
from experiments.harness.written import read_records
from experiments.scaling.interactions import DATA_SEED, SHORTEST, STATISTICS, generate
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
from reland_jax.config import BACKBONES, Config, nearest_name
from reland_jax.files import write_sealed
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    ("epoch_seconds", 1, "seconds of a training epoch"),
    ("evaluation_seconds", 1, "seconds of a full evaluation"),
    ("peak_bytes", GIBIBYTE, "peak resident memory, GiB"),
)
"""Field of a record, what its values are divided by, and title."""

Record = dict[str, Any]


class Setup(NamedTuple):
    """What all measurements share.

    Attributes:
        users: U at factor 1.
        items: I at every factor.
        epochs: training epochs to time.
        grow_batch: whether collaborative backbones have a batch in proportion to the users.
    """

    users: int
    items: int
    epochs: int
    grow_batch: bool


class Cell(NamedTuple):
    """One measurement: a backbone and how many times the users."""

    backbone: str
    factor: int


def config_of(cell: Cell, setup: Setup) -> Config:
    """The settings for Amazon Beauty, but for batch and epochs, with a validation after the last one."""
    config = Config.from_dict(get_config(f"amazon-beauty,{cell.backbone}").to_dict())
    grows = setup.grow_batch and config.train.objective == "bpr"
    batch = config.train.batch_size * (cell.factor if grows else 1)
    train = dataclasses.replace(
        config.train,
        batch_size=batch,
        max_epochs=setup.epochs,
        eval_every=setup.epochs,
        patience=setup.epochs,
    )
    return dataclasses.replace(config, train=train)


def measure(cell: Cell, setup: Setup) -> Record:
    """Seconds and memory of training and evaluating one backbone; to be called once in a process.

    Returns:
        "users", "interactions"; "batch_size"; "targets" of an epoch; "compile_seconds"; "epoch_seconds", the
        median of "seconds_of_epochs" (a few hundredths of a second of compiling are in the first one);
        "evaluation_seconds" of a second full ranking of the test part; "base_bytes", the peak resident
        memory with libraries and data but before work with jax; "peak_bytes" at the end; "environment".
    """
    from reland_jax.data import split
    from reland_jax.results import environment
    from reland_jax.stages import id_task
    from reland_jax.train import Evaluator, fit

    config = config_of(cell, setup)
    interactions = generate(setup.users * cell.factor, setup.items, DATA_SEED)
    splits, base = split(interactions, config.data.protocol), peak_bytes()
    task = id_task(config, splits)
    evaluator = Evaluator(task, splits, config.eval)
    result = fit(task, evaluator, config.train)
    evaluator.metrics(result.params, "test")  # compiles
    start = time.perf_counter()
    evaluator.metrics(result.params, "test")
    seconds = time.perf_counter() - start
    return {
        "users": interactions.num_users,
        "interactions": len(interactions.user),
        "batch_size": config.train.batch_size,
        "targets": task.targets,
        "compile_seconds": result.compile_seconds,
        "epoch_seconds": result.seconds_per_epoch,
        "seconds_of_epochs": [entry["seconds"] for entry in result.history],
        "evaluation_seconds": seconds,
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "environment": environment(),
    }


def measure_apart(cell: Cell, setup: Setup) -> Record:
    """Starts a process for `measure` and reads the record that it prints.

    Returns:
        Cell, setup and what `measure` found, whose "users" count; and "process_seconds" of it all.

    Raises:
        RelandError: the process failed; its last words are given.
    """
    start = time.perf_counter()
    values = {"measure": f"{cell.backbone},{cell.factor}", **setup._asdict()}
    found = measured_apart("experiments.growth", values)
    seconds = {"process_seconds": time.perf_counter() - start}
    return cell._asdict() | setup._asdict() | found | seconds


def key_of(cell: Cell, setup: Setup) -> str:
    """Names a measurement by all that it depends on but the machine and the code."""
    settings = fingerprint(config_of(cell, setup), setup, (DATA_SEED, *STATISTICS))
    return f"{cell.backbone} x{cell.factor} {settings}"


def run(cells: Sequence[Cell], setup: Setup, workdir: Path) -> dict[Cell, Record]:
    """Measures what is missing, keeps each record at once, and returns, prints and draws all.

    A cell whose process failed has no record; it does not stop the others.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "growth.json"
    records = read_records(path)
    keys, found = {cell: key_of(cell, setup) for cell in cells}, {}
    for number, cell in enumerate(cells, 1):
        said = "measured before"
        if keys[cell] not in records:
            try:
                records[keys[cell]] = new = measure_apart(cell, setup)
                said = f"epoch {new['epoch_seconds']:.3g} s, evaluation {new['evaluation_seconds']:.3g} s"
            except RelandError as error:
                said = f"failed: {error}"
        found = {each: records[key] for each, key in keys.items() if key in records}
        write_sealed(path, {"exponents": exponents(found), "records": records})
        left = time_to_come(cells[number:], found)
        print(f"{number}/{len(cells)} {cell.backbone} x{cell.factor}: {said}, ETA {left}", flush=True)
    draw(found, workdir / "growth.svg")
    print(f"{table(found)}\n\nrecords: {path}\nplot:    {workdir / 'growth.svg'}")
    return found


def time_to_come(cells: Sequence[Cell], found: Mapping[Cell, Record]) -> str:
    """Hours, minutes and seconds for the cells that are not finished.

    A process is expected to take as long as that of its backbone's largest finished cell, in proportion
    to the users; "over" says that a backbone has no finished cell.
    """
    missing = [cell for cell in cells if cell not in found]
    seconds = [
        cell.factor / largest.factor * found[largest]["process_seconds"]
        for cell in missing
        if (largest := max((each for each in found if each.backbone == cell.backbone), default=None))
    ]
    if missing and not seconds:
        return "unknown"
    return ("over " if len(seconds) < len(missing) else "") + str(timedelta(seconds=round(sum(seconds))))


def exponents(found: Mapping[Cell, Record]) -> dict[str, dict[str, float | None]]:
    """Backbone -> "epoch_seconds" and "evaluation_seconds" -> exponent of growth."""
    slopes: dict[str, dict[str, float | None]] = {}
    for backbone, line in _lines(found):
        for name in ("epoch_seconds", "evaluation_seconds"):
            slope = growth_exponent([each["users"] for each in line], [each[name] for each in line])
            slopes.setdefault(backbone, {})[name] = slope
    return slopes


def _lines(found: Mapping[Cell, Record]) -> Iterator[tuple[str, list[Record]]]:
    """The records of each backbone, by number of users."""
    for backbone in dict.fromkeys(cell.backbone for cell in found):
        yield backbone, [found[cell] for cell in sorted(found) if cell.backbone == backbone]


def table(found: Mapping[Cell, Record]) -> str:
    """Every measurement, and below them the exponents, as text."""
    heads = ("users", "targets", "compile s", "epoch s", "evaluation s", "base GiB", "peak GiB")
    rows: list[tuple[str, ...]] = [("backbone", *heads)]
    rows += [(backbone, *_columns(record)) for backbone, line in _lines(found) for record in line]
    rows += [("",) * 8, ("exponent of growth", "", "", "", "epoch s", "evaluation s")]
    for backbone, slopes in exponents(found).items():
        shown = ("-" if slope is None else f"{slope:.2f}" for slope in slopes.values())
        rows.append((backbone, "", "", "", *shown))
    return "\n" + "\n".join((f"{row[0]:<18}" + "".join(f"{x:>14}" for x in row[1:])).rstrip() for row in rows)


def _columns(record: Record) -> Iterator[str]:
    yield from (f"{record[name]:,}" for name in ("users", "targets"))
    yield from (f"{record[f'{name}_seconds']:.3f}" for name in ("compile", "epoch", "evaluation"))
    yield from (f"{record[f'{name}_bytes'] / GIBIBYTE:.2f}" for name in ("base", "peak"))


def draw(found: Mapping[Cell, Record], path: Path) -> None:
    """Writes `PANELS` against users as an SVG; dotted is what would be in proportion to the first point."""
    from matplotlib.figure import Figure

    from reland_jax.report.plots import save_svg

    figure = Figure(figsize=(12, 4), layout="constrained")  # not pyplot's: no display needed
    panels = figure.subplots(1, len(PANELS))
    for axes, panel in zip(panels, PANELS, strict=True):
        _draw_panel(axes, found, *panel)
    panels[0].plot([], [], ":", color="#6b7280", label="in proportion to users")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    save_svg(figure, path, "growth")


def _draw_panel(axes: Axes, found: Mapping[Cell, Record], name: str, unit: int, title: str) -> None:
    for backbone, line in _lines(found):
        style = BACKBONES.index(backbone)
        users = np.array([each["users"] for each in line])
        values = np.array([each[name] for each in line]) / unit
        axes.plot(users, values, color=COLOURS[style], marker=MARKERS[style], markersize=5, label=backbone)
        axes.plot(users, values[0] * users / users[0], ":", color=COLOURS[style], linewidth=1)
    dress_axes(axes, title)


def plan(backbones: Sequence[str], factors: Sequence[str]) -> list[Cell]:
    """All measurements, few users first.

    Raises:
        RelandError: an unknown backbone, or a factor that is not a whole number from 1.
    """
    for name in backbones:
        if name not in BACKBONES:
            raise RelandError(f"--backbones: {name!r} is not known; {nearest_name(name, BACKBONES)}")
    for factor in factors:
        if not (factor.isascii() and factor.isdigit() and int(factor)):
            raise RelandError(f"--factors: {factor!r} is not a whole number from 1, as in 1,2,4,8")
    if not backbones or not factors:
        raise RelandError(f"--{'factors' if backbones else 'backbones'} is empty; name at least one")
    return [Cell(name, n) for n in sorted(set(map(int, factors))) for name in dict.fromkeys(backbones)]


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    flags.DEFINE_list("backbones", list(BACKBONES), "Backbones.")
    flags.DEFINE_list("factors", ["1", "2", "4", "8"], "How many times the users.")
    define_path("workdir", "", "Folder of growth.json and growth.svg.")
    flags.DEFINE_integer("epochs", 2, "Training epochs to time.", lower_bound=1)
    flags.DEFINE_bool("grow_batch", True, "Collaborative backbones: batch in proportion to the users.")
    flags.DEFINE_integer("users", 22_363, "Users at factor 1.", lower_bound=1)
    flags.DEFINE_integer("items", 12_101, "Items at every factor.", lower_bound=2 * SHORTEST)
    flags.DEFINE_string("measure", "", "BACKBONE,FACTOR: internal; only measures this and prints its record.")


def main() -> None:
    """Measures, prints and draws; ends with an error status if a measurement failed."""
    given = flags.FLAGS
    setup = Setup(given.users, given.items, given.epochs, given.grow_batch)
    if given.measure:
        (cell,) = plan(*([part] for part in given.measure.split(",")))
        print(json.dumps(measure(cell, setup)))
        return
    if not given.workdir:
        raise RelandError("--workdir is missing; it is the folder of growth.json and growth.svg")
    cells = plan(given.backbones, given.factors)
    if missing := len(cells) - len(run(cells, setup, Path(given.workdir))):
        raise RelandError(f"{missing} measurements failed; the lines above say which and why")


if __name__ == "__main__":
    command_line.run(main, define_flags)
