"""Reads what an LLM really writes when it is asked for step 1 and step 2.

The parser never raises. What it could not read stands in `ParsedRationale.problems`; an answer without
a step 2 is not readable, because step 2 is the text that gets encoded (paper, section 3.1.2).
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
"""Longest answer that is read, thoughts and other turns apart; what comes after is not looked at."""

_MAX_RAW = 20 * MAX_CHARACTERS
"""The same, with them."""

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
    """What an answer says.

    Attributes:
        step1: one line on the preferences, "" where there is none.
        step2: one line of recommended categories and items, "" if the answer is not readable.
        problems: what could not be read or was read by a weaker rule; () for a clean answer.
    """

    step1: str
    step2: str
    problems: tuple[str, ...]


def parse_response(text: str) -> ParsedRationale:
    """Finds the two steps in a raw answer; never raises, whatever the text."""
    return _first_readable(text, _from_steps)


def parse_direct(text: str) -> ParsedRationale:
    """What a raw answer to direct prompting recommends, as `step2`; `step1` is always "". Never raises.

    An answer that was written in steps all the same is read by its step 2; one without a mark of either
    kind is not readable.
    """
    return _first_readable(text, _from_recommendations)


def parse_text(text: str) -> ParsedRationale:
    """A text about a user from any writer: its steps where it has them, else all of it is step 2.

    Its first sentence is step 1 then. Thoughts, other turns and marks are left out as from any answer.
    """
    return _first_readable(text, _from_text)


def parse_given(step1: str, step2: str) -> ParsedRationale:
    """Two steps that are given apart; each is taken as it is, without thoughts, other turns and marks."""
    one, two = (
        _first_readable(step, partial(_given, number=number)) for number, step in enumerate((step1, step2), 1)
    )
    return _judged(one.step2, two.step2, list(two.problems), _on_one_line)


def parse_fields(step1: str | None, step2: str) -> ParsedRationale:
    """Two steps that came in fields of our own; `step1` is None where it was not asked for.

    Thoughts are left out of step 1, markup of both; names in step 2 that look like marks of turns stay.
    """
    one = step1 and _first_readable(step1, partial(ParsedRationale, "", problems=())).step2
    return _judged(one, undressed(plain_text(step2)), [], _on_one_line)


def ends_by_itself(text: str) -> bool:
    """Whether a mark in a raw answer shows that what is read in it was at its end.

    Then a bound on tokens cut off only what the LLM made up behind it.
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
    """What is read in the first turn of an answer in which anything can be read."""
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
    """Of an answer without a heading of recommendations, what its steps say."""
    if parsed.step2:
        return ParsedRationale("", parsed.step2, ("it answers in steps, which were not asked for",))
    reasons = [why for why in parsed.problems if not why.startswith("step ")]
    return ParsedRationale("", "", tuple(reasons) or ('"Recommended items:" is missing',))


def _from_text(text: str) -> ParsedRationale:
    parsed = _from_steps(text)
    if parsed.step2 and not parsed.problems:
        return parsed
    text = json_text(text) or text
    return _judged(first_sentence(text), text, [])


def _given(text: str, number: int) -> ParsedRationale:
    """A text that is known to be one of the steps, whatever it is headed by."""
    named = [part.text for part in step_parts(text)[0] if part.number == number]
    text = json_text(text) or (named[-1] if named else text)
    return ParsedRationale("", text, ())


def _parts(answer: str) -> tuple[list[Part], list[str]]:
    """Numbered parts of the answer by the first rule that finds any, with a remark for weaker rules."""
    if parts := json_steps(answer):
        return parts, []
    # Letters in other forms, such as full-width or bold ones, look like the plain ones to a person.
    for text in dict.fromkeys((answer, unicodedata.normalize("NFKC", answer))):
        parts, remarks = step_parts(text)
        if parts:
            return parts, remarks
    return numbered_parts(answer)


def _last_complete(parts: list[Part]) -> tuple[str, str, list[str]]:
    """Steps 1 and 2 of the last attempt that has both, and a remark where attempts differ.

    Without such an attempt, the last of each step that says something. Words of a template and echoes of
    the prompt are no attempts.
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
        return whole[-1][1], whole[-1][2], ["it answers more than once; the last counts"] if differ else []
    found = {number: text for attempt in attempts for number, text in attempt.items() if text}
    return found.get(1, ""), found.get(2, ""), []


def _without_echo(part: str) -> str:
    """The part without words of the prompt in front of a colon."""
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
    """The two steps, each as one line, without what cannot be used of them, and why.

    Args:
        step1: as it was written, None where it was not asked for.
        step2: as it was written.
        problems: what there is to say already; where step 2 is "", why.
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
