"""Reads what an LLM really writes when it is asked for step 1 and step 2.

The parser never raises. What it could not read stands in `ParsedRationale.problems`; an answer without
a step 2 is not readable, because step 2 is the text that gets encoded (paper, section 3.1.2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reland_jax.pool.reading.markers import Part, numbered_parts, recommended_part, step_parts
from reland_jax.pool.reading.readable import readable
from reland_jax.pool.reading.structured import json_steps

MAX_CHARACTERS = 50_000
"""Longest answer that is read; what comes after is not looked at."""

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|analysis)>", re.IGNORECASE)
_REFUSAL = re.compile(
    r"""\W*(?:
        (?:(?:i'?m|i\s+am)\s+)?(?:so\s+|very\s+|really\s+|truly\s+)?sorry\b(?=[\s,.!]*(?:$|[,.]|but|i\b|for\s+the))
      | (?:i\s+)?apologi[sz]e | my\s+apologies
      | (?:unfortunately,?\s+)?i\s*(?:can'?t|can\s?not|could\s+not|couldn'?t|won'?t|will\s+not|do\s+not|don'?t
            |'?m\s+(?:not\s+able|unable)|\s*am\s+(?:not\s+able|unable))\s+(?:to\s+)?(?:be\s+able\s+to\s+)?
            (?:help|assist|provide|recommend|comply|fulfil|do|determine|answer|make|create|generate|see|access
            |continue|summari[sz]e|infer|identify|have\s+(?:access|enough)|feel\s+comfortable)
      | as\s+an?\s+(?:ai|artificial|large\s+language|language)\b
      | (?:es\s+)?tut\s+mir\s+leid | leider\s+kann\s+ich
      | lo\s+siento | (?:je\s+suis\s+)?désolée? | desculpe | sinto\s+muito | mi\s+dispiace
      | (?:很)?抱歉 | 对不起 | 對不起 | 我无法 | 我無法 | 申し訳 | 죄송합니다
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACEHOLDER = re.compile(r"\W*(?:n\s*/\s*a|none|null|nil|undefined|tbd|unknown|nothing)?\W*", re.IGNORECASE)
_CLOSING = re.compile(
    r"""[\W_]*(?:let\s+me\s+know|i\s+hope|hope\s+(?:this|that|these|it)|feel\s+free|please\s+(?:note|let\s+me)|note\s*:
        |would\s+you\s+like|if\s+you(?:'d|\s+would|\s+need|\s+want|\s+have)|is\s+there\s+anything|enjoy\b.{0,30}!
        |these\s+(?:recommendations|suggestions)\s+(?:are|were|should)|do\s+you\s+want)""",
    re.IGNORECASE | re.VERBOSE,
)


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
    answer, problems = _answer(text)
    if not answer.strip():
        return ParsedRationale("", "", (*problems, "the answer is empty"))
    parts, remark = _parts(answer)
    step1, step2 = (readable(_without_closing(part)) for part in _last_complete(parts))
    return _judged(step1, step2, answer, [*problems, *remark])


def parse_direct(text: str) -> ParsedRationale:
    """What a raw answer to direct prompting recommends, as `step2`; `step1` is always "". Never raises.

    An answer that was written in steps all the same is read by its step 2; one without a mark of either
    kind is not readable.
    """
    answer, problems = _answer(text)
    part = recommended_part(answer)
    if not part:
        return _direct_from_steps(parse_response(text))
    recommended = readable(_without_closing(part))
    items = recommended.partition(":")[2].strip()
    if not any(c.isalnum() for c in items) or _PLACEHOLDER.fullmatch(items[:200]) or is_refusal(items):
        return ParsedRationale("", "", (*problems, f"nothing is recommended: {recommended[:80]!r}"))
    return ParsedRationale("", recommended, tuple(problems))


def is_refusal(text: str) -> bool:
    """Whether a text begins with an apology or a refusal, in English or a few other languages."""
    return bool(_REFUSAL.match(text[:400].replace("’", "'")))


def plain_text(text: str) -> str:
    """The text without lone surrogates and control characters, with Unix line ends.

    Such characters cannot be stored as UTF-8 or would hide a step marker.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]", "", text)


def first_sentence(text: str) -> str:
    """The first sentence of a free text on one line; a full stop after a single capital is an initial."""
    line = readable(text)
    for end in re.finditer(r"[.!?](?=\s)|[。！？]", line):
        before = line[: end.start()]
        if not re.search(r"(?:^|[\s.&])(?:[A-Z]|Mr|Mrs|Ms|Dr|St|vs|feat|ft|No)$", before):
            return line[: end.end()]
    return line


def _answer(text: str) -> tuple[str, list[str]]:
    """The answer proper: without thoughts in front, and not longer than `MAX_CHARACTERS`."""
    problems = []
    if len(text) > MAX_CHARACTERS:
        problems.append(f"only the first {MAX_CHARACTERS} of {len(text)} characters were read")
    answer, unfinished = _without_thoughts(plain_text(text[:MAX_CHARACTERS]))
    if unfinished:
        problems.append("the answer stops inside its thoughts")
    return answer, problems


def _without_thoughts(text: str) -> tuple[str, bool]:
    """The text outside thoughts, and whether it stops inside one."""
    kept: list[str] = []
    position, inside = 0, False
    for tag in _THOUGHT_TAG.finditer(text):
        if tag[1] and not inside:
            kept.clear()  # some chat templates write the opening tag into the prompt
        elif not tag[1] and not inside:
            kept.append(text[position : tag.start()])
        position, inside = tag.end(), not tag[1]
    return "\n".join(kept if inside else [*kept, text[position:]]), inside


def _direct_from_steps(parsed: ParsedRationale) -> ParsedRationale:
    """Of an answer without a heading of recommendations, what its steps say."""
    if parsed.step2:
        return ParsedRationale("", parsed.step2, ("it answers in steps, which were not asked for",))
    reasons = [why for why in parsed.problems if not why.startswith("step ")]
    return ParsedRationale("", "", tuple(reasons) or ('"Recommended items:" is missing',))


def _parts(answer: str) -> tuple[list[Part], list[str]]:
    """Numbered parts of the answer by the first rule that finds any, with a remark for weaker rules."""
    if parts := json_steps(answer):
        return parts, []
    parts, remarks = step_parts(answer)
    if parts:
        return parts, remarks
    return numbered_parts(answer)


def _last_complete(parts: list[Part]) -> tuple[str, str]:
    """Steps 1 and 2 of the last attempt that has both; else the last of each that says something."""
    attempts: list[dict[int, str]] = [{}]
    for part in parts:
        if attempts[-1] and part.number <= max(attempts[-1]):
            attempts.append({})
        attempts[-1][part.number] = "" if _PLACEHOLDER.fullmatch(part.text[:200]) else part.text
    for attempt in reversed(attempts):
        if attempt.get(1) and attempt.get(2):
            return attempt[1], attempt[2]
    found = {number: text for attempt in attempts for number, text in attempt.items() if text}
    return found.get(1, ""), found.get(2, "")


def _without_closing(part: str) -> str:
    """The part without closing words ("Let me know if ...") in paragraphs of their own."""
    paragraphs = re.split(r"\n[ \t]*\n", part)
    while len(paragraphs) > 1 and (_CLOSING.match(paragraphs[-1]) or not paragraphs[-1].strip("-*_=`~ \t\n")):
        paragraphs.pop()
    return "\n\n".join(paragraphs)


def _judged(step1: str, step2: str, answer: str, problems: list[str]) -> ParsedRationale:
    """The parsed answer, without steps that are refusals or say nothing."""
    if is_refusal(step2) or (not step2 and is_refusal(answer)):
        return ParsedRationale("", "", (*problems, f"the answer is a refusal: {readable(answer)[:80]!r}"))
    if not any(character.isalnum() for character in step2):
        step2 = ""
        problems.append(f"step 2 is missing: {readable(answer)[:80]!r}")
    if is_refusal(step1):
        step1 = ""
        problems.append("step 1 is a refusal")
    elif not any(character.isalnum() for character in step1):
        step1 = ""
        problems.append("step 1 is missing")
    return ParsedRationale(step1, step2, tuple(problems))
