"""The results of a run as plain text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from reland_jax.report import words
from reland_jax.report.tables import Table, result_tables
from reland_jax.results import RunResults

CONSOLE = 100
"""Columns of a terminal that everything fits into."""


def to_text(table: Table, width: int = CONSOLE) -> str:
    """A table for a terminal: no line is longer than `width`, but for a single column that is.

    Names of columns go over several lines; columns that do not fit follow below, with the first one again.
    """
    heads = [textwrap.wrap(name, 12, break_long_words=False) or [""] for name in table.header]
    columns = [[row[place] for row in table.rows] for place in range(len(table.header))]
    widths = [
        max(map(len, [*head, *column])) for head, column in zip(heads, columns, strict=True)
    ]  # fmt: skip
    blocks: list[list[int]] = [[]]
    for place in range(1, len(widths)):
        used = widths[0] + sum(2 + widths[each] for each in blocks[-1])
        if blocks[-1] and used + 2 + widths[place] > width:
            blocks.append([])
        blocks[-1].append(place)
    lines = textwrap.wrap(table.caption, width)
    for block in blocks:
        lines += ["", *_text_block([0, *block], heads, columns, widths)]
    return "\n".join(lines)


def _text_block(
    places: Sequence[int], heads: Sequence[list[str]], columns: Sequence[list[str]], widths: Sequence[int]
) -> list[str]:
    """The lines of some columns of `to_text`."""
    height = max(len(heads[place]) for place in places)
    rows = [
        [([""] * (height - len(heads[place])) + heads[place])[line] for place in places]
        for line in range(height)
    ]
    rows.append(["-" * widths[place] for place in places])
    rows += [list(row) for row in zip(*(columns[place] for place in places), strict=True)]
    sides = [str.ljust, *([str.rjust] * (len(places) - 1))]
    return [
        "  ".join(
            side(cell, widths[place]) for side, cell, place in zip(sides, row, places, strict=True)
        ).rstrip()
        for row in rows
    ]


def console_report(results: RunResults) -> str:
    """The headline, what to know about the numbers, and all tables of results."""
    warnings = [f"WARNING: {text}" for text in words.warnings(results)]
    notes = [f"Note: {text}" for text in results.notes]
    first, last = (
        "\n".join(textwrap.fill(text, CONSOLE) for text in texts)
        for texts in ([words.headline(results), *warnings], notes)
    )
    return "\n\n".join([first, *map(to_text, result_tables(results)), *([last] if last else [])])
