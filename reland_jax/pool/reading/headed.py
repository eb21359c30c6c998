"""Removes thoughts that only words indicate: under a heading, in a quotation, brackets or a comment.

`spoken` removes thoughts with marks first; this module processes the remaining text, turn by turn.
"""

from __future__ import annotations

import re

_CHANNEL = re.compile(r"\s*(?:assistant)?(?:analysis|commentary|thought|thinking)(?=[ ]?[A-Z]|[ ]*\n|\s*\Z)")
_FINAL_CHANNEL = re.compile(
    r"""assistant\s?(?:channel)?\s?final|(?:^|(?<=[.!?"')\s]))final(?=[A-Z\n*#]|[ ]?[:：])""", re.MULTILINE
)
_HEADING = r"^[\W_]{0,12}(?:(?:here(?:['’]s|\s+is|\s+are)\s+)?(?:my|the|a|mein[e]?|mon|ma|mi)\s+)?"
_SURE = (
    r"think(?:ing)?(?:\s+process)?|thought\s+process|thoughts?|chain[\s-]of[\s-]thoughts?"
    r"|reasoning\s+(?:process|steps)|(?:inner|internal)\s+monologue|scratchpad|(?:first\s+|rough\s+)?drafts?"
    r"|gedanken(?:gang|gänge)?|überlegung(?:en)?|denkprozess|entwurf|réflexions?|raisonnement|brouillon"
    r"|pensamientos?|razonamiento|borrador|raciocínio|pensamento|rascunho|ragionamento|pensiero|bozza"
    r"|思考(?:过程|過程)?|推理(?:过程|過程)?|分析过程"
)
_THOUGHT_HEADING = re.compile(
    rf"{_HEADING}(?:(?P<sure>{_SURE})|reasoning|analysis)(?:[*_ \t]*(?:[:：]|\.{{3}}|…)|[^\w\n]{{0,12}}$)",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_HEADING = re.compile(
    rf"{_HEADING}(?:(?:final|endgültige|final[ea])\s+)?(?:answer|response|output|final|antwort|réponse|respuesta"
    r"|resposta|risposta|最终答案|最终回答|答案|回答)(?:\s+finale?)?(?:[*_ \t]*[:：]|[^\w\n]{0,12}$)"
    r"|\bhere(?:['’]s|\s+is)\s+(?:my|the)\s+(?:final\s+)?(?:answer|response)[*_ ]{0,3}:|done thinking\b[.…]*",
    re.IGNORECASE | re.MULTILINE,
)
_LONGEST_INTRODUCTION = 200

_QUOTATION = re.compile(r"(?:^[ \t]*>[^\n]*(?:\n|\Z))+", re.MULTILINE)
_QUOTED_HEADING = re.compile(
    rf"[\W_]{{0,16}}(?:{_SURE}|reasoning|analysis|thought\s+for\b|reasoned\s+for\b)(?!\w)", re.IGNORECASE
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ENCLOSED = re.compile(
    rf"""[ \t]*(?P<opens>[(\[*_])[^\w\n{{"']{{0,4}}(?:{_SURE}|reasoning|analysis)[*_ ]{{0,3}}[:：…]""",
    re.IGNORECASE,
)
_CLOSES = {"(": ")", "[": "]", "*": "*", "_": "_"}


def without_headed_thoughts(turn: str) -> tuple[str, bool]:
    """The turn without thoughts that only words indicate, and whether there were any.

    Thoughts under a heading at the start end at a heading of the answer; without one, the turn is empty.
    Those in a quotation, in brackets or in a comment end with it.
    """
    plain = _COMMENT.sub("", turn)
    said = _QUOTATION.sub(_unless_thought, "\n\n".join(map(_unenclosed, plain.split("\n\n"))))
    after = _after_heading(said if said.strip() else plain)
    if after is None or (not said.strip() and after.strip() == plain.strip()):
        return "", True
    return after, after.strip() != turn.strip()


def _unenclosed(paragraph: str) -> str:
    """A paragraph without thoughts in brackets or italics that are its first line or all of it."""
    opening = _ENCLOSED.match(paragraph)
    line, _, below = paragraph.partition("\n")
    if not opening or paragraph.lstrip()[:2] in ("**", "__"):  # bold type is a heading
        return paragraph
    for whole, rest in ((line, below), (paragraph, "")):
        if whole.rstrip().endswith(_CLOSES[opening["opens"]]):
            return rest
    return paragraph


def _unless_thought(quotation: re.Match[str]) -> str:
    return "" if _QUOTED_HEADING.match(quotation[0]) else quotation[0]


def _after_heading(turn: str) -> str | None:
    """The turn without thoughts under a heading at its start; None if they never end."""
    if channel := _CHANNEL.match(turn):
        final = _FINAL_CHANNEL.search(turn, channel.end())
        return turn[final.end() :].lstrip(":： ") if final else None
    turn = turn.lstrip()
    heading = _THOUGHT_HEADING.search(turn, 0, 2 * _LONGEST_INTRODUCTION)
    if heading is None or heading.start() > (_LONGEST_INTRODUCTION if heading["sure"] else 0):
        return turn
    answer = _ANSWER_HEADING.search(turn, heading.end())
    if answer is None:
        return None if heading["sure"] or _ENCLOSED.match(turn) and turn[0] in "([" else turn
    return turn[answer.end() :]
