"""DCN-V2 here and in four libraries of PyTorch: training rows per second, and requests of 200 candidates.

    bash third_party/rankers/setup.sh                   # the other libraries' own environment, once
    python third_party/rankers/ranker_bench.py --workdir=workdir-bench

Each measurement is a process of its own. They are started one after the other, all libraries in every round,
so that neither the order nor a slow minute of the machine favours one of them. Run it on an otherwise idle
machine. Records are kept in `records.jsonl`; one that is there is not measured again. `table.md` has the
medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIBRARIES = ("deepctr-torch", "fuxictr", "nextrec", "torch-rechub")
CASES = ("dcn_v2", "f_item", "reland")
TIMES = (1, 2, 4, 8)

Record = dict[str, Any]


def commands(given: argparse.Namespace) -> dict[str, list[str]]:
    """Every process by the name of its record, in the order in which they run."""
    theirs = str(Path(given.python).absolute())
    found: dict[str, list[str]] = {}
    for number in range(given.rounds):
        sizes = [f"--rows={given.rows}", *_common(given)]
        for library in LIBRARIES:
            side = [theirs, str(HERE / "torch_libraries.py"), f"--library={library}"]
            found[f"{library}/dcn_v2/{number}"] = [*side, *sizes]
        for case in CASES:
            found[f"reland_jax/{case}/{number}"] = [*_ours(case), *sizes]
    for times in TIMES[1:]:
        grown = [*_ours("dcn_v2"), f"--rows={times * given.rows}", *_common(given)]
        found[f"reland_jax/dcn_v2 x{times}/0"] = grown
    for times in TIMES:
        sizes = [f"--rows={times * given.rows}", *_common(given)]
        found[f"reland_jax/stream x{times}/0"] = [*_ours("stream"), *sizes]
    found["reland_jax/memory/0"] = _ours("memory")
    return found


def _common(given: argparse.Namespace) -> list[str]:
    names = ("values", "batch", "requests", "fields")
    return [f"--{name}={getattr(given, name)}" for name in names]


def _ours(case: str) -> list[str]:
    return [sys.executable, str(HERE / "reland_ranker.py"), f"--case={case}"]


def read_records(path: Path) -> dict[str, Record]:
    """The records of earlier calls by name."""
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {entry["name"]: entry for entry in entries}


def measured(name: str, command: list[str]) -> Record:
    """Runs a process and reads its last line.

    Raises:
        RuntimeError: it failed; what it said is printed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr, sep="\n")
        raise RuntimeError(f"{name} failed: {' '.join(command)}")
    record: Record = json.loads(done.stdout.strip().splitlines()[-1])
    return record | {"name": name, "command": command[1:]}


def table(records: dict[str, Record]) -> str:
    """The medians as Markdown."""
    by_case: dict[str, list[Record]] = {}
    for name, record in records.items():
        by_case.setdefault(name.rpartition("/")[0], []).append(record)
    lines = [
        "| library, case | training rows/s | request p50, ms | request p99, ms | peak memory, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, found in by_case.items():
        if "rows_per_second" in found[0]:
            rate = statistics.median(rate for each in found for rate in each["rows_per_second"])
            asked = [each["request_ms"] for each in found if "request_ms" in each]
            p50, p99 = (
                f"{statistics.median(each[name] for each in asked):.2f}" if asked else ""
                for name in ("p50", "p99")
            )
            peak = statistics.median(each["peak_bytes"] for each in found) / 2**20
            lines.append(f"| {case.replace('/', ', ')} | {rate:,.0f} | {p50} | {p99} | {peak:,.0f} |")
    return "\n".join([*lines, "", *_memory(by_case.get("reland_jax/memory", []))]) + "\n"


def _memory(found: list[Record]) -> list[str]:
    if not found:
        return []
    lines = [
        "| rows of the table | its MiB | rows of the batch | rows touched | MiB of a step beside it |",
        "|---:|---:|---:|---:|---:|",
    ]
    for each in found[-1]["memory"]:
        table_mib, step_mib = each["table_bytes"] / 2**20, each["step_bytes"] / 2**20
        lines.append(
            f"| {each['table_rows']:,} | {table_mib:,.1f} | {each['batch']:,} | {each['rows_touched']:,} | "
            f"{step_mib:,.1f} |"
        )
    return lines


def main() -> None:
    """Measures what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of records and table")
    parser.add_argument("--python", default=str(HERE / ".venv/bin/python"), help="of the other libraries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--fields", type=int, default=26)
    parser.add_argument("--requests", type=int, default=1000)
    given = parser.parse_args()
    given.workdir.mkdir(parents=True, exist_ok=True)
    path = given.workdir / "records.jsonl"
    records = read_records(path)
    for name, command in commands(given).items():
        if name not in records:
            records[name] = measured(name, command)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[name]) + "\n")
            print(name, records[name].get("rows_per_second", ""), flush=True)
    text = table(records)
    (given.workdir / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
