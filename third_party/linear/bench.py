"""Linear models here beside LAPACK, RecTools' EASE and `implicit`'s ALS: seconds, memory and quality.

    python -m venv third_party/linear/.venv && third_party/linear/.venv/bin/pip install rectools implicit
    python third_party/linear/bench.py --dataset=amazon-beauty --workdir=workdir-linear [--rounds=5]

Every measurement is a process of its own, one after the other, and the sides take turns, so that a slow
minute of the machine favours none. All get the same training part (80/10/10), the same lambda or numbers of
factors and sweeps, and all cores that the machine has; NDCG@10 is that of the validation part, with the
training items left out, by one code. Run it on an idle machine: the load at each start is recorded.
Writes records.jsonl and table.md into the workdir.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

OURS = ("ease here, float64", "ease here, float32", "ease here, sparse", "ials here")
PEERS = ("LAPACK", "RecTools", "implicit")

FLAGS = flags.FLAGS
Record = dict[str, Any]


def prepare(dataset: str, workdir: Path) -> dict[str, np.ndarray]:
    """Training and validation part of the split, as arrays in split.npz."""
    from reland_jax import flow
    from reland_jax.presets import preset
    from reland_jax.stages import FLOW, SPLIT

    splits = flow.run(FLOW, preset(dataset, "ease"), workdir / "prepared", until=SPLIT.name)[SPLIT]
    arrays = {"num_items": np.asarray(splits.num_items)}
    for part in ("train", "valid"):
        rows = getattr(splits, part)
        arrays |= {f"{part}_indptr": np.asarray(rows.indptr), f"{part}_items": np.asarray(rows.items)}
    np.savez(workdir / "split.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub takes bools there
    return arrays


def measure(side: str, python: str, settings: Record, workdir: Path) -> Record:
    """The record of one process."""
    lists = workdir / f"lists-{side.replace(' ', '-').replace(',', '')}.npy"
    command = [python, str(HERE / "sides.py"), side, str(workdir / "split.npz"), json.dumps(settings)]
    load = os.getloadavg()[0]
    done = subprocess.run([*command, str(lists)], capture_output=True, text=True)
    if done.returncode:
        raise app.UsageError(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record | {"load": load, "lists": str(lists)}


def ndcg(lists: np.ndarray, arrays: dict[str, np.ndarray]) -> float:
    """NDCG@10 of the validation part, of users with held-out items."""
    lengths = np.diff(arrays["valid_indptr"])
    users, length = np.flatnonzero(lengths), lists.shape[1]
    size = int(arrays["num_items"]) + 1
    wanted = np.repeat(np.arange(len(lengths)), lengths) * size + arrays["valid_items"]
    hit = np.isin(users[:, None] * size + lists, wanted)
    gain = 1 / np.log2(np.arange(length) + 2)
    ideal = np.cumsum(gain)[np.minimum(lengths[users], length) - 1]
    return float(((hit * gain).sum(1) / ideal).mean())


def table(records: list[Record]) -> str:
    """Medians over the rounds, one line per side."""
    columns = ("", "seconds", "least to most", "compilation", "peak GB", "NDCG@10")
    lines = [f"| {' | '.join(columns)} |", f"|---{'|---:' * (len(columns) - 1)}|"]
    for side in dict.fromkeys(record["side"] for record in records):
        own = [record for record in records if record["side"] == side]
        seconds = [record["seconds"] for record in own]
        lines.append(
            f"| {side} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} "
            f"| {statistics.median(r['compile_seconds'] for r in own):.2f} "
            f"| {max(r['peak_bytes'] for r in own) / 1e9:.2f} | {own[-1]['ndcg@10']:.4f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs all sides in turn and prints the table."""
    del arguments
    workdir = Path(FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    arrays, records = prepare(FLAGS.dataset, workdir), []
    settings = {"regularisation": FLAGS.regularisation, "dim": FLAGS.dim, "sweeps": FLAGS.sweeps}
    for turn in range(FLAGS.rounds):
        for side in FLAGS.sides:
            python = sys.executable if side in OURS else FLAGS.peers
            record = measure(side, python, settings, workdir)
            record |= {"round": turn, "ndcg@10": ndcg(np.load(record.pop("lists")), arrays)}
            records.append(record)
            print(json.dumps(record), flush=True)
            with (workdir / "records.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record | settings | {"cores": os.cpu_count()}) + "\n")
    (workdir / "table.md").write_text(table(records) + "\n", encoding="utf-8")
    print(table(records))


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "amazon-beauty", "Name of a data set, or a path.")
    flags.DEFINE_string("workdir", "workdir-linear", "Folder of records and table.")
    flags.DEFINE_string("peers", str(HERE / ".venv/bin/python"), "Interpreter with rectools and implicit.")
    flags.DEFINE_integer("rounds", 3, "Measurements of each side.", lower_bound=1)
    flags.DEFINE_multi_enum("sides", [*OURS, *PEERS], [*OURS, *PEERS], "Which sides; may be repeated.")
    flags.DEFINE_float("regularisation", 50.0, "lambda of EASE.")
    flags.DEFINE_integer("dim", 64, "Factors of ALS.")
    flags.DEFINE_integer("sweeps", 15, "Sweeps of ALS.")
    app.run(main)
