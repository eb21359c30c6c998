"""Which settings are tuned for each backbone, and within what bounds.

The space of a variant is the part that all variants share, and its own part: texts for `f_item` and
`reland`, fusion for `reland`. Every variant gets the same number of trials, so a larger space is searched
more thinly: what is added for `reland` is no advantage in the search. The same part of the table serves
the three variants, so none is left with settings that were found for another.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reland_jax.config import Config, nearest_name
from reland_jax.types import RelandError

if TYPE_CHECKING:
    from optuna import Trial


class Choice(NamedTuple):
    """One of a few values.

    Attributes:
        name: dotted name of the setting.
        values: what it may be.
        also: another setting that must have the same value; "" for none.
    """

    name: str
    values: tuple[Any, ...]
    also: str = ""


class LogRange(NamedTuple):
    """A number from `low` to `high`, uniform in its logarithm, rounded to two digits.

    Attributes:
        name: dotted name of the setting.
        low: smallest value, above 0.
        high: largest value.
    """

    name: str
    low: float
    high: float


Setting = Choice | LogRange


class Space(NamedTuple):
    """The settings of one backbone.

    Attributes:
        shared: tuned for every variant.
        text: tuned for `f_item` and `reland`, which read item texts.
        fusion: tuned for `reland` only.
    """

    shared: tuple[Setting, ...]
    text: tuple[Setting, ...]
    fusion: tuple[Setting, ...]


_PROJECTION = "train.projection_learning_rate"
_LEARNING_RATE = "train.learning_rate"

# Trained with BPR on sets.
_SET_RATE = LogRange(_LEARNING_RATE, 5e-4, 2e-2)
_SET_L2 = LogRange("train.embedding_l2", 1e-5, 1e-2)
_SET_TEXT = (
    LogRange(_PROJECTION, 1e-6, 1e-2),
    # Items and rationales go through one projection, so both have one width.
    Choice("text.whiten_items", (64, 128, 256), also="text.whiten_rationales"),
)
_SET_FUSION = (
    Choice("fusion.dropout", (0.0, 0.1, 0.3, 0.5)),
    Choice("fusion.neighbours", (1, 50, 200, 400)),
)

# Trained with cross-entropy on sequences.
_SEQUENCE_RATE = LogRange(_LEARNING_RATE, 3e-4, 5e-3)
_SEQUENCE_DROPOUT = Choice("model.dropout", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
_SEQUENCE_TEXT = (
    LogRange(_PROJECTION, 3e-5, 5e-3),
    Choice("text.whiten_items", (0, 64, 128)),
)
_SEQUENCE_FUSION = (
    Choice("fusion.dropout", (0.1, 0.3, 0.5, 0.7)),
    Choice("fusion.neighbours", (1, 20, 50, 100)),
)

SPACES: dict[str, Space] = {
    "neumf": Space(
        (
            _SET_RATE,
            _SET_L2,
            Choice("model.dropout", (0.0, 0.1, 0.2, 0.5)),
            Choice("model.tower", ((32, 16), (64, 32), (64, 32, 16))),
        ),
        _SET_TEXT,
        _SET_FUSION,
    ),
    "ngcf": Space(
        (
            _SET_RATE,
            _SET_L2,
            Choice("model.dropout", (0.0, 0.1, 0.3, 0.5)),
            Choice("model.layers", (1, 2, 3)),
        ),
        _SET_TEXT,
        _SET_FUSION,
    ),
    "lightgcn": Space((_SET_RATE, _SET_L2, Choice("model.layers", (2, 3, 4))), _SET_TEXT, _SET_FUSION),
    "gru4rec": Space(
        (
            _SEQUENCE_RATE,
            _SEQUENCE_DROPOUT,
            Choice("model.layers", (1, 2)),
            Choice("model.hidden", (64, 128)),
        ),
        _SEQUENCE_TEXT,
        _SEQUENCE_FUSION,
    ),
    "sasrec": Space(
        (_SEQUENCE_RATE, _SEQUENCE_DROPOUT, Choice("model.layers", (1, 2, 3))),
        _SEQUENCE_TEXT,
        _SEQUENCE_FUSION,
    ),
    "duorec": Space(
        (
            _SEQUENCE_RATE,
            _SEQUENCE_DROPOUT,
            Choice("model.layers", (1, 2, 3)),
            LogRange("model.contrast", 1e-2, 5e-1),
        ),
        _SEQUENCE_TEXT,
        _SEQUENCE_FUSION,
    ),
}
"""By backbone. What is not named here keeps its value of `experiments/configs/reland.py`."""


def space_of(backbone: str, variant: str) -> tuple[Setting, ...]:
    """What is tuned for a variant of a backbone, the shared part first."""
    space = SPACES[backbone]
    return {
        "id": space.shared,
        "f_item": space.shared + space.text,
        "reland": space.shared + space.text + space.fusion,
    }[variant]


def suggest(trial: Trial, space: Sequence[Setting]) -> dict[str, Any]:
    """The values of a trial, by dotted name."""
    values: dict[str, Any] = {}
    for setting in space:
        if isinstance(setting, LogRange):
            number = trial.suggest_float(setting.name, setting.low, setting.high, log=True)
            values[setting.name] = float(f"{number:.1e}")
            continue
        # The tuner stores plain labels only, and a tuple is none.
        labels = {str(value): value for value in setting.values}
        values[setting.name] = labels[trial.suggest_categorical(setting.name, tuple(labels))]
        if setting.also:
            values[setting.also] = values[setting.name]
    return values


def starting_point(config: Config, space: Sequence[Setting]) -> dict[str, Any]:
    """The settings as they are, in the form in which the tuner knows them, where the space has them."""
    point: dict[str, Any] = {}
    for setting in space:
        value = setting_of(config, setting.name)
        if setting.name == _PROJECTION:
            value = value or config.train.learning_rate  # 0 means that
        if isinstance(setting, LogRange):
            point |= {setting.name: value} if setting.low <= value <= setting.high else {}
        elif value in setting.values:
            point[setting.name] = str(value)
    return point


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
        value = written
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(current):
        raise RelandError(f"--set={text}: {name} is a {type(current).__name__}, such as {current!r}")
    return name, value
