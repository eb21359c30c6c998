"""Reads answers in JSON, also in a code fence, inside prose, or cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from reland_jax.pool.answer_format import CATEGORIES, ITEMS
from reland_jax.pool.reading.dress import STEP_NAMES, bare_name, decoded, python_value
from reland_jax.pool.reading.markers import Part, step_parts
from reland_jax.pool.reading.spoken import is_thought

_BROKEN = re.compile(
    r'"step[ _-]?(?P<number>[12])"\s*:\s*"(?P<text>(?:[^"\\]|\\.)*)"', re.IGNORECASE | re.DOTALL
)
"""A step in text that is not valid JSON; without its closing quote it is cut off."""
_OUR_TAG = re.compile(r"</?(?:history|titles)>", re.IGNORECASE)
"""Tags around the data lines of our prompts; inside a field they are not marks of a turn."""
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)\w*[ \t]*$", re.MULTILINE)
_QUOTED_KEY = re.compile(r"\{\s*'")
_ABOUT_STEP2 = re.compile(r"recommend|categories|items", re.IGNORECASE)
_STEP_NUMBERS = frozenset("step part number id index name stepnumber step_number".split())
_STEP_TITLES = frozenset("title type label heading name".split())
_MAX_DEPTH = 8
_MAX_OBJECTS = 20


def schema_steps(answer: str, prompt: str) -> tuple[str | None, str] | None:
    """Steps 1 and 2 of an answer with exactly the fields of our schema, None for other answers.

    Args:
        answer: the complete text.
        prompt: `config.pool.prompt`; step 1 is None for "direct".
    """
    value = decoded(_OUR_TAG.sub("", answer))
    if prompt == "direct":
        return (None, _text(value, 0)) if _has_lists(value, ITEMS) else None
    if not isinstance(value, dict) or value.keys() != {"step1", "step2"}:
        return None
    step1, step2 = value["step1"], value["step2"]
    whole = isinstance(step1, str) and _has_lists(step2, CATEGORIES, ITEMS)
    return (step1, _text(step2, 0)) if whole else None


def _has_lists(value: Any, *names: str) -> bool:
    """Whether a value is an object of exactly these lists of texts."""
    if not isinstance(value, dict) or value.keys() != {*names}:
        return False
    lists = value.values()
    return all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)


def json_steps(answer: str) -> list[Part]:
    """Steps of every JSON object in the answer that has a step 2, in order; [] if there is none."""
    if "{" not in answer:
        return []
    parts = [part for value in _values(answer) for part in _steps(value, 0)]
    if any(part.number == 2 for part in parts):
        return parts
    if any(is_thought(key) for key in re.findall(r'"(\w+)"\s*:', answer)):
        return []
    return [
        Part(int(match["number"]), str(decoded(f'"{match["text"]}"') or match["text"]))
        for match in _BROKEN.finditer(answer)
    ]


def json_text(answer: str) -> str:
    """The text of an answer that is a single JSON object or list; "" for other answers."""
    bare = _FENCE.sub("", answer).strip()
    return _text(decoded(bare), 0) if bare[:1] in ("{", "[") else ""


def _values(answer: str) -> Iterator[Any]:
    """The first JSON objects in a text, or the first Python dict."""
    decoder, position = json.JSONDecoder(strict=False), 0
    for _ in range(_MAX_OBJECTS):
        position = answer.find("{", position)
        if position < 0:
            return
        try:
            value, position = decoder.raw_decode(answer, position)
        except (ValueError, RecursionError):
            if _QUOTED_KEY.match(answer, position):
                yield python_value(answer[position : answer.rfind("}") + 1])
                return
            position += 1
        else:
            yield value


def _steps(value: Any, depth: int) -> list[Part]:
    """Steps of an object, or of the objects inside it ({"answer": {"step1": ...}})."""
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, str):
        return [part for inner in _values(value) for part in _steps(inner, depth + 1)] or step_parts(value)[0]
    if isinstance(value, (list, tuple)):
        return [part for inner in value for part in _steps(inner, depth + 1)]
    if not isinstance(value, dict):
        return []
    value = _without_thoughts(value)
    if step := _numbered_step(value):
        return [step]
    named = {bare_name(str(key)): inner for key, inner in value.items()}
    found = [(number, name) for number, names in STEP_NAMES.items() for name in names if name in named]
    parts = [Part(number, _text(named[name], 0)) for number, name in dict(reversed(found)).items()][::-1]
    if not any(part.number == 2 for part in parts):
        rest = {key: inner for key, inner in value.items() if _ABOUT_STEP2.match(str(key))}
        parts += [Part(2, _text(rest, 0))] if rest else []
    return parts or [part for inner in value.values() for part in _steps(inner, depth + 1)]


def _numbered_step(value: dict[Any, Any]) -> Part | None:
    """The number and text of a step in a list of steps: {"step": 1, "text": ...}."""
    for name, told in value.items():
        number = re.fullmatch(r"(?:step|part)?[ _-]?([12])", str(told).strip().lower())
        if number and str(name).lower() in _STEP_NUMBERS:
            rest = {key: inner for key, inner in value.items() if key != name}
            said = {key: inner for key, inner in rest.items() if key not in _STEP_TITLES} or rest
            return Part(int(number[1]), _text(list(said.values()) if len(said) == 1 else said, 0))
    return None


def _text(value: Any, depth: int) -> str:
    """A value as readable text: lists by semicolons, objects as "Name: value." sentences."""
    if depth > _MAX_DEPTH or value is None:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_text(inner, depth + 1).strip() for inner in value)))
    if isinstance(value, dict):
        said = _without_thoughts(value)
        pairs = [(str(key).replace("_", " "), _text(inner, depth + 1)) for key, inner in said.items()]
        return " ".join(f"{key[:1].upper()}{key[1:]}: {text.rstrip('.')}." for key, text in pairs if text)
    return str(value)


def _without_thoughts(value: dict[Any, Any]) -> dict[Any, Any]:
    """An object without thoughts: fields such as "reasoning", or all of it by its type."""
    if is_thought(str(value.get("type", ""))):
        return {}
    return {key: inner for key, inner in value.items() if not is_thought(str(key))}
