"""What a part of the paper's evidence consists of: claims beside what was found, tables and drawings.

The rules of the verdicts stand in docs/paper.md, and were fixed before the runs that they judge.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from reland_jax.report.tables import Table


class Verdict(enum.StrEnum):
    """What became of a claim of the paper."""

    HOLDS = "holds"
    DOES_NOT = "does not hold"
    NOT_TESTABLE = "not testable here"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim beside what was found.

    Attributes:
        claim: a sentence of the paper, in our words, or a control that the paper lacks.
        about: data set, or what else it is tested on.
        found: the figures.
        verdict: by rule.
        why: the reason of a verdict, always there where a claim is not testable.
    """

    claim: str
    about: str
    found: str
    verdict: Verdict
    why: str


@dataclasses.dataclass(frozen=True)
class Part:
    """A table or a figure of the paper.

    Attributes:
        name: as it is called on the command line.
        title: for people.
        findings: claims with their verdicts.
        words: what a reader must know besides.
        tables: figures.
        drawings: SVG elements with a caption each.
        texts: tables of texts, whose lines are broken.
    """

    name: str
    title: str
    findings: Sequence[Finding]
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[tuple[str, str]] = ()
    texts: Sequence[Table] = ()


def judged(claim: str, about: str, found: str, holds: bool, why: str) -> Finding:
    """A claim that was tested."""
    return Finding(claim, about, found, Verdict.HOLDS if holds else Verdict.DOES_NOT, why)


def not_testable(claim: str, about: str, why: str, found: str = "") -> Finding:
    """A claim that cannot be tested with what there is."""
    return Finding(claim, about, found, Verdict.NOT_TESTABLE, why)
