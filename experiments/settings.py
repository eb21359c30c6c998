"""Changing settings by their dotted names, as `--set=section.key=value` does."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from reland_jax.config import Config, nearest_name
from reland_jax.types import RelandError


def setting_of(config: Config, name: str) -> Any:
    """The value of a setting by its dotted name.

    Raises:
        RelandError: there is no such setting; the nearest name is given.
    """
    value: Any = config
    for part in name.split("."):
        known = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
        if part not in known:
            hint = nearest_name(part, known) if known else f"nothing lies below {value!r}"
            raise RelandError(f"config.{name} is not a setting: {part!r}: {hint}")
        value = getattr(value, part)
    if dataclasses.is_dataclass(value):
        raise RelandError(f"config.{name} is a section of settings; name one of them")
    return value


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some settings, by dotted name.

    Raises:
        RelandError: an unknown setting or a value out of range.
    """
    changed = config.to_dict()
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = changed
        for section in sections:
            inner = inner[section]
        inner[last] = value
    return Config.from_dict(changed)


def parse_setting(text: str, config: Config) -> tuple[str, Any]:
    """Name and value of "section.key=value", the value of the type that the setting has.

    Raises:
        RelandError: the form, the name or the type is wrong.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise RelandError(f"--set={text}: expected section.key=value, such as train.batch_size=512")
    current = setting_of(config, name)
    if isinstance(current, str):
        return name, written
    try:
        value = ast.literal_eval(written)
    except (SyntaxError, ValueError):
        value = {"true": True, "false": False}.get(written.lower(), written)
    if (type(current), type(value)) in ((float, int), (tuple, list)):
        value = type(current)(value)
    if type(value) is not type(current):
        raise RelandError(f"--set={text}: {name} is of type {type(current).__name__}, such as {current!r}")
    return name, value
