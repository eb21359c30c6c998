"""The benchmark's records as markdown tables, and the few numbers that later processes need of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

IDLE_CORES = 0.3
"""Cores that other programs may keep busy before the machine counts as busy."""

Record = dict[str, Any]
Pooled = Mapping[tuple[str, str, str], Record]

_HEAD = (
    "model", "objective", "epoch, s", "ratio", "examples/s", "ratio", "evaluation, s", "ratio",
    "peak, GiB", "ratio", "compile, s", "seconds to NDCG@10", "ratio",
)  # fmt: skip


def tuned_batch(records: Sequence[Record], model: str) -> int:
    """RecBole's fastest evaluation batch in its first timing of a model; 0 where there is none."""
    found = (
        record["evaluation_batch"]
        for record in records
        if (record["kind"], record["library"], record["model"]) == ("timing", "recbole", model)
    )
    return next(found, 0)


def best_quality(record: Record) -> tuple[float, float]:
    """The best NDCG@10 of a run, and the seconds after which it was first reached."""
    best = max(entry["ndcg@10"] for entry in record["progress"])
    return best, seconds_to(record, best)


def seconds_to(record: Record, quality: float) -> float | None:
    """Seconds until a run first reached an NDCG@10, or None where it did not."""
    reached = (entry["seconds"] for entry in record["progress"] if entry["ndcg@10"] >= quality)
    return next(reached, None)


def pool_rounds(records: Sequence[Record]) -> dict[tuple[str, str, str], Record]:
    """Joins the timings by library, model and objective: medians of the times, the largest memory."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record["kind"] == "timing":
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
        "batch": "/".join(map(str, sorted({record["evaluation_batch"] for record in group}))),
        "scaled": any(record["evaluated_users"] for record in group),
    }


def _median_of_default(group: Sequence[Record]) -> float | None:
    entries = [entry for record in group for entry in record.get("evaluations", ())]
    seconds = [s for entry in entries if entry["is_default"] for s in entry["evaluation_seconds"]]
    return statistics.median(seconds) if seconds else None


def make_table(records: Sequence[Record]) -> str:
    """Markdown: RecBole against this project, DuoRec against SASRec, and what to know of both.

    A ratio above 1 is in this project's favour everywhere but in the table of DuoRec.
    """
    pooled = pool_rounds(records)
    rows = []
    for (library, model, objective), ours in pooled.items():
        found = _recbole_of(pooled, model)
        if library == "reland_jax" and found:
            their_objective, theirs = found
            told = objective if their_objective in ("prefix", "bpr") else f"{objective} ({their_objective})"
            cells = _timing_cells(theirs, ours) + _quality_cells(records, model, objective)
            rows.append(_line([model, told, *cells]))
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *rows, ""]
    return "\n".join([*lines, *_duorec_lines(pooled), *_notes(records)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _recbole_of(pooled: Pooled, model: str) -> tuple[str, Record] | None:
    found = (
        (objective, entry)
        for (library, name, objective), entry in pooled.items()
        if (library, name) == ("recbole", model)
    )
    return next(found, None)


def _timing_cells(theirs: Record, ours: Record) -> list[str]:
    about = "~" if theirs["scaled"] else ""
    evaluation = [(theirs["evaluation"], f"tuned ({theirs['batch']})")]
    if theirs["default_evaluation"] is not None:
        evaluation.insert(0, (theirs["default_evaluation"], "default"))
    told = ", ".join(f"{about}{seconds:,.3g} {how}" for seconds, how in evaluation)
    return [
        f"{theirs['epoch']:,.4g} / {ours['epoch']:,.4g}",
        f"{theirs['epoch'] / ours['epoch']:.2f}",
        f"{theirs['rate']:,.0f} / {ours['rate']:,.0f}",
        f"{ours['rate'] / theirs['rate']:.2f}",
        f"{told} / {ours['evaluation']:,.3g}",
        ", ".join(f"{about}{seconds / ours['evaluation']:.2f}" for seconds, _ in evaluation),
        f"{theirs['peak']:.2f} / {ours['peak']:.2f}",
        f"{theirs['peak'] / ours['peak']:.2f}",
        f"{ours['compile']:.1f}",
    ]


def _quality_cells(records: Sequence[Record], model: str, objective: str) -> list[str]:
    found = [r for r in records if (r["kind"], r["model"]) == ("quality", model)]
    theirs = max((r for r in found if r["library"] == "recbole"), key=best_quality, default=None)
    # The last of ours: one from before RecBole was given another learning rate went up to another value.
    ours = next((r for r in reversed(found) if r["library"] == "reland_jax"), None)
    if not theirs or not ours or ours["objective"] != objective:
        return ["", ""]
    quality, slow = best_quality(theirs)
    fast = seconds_to(ours, quality)
    told = f"{quality:.4f}, RecBole's steps {theirs['learning_rate']:g}: {slow:,.3g}"
    if fast is None:
        reached = best_quality(ours)[0]
        return [f"{told} / not reached ({reached:.4f})", "none"]
    compiled = f"{ours['compile_seconds']:.1f} of it compiling"
    return [f"{told} / {fast:,.3g} ({compiled})", f"{slow / fast:.2f}"]


def _duorec_lines(pooled: Pooled) -> list[str]:
    lines = []
    for (library, model, objective), duorec in pooled.items():
        sasrec = pooled.get(("reland_jax", "sasrec", objective))
        if (library, model) == ("reland_jax", "duorec") and sasrec:
            seconds = f"{sasrec['epoch']:,.4g} | {duorec['epoch']:,.4g}"
            lines.append(f"| {objective} | {seconds} | {duorec['epoch'] / sasrec['epoch']:.2f} |")
    head = "| objective | our SASRec, epoch s | our DuoRec, epoch s | DuoRec / SASRec |"
    return [head, "|---|---|---|---|", *lines, ""] if lines else []


def _notes(records: Sequence[Record]) -> list[str]:
    notes = [
        "Pairs are RecBole / reland_jax, in brackets RecBole's loss where it is another one, and its users a "
        "step. Ratios above 1 are in favour of reland_jax.",
        *sorted({f"Machine: {record['machine']}." for record in records if "machine" in record}),
        *_version_notes(records),
        *_held_out_notes(records),
    ]
    busy = [record.get("busy_cores", 0.0) for record in records]
    notes.append(f"Cores busy before each process: {', '.join(f'{cores:.2f}' for cores in busy)}.")
    scaled = sorted({record["evaluated_users"] for record in records if record.get("evaluated_users")})
    if scaled:
        counts = " or ".join(map(str, scaled))
        notes.append(f"**~: RecBole ranked {counts} users; its seconds are scaled to all of them.**")
    if not all(record["complete"] for record in records):
        notes.append("**Some epochs were cut short: no measurement.**")
    if max(busy, default=0.0) > IDLE_CORES:
        notes.append("**The machine was busy: times are upper bounds and ratios are not to be quoted.**")
    return [f"- {note}" for note in notes]


def _version_notes(records: Sequence[Record]) -> list[str]:
    versions = {record["library"]: record["versions"] for record in records}
    return [
        f"{library}: " + ", ".join(f"{k} {v}" for k, v in names.items())
        for library, names in versions.items()
    ]


def _held_out_notes(records: Sequence[Record]) -> list[str]:
    """Whether both sides ranked the same targets with the same items masked, by model."""
    seen: dict[str, dict[str, set[str]]] = {}
    for record in records:
        fingerprint = repr(sorted(record["held_out"].items()))
        seen.setdefault(record["model"], {}).setdefault(record["library"], set()).add(fingerprint)
    both = {model: sides for model, sides in seen.items() if len(sides) == 2}
    equal = sorted(model for model, sides in both.items() if len(set().union(*sides.values())) == 1)
    notes = [f"Same targets, same items masked, on both sides: {', '.join(equal)}."] if equal else []
    other = ", ".join(sorted(set(both) - set(equal)))
    return notes + ([f"**The targets or the items masked differ: {other}.**"] if other else [])
