"""Settings as fields of frozen dataclasses, each with its meaning and its allowed values.

The ground floor: `config` declares settings with `setting`; one checker reads what they declare.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

from reland_jax.files import expanded
from reland_jax.types import RelandError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


_LARGEST = {int: 2**31 - 1, float: 1e9}
"""Bound on numbers, to both sides, where a setting declares none: what is larger was never meant."""


def setting(
    default: Any,
    help_text: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    gone: Mapping[str, str] = types.MappingProxyType({}),
    blank: bool = False,
    filled: bool = False,
    distinct: bool = False,
    names: bool = False,
    path: bool = False,
    machine: bool = False,
    added: bool = False,
    none: str = "",
) -> Any:
    """A dataclass field that carries its own help text and the values that it may have.

    The annotation is checked too: int, float, str, bool, tuples of one of these, and "or None". Bounds and
    choices of a tuple apply to each entry.

    Args:
        default: the value if none is given.
        help_text: what the setting means.
        low: the least value.
        above: the value must be more than this.
        high: the largest value; by default that of `_LARGEST`.
        choices: the known values of a text.
        gone: values that were known once, each with what to do instead.
        blank: whether the text "" is allowed though the default is not "".
        filled: whether a tuple must have an entry.
        distinct: whether a tuple must not name an entry twice.
        names: whether the entries of a tuple are distinct names, which hold no commas: ``a,b`` is two, as
            written on a command line.
        path: whether it is, or may be, a path: ``~`` at its beginning is the home folder; in a tuple, of
            entries with a slash in them.
        machine: whether it changes how the work is done and never its result; such a setting is not part of a
            stamp.
        added: whether results were kept before it was, of which its default is true: it is part of a stamp
            only where it has another value, and its default must stay.
        none: what None means; for settings that may be None.
    """
    metadata = {
        "help": help_text, "low": low, "above": above, "high": high, "choices": tuple(choices), "gone": gone,
        "blank": blank or default == "", "filled": filled, "distinct": distinct or names,
        "names": names, "path": path, "machine": machine, "added": added, "none": none,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


class Description(NamedTuple):
    """What a person needs to know of a setting.

    Attributes:
        name: its dotted name.
        meaning: its help text.
        allowed: type, choices and range in words, and what None means.
        default: as Python writes it.
        machine: whether it changes how the work is done and never its result.
    """

    name: str
    meaning: str
    allowed: str
    default: str
    machine: bool


def described(settings: Any, where: str = "", machine: bool = False) -> list[Description]:
    """Every setting of a dataclass and of those in it, in their order.

    Args:
        settings: the dataclass; its values are taken as the defaults.
        where: dotted name of its section; "" for the whole.
        machine: whether the whole section changes how the work is done and never its result.
    """
    hints, found = _hints(settings.__class__), []
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{where}.{field.name}".strip(".")
        only_machine = machine or bool(field.metadata.get("machine"))
        if dataclasses.is_dataclass(value):
            found += described(value, name, only_machine)
            continue
        allowed = _allowed(hints[field.name], field.metadata)
        found.append(Description(name, field.metadata["help"], allowed, repr(value), only_machine))
    return found


def _allowed(hint: Any, declared: Mapping[str, Any]) -> str:
    kind, of_tuple, _ = _parsed(hint)
    choices = f"one of {', '.join(declared['choices'])}" if declared["choices"] else ""
    words = ", ".join([choices or _KINDS[kind].removeprefix("a "), *_bounds(declared)])
    words = f"list, each entry: {words}" if of_tuple else words
    return f"{words}; or None: {declared['none']}" if declared["none"] else words


def _bounds(declared: Mapping[str, Any]) -> list[str]:
    """The declared range in words."""
    named = (("low", "at least"), ("above", "more than"), ("high", "at most"))
    return [f"{words} {declared[name]}" for name, words in named if declared[name] is not None]


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint for an error: the known name most like `name`, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def build(defaults: Any, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass of settings with those of nested dictionaries put in.

    Lists become tuples, whole numbers where numbers are needed become floats, and whole numbers in a tuple
    of texts, or where a text may be None, become texts: flags make a number of an id.

    Args:
        defaults: the dataclass with the values of what is left out.
        values: by name of the setting or section.
        where: name of the section in errors, such as "config".

    Raises:
        RelandError: an unknown name; the nearest known one is given.
    """
    known = {field.name: field.metadata for field in dataclasses.fields(defaults)}
    if not isinstance(values, Mapping):
        raise RelandError(f"{where}={values!r} is a section of settings; name one of {', '.join(known)}")
    hints, arguments = _hints(defaults.__class__), {}
    for name, value in values.items():
        if name not in known:
            raise RelandError(f"{where}.{name} is not a setting; {nearest_name(str(name), list(known))}")
        current = getattr(defaults, name)
        if dataclasses.is_dataclass(current):
            arguments[name] = build(current, value, f"{where}.{name}")
        else:
            arguments[name] = _converted(value, hints[name], known[name])
    return dataclasses.replace(defaults, **arguments)


def _converted(value: Any, hint: Any, declared: Mapping[str, Any]) -> Any:
    kind, of_tuple, optional = _parsed(hint)
    is_path = declared.get("path")
    if not of_tuple:
        if optional and value == "None":  # as a command line has it
            return None
        value = _plain(value, kind, entry=optional)
        return expanded(value) if is_path and isinstance(value, str) else value
    if not _is_list(value):
        return value
    entries = tuple(_plain(each, kind, entry=True) for each in value)
    entries = split_names(entries) if declared.get("names") else entries
    return tuple(expanded(each) if is_path and "/" in str(each) else each for each in entries)


def split_names(values: Any) -> Any:
    """The names in ``a,b`` as entries of their own, also in brackets and quotes that no program has read.

    Args:
        values: a tuple or list of texts; anything else in it, or in its place, stays as it is.
    """
    if not isinstance(values, tuple | list):
        return values
    names: list[Any] = []
    for text in values:
        if not isinstance(text, str):
            names.append(text)
            continue
        text = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        names += [name for part in text.split(",") if (name := part.strip(" '\""))]
    return tuple(names)


def _plain(value: Any, kind: type, entry: bool = False) -> Any:
    """Converts a value to the declared type if that is lossless.

    Flags turn texts that look like numbers into numbers, in tuples and where the default is None.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is int and whole:
        return int(value)
    if kind is float and (whole or isinstance(value, numbers.Real)) and not isinstance(value, bool):
        return value if whole and abs(value) > _LARGEST[float] else float(value)
    if kind is str and (isinstance(value, str) or (entry and whole)):
        return str(value)
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


class Job:
    """Settings of a command, a frozen dataclass."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds and validates a job from nested dictionaries.

        Raises:
            RelandError: an unknown key (the nearest is named), or a value of another type or out of range.
        """
        job: Self = build(cls(), values, "config")
        check(job)
        return job


def check(settings: Any, where: str = "") -> None:
    """Checks every setting of a dataclass, and of those in it, against what its field declares.

    Args:
        settings: the dataclass.
        where: dotted name of its section; "" for the whole.

    Raises:
        RelandError: a value of another type, out of range or unknown; it is named with what is allowed.
    """
    hints = _hints(settings.__class__)
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{where}.{field.name}".strip(".")
        if dataclasses.is_dataclass(value):
            check(value, name)
            continue
        _check_setting(f"config.{name}", value, hints[field.name], field.metadata)


def _written(value: Any) -> str:
    """A value as an error tells it: of a very long one its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _check_setting(where: str, value: Any, hint: Any, declared: Mapping[str, Any]) -> None:
    kind, of_tuple, optional = _parsed(hint)
    if value is None and optional:
        return
    try:
        if of_tuple:
            _check_entries(where, value, kind, declared)
        else:
            _check_value(f"{where}={_written(value)}", value, kind, declared)
    except RelandError as error:
        if not declared.get("none"):
            raise
        raise RelandError(f"{error}, or None, which means: {declared['none']}") from error


def _check_entries(where: str, values: Any, kind: type, declared: Mapping[str, Any]) -> None:
    if not isinstance(values, tuple):
        example = "('a', 'b')" if kind is str else "(1, 2)"
        raise RelandError(f"{where}={_written(values)} must be a list, such as {example}")
    if declared.get("filled") and not values:
        raise RelandError(f"{where} is empty; it must name at least one")
    for value in values:
        subject = f"{where}={_written(values)}: {_written(value)}"
        subject = f"{where}={_written(value)}" if len(values) == 1 else subject
        _check_value(subject, value, kind, declared)
    if declared.get("distinct") and len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise RelandError(f"{where}={_written(values)} names {_written(twice)} twice")


def _check_value(subject: str, value: Any, kind: type, declared: Mapping[str, Any]) -> None:
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise RelandError(f"{subject} must be {_KINDS[kind]}, not {_kind_of(value)}")
    if kind is str:
        _check_text(subject, value, declared)
    elif kind is not bool:
        _check_number(subject, value, kind, declared)


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _check_text(subject: str, value: str, declared: Mapping[str, Any]) -> None:
    if instead := declared.get("gone", {}).get(value):
        raise RelandError(f"{subject} is no longer there: {instead}")
    choices = declared.get("choices")
    if choices and value not in choices:
        raise RelandError(f"{subject} is not known; {nearest_name(value, choices)}")
    if not value and not declared.get("blank"):
        raise RelandError(f"{subject} must not be empty")
    if "\0" in value:
        raise RelandError(f"{subject} must not hold the character NUL")


def _check_number(subject: str, value: float, kind: type, declared: Mapping[str, Any]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RelandError(f"{subject} must be a finite number")
    low, above, high = (declared.get(name) for name in ("low", "above", "high"))
    most = _LARGEST[kind]
    high = most if high is None and value > most else high
    low = -most if low is None and value < -most else low
    bounds = _bounds({"low": low, "above": above, "high": high})
    too_low = (low is not None and value < low) or (above is not None and value <= above)
    if too_low or (high is not None and value > high):
        raise RelandError(f"{subject} must be {' and '.join(bounds)}")


def fitting(section: Any, name: str, value: Any) -> Any:
    """A value of one setting, as the type that it needs.

    Raises:
        RelandError: it is of another type, out of range or unknown.
    """
    hint = _hints(section.__class__)[name]
    (field,) = (each for each in dataclasses.fields(section) if each.name == name)
    value = _converted(value, hint, field.metadata)
    _check_setting(name, value, hint, field.metadata)
    return value


def kind_of(section: Any, name: str) -> type:
    """The plain type of a setting, or of each entry where it is a tuple: int, float, str or bool."""
    return _parsed(_hints(section.__class__)[name])[0]


def may_be_none(section: Any, name: str) -> bool:
    """Whether None is a value of a setting."""
    return _parsed(_hints(section.__class__)[name])[2]


def that_matter(settings: Any) -> dict[str, Any]:
    """The settings of a dataclass that can change a result, as nested dictionaries."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        before = field.metadata.get("added") and value == field.default
        if not field.metadata.get("machine") and not before:
            found[field.name] = that_matter(value) if dataclasses.is_dataclass(value) else value
    return found


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@cache
def _parsed(hint: Any) -> tuple[type, bool, bool]:
    """The plain type of a setting, whether it is a tuple of them, and whether it may be None."""
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
        optional = True
    of_tuple = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if of_tuple else hint
    if kind not in _KINDS:
        raise TypeError(f"{hint} is not a type of a setting")
    return kind, of_tuple, optional
