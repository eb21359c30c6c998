"""The paper's evidence for people: JSON, and one HTML page with a claim and a verdict beside each result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.analysis.findings import Part, Verdict
from reland_jax.files import write_json, write_text
from reland_jax.records import to_plain
from reland_jax.report.render import render
from reland_jax.report.tables import Table

_TITLE = "The paper's claims beside what was measured"


def write_view(workdir: Path, parts: Sequence[Part], about: Mapping[str, object]) -> dict[str, Any]:
    """Writes paper.json and paper.html, prints the verdicts, and returns the content of the first.

    Args:
        workdir: folder of both.
        parts: in order.
        about: versions, device and command.
    """
    plain = as_plain(parts, about)
    write_json(workdir / "paper.json", plain)
    write_text(workdir / "paper.html", page(parts, about))
    for part in parts:
        print(f"\n{part.title}")
        for one in part.findings:
            print(f"  {one.verdict.value:>17}  {one.about}: {one.claim} {one.found} ({one.why})")
    print(f"\n{headline(parts)}\nresults: {workdir / 'paper.json'}\nreport:  {workdir / 'paper.html'}")
    return plain


def as_plain(parts: Sequence[Part], about: Mapping[str, object]) -> dict[str, Any]:
    """The content of paper.json; drawings are on the page only."""
    return {
        "claims": dict(_counts(parts)),
        "parts": {
            part.name: {
                "title": part.title,
                "findings": [{**to_plain(one), "verdict": one.verdict.value} for one in part.findings],
                "words": list(part.words),
                "tables": to_plain([*part.tables, *part.texts]),
            }
            for part in parts
        },
        "about": to_plain(about),
    }


def headline(parts: Sequence[Part]) -> str:
    """How many claims have which verdict."""
    counts = _counts(parts)
    return "Claims, one for each data set: " + ", ".join(
        f"{counts[each.value]} {each.value}" for each in Verdict
    )


def _counts(parts: Sequence[Part]) -> Counter[str]:
    return Counter(one.verdict.value for part in parts for one in part.findings)


def page(parts: Sequence[Part], about: Mapping[str, object]) -> str:
    """The self-contained HTML page: no script, no network, every text escaped."""
    from markupsafe import Markup

    rows = [(name, str(value)) for name, value in about.items()]
    names = list(dict.fromkeys(one.about for part in parts for one in part.findings))
    return render(
        "paper.html.j2",
        {
            "dataset": "the paper", "backbone": ", ".join(names), "title": _TITLE,
            "headline": f"{headline(parts)}.",
            "notes": [
                "A verdict follows from a rule that was fixed before the runs (docs/paper.md). A claim that "
                "holds does so for these data, rationales and settings."
            ],
            "parts": parts,
            # The drawings are ours and matplotlib escapes the texts in them.
            "drawn": Markup,
            "environment": Table("What it was made with.", ("name", "value"), rows),
        },
    )  # fmt: skip
