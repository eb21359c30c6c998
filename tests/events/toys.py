"""A tiny log, written as a RecBole data set or as CSV."""

from __future__ import annotations

from pathlib import Path

from reland_jax.config import DataConfig
from reland_jax.events import Events, Feature, Label, Schema, read

DAY = 86_400_000
START = 1_651_363_200_000  # 1 May 2022, 00:00 UTC
LABELS = (Label("click"), Label("buy", given="click"))
SCHEMA = Schema(
    "user_id", "item_id", "time", LABELS,
    (
        Feature("age", "categorical", "user"),
        Feature("fans", "numeric", "user", log=True),
        Feature("tags", "multi", "item"),
        Feature("price", "numeric", "item"),
        Feature("hour", "categorical", "context"),
    ),
    "tab", "milliseconds",
)  # fmt: skip
ROWS = (
    # user item day tab click buy hour
    ("b", "y", 0, "1", 1, 1, "8"),
    ("a", "x", 0, "1", 1, 0, "9"),
    ("a", "y", 1, "2", 0, 0, "8"),
    ("c", "x", 2, "1", 0, 1, "7"),
    ("a", "z", 2, "2", 1, 1, ""),
    ("d", "z", 3, "3", 1, 0, "8"),
)
USERS = ("a\t30\t0", "b\t\t9", "d\t40\t", "e\t50\t1")
ITEMS = ("x\tred big\t1", "y\t\t2.5", "z\tbig  new big\t")


def write_log(folder: Path, rows: tuple[tuple[object, ...], ...] = ROWS) -> Path:
    """Writes ``toy.inter``, ``toy.user`` and ``toy.item``, and returns the first."""
    header = "user_id:token\titem_id:token\ttime:float\ttab:token\tclick:float\tbuy:float\thour:token\t"
    header += "seconds:float"
    lines = [
        f"{user}\t{item}\t{START + int(str(day)) * DAY + place}\t{tab}\t{click}\t{buy}\t{hour}\t5"
        for place, (user, item, day, tab, click, buy, hour) in enumerate(rows)
    ]
    write_lines(folder / "toy.user", "user_id:token\tage:token\tfans:float", *USERS)
    write_lines(folder / "toy.item", "item_id:token\ttags:token_seq\tprice:float", *ITEMS)
    return write_lines(folder / "toy.inter", header, *lines)


def write_lines(path: Path, *lines: str) -> Path:
    """Writes a file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def read_toy(folder: Path) -> Events:
    """The log of `write_log`."""
    return read(DataConfig(name=str(write_log(folder))), SCHEMA)
