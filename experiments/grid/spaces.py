"""Which settings are tuned for each backbone, and within what bounds.

The space of a variant is the part that all variants share, and its own part: texts for `f_item` and
`reland`, fusion for `reland`. Every variant gets the same number of trials, so a larger space is searched
more thinly: what is added for `reland` is not an advantage in the search. The same part of the table serves
the three variants, so none is left with settings that were found for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.harness.settings import setting_of
from reland_jax.config import SCHEDULES, Config
from reland_jax.variants import SEED_ID, find_variant

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
_SET_L2 = LogRange("train.embedding_l2", 1e-4, 1e-1)
_SET_BATCH = Choice("train.batch_size", (1024, 4096))
_SET_TEXT = (
    LogRange(_PROJECTION, 1e-6, 1e-2),
    # Items and rationales go through one projection, so both have one width.
    Choice("text.whiten_items", (64, 128, 256), also="text.whiten_rationales"),
)
_SET_FUSION = (
    Choice("fusion.gain", (None, 0.1, 0.25, 0.5, 1.0)),
    Choice("fusion.dropout", (0.0, 0.1, 0.3, 0.5)),
    Choice("fusion.neighbours", (1, 50, 200, 400)),
    Choice("fusion.withheld", (0.0, 0.25, 0.5)),
)

# Trained with cross-entropy on sequences.
_SEQUENCE_RATE = LogRange(_LEARNING_RATE, 3e-4, 5e-3)
_SEQUENCE_DROPOUT = Choice("model.dropout", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
_SEQUENCE_PROJECTION = LogRange(_PROJECTION, 3e-5, 5e-3)
_SEQUENCE_TEXT = (_SEQUENCE_PROJECTION, Choice("text.whiten_items", (None, 64, 128)))
# GRU4Rec's rationales go through the projection of item texts, so both have one width.
_RECURRENT_TEXT = (
    _SEQUENCE_PROJECTION,
    Choice("text.whiten_items", (None, 64, 128), also="text.whiten_rationales"),
)
_SEQUENCE_FUSION = (
    Choice("fusion.dropout", (0.1, 0.3, 0.5, 0.7)),
    Choice("fusion.neighbours", (1, 20, 50, 100)),
)

# Solved for in closed form.
_LAMBDA = LogRange("ease.regularisation", 5.0, 1000.0)
_LINEAR_TEXT = (LogRange("ease.text_weight", 1.0, 10000.0),)
_LINEAR_GIVEN = Choice("retrieval.neighbours", (1, 3, 10))
_LINEAR_FUSION = (_LINEAR_GIVEN, LogRange("ease.phrase_weight", 0.001, 0.1))
# Numbers of seed users have no phrases: they are columns of X.
_LINEAR_SEED_IDS = (_LINEAR_GIVEN, LogRange("ease.rationale_weight", 0.01, 10.0))

SPACES: dict[str, Space] = {
    "neumf": Space(
        (
            _SET_RATE,
            _SET_L2,
            _SET_BATCH,
            Choice("model.dropout", (0.0, 0.1, 0.2, 0.5)),
            Choice("model.tower", ((16, 8), (32, 16), (64, 32))),
        ),
        _SET_TEXT,
        _SET_FUSION,
    ),
    "ngcf": Space(
        (
            _SET_RATE,
            _SET_L2,
            _SET_BATCH,
            Choice("model.dropout", (0.0, 0.1, 0.3, 0.5)),
            Choice("model.layers", (1, 2, 3)),
        ),
        _SET_TEXT,
        _SET_FUSION,
    ),
    "lightgcn": Space(
        (_SET_RATE, _SET_L2, _SET_BATCH, Choice("model.layers", (2, 3, 4))), _SET_TEXT, _SET_FUSION
    ),
    "gru4rec": Space(
        (
            _SEQUENCE_RATE,
            _SEQUENCE_DROPOUT,
            Choice("train.schedule", SCHEDULES),
            Choice("model.layers", (1, 2)),
            Choice("model.hidden", (64, 128)),
        ),
        _RECURRENT_TEXT,
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
    "ease": Space((_LAMBDA,), _LINEAR_TEXT, _LINEAR_FUSION),
    "ials": Space(
        (
            Choice("model.dim", (64, 128, 256)),
            LogRange("ials.unobserved", 1e-3, 1e-1),
            LogRange("ials.regularisation", 3e-4, 3e-2),
        ),
        (LogRange("ials.text_weight", 0.01, 100.0),),
        (LogRange("ials.rationale_weight", 0.001, 10.0),),
    ),
    "ease_recency": Space((_LAMBDA, LogRange("ease.half_life", 0.25, 8.0)), _LINEAR_TEXT, _LINEAR_FUSION),
}
"""By backbone. What is not named here keeps its value of `experiments/configs/reland.py`."""


def space_of(backbone: str, variant: str) -> tuple[Setting, ...]:
    """What is tuned for a variant of a backbone, the shared part first."""
    space, reads = SPACES[backbone], find_variant(variant)
    texts = space.text if reads.reads_texts else ()
    fusion = _LINEAR_SEED_IDS if reads == SEED_ID and space.fusion is _LINEAR_FUSION else space.fusion
    return space.shared + texts + (fusion if reads.reads_rationales else ())


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
            value = config.train.learning_rate if value is None else value
        if isinstance(setting, LogRange):
            point |= {setting.name: value} if setting.low <= value <= setting.high else {}
        elif value in setting.values:
            point[setting.name] = str(value)
    return point
