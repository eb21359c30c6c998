"""RecBole and this project side by side: seconds, examples per second, memory, and time to equal quality.

    bash third_party/recbole/setup.sh                   # RecBole's own environment, once
    python third_party/recbole/bench.py --dataset=../shared/data/amazon-beauty --to_quality

Each measurement is a process of its own, started one after the other and alternating between the two
libraries, so that neither the order nor a slow minute of the machine favours one of them. Run it on an
otherwise idle machine: what other programs use before each process is recorded and reported.

Every process prints one JSON line, the record, which is kept in `records.jsonl`; a process whose record
is there already is not run again, so a benchmark that was interrupted goes on where it was, and models
can be added to it. All records have

    kind                "timing" or "quality"
    library             "recbole" or "reland_jax"
    model, objective    a name of `matched.py`; "bpr", "bce", "prefix" or "shifted"
    compile_seconds     compilation, once per process
    evaluation_batch    users ranked at a time; RecBole's is the fastest of those it tried
    held_out            fingerprints of the targets ranked and the items masked, "valid" and "test"
    complete            False where epochs were cut short, so the record is no measurement
    versions            library and Python versions
    command, round, busy_cores, machine     added here: what was run, where, and beside what

and those of timing also

    epoch_seconds       one number per training epoch over all examples, compilation not included
    evaluation_seconds  one number per full ranking of the test split, propagation included
    evaluations         (RecBole) every evaluation batch it tried, its default among them
    evaluated_users     users ranked, with the seconds scaled to all of them; 0 where all were ranked
    examples            training targets in one epoch
    peak_bytes          largest resident memory of the process

With `--to_quality`, RecBole then trains for a few epochs with a validation after each, once with its own
learning rate and once with this project's and its batch. The better of the two is the opponent: this
project's tuned settings (`experiments/configs/reland.py`, variant `id`) are trained up to its best NDCG@10.

    learning_rate, batch_size     (RecBole) what it was trained with
    progress            per epoch: "seconds" from the start to the end of its validation, and "ndcg@10"
    until               (this project) the NDCG@10 to reach
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from bench_table import IDLE_CORES, best_quality, make_table, tuned_batch
from matched import BATCH_SIZE, MODELS, RECBOLE_COMMON
from reland_side import tuned_config

HERE = Path(__file__).resolve().parent
COMMON_FIELDS = (
    "kind", "library", "model", "objective", "compile_seconds", "evaluation_batch", "held_out", "complete",
    "versions",
)  # fmt: skip
FIELDS = {
    "timing": ("epoch_seconds", "evaluation_seconds", "evaluated_users", "examples", "peak_bytes"),
    "quality": ("progress",),
}

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


def recbole_command(model: str, dataset: Path, python: str, *arguments: str) -> list[str]:
    """RecBole's process for a model, in its own environment."""
    return [python, str(HERE / "recbole_side.py"), f"--model={model}", f"--dataset={dataset}", *arguments]


def reland_command(model: str, dataset: Path, *arguments: str) -> list[str]:
    """This project's process for a model."""
    script = str(HERE / "reland_side.py")
    return [sys.executable, script, f"--model={model}", f"--dataset={dataset}", *arguments]


def timing_commands(
    model: str, dataset: Path, python: str, epochs: int, evaluations: int, *, batch: int, eval_users: int
) -> list[list[str]]:
    """The processes of one round for a model: RecBole's, then one of ours per objective.

    Args:
        model: name of a backbone.
        dataset: folder of the atomic files.
        python: interpreter of RecBole's environment.
        epochs: training epochs per process.
        evaluations: evaluations per process and batch size; for RecBole at most what `matched.py` allows.
        batch: RecBole's fastest evaluation batch where an earlier round has found it, else 0. Only where
            an evaluation takes minutes is the search left out of later rounds.
        eval_users: users that RecBole ranks there, 0 for all.
    """
    match, listed = MODELS[model], []
    if match.recbole:
        theirs = [f"--epochs={epochs}", f"--evaluations={min(match.evaluations or evaluations, evaluations)}"]
        if match.evaluations:
            theirs += [f"--evaluation_batch={batch}", f"--eval_users={eval_users}"]
        listed.append(recbole_command(model, dataset, python, *theirs))
    ours = [f"--epochs={epochs}", f"--evaluations={evaluations}"]
    return listed + [reland_command(model, dataset, f"--objective={o}", *ours) for o in match.objectives]


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
    fields = COMMON_FIELDS + FIELDS.get(record.get("kind"), ())
    missing = [field for field in fields if field not in record]
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


def machine() -> str:
    """Processor, cores, memory and system, in a line."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {gib:.0f} GiB, {platform.system()} {platform.release()}"


def run(command: Sequence[str]) -> Record:
    """Runs one process to its end and returns its record, with the cores busy before it started."""
    busy = busy_cores()
    if busy > IDLE_CORES:
        logging.warning("other programs use %.1f cores: these times are not worth much", busy)
    logging.info("running %s", " ".join(command))
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return parse_record(done.stdout) | {"busy_cores": busy, "machine": machine()}


class Records:
    """The records of a benchmark, kept in a file; what is there already is not measured again.

    Attributes:
        listed: all records so far.
    """

    def __init__(self, path: Path) -> None:
        """Reads the records of an earlier start, if there are any."""
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.listed: list[Record] = [json.loads(line) for line in lines]

    def measure(self, command: Sequence[str], round_: int) -> Record:
        """The record of a command in a round, from the file or by running it."""
        for record in self.listed:
            if record["command"] == list(command[1:]) and record["round"] == round_:
                return record
        record = run(command) | {"command": list(command[1:]), "round": round_}
        self.listed.append(record)
        write(self._path, "".join(json.dumps(entry) + "\n" for entry in self.listed))
        return record


def write(path: Path, text: str) -> None:
    """Writes a file aside and moves it into place."""
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def time_round(
    records: Records, round_: int, models: Sequence[str], dataset: Path, python: str
) -> Iterator[Record]:
    """One timing process after the other."""
    for model in models:
        batch = tuned_batch(records.listed, model) if round_ else 0
        for command in timing_commands(
            model,
            dataset,
            python,
            FLAGS.epochs,
            FLAGS.evaluations,
            batch=batch,
            eval_users=FLAGS.eval_users,
        ):
            yield records.measure(command, round_)


def time_quality(records: Records, model: str, dataset: Path, python: str, epochs: int) -> Iterator[Record]:
    """RecBole's runs for quality, with its fastest evaluation batch, and ours up to their best value."""
    arguments = (
        f"--quality_epochs={epochs or MODELS[model].quality_epochs}",
        f"--evaluation_batch={tuned_batch(records.listed, model)}",
    )
    best = 0.0
    for steps in quality_steps(model, dataset):
        theirs = records.measure(recbole_command(model, dataset, python, *arguments, *steps), 0)
        best = max(best, best_quality(theirs)[0])
        yield theirs
    yield records.measure(reland_command(model, dataset, f"--until={best!r}"), 0)


def quality_steps(model: str, dataset: Path) -> list[list[str]]:
    """Arguments for RecBole's own steps (none), and for this project's where they are others.

    A learning rate goes with its batch: one that was chosen for 4,096 targets is too large for a quarter.
    """
    ours = tuned_config(model, str(dataset)).train
    given = []
    if ours.learning_rate != RECBOLE_COMMON["learning_rate"]:
        given.append(f"--learning_rate={ours.learning_rate!r}")
    if ours.batch_size != BATCH_SIZE:
        given.append(f"--batch_size={ours.batch_size}")
    return [[], given] if given else [[]]


def define_flags() -> None:
    """Defines the flags; not on import, where they could meet another script's."""
    from experiments.harness.command_line import define_path, required_path

    required_path("dataset", "folder NAME with NAME.inter, as atomic files")
    flags.DEFINE_list("models", list(MODELS), "which backbones; duorec is compared with our own sasrec")
    define_path("workdir", "workdir-bench", "folder for records.jsonl and table.md")
    define_path("recbole_python", str(HERE / ".venv"), "environment made by setup.sh")
    flags.DEFINE_integer("epochs", 2, "training epochs per process", lower_bound=1)
    flags.DEFINE_integer("evaluations", 3, "evaluations per process and batch size", lower_bound=1)
    flags.DEFINE_integer("rounds", 2, "times that each timing process is run, in turn", lower_bound=1)
    flags.DEFINE_integer(
        "eval_users", 0, "users that RecBole's NeuMF ranks in timing, scaled to all; 0: all", lower_bound=0
    )
    flags.DEFINE_bool("to_quality", False, "also time both to the same validation NDCG@10, once")
    flags.DEFINE_integer(
        "quality_epochs", 0, "RecBole's epochs for that; 0: by model, see matched.py", lower_bound=0
    )
    flags.register_validator("models", lambda names: set(names) <= set(MODELS), f"known: {', '.join(MODELS)}")


def main() -> None:
    """Runs every process, keeping the records and the table so far after each."""
    workdir, dataset = Path(FLAGS.workdir), Path(FLAGS.dataset).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    python = find_recbole_python(FLAGS.recbole_python)
    records = Records(workdir / "records.jsonl")
    for round_ in range(FLAGS.rounds):
        for _record in time_round(records, round_, FLAGS.models, dataset, python):
            write(workdir / "table.md", make_table(records.listed))
    for model in FLAGS.models if FLAGS.to_quality else ():
        if MODELS[model].recbole:
            for _record in time_quality(records, model, dataset, python, FLAGS.quality_epochs):
                write(workdir / "table.md", make_table(records.listed))
    print(make_table(records.listed))


if __name__ == "__main__":
    from experiments.harness import command_line  # found by the path that was added above

    command_line.run(main, define_flags)
