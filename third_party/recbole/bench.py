"""RecBole and this project side by side: seconds, examples per second and memory, as ratios.

    bash third_party/recbole/setup.sh                   # RecBole's own environment, once
    python third_party/recbole/bench.py --dataset=../shared/data/amazon-beauty

Each measurement is a process of its own, started one after the other and alternating between the two
libraries, so that neither the order nor a slow minute of the machine favours one of them. Run it on an
otherwise idle machine: what other programs use before each process is recorded and reported.
On 2 CPU cores and Amazon Beauty the defaults take about half an hour, nearly all of it RecBole's SASRec.

Both processes print one JSON line, the record:

    library             "recbole" or "reland_jax"
    model, objective    "sasrec" with "prefix" or "shifted"; "lightgcn" with "bpr"
    epoch_seconds       one number per training epoch over all examples, compilation not included
    compile_seconds     compilation, once per process
    evaluation_seconds  one number per full ranking of the test split, propagation included
    evaluation_batch    users ranked at a time; RecBole's is the fastest of those it tried
    evaluations         (RecBole) every evaluation batch it tried, its default among them
    examples            training targets in one epoch
    peak_bytes          largest resident memory of the process
    complete            False where epochs were cut short, so the record is no measurement
    versions            library and Python versions

SASRec's `prefix` is RecBole's own objective; `shifted` trains on the same targets with one pass per
sequence. Each gets its own row against the same RecBole measurement.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

HERE = Path(__file__).resolve().parent
RECBOLE_NAMES = {"sasrec": "SASRec", "lightgcn": "LightGCN"}
OBJECTIVES = {"sasrec": ("prefix", "shifted"), "lightgcn": ("bpr",)}
FIELDS = (
    "library", "model", "objective", "epoch_seconds", "compile_seconds", "evaluation_seconds",
    "evaluation_batch", "examples", "peak_bytes", "complete", "versions",
)  # fmt: skip
IDLE_CORES = 0.3
"""Cores that other programs may keep busy before the machine counts as busy."""

FLAGS = flags.FLAGS

Record = dict[str, Any]


def find_recbole_python(folder: str) -> str:
    """The interpreter of RecBole's environment.

    Raises:
        FileNotFoundError: there is none; the message says how to make it.
    """
    path = Path(folder)
    path = path / "bin" / "python" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: make it with `bash {HERE / 'setup.sh'} {folder}`")
    return str(path.absolute())


def commands(models: Sequence[str], dataset: Path, python: str, sizes: Sequence[str]) -> list[list[str]]:
    """The processes of one round: for each model RecBole's, then one of ours per objective.

    Args:
        models: names of backbones.
        dataset: folder of the atomic files.
        python: interpreter of RecBole's environment.
        sizes: arguments that both sides get.
    """
    listed = []
    for model in models:
        theirs = [python, str(HERE / "recbole_side.py"), f"--model={RECBOLE_NAMES[model]}"]
        listed.append([*theirs, f"--dataset={dataset}", *sizes])
        for objective in OBJECTIVES[model]:
            ours = [sys.executable, str(HERE / "reland_side.py"), f"--model={model}"]
            listed.append([*ours, f"--objective={objective}", f"--dataset={dataset}", *sizes])
    return listed


def parse_record(output: str) -> Record:
    """Reads the record from what a process printed: its last line.

    Raises:
        ValueError: that line is no record, or a field is missing.
    """
    line = (output.strip().splitlines() or [""])[-1]
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"the last line printed is no JSON record: {line[:200]!r}") from error
    missing = [field for field in FIELDS if field not in record]
    if missing:
        raise ValueError(f"the record lacks {', '.join(missing)}")
    return record


def busy_cores(seconds: float = 2.0) -> float:
    """Cores at work just now, averaged over some seconds; NaN where the system has no /proc/stat.

    Not the load average: that one still remembers the benchmark's own previous process.
    """
    if not Path("/proc/stat").exists():
        return math.nan
    before = _cpu_ticks()
    time.sleep(seconds)
    return (_cpu_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _cpu_ticks() -> int:
    user, nice, system = Path("/proc/stat").read_text(encoding="ascii").split()[1:4]
    return int(user) + int(nice) + int(system)


def run(command: Sequence[str]) -> Record:
    """Runs one process to its end and returns its record, with the cores busy before it started."""
    busy = busy_cores()
    if busy > IDLE_CORES:
        logging.warning("other programs use %.1f cores: these times are not worth much", busy)
    logging.info("running %s", " ".join(command))
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return parse_record(done.stdout) | {"busy_cores": busy}


def pool_rounds(records: Sequence[Record]) -> dict[tuple[str, str, str], Record]:
    """Joins the rounds by library, model and objective: medians of the times, the largest memory."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["library"], record["model"], record["objective"]), []).append(record)
    return {key: _pool(group) for key, group in groups.items()}


def _pool(group: Sequence[Record]) -> Record:
    epoch = statistics.median(second for record in group for second in record["epoch_seconds"])
    return {
        "epoch": epoch,
        "evaluation": statistics.median(s for record in group for s in record["evaluation_seconds"]),
        "default_evaluation": _median_of_default(group),
        "compile": statistics.median(record["compile_seconds"] for record in group),
        "rate": group[0]["examples"] / epoch,
        "peak": max(record["peak_bytes"] for record in group) / 2**30,
        "batch": sorted({record["evaluation_batch"] for record in group}),
    }


def _median_of_default(group: Sequence[Record]) -> float | None:
    entries = [entry for record in group for entry in record.get("evaluations", ())]
    seconds = [s for entry in entries if entry["is_default"] for s in entry["evaluation_seconds"]]
    return statistics.median(seconds) if seconds else None


def make_table(records: Sequence[Record]) -> str:
    """A markdown table with a block of rows per model and objective; ratios are RecBole over ours.

    A ratio above 1 is in this project's favour in every row.
    """
    pooled = pool_rounds(records)
    lines = [
        "| model | objective | what | RecBole | reland_jax | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for (library, model, objective), ours in pooled.items():
        theirs = _recbole_of(pooled, model)
        if library == "reland_jax" and theirs:
            lines += [f"| {model} | {objective} | {row}" for row in _rows(theirs, ours)]
    return "\n".join([*lines, "", *_notes(records)]) + "\n"


def _recbole_of(pooled: Mapping[tuple[str, str, str], Record], model: str) -> Record | None:
    found = [entry for (library, name, _), entry in pooled.items() if (library, name) == ("recbole", model)]
    return found[0] if found else None


def _rows(theirs: Record, ours: Record) -> list[str]:
    default, batches = theirs["default_evaluation"], "/".join(map(str, theirs["batch"]))
    rows = [
        ("training epoch, s", theirs["epoch"], ours["epoch"], theirs["epoch"] / ours["epoch"]),
        ("training, examples/s", theirs["rate"], ours["rate"], ours["rate"] / theirs["rate"]),
        (
            f"evaluation, s (RecBole tuned: {batches} users a step)",
            theirs["evaluation"],
            ours["evaluation"],
            theirs["evaluation"] / ours["evaluation"],
        ),
        ("peak memory, GiB", theirs["peak"], ours["peak"], theirs["peak"] / ours["peak"]),
    ]
    if default is not None:
        ratio = default / ours["evaluation"]
        rows.insert(3, ("evaluation, s (RecBole's default batch)", default, ours["evaluation"], ratio))
    printed = [f"{what} | {a:,.4g} | {b:,.4g} | {ratio:.2f} |" for what, a, b, ratio in rows]
    return [*printed, f"compilation, s (once) | {theirs['compile']:.2f} | {ours['compile']:.2f} | |"]


def _notes(records: Sequence[Record]) -> list[str]:
    versions = {record["library"]: record["versions"] for record in records}
    notes = [
        f"{library}: " + ", ".join(f"{k} {v}" for k, v in names.items())
        for library, names in versions.items()
    ]
    busy = [record.get("busy_cores", 0.0) for record in records]
    notes.append(f"Cores busy before each process: {', '.join(f'{cores:.2f}' for cores in busy)}.")
    if not all(record["complete"] for record in records):
        notes.append("**Some epochs were cut short: no measurement.**")
    if max(busy, default=0.0) > IDLE_CORES:
        notes.append("**The machine was busy: times are upper bounds and ratios are not to be quoted.**")
    return [f"- {note}" for note in notes]


def write(path: Path, text: str) -> None:
    """Writes a file aside and moves it into place."""
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def define_flags() -> None:
    """Defines the flags; not on import, where they could meet another script's."""
    flags.DEFINE_string("dataset", None, "folder NAME with NAME.inter, as atomic files", required=True)
    flags.DEFINE_list("models", sorted(RECBOLE_NAMES), "which of sasrec, lightgcn")
    flags.DEFINE_string("workdir", "workdir-bench", "folder for records.jsonl and table.md")
    flags.DEFINE_string("recbole_python", str(HERE / ".venv"), "environment made by setup.sh")
    flags.DEFINE_integer("epochs", 2, "training epochs per process", lower_bound=1)
    flags.DEFINE_integer("evaluations", 3, "evaluations per process and batch size", lower_bound=1)
    flags.DEFINE_integer("rounds", 2, "times that each process is run, in turn", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Runs every process, keeping the records so far after each, and prints the table."""
    workdir = Path(FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    python = find_recbole_python(FLAGS.recbole_python)
    sizes = [f"--epochs={FLAGS.epochs}", f"--evaluations={FLAGS.evaluations}"]
    records: list[Record] = []
    for _round in range(FLAGS.rounds):
        for command in commands(FLAGS.models, Path(FLAGS.dataset).resolve(), python, sizes):
            records.append(run(command))
            write(workdir / "records.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    table = make_table(records)
    write(workdir / "table.md", table)
    print(table)


if __name__ == "__main__":
    define_flags()
    app.run(main)
