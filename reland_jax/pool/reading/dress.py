"""Removes wrapping and markup from an answer: JSON strings, event streams, HTML, XML, LaTeX, YAML.

`unpacked` is applied before thoughts and turns are parsed, since they may be inside the wrapping; `undressed`
is applied afterwards, when the remaining tags are markup.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from typing import Any

from reland_jax.plain import TAG, without_markup

_STREAMED = re.compile(r"^data:[ ]?(\{.*\})[ \t]*$", re.MULTILINE)
_TAG = re.compile(r"<(?P<shuts>/?)(?P<name>[A-Za-z][\w-]{0,40})(?P<rest>[ ][^<>\n]{0,200}|)[ ]?/?>")
_STEP_TAG = re.compile(r"step[_-]?(\d)?", re.IGNORECASE)
_INLINE = frozenset("a abbr b big em font i ins mark s small span strike strong style sub sup code u".split())
_ENTRIES = frozenset("li item category product movie genre artist track".split())
_LABEL_TAG = re.compile(r"(?:recommended[_-])?(?:categories|items|products|movies|genres|artists)")
STEP_NAMES = {
    1: """step1 stepone firststep part1 preferences preference summary preferencesummary preferencessummary
          userpreferences userpreference userprofile profile taste""".split(),
    2: "step2 steptwo secondstep part2 recommendations recommendation recommended".split(),
}
"""Names of tags and JSON fields that hold a step (`bare_name`), the most reliable first."""
_OBJECT = re.compile(r"""\{\s{0,8}["']""")
_REPR = re.compile(r"\[?(?:\w{1,40}\()?(?:content|text|thinking|reasoning)=['\"]")
_REPR_TEXT = re.compile(r"""\b(?:content|text)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_LATEX = re.compile(
    r"\\(?:text(?:bf|it|tt|sf|rm)?|mathbf|mathrm|emph|underline|boxed|(?:sub)*section\*?)\{([^{}]*)\}"
)
_TWO_COLUMNS = re.compile(
    r"^\|?[ *]*Step 1\b[^|\n]*\|[ *]*Step 2\b[^|\n]*\|?[ ]*\n[ ]*\|?[-: ]+\|[-:| ]+\n"
    r"\|?([^|\n]+)\|([^\n]+?)\|?[ ]*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A table with the steps in two columns."""
_FRONT = r"^(?P<before>[ \t*_#>]{0,8})"
_KEYCAP = re.compile(_FRONT + r"(?P<digit>\d)\ufe0f?\u20e3[.):]?[ \t]*", re.MULTILINE)
_CIRCLED = re.compile(_FRONT + r"(?P<digit>[\u2460-\u2468\u2776-\u277e])[ \t]*", re.MULTILINE)
_BLOCK_SCALAR = re.compile(r"^(?P<key>[ \t]*[\w .-]{1,20}:)[ ]?[|>][+-]?[ \t]*\n", re.MULTILINE)


def unpacked(text: str) -> str:
    """The answer without the wrapping of a program: an event stream, a JSON string, a Python literal."""
    bare = text.strip()
    if bare.startswith("data:"):
        text = "".join(map(_streamed, _STREAMED.findall(bare))) or text
    if bare[:1] == bare[-1:] == '"' and len(bare) > 1:
        text = str(decoded(bare) or text)
    if _REPR.match(bare):
        text = "".join(str(python_value(said) or "") for said in _REPR_TEXT.findall(bare)) or text
    if r"\n" in text and "\n" not in text.strip() and not _OBJECT.search(text):
        text = re.sub(r"\\r?\\n|\\n", "\n", text).replace(r"\"", '"')
    return text


def undressed(text: str) -> str:
    """The answer without HTML and XML tags, LaTeX commands and YAML signs; line breaks are kept.

    Tags of steps become marks of steps: "<step_1>", ``<step number="2">``, "<recommendations>".
    """
    if "<" in text:
        closed = {found["name"] for found in _TAG.finditer(text) if found["shuts"]}
        text = _TAG.sub(lambda tag: _without_tag(tag, closed), text)
    text = "\n".join(map(without_markup, text.split("\n"))) if "&" in text else text
    text = _LATEX.sub(r"\1", text) if "\\" in text else text
    text = _TWO_COLUMNS.sub(r"Step 1: \1\nStep 2: \2", text)
    for mark in (_KEYCAP, _CIRCLED):
        text = mark.sub(lambda found: f"{found['before']}{unicodedata.digit(found['digit'])}. ", text)
    return _BLOCK_SCALAR.sub(r"\g<key>\n", text)


def bare_name(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[\W_]", "", name.lower())


def _without_tag(tag: re.Match[str], closed: set[str]) -> str:
    """The replacement of a tag: nothing, a line break, or a mark; a name such as "<Live>" is kept."""
    name, step = tag["name"], _STEP_TAG.match(tag["name"])
    number = (step[1] if step else "") or (re.search(r"\d", tag["rest"]) or [""])[0]
    if step and (number or tag["shuts"]):
        return "\n" if tag["shuts"] else f"\nStep {number}: "
    known = bool(TAG.fullmatch(tag[0]))
    if not known and (name not in closed or name != name.lower()):
        return tag[0]
    if name.lower() in _INLINE:
        return ""
    if tag["shuts"]:
        return "\n"
    if named := [number for number, names in STEP_NAMES.items() if bare_name(name) in names]:
        return f"\nStep {named[0]}: "
    label = f"\n{name.replace('_', ' ').capitalize()}:\n" if _LABEL_TAG.fullmatch(name) else "\n"
    return "\n- " if name.lower() in _ENTRIES else label


def _streamed(event: str) -> str:
    """The text of one event of a stream."""
    value = decoded(event)
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else value
    for name in ("delta", "message", "text", "content"):
        choice = choice.get(name, choice) if isinstance(choice, dict) else choice
    return choice if isinstance(choice, str) else ""


def decoded(text: str) -> Any:
    """The value of a JSON text, None if it is invalid."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def python_value(text: str) -> Any:
    """The value of a Python literal, None if it is invalid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about backslashes
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
