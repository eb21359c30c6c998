"""Changing settings by their dotted names, as `--set=section.key=value` does."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from reland_jax.config import Config, nearest_name
from reland_jax.fields import fitting, kind_of
from reland_jax.types import RelandError


def setting_of(config: Config, name: str) -> Any:
    """The value of a setting by its dotted name.

    Raises:
        RelandError: there is no such setting; the nearest name is given.
    """
    return getattr(*_place(config, name))


def _place(config: Config, name: str) -> tuple[Any, str]:
    """The section that a setting lies in, and its name there."""
    section: Any = config
    value: Any = config
    for part in name.split("."):
        known = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
        if part not in known:
            hint = nearest_name(part, known) if known else f"nothing lies below {value!r}"
            raise RelandError(f"config.{name} is not a setting: {part!r}: {hint}")
        section, value = value, getattr(value, part)
    if dataclasses.is_dataclass(value):
        raise RelandError(f"config.{name} is a section of settings; name one of them")
    return section, part


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some settings, by dotted name.

    Raises:
        RelandError: an unknown setting or a value out of range.
    """
    changed = config.to_dict()
    for name, value in values.items():
        _place(config, name)
        *sections, last = name.split(".")
        inner = changed
        for section in sections:
            inner = inner[section]
        inner[last] = value
    return Config.from_dict(changed)


def parse_setting(text: str, config: Config) -> tuple[str, Any]:
    """Name and value of "section.key=value", the value of the type that the setting has.

    Several texts are written with commas between them: "data.text_fields=title,brand".

    Raises:
        RelandError: the form, the name, the type or the value is wrong.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise RelandError(f"--set={text}: expected section.key=value, such as train.batch_size=512")
    section, last = _place(config, name)
    current = getattr(section, last)
    if not isinstance(current, tuple) and kind_of(section, last) is str:
        value: Any = None if current is None and written == "None" else written
    else:
        value = _parsed(written)
        if isinstance(current, tuple) and not isinstance(value, list | tuple):
            value = tuple(each.strip() for each in written.split(",")) if isinstance(value, str) else (value,)
    try:
        return name, fitting(section, last, value)
    except RelandError as error:
        raise RelandError(f"--set={text}: {error}") from error


def _parsed(written: str) -> Any:
    """What is written as Python or JSON writes it, else as it stands."""
    plain = {"true": True, "false": False, "none": None, "null": None}
    if written.lower() in plain:
        return plain[written.lower()]
    try:
        return ast.literal_eval(written)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return written
