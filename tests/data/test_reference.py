"""Tables in many dresses against a slow, obvious reader that is written down here in plain Python."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from reland_jax.config import DataConfig
from reland_jax.data import load_interactions
from reland_jax.data.sources.values import MISSING
from reland_jax.types import RelandError

HEADER = ("user_id", "item_id", "timestamp", "rating", "title")
FIRST = datetime.datetime(2020, 2, 29, 23, 59, 59, tzinfo=datetime.UTC)

Row = tuple[str, str, int, float | None, str]
"""User, item, nanoseconds since `FIRST`, rating, title."""


class Want(NamedTuple):
    """What is asked for."""

    min_rating: float | None
    repeats: str
    core: int
    timed: bool


class Kept(NamedTuple):
    """What the reference reader says."""

    sequences: dict[str, list[str]]
    titles: dict[str, str]
    left: int
    ties: int


def reference(rows: list[Row], want: Want) -> Kept:
    """Row by row, as the documentation words it."""
    kept = list(enumerate(rows))
    if want.min_rating is not None:
        kept = [(n, row) for n, row in kept if row[3] is not None and row[3] >= want.min_rating]
    if want.repeats == "drop" or (want.repeats == "auto" and want.timed):
        seen, first = set(), []
        for n, row in kept:
            key = row[:3] if want.timed else row[:2]
            first += [] if key in seen else [(n, row)]
            seen.add(key)
        kept = first
    while want.core > 1:
        counts = Counter(("u", row[0]) for _, row in kept) + Counter(("i", row[1]) for _, row in kept)
        enough = [(n, row) for n, row in kept if min(counts["u", row[0]], counts["i", row[1]]) >= want.core]
        if len(enough) == len(kept):
            break
        kept = enough
    kept.sort(key=lambda each: (each[1][0], each[1][2] if want.timed else 0, each[0]))
    sequences: dict[str, list[str]] = {}
    for _, row in kept:
        sequences.setdefault(row[0], []).append(row[1])
    items = {row[1] for _, row in kept}
    titles = {item: next((row[4] for row in rows if row[1] == item and row[4]), "") for item in items}
    times = Counter((row[0], row[2]) for _, row in kept)
    return Kept(sequences, titles, len(kept), sum(n for n in times.values() if n > 1) if want.timed else 0)


# --- dresses ---------------------------------------------------------------------------------------

SECONDS = 10**9
STAMP = int(FIRST.timestamp())


def _clock(ns: int, pattern: str, hours: int = 0) -> str:
    moment = FIRST + datetime.timedelta(hours=hours, seconds=ns // SECONDS)
    return f"{moment:{pattern}}.{ns % SECONDS:09d}"


CLOCKS: dict[str, Callable[[int], str]] = {
    "seconds": lambda ns: str(STAMP + ns // SECONDS),
    "decimals": lambda ns: f"{STAMP + ns // SECONDS}.{ns % SECONDS:09d}",
    "nanoseconds": lambda ns: str(STAMP * SECONDS + ns),
    "small": lambda ns: str(ns - 3 * SECONDS),
    "iso": lambda ns: _clock(ns, "%Y-%m-%dT%H:%M:%S"),
    "zone": lambda ns: _clock(ns, "%Y-%m-%d %H:%M:%S", hours=2) + "+0200",
}
COARSE = ("seconds",)
"""Clocks that keep whole seconds alone."""


def text(
    rows: list[Row], clock: str, delimiter: str = ",", header: tuple[str, ...] = HEADER, **dress: Any
) -> str:
    """A table with a header."""
    out = io.StringIO()
    writer = csv.writer(
        out, delimiter=delimiter, lineterminator=dress.get("end", "\n"), quoting=dress.get("quoting", 0)
    )
    writer.writerow(header)
    for user, item, ns, rating, title in rows:
        writer.writerow((user, item, CLOCKS[clock](ns), "" if rating is None else rating, title))
    return out.getvalue()


def atomic(rows: list[Row], clock: str) -> str:
    """RecBole's form, which quotes nothing."""
    kinds = ("token", "token", "float", "float", "token_seq")
    lines = ["\t".join(f"{name}:{kind}" for name, kind in zip(HEADER, kinds, strict=True))]
    for user, item, ns, rating, title in rows:
        lines.append("\t".join((user, item, CLOCKS[clock](ns), "" if rating is None else str(rating), title)))
    return "\n".join(lines) + "\n"


def arrow(rows: list[Row], timestamps: bool) -> pa.Table:
    """The same with types."""
    users, items, times, ratings, titles = zip(*rows, strict=True)
    numbers = pa.array([STAMP * SECONDS + ns for ns in times], pa.int64())
    return pa.table({
        "user_id": pa.array(users).dictionary_encode(), "item_id": pa.array(items, pa.large_string()),
        "timestamp": numbers.cast(pa.timestamp("ns", "America/New_York")) if timestamps else numbers,
        "rating": pa.array(ratings, pa.float32()), "title": pa.array([title or None for title in titles]),
    })  # fmt: skip


def write(folder: Path, dress: str, rows: list[Row], clock: str) -> dict[str, Any]:
    """Writes the rows in a dress, and returns the settings that it takes."""
    half = max(len(rows) // 2, 1)
    match dress:
        case "csv":
            (folder / "x.csv").write_text(text(rows, clock, end="\r\n"), "utf-8", newline="")
        case "excel":
            (folder / "x.CSV").write_text("sep=;\n" + text(rows, clock, ";"), "utf-8-sig", newline="")
        case "tsv":
            (folder / "x.tsv").write_text(text(rows, clock, "\t", quoting=csv.QUOTE_ALL), "utf-8", newline="")
        case "bars":
            (folder / "x.txt").write_text(text(rows, clock, "|"), "utf-8", newline="")
            return {"name": str(folder / "x.txt")}
        case "utf-16":
            (folder / "x.csv").write_text(text(rows, clock), "utf-16", newline="")
        case "utf-16-be":
            (folder / "x.csv").write_text(text(rows, clock), "utf-16-be", newline="")
            return {"name": str(folder / "x.csv"), "encoding": "utf-16-be"}
        case "gz":
            (folder / "x.csv.gz").write_bytes(gzip.compress(text(rows, clock).encode()))
        case "bz2":
            (folder / "x.tsv.bz2").write_bytes(bz2.compress(text(rows, clock, "\t").encode()))
        case "parts":
            for number, part in enumerate((rows[:half], rows[half:])):
                (folder / f"part-{number}.csv").write_text(text(part, clock), "utf-8", newline="")
        case "names":
            names = ("Who", "what", "When", "stars", "LABEL")
            (folder / "x.csv").write_text(text(rows, clock, header=names), "utf-8", newline="")
            fields = ("user_field", "item_field", "time_field", "rating_field")
            asked = dict(zip(fields, ("who", "what", "when", "stars"), strict=True))
            return {"name": str(folder), "text_fields": ("label",), **asked}
        case "items":
            (folder / "x.csv").write_text(text([(*row[:4], "") for row in rows], clock), "utf-8", newline="")
            known = {item: title for _, item, _, _, title in rows if title}
            table = io.StringIO()
            csv.writer(table).writerows(
                [("title", "item_id"), *((title, item) for item, title in known.items())]
            )
            (folder / "about.csv").write_text(table.getvalue(), "utf-8", newline="")
            return (
                {"name": str(folder), "item_table": "about.csv"} if known else {"name": str(folder / "x.csv")}
            )
        case "inter":
            (folder / "x.inter").write_text(atomic(rows, clock), "utf-8", newline="")
        case "parquet":
            parquet.write_table(
                arrow(rows, timestamps=clock == "iso"), folder / "x.parquet", row_group_size=3
            )
        case "hive":
            for number, part in enumerate((rows[:half], rows[half:])):
                if part:
                    (folder / f"day={number}").mkdir()
                    parquet.write_table(arrow(part, clock == "iso"), folder / f"day={number}" / "0.parquet")
            (folder / "_SUCCESS").write_text("")
    return {"name": str(folder)}


DRESSES = (
    "csv", "excel", "tsv", "bars", "utf-16", "utf-16-be", "gz", "bz2", "parts", "names", "items", "inter",
    "parquet", "hive",
)  # fmt: skip
PLAIN = st.characters(
    codec="utf-8", exclude_characters="\t\n\r\0\ufeff\x85\u2028\u2029", exclude_categories=("Cs", "Cc")
)
IDS = st.one_of(
    st.sampled_from(
        ("007", "7", "7.0", "1e5", "1000000001000", "null", "None", "i,d", 'a"b', " x", "é", "É", "用户")
    ),
    st.text(PLAIN, min_size=1, max_size=5).filter(lambda text: text.strip() and text.strip() not in MISSING),
)
TITLES = st.text(PLAIN, max_size=12)
WANTS = st.builds(
    Want,
    min_rating=st.sampled_from((None, None, -1.0, 3.0)),
    repeats=st.sampled_from(("auto", "keep", "drop")),
    core=st.sampled_from((0, 0, 2, 3)),
    timed=st.booleans(),
)


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Rows with few users, items and times, so that they repeat and tie."""
    users, items = (draw(st.lists(IDS, min_size=1, max_size=4, unique=True)) for _ in range(2))
    titles = [draw(TITLES) for _ in items]
    ns = st.integers(0, 3).map(lambda step: step * 1_000_000_001) | st.integers(0, 5)
    row = st.tuples(
        st.sampled_from(users), st.integers(0, len(items) - 1), ns,
        st.sampled_from((None, -1.0, 0.5, 3.0, 5.0)),
        st.booleans(),
    )  # fmt: skip
    return [
        (user, items[item], time, rating, titles[item] if told else "")
        for user, item, time, rating, told in draw(st.lists(row, min_size=1, max_size=25))
    ]


@pytest.mark.parametrize("dress", DRESSES)
@settings(max_examples=15)
@given(rows=tables(), want=WANTS, clock=st.sampled_from(sorted(CLOCKS)))
def test_what_is_read_is_what_was_written(dress: str, rows: list[Row], want: Want, clock: str) -> None:
    if clock in COARSE and "parquet" not in dress and dress != "hive":
        rows = [(user, item, ns // SECONDS * SECONDS, *rest) for user, item, ns, *rest in rows]
    expected = reference(rows, want)
    with tempfile.TemporaryDirectory() as folder:
        asked = write(Path(folder), dress, rows, clock)
        if not want.timed:
            asked["time_field"] = ""
        config = DataConfig(
            **asked, min_rating=want.min_rating, repeats=want.repeats, min_interactions=want.core
        )
        if not expected.left:
            with pytest.raises(RelandError, match="no interaction is left"):
                load_interactions(config)
            return
        got = load_interactions(config)
    users, items = got.ids.users.tolist(), got.ids.items.tolist()
    sequences: dict[str, list[str]] = {}
    for user, item in zip(got.user.tolist(), got.item.tolist(), strict=True):
        sequences.setdefault(users[user], []).append(items[item])
    assert sequences == expected.sequences
    assert users == sorted(expected.sequences) and items == ["", *sorted(expected.titles)]
    (titles,) = got.item_features.values() if got.item_features else ([""] * len(items),)
    assert dict(zip(items[1:], list(titles)[1:], strict=True)) == expected.titles
    report = got.report
    assert report is not None
    assert report.rows - sum(count for _, count in report.dropped) == report.left == expected.left
    assert (report.rows, report.ties) == (len(rows), expected.ties)
    assert report.evaluated_users == sum(len(each) >= 3 for each in sequences.values())
