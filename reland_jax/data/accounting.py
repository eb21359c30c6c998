"""The account of loading a data set, for people: its `LoadReport` and the lines to print."""

from __future__ import annotations

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.describe import TextCoverage, repeats, text_coverage
from reland_jax.data.filtering import Kept
from reland_jax.data.sources.raw import SPLIT_CODES, RawTable
from reland_jax.data.splits import split
from reland_jax.types import Interactions, LoadReport, Splits

_TIME_UNKNOWN = "of no known unit; only their order counts"


def load_report(
    raw: RawTable, kept: Kept, rows: np.ndarray, interactions: Interactions, config: DataConfig
) -> LoadReport:
    """The account of loading a data set.

    Args:
        raw: what was read.
        kept: what the filters left of it, and what each took.
        rows: ``<int64>[n]``, the row of the raw table that each interaction was.
        interactions: what it became.
        config: the protocol, by which users are counted that will be evaluated, and the text fields.
    """
    splits = split(interactions, config.protocol, config.validation_from)
    texts = text_coverage(interactions, config.text_fields)
    return LoadReport(
        where=raw.where,
        rows=len(raw.user.code),
        dropped=kept.dropped,
        left=len(rows),
        columns=dict(raw.columns),
        time_unit=raw.span[0],
        first_time=raw.span[1],
        last_time=raw.span[2],
        ties=0 if raw.time is None else _ties(interactions.user, raw.time[rows]),
        repeats=repeats(interactions),
        users_read=len(raw.user.name),
        items_read=len(raw.item.name),
        users=interactions.num_users,
        items=interactions.num_items,
        text_fields=tuple(texts.by_field),
        items_with_text=texts.described,
        matched_items=_matched(raw, interactions),
        evaluated_users=int((splits.test.lengths() > 0).sum()),
        notes=(*raw.notes, *_notes(raw, texts, config), *_split_notes(interactions.fixed_split, splits)),
    )


def _split_notes(fixed: np.ndarray | None, splits: Splits) -> list[str]:
    """What a split holds that no model can learn, and what was drawn for it."""
    notes = []
    if splits.protocol == "fixed" and fixed is not None and not (fixed == SPLIT_CODES["valid"]).any():
        notes.append(
            "the data fix no validation part: one training item of every user with at least two is held out "
            "for it, drawn at random"
        )
    unknown = int(((splits.test.lengths() > 0) & (splits.train.lengths() == 0)).sum())
    if unknown:
        notes.append(f"{unknown:,} of the users to be evaluated have no training item")
    new = int(np.isin(splits.test.items, splits.train.items, invert=True).sum())
    if new:
        notes.append(
            f"{new:,} of {len(splits.test.items):,} test interactions are with items that nobody has in "
            "training: only item texts tell of them"
        )
    return notes


def report_lines(report: LoadReport) -> list[tuple[str, str]]:
    """The report as labels and values, in the order in which things were done."""
    lines = [("data", report.where)]
    lines += [(f"column of the {what}", name) for what, name in report.columns.items()]
    lines.append(("rows read", f"{report.rows:,}"))
    lines += [(f"- {why}", f"{count:,}") for why, count in report.dropped]
    lines += [
        ("interactions left", f"{report.left:,}"),
        ("- of these, same user and item as an earlier one", f"{report.repeats:,}"),
        ("times", _times(report)),
    ]
    if "time" in report.columns:
        lines.append(("- at the same time as another of the user, in file order", f"{report.ties:,}"))
    lines += [
        ("users left", f"{report.users:,} of {report.users_read:,}"),
        ("- to be evaluated", f"{report.evaluated_users:,}"),
        ("items left", f"{report.items:,} of {report.items_read:,}"),
    ]
    if report.matched_items is not None:
        lines.append(("- in the table of items", _share(report.matched_items, report.items)))
    named = ", ".join(report.text_fields) or "no column of texts"
    lines.append((f"- with a text ({named})", _share(report.items_with_text, report.items)))
    return lines + [("note", note) for note in report.notes]


def report_text(report: LoadReport) -> str:
    """The report as a table of plain text, with a headline."""
    lines = report_lines(report)
    width = max(len(label) for label, _ in lines)
    return "\n".join(["loading:", *(f"  {label:<{width}}  {value}" for label, value in lines)])


def report_line(report: LoadReport) -> str:
    """The report in one line, for a run that loads nothing anew."""
    return (
        f"data: {report.left:,} of {report.rows:,} interactions, {report.users:,} users, "
        f"{report.items:,} items; load/statistics.json tells what was left out"
    )


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})"


def _times(report: LoadReport) -> str:
    if "time" not in report.columns:
        return "none; the order of the file is the order of time"
    unit = report.time_unit or _TIME_UNKNOWN
    return f"{report.first_time} to {report.last_time} ({unit})"


def _ties(user: np.ndarray, time: np.ndarray) -> int:
    """Rows, sorted by both, whose user has another at the same time: the order of the file decides."""
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    return int((np.append(same, False) | np.append(False, same)).sum())


def _matched(raw: RawTable, interactions: Interactions) -> int | None:
    """Items that the table of items has a row for; None where items have no table of their own."""
    if raw.item_table is None:
        return None
    known = set(raw.item_table.tolist())
    return sum(name in known for name in interactions.ids.items[1:].tolist())


def _notes(raw: RawTable, texts: TextCoverage, config: DataConfig) -> list[str]:
    notes = []
    if texts.marks:
        notes.append(f"{texts.marks:,} texts only say that there is none, such as 'nan'; they are not texts")
    if texts.written_out:
        notes.append(f"{texts.written_out:,} texts are lists or the like written out; read as what they hold")
    if raw.split is not None and config.protocol != "fixed":
        notes.append(
            f"the data fix a split, and config.data.protocol={config.protocol!r} makes another; 'fixed' "
            "uses theirs"
        )
    if raw.item_features is None or not raw.item_features.fields:
        notes.append("items have no texts: f_item and reland have nothing to read about them")
    return notes
