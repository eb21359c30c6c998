"""Parses the answers of LLMs that are asked for step 1 and step 2.

The parser never raises an error: problems are listed in `ParsedRationale.problems`. An answer without a step
2 is unreadable, because step 2 is the text that is encoded (paper, section 3.1.2).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from reland_jax.pool.reading.dress import undressed, unpacked
from reland_jax.pool.reading.markers import Part, numbered_parts, recommended_part, step_parts
from reland_jax.pool.reading.readable import readable
from reland_jax.pool.reading.spoken import spoken
from reland_jax.pool.reading.structured import json_steps, json_text
from reland_jax.pool.reading.worth import (
    is_refusal,
    is_template,
    repeats_prompt,
    says_nothing,
    self_talk,
    why_worthless,
)

MAX_CHARACTERS = 50_000
"""Characters of an answer that are read, without thoughts and other turns; the rest is ignored."""

_MAX_RAW = 20 * MAX_CHARACTERS
"""The same, with thoughts and other turns."""

_FAREWELL = r"""(?:best|kind|warm)(?:est)?\s+(?:regards|wishes)|sincerely|cheers\b|let\s+me\s+know|i\s+hope
        |hope\s+(?:this|that|these|it)|feel\s+free|would\s+you\s+like|is\s+there\s+anything|do\s+you\s+want
        |enjoy\b.{0,30}!|happy\s+\w+ing\s*!"""
_CLOSING = re.compile(
    rf"""[\W_]*(?:{_FAREWELL}|please\s+(?:note|let\s+me)|note\s*:|(?:word|token|character)\s+count
        |\d+\s+(?:words|tokens|characters)\b
        |(?:my\s+)?(?:reasoning|explanation|justification|rationale|confidence(?:\s+\w+)?|sources?|references?
            |disclaimer|limitations|summary|conclusion|tl;?dr|(?:self.)?check(?:list)?|verification|review
            |why\s+th(?:is|ese)[^:\n]{{0,40}})\b[*_ ]{{0,4}}[:：]
        |(?:in\s+(?:conclusion|summary|short)|overall|to\s+sum(?:mari[sz]e)?(?:\s+up)?|as\s+requested)\b|[✓✔✅☑]
        |if\s+you(?:'d|\s+would|\s+need|\s+want|\s+have)
        |these\s+(?:recommendations|suggestions)\s+(?:are|were|should))""",
    re.IGNORECASE | re.VERBOSE,
)
_LAST_SENTENCE = re.compile(
    rf"(?:(?<=[.!?])\s|\n)[\W_]{{0,8}}(?:{_FAREWELL})[^\n]*\Z", re.IGNORECASE | re.VERBOSE
)
_MOST_CLOSINGS, _LONGEST_FAREWELL = 20, 500
_STOP_WORD = re.compile(r"[\W_]*(?:END|DONE|STOP|EOS|END OF \w+)?[\W_]*")


class ParsedRationale(NamedTuple):
    """The steps of an answer.

    Attributes:
        step1: one line on the preferences, "" without one.
        step2: one line of recommended categories and items, "" if the answer is not readable.
        problems: what could not be parsed, or only by a fallback rule; () for a clean answer.
    """

    step1: str
    step2: str
    problems: tuple[str, ...]


def parse_response(text: str) -> ParsedRationale:
    """Finds the two steps in a raw answer; never raises an error."""
    return _first_readable(text, _from_steps)


def parse_direct(text: str) -> ParsedRationale:
    """The recommendations in a raw answer to direct prompting as `step2`; `step1` is "". Never raises.

    An answer in steps is read by its step 2; one without marks of either kind is unreadable.
    """
    return _first_readable(text, _from_recommendations)


def parse_text(text: str) -> ParsedRationale:
    """Parses a free text about a user: its steps if it has them, else all of it is step 2.

    Then its first sentence is step 1. Thoughts, other turns and marks are removed as from any answer.
    """
    return _first_readable(text, _from_text)


def parse_given(step1: str, step2: str) -> ParsedRationale:
    """Two separate steps, without thoughts, other turns and marks."""
    one, two = (
        _first_readable(step, partial(_given, number=number)) for number, step in enumerate((step1, step2), 1)
    )
    return _judged(one.step2, two.step2, list(two.problems), _on_one_line)


def parse_fields(step1: str | None, step2: str) -> ParsedRationale:
    """Two steps from the fields of our JSON schema; `step1` is None if it was not requested.

    Thoughts are removed from step 1, markup from both; names in step 2 that look like marks of turns are
    kept.
    """
    one = step1 and _first_readable(step1, partial(ParsedRationale, "", problems=())).step2
    return _judged(one, undressed(plain_text(step2)), [], _on_one_line)


def ends_by_itself(text: str) -> bool:
    """Whether a mark shows that the text used of a raw answer is complete.

    Then the token limit cut off only text that the LLM added after it.
    """
    turns, _ = spoken(unpacked(plain_text(text[:_MAX_RAW])))
    return bool(turns) and turns[0].ended


def plain_text(text: str) -> str:
    """The text without lone surrogates and control characters, with Unix line ends.

    Such characters cannot be stored as UTF-8 or would hide a step marker.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text).replace("\u00a0", " ")
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]", "", text)


def first_sentence(text: str) -> str:
    """The first sentence of a free text on one line; a full stop after a single capital is an initial."""
    line = readable(text)
    for end in re.finditer(r"[.!?](?=\s)|[。！？]", line):
        before = line[: end.start()]
        if not re.search(r"(?:^|[\s.&])(?:[A-Z]|Mr|Mrs|Ms|Dr|St|vs|feat|ft|No)$", before):
            return line[: end.end()]
    return line


def _first_readable(text: str, read: Callable[[str], ParsedRationale]) -> ParsedRationale:
    """The steps in the first readable turn of an answer."""
    plain = unpacked(plain_text(text[:_MAX_RAW]))
    turns, thinking = spoken(plain)
    if not turns:
        own = "the answer says nothing of its own" if plain.strip() else "the answer is empty"
        return ParsedRationale("", "", ("the answer stops inside its thoughts" if thinking else own,))
    found = [read(undressed(turn.text[:MAX_CHARACTERS])) for turn in turns]
    best = next((row for row, parsed in enumerate(found) if parsed.step2), 0)
    length = max(len(turns[best].text), len(text) if len(text) > _MAX_RAW else 0)
    if length <= MAX_CHARACTERS:
        return found[best]
    why = f"only the first {MAX_CHARACTERS} of {length} characters were read"
    return found[best]._replace(problems=(why, *found[best].problems))


def _from_steps(answer: str) -> ParsedRationale:
    parts, remarks = _parts(answer)
    step1, step2, more = _last_complete(parts)
    problems = [*remarks, *more]
    if not step2:
        kind = "the answer is a refusal" if is_refusal(answer) else "step 2 is missing"
        problems.append(f"{kind}: {readable(answer)[:80]!r}")
    return _judged(step1, step2, problems)


def _from_recommendations(answer: str) -> ParsedRationale:
    part = recommended_part(answer)
    if not part:
        return _direct_from_steps(_from_steps(answer))
    parsed = _judged(None, part, [])
    return parsed._replace(problems=tuple(f"nothing is recommended: {why}" for why in parsed.problems))


def _direct_from_steps(parsed: ParsedRationale) -> ParsedRationale:
    """The steps of an answer without a heading of recommendations."""
    if parsed.step2:
        return ParsedRationale("", parsed.step2, ("it answers in steps, which were not requested",))
    reasons = [why for why in parsed.problems if not why.startswith("step ")]
    return ParsedRationale("", "", tuple(reasons) or ('"Recommended items:" is missing',))


def _from_text(text: str) -> ParsedRationale:
    parsed = _from_steps(text)
    if parsed.step2 and not parsed.problems:
        return parsed
    text = json_text(text) or text
    return _judged(first_sentence(text), text, [])


def _given(text: str, number: int) -> ParsedRationale:
    """The text of one step, without its heading."""
    named = [part.text for part in step_parts(text)[0] if part.number == number]
    text = json_text(text) or (named[-1] if named else text)
    return ParsedRationale("", text, ())


def _parts(answer: str) -> tuple[list[Part], list[str]]:
    """Numbered parts of the answer by the first rule that finds any, with a remark for fallback rules."""
    if parts := json_steps(answer):
        return parts, []
    # Full-width, bold and similar letters are read as plain ones.
    for text in dict.fromkeys((answer, unicodedata.normalize("NFKC", answer))):
        parts, remarks = step_parts(text)
        if parts:
            return parts, remarks
    return numbered_parts(answer)


def _last_complete(parts: list[Part]) -> tuple[str, str, list[str]]:
    """Steps 1 and 2 of the last attempt that has both, and a remark if attempts differ.

    Without such an attempt, the last meaningful text of each step. Placeholders and echoes of the prompt do
    not count as attempts.
    """
    attempts: list[dict[int, str]] = [{}]
    for part in parts:
        if attempts[-1] and part.number <= max(attempts[-1]):
            attempts.append({})
        attempts[-1][part.number] = "" if says_nothing(part.text) else part.text
    whole = [attempt for attempt in attempts if attempt.get(1) and attempt.get(2)]
    whole = [attempt for attempt in whole if not is_template(attempt[2])] or whole
    if whole:
        differ = len({" ".join(attempt[2].split()) for attempt in whole}) > 1
        return whole[-1][1], whole[-1][2], ["it has several answers; the last one is used"] if differ else []
    found = {number: text for attempt in attempts for number, text in attempt.items() if text}
    return found.get(1, ""), found.get(2, ""), []


def _without_echo(part: str) -> str:
    """The part without words of the prompt before a colon."""
    head, _, rest = part.partition(":")
    return rest.lstrip() if repeats_prompt(head) and not says_nothing(rest) else part


def _without_closing(part: str) -> str:
    """The part without closing words at its end: a farewell ("Let me know if ..."), a note, a stop word."""
    part = part.rstrip()
    for _ in range(_MOST_CLOSINGS):
        kept, _, last = part.rpartition("\n")
        if not _STOP_WORD.fullmatch(last[:80]):
            before, _, last = part.rpartition("\n\n")
            end = max(len(part) - _LONGEST_FAREWELL, 0)
            kept = before if _CLOSING.match(last) else part[:end] + _LAST_SENTENCE.sub("", part[end:])
        if not kept.strip() or kept == part:
            return part
        part = kept.rstrip()
    return part


def _judged(
    step1: str | None, step2: str, problems: list[str], line: Callable[[str], str] = readable
) -> ParsedRationale:
    """The usable steps, each as one line, and the problems.

    Args:
        step1: raw text, None if it was not requested.
        step2: raw text.
        problems: problems so far, including the reason for an empty step 2.
        line: makes one line of a step.
    """
    first, second = (line(_without_closing(_without_echo(step))) for step in (step1 or "", step2))
    if not step2 and problems:
        second = ""
    elif why := why_worthless(second) or self_talk(step2):
        problems.append(f"the answer {why}" if why.startswith("is a refusal") else f"step 2 {why}")
        second = ""
    if step1 is not None and (why := why_worthless(first) or self_talk(step1)):
        problems.append(f"step 1 {why}")
        first = ""
    return ParsedRationale(first if second else "", second, tuple(problems))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
