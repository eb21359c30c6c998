"""Changing settings by their dotted names, as `--set=section.key=value` does."""

from __future__ import annotations

import ast
import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict, config_flags

from reland_jax.config import Config, nearest_name
from reland_jax.fields import described, fitting, kind_of, may_be_none
from reland_jax.types import RelandError


class _NumberOrNone(flags.ArgumentParser[float | None]):
    """Reads the flag of a setting that is a number or None."""

    def __init__(self, kind: type) -> None:
        """Of int, or of float."""
        self._kind = kind

    def parse(self, argument: Any) -> float | None:
        """The number; None as Python or JSON writes it."""
        if argument is None or str(argument).lower() in ("none", "null"):
            return None
        try:
            return self._kind(argument)
        except ValueError:
            kind = "a whole number" if self._kind is int else "a number"
            raise ValueError(f"must be {kind}, or None") from None

    def flag_type(self) -> str:
        """The kind of value, for --help."""
        return f"{self._kind.__name__} or None"


_OF_FLAGS: dict[type, type] = {int: numbers.Integral, float: numbers.Real}
"""The types under which ml_collections looks for `_NumberOrNone`; it knows none for "int or None"."""

for _kind, _registered in _OF_FLAGS.items():
    config_flags.register_flag_parser_for_type(_registered, _NumberOrNone(_kind))


def for_flags(config: Any) -> ml_collections.ConfigDict:
    """The settings as config_flags takes them, open to ``--config.section.key=value``."""
    return ml_collections.ConfigDict(_for_flags(config))


def _for_flags(section: Any) -> dict[str, Any]:
    values = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = _for_flags(value)
        elif may_be_none(section, field.name):
            kind = kind_of(section, field.name)
            value = config_dict.FieldReference(value, _OF_FLAGS.get(kind, kind))
        values[field.name] = value
    return values


def settings_help() -> str:
    """What `--help` says of the settings: meaning, allowed values and default of each."""
    lines = ["settings, with the defaults of config.py; --config=FILE:DATASET,BACKBONE has some others:"]
    for each in described(Config()):
        machine = "; a setting of the machine, which changes no result" if each.machine else ""
        about = f"({each.allowed}; default: {each.default}{machine})"
        lines.append(flags.text_wrap(f"--config.{each.name}: {each.meaning}", 100, "    ", "  "))
        lines.append(flags.text_wrap(about, 100, "    "))
    return "\n".join(lines)


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
            hint = nearest_name(part, known) if known else f"{value!r} has no settings below it"
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
        value: Any = written
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
