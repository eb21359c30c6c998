"""The search of dropout and penalty: all that is compared has the same trials, judged by validation."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reland_jax.ranker_settings import RankerJob
from reland_jax.report.tables import MISSING, Table

if TYPE_CHECKING:
    from experiments.ranking.arms import ArmRun

TRIALS: tuple[Mapping[str, float], ...] = tuple(
    {"dropout": dropout, "embedding_l2": penalty} for dropout in (0.0, 0.2) for penalty in (0.0, 1e-3, 1e-2)
)
"""Settings of `RankerConfig` that are tried."""
_TOLD = ("best_epoch", "valid_logloss", "valid_auc")
_log = logging.getLogger("reland_jax.ranker")


class Chosen(NamedTuple):
    """What the trials of a network or an arm came to.

    Attributes:
        settings: of the best one.
        trials: settings, "best_epoch", "valid_logloss" and "valid_auc" of each; empty without trials.
    """

    settings: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]] = ()


def tuned(name: str, train: Callable[[Mapping[str, float]], ArmRun]) -> Chosen:
    """The one of `TRIALS` with the smallest validation logloss.

    Args:
        name: of what is tuned, for the log.
        train: settings of `RankerConfig` -> a training with them.
    """
    trials = []
    for settings in TRIALS:
        found = train(settings).summary
        best = found["history"][found["best"]]
        told = {"best_epoch": best["epoch"], "valid_logloss": best["logloss"], "valid_auc": best["auc"]}
        trials.append({**settings, **told})
        _log.info("%s: %s", name, trials[-1])
    best_of = min(range(len(TRIALS)), key=lambda at: float(trials[at]["valid_logloss"]))
    return Chosen(TRIALS[best_of], trials)


def with_settings(job: RankerJob, settings: Mapping[str, Any]) -> RankerJob:
    """A job with other settings of its ranker."""
    return dataclasses.replace(job, ranker=dataclasses.replace(job.ranker, **settings))


def folder_name(settings: Mapping[str, float]) -> str:
    """The folder of the trainings with some settings."""
    return "-".join(f"{name}={value:g}" for name, value in settings.items())


def trials_table(what: str, chosen: Mapping[str, Chosen]) -> Table:
    """All trials; of what had none, the settings that it was given.

    Args:
        what: the names are of.
        chosen: by name.
    """
    rows = []
    for name, found in chosen.items():
        for trial in found.trials or [found.settings]:
            is_chosen = all(trial[each] == value for each, value in found.settings.items())
            told = [f"{trial[each]:.4f}" if each in trial else MISSING for each in _TOLD]
            tried = [f"{trial[each]:g}" if each in trial else MISSING for each in TRIALS[0]]
            rows.append([name, *tried, *told, "chosen" if is_chosen else ""])
    header = (what, *TRIALS[0], *_TOLD, "")
    return Table("Trials, by validation with the first training seed", header, rows)
