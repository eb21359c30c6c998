"""Fair tuning: the same search for every variant of a backbone, judged by validation NDCG@10 only.

    python -m experiments.tune --dataset=amazon-beauty --backbone=gru4rec --variants=id,f_item,reland \\
        --trials=12 --workdir=DIR [--max_epochs=N] [--pool=FILE] [--set=section.key=value ...]

Every variant has the same number of trials, each with the same bound on its epochs, the same sampler
seeds and training seed 0. Its space (`experiments.grid.spaces`) is the part that all variants share and what
the variant itself adds. The first trial has the settings of `experiments/configs/reland.py`, the next
three are random, the others are drawn by the tree-structured Parzen estimator (Bergstra et al., NeurIPS
2011) from what the variant's own trials showed. A trial whose best validation so far is below the median
of the variant's earlier trials at the same epoch is stopped ("pruned"). The test part of the split is
taken away before the first trial, so nothing of it can be computed, stored or chosen by.

Writes DIR/tune.json after every trial. The same command continues after an interruption, and with a larger
--trials it extends the search. Needs Optuna: pip install -r requirements-tune.txt
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from experiments.configs.reland import get_config
from experiments.grid.spaces import Setting, space_of, starting_point, suggest
from experiments.harness import command_line
from experiments.harness.command_line import define_path, required_path
from experiments.harness.programs import keep_programs_of
from experiments.harness.settings import parse_setting, with_settings
from experiments.harness.written import check_own
from reland_jax import flow
from reland_jax.artefacts import fingerprint
from reland_jax.config import Config
from reland_jax.data import raw_state
from reland_jax.files import locked, write_json
from reland_jax.flow import Made
from reland_jax.results import environment
from reland_jax.stages import FLOW, SPLIT, training
from reland_jax.types import NDCG, RelandError
from reland_jax.variants import VARIANTS, find_variant

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

MONITOR = NDCG
TRAINING_SEED = 0
SAMPLER_SEED = 0
STARTUP = 4
"""Trials before the sampler and the pruner begin to use what they have seen."""

Report = Callable[[dict[str, float]], None]
Measure = Callable[[str, Mapping[str, Any], Report], float]

_log = logging.getLogger("reland_jax.tune")


def main() -> None:
    """Tunes, and prints the best settings of every variant."""
    logging.getLogger("reland_jax").setLevel(logging.INFO)
    given = flags.FLAGS
    workdir = Path(given.workdir)
    changes = given["set"].value or ()
    config = base_config(given.dataset, given.backbone, changes, given.pool, given.max_epochs)
    keep_programs_of([config], workdir)
    found = tune(config, given.variants, given.trials, workdir)
    print(table(found))
    for variant, one in found["variants"].items():
        print(f"\n{variant}:\n{one['best']['command']}")
    print(f"\nall trials: {workdir / 'tune.json'}")


def base_config(
    dataset: str, backbone: str, changes: Sequence[str] = (), pool: str = "", max_epochs: int | None = None
) -> Config:
    """The settings that the search starts from, and that it keeps where the space has none.

    Args:
        dataset: see `experiments/configs/reland.py`.
        backbone: one of `reland_jax.config.BACKBONES`.
        changes: "section.key=value" each.
        pool: file of rationales; "" means those of the heuristic.
        max_epochs: bound on the epochs of a trial, or None for that of the settings.

    Raises:
        RelandError: an unknown name, or a value that cannot be.
    """
    config = Config.from_dict(get_config(f"{dataset},{backbone}").to_dict())
    values = dict(parse_setting(change, config) for change in changes)
    if pool:
        values |= {"pool.provider": "file", "pool.path": pool}
    if max_epochs is not None:
        values["train.max_epochs"] = max_epochs
    return with_settings(config, values)


def tune(config: Config, variants: Sequence[str], trials: int, workdir: Path) -> dict[str, Any]:
    """Searches the space of every variant.

    The variants take turns, so that a stopped search has tried all of them equally often.

    Args:
        config: what the search starts from.
        variants: of `reland_jax.variants.BY_NAME`.
        trials: per variant, pruned and failed ones included, and those of earlier calls.
        workdir: of this search alone; one process at a time.

    Returns:
        The content of tune.json.

    Raises:
        RelandError: bad data or settings, Optuna is missing, another process has the folder, or every
            trial of a variant failed.
    """
    for variant in variants:
        find_variant(variant, "--variants")
    _require_optuna()
    check_own(workdir, "tune.json")
    workdir.mkdir(parents=True, exist_ok=True)
    with _sole_use(workdir):
        bench = Bench(config, workdir / "prepared")
        studies = {variant: open_study(config, variant, workdir) for variant in variants}
        content = _save(workdir, config, studies, trials)
        for index in range(trials):
            for variant, study in studies.items():
                if len(counted(study)) <= index:
                    run_trial(study, variant, config, bench.measure)
                    content = _save(workdir, config, studies, trials)
    for variant, one in content["variants"].items():
        if one["best"] is None:
            raise RelandError(f"no trial of {variant} was completed: {one['trials'][-1]['reason']}")
    return content


class Bench:
    """Trains and validates variants under changed settings.

    Attributes:
        config: the settings that are changed.
        folder: artefacts of the stages before training; those that a changed setting does not touch
            are made once.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        """Runs the stages before training once.

        Raises:
            RelandError: bad data or settings.
        """
        self.config, self.folder = config, folder
        self._prepared: Made | None = None
        self._prepared_with(config)

    def measure(self, variant: str, settings: Mapping[str, Any], report: Report) -> float:
        """The best validation NDCG@10 of one training.

        Args:
            variant: of `reland_jax.variants.BY_NAME`.
            settings: what to change, by dotted name.
            report: called with every epoch's entry of the history; may raise to stop the training.

        Raises:
            RelandError: the settings do not fit together, or the training did not stay finite.
        """
        made = self._prepared_with(with_settings(self.config, settings))
        # The validation part stands in for the test part, which no trial gets to see.
        splits = made[SPLIT]
        made = made.instead(SPLIT, splits._replace(test=splits.valid))
        stage = training(made, variant, TRAINING_SEED, parts=("valid",), on_epoch=report)
        history = made.compute(stage).summary.history
        return max(entry[MONITOR] for entry in history if MONITOR in entry)

    def _prepared_with(self, config: Config) -> Made:
        self._prepared = flow.run(FLOW, config, self.folder, known=self._prepared)
        return self._prepared


def open_study(config: Config, variant: str, workdir: Path) -> Study:
    """The trials of a variant so far; none where the settings, the space or the data have changed.

    A trial that was running when the process was stopped is closed, and does not count.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space_of(config.model.backbone, variant)
    fixed = dataclasses.replace(config, variants=(variant,), seeds_of_training=(TRAINING_SEED,))
    data = [raw_state(config.data), Path(config.pool.path or "")]
    stamp = fingerprint(fixed, space, *data, SAMPLER_SEED, STARTUP)
    study = optuna.create_study(
        storage=_storage(workdir / "trials.sqlite"),
        study_name=f"{config.model.backbone}-{variant}-{stamp}",
        direction="maximize",
        # A small learning rate begins slowly, so nothing is pruned in the first third.
        pruner=optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=config.train.max_epochs // 3 + 1),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _storage(path: Path) -> RDBStorage:
    """The trials in a SQLite file; its name goes through no URL, which would read ``?`` and ``%`` in it.

    Raises:
        RelandError: the file is damaged, or was made by somebody else.
    """
    import optuna
    from sqlalchemy.pool import NullPool

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60.0, check_same_thread=False)

    try:
        with contextlib.closing(connect()) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise RelandError(
            f"{path}: the trials cannot be read ({' '.join(str(found).split())}); restore a copy, or move it "
            "away to start a new search"
        )
    return optuna.storages.RDBStorage("sqlite://", {"creator": connect, "poolclass": NullPool})


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count towards the budget: all but those that were stopped with their process."""
    from optuna.trial import TrialState

    failed = (trial for trial in study.trials if trial.state == TrialState.FAIL)
    stopped = {trial.number for trial in failed if "reason" not in trial.user_attrs}
    return [trial for trial in study.trials if trial.state.is_finished() and trial.number not in stopped]


def run_trial(study: Study, variant: str, config: Config, measure: Measure) -> None:
    """Draws settings, trains with them and records what came of it."""
    import optuna

    space = space_of(config.model.backbone, variant)
    _prepare_draw(study, config, space)
    trial, start = study.ask(), time.perf_counter()
    settings = suggest(trial, space)
    trial.set_user_attr("settings", settings)

    def report(entry: dict[str, float]) -> None:
        if MONITOR in entry:
            trial.report(entry[MONITOR], int(entry["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

    value, state = None, optuna.trial.TrialState.COMPLETE
    try:
        value = measure(variant, settings, report)
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    except RelandError as error:
        state = optuna.trial.TrialState.FAIL
        trial.set_user_attr("reason", str(error))
    trial.set_user_attr("seconds", time.perf_counter() - start)
    study.tell(trial, value, state)
    outcome = state.name.lower() if value is None else f"valid NDCG@10 {value:.4f}"
    _log.info("%s trial %d: %s with %s", variant, trial.number, outcome, _words(settings))


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _prepare_draw(study: Study, config: Config, space: Sequence[Setting]) -> None:
    """Makes the next draw depend on the trials that count alone, and not on when the process began."""
    import optuna

    index = len(counted(study))
    waiting = study.get_trials(states=[optuna.trial.TrialState.WAITING])
    if index == 0 and not waiting:
        study.enqueue_trial(starting_point(config, space))
    # Seeds side by side give first draws that are alike; this mixes them.
    seed = int(np.random.SeedSequence([SAMPLER_SEED, index]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)


def _save(workdir: Path, config: Config, studies: Mapping[str, Study], trials: int) -> dict[str, Any]:
    """Writes tune.json and returns its content."""
    content = {
        "dataset": config.data.name,
        "backbone": config.model.backbone,
        "objective": f"best validation {MONITOR} over the epochs",
        "trials_per_variant": trials,
        "max_epochs": config.train.max_epochs,
        "training_seed": TRAINING_SEED,
        "sampler_seed": SAMPLER_SEED,
        "variants": {
            variant: _variant_content(config, variant, study, workdir) for variant, study in studies.items()
        },
        "config": config.to_keep(),
        "environment": environment(),
    }
    write_json(workdir / "tune.json", content)
    return content


def _variant_content(config: Config, variant: str, study: Study, workdir: Path) -> dict[str, Any]:
    trials = [_trial_content(trial) for trial in study.trials]
    completed = [trial for trial in trials if trial["state"] == "complete"]
    best = max(completed, key=lambda trial: trial["value"], default=None)
    if best is not None:
        command = reproduce(config, variant, best["settings"], workdir / f"best-{variant}")
        best = {key: best[key] for key in ("number", "value", "settings")} | {"command": command}
    space = [setting._asdict() for setting in space_of(config.model.backbone, variant)]
    return {"space": space, "best": best, "trials": trials}


def _trial_content(trial: FrozenTrial) -> dict[str, Any]:
    """One trial as plain values; "validation" is the monitored metric by epoch.

    "state" is complete, pruned, fail (with a "reason"), running, or stopped (with its process).
    """
    notes, state = trial.user_attrs, trial.state.name.lower()
    if state == "fail" and "reason" not in notes:
        state = "stopped"
    return {
        "number": trial.number,
        "state": state,
        "value": trial.value if state == "complete" else None,
        "settings": notes.get("settings", {}),
        "validation": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        "seconds": notes.get("seconds"),
        "reason": notes.get("reason", ""),
    }


def reproduce(config: Config, variant: str, settings: Mapping[str, Any], workdir: Path) -> str:
    """The command that trains a variant with the given settings and only then looks at the test part."""
    where = f"{config.data.name},{config.model.backbone}"
    defaults = _flat(Config.from_dict(get_config(where).to_dict()).to_dict())
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    wanted = dataclasses.replace(with_settings(config, settings), variants=(variant,))
    changed = {name: value for name, value in _flat(wanted.to_dict()).items() if value != defaults[name]}
    command = ["python", "-m", "experiments.run", f"--config=experiments/configs/reland.py:{where}"]
    command += [f"--workdir={workdir}", f"--seed={TRAINING_SEED}"]
    for name, value in changed.items():
        written = str(value).replace("'", '"') if isinstance(value, tuple) else value
        command.append(f"--config.{name}={written}")
    return shlex.join(command)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def table(content: Mapping[str, Any]) -> str:
    """What was found, one line per variant."""
    lines = [f"{'variant':<9}{'done':>5}{'pruned':>8}{'failed':>8}{'valid NDCG@10':>15}  settings"]
    for variant, one in content["variants"].items():
        states = [trial["state"] for trial in one["trials"]]
        done, pruned, failed = (states.count(state) for state in ("complete", "pruned", "fail"))
        settings = _words(one["best"]["settings"])
        lines.append(f"{variant:<9}{done:>5}{pruned:>8}{failed:>8}{one['best']['value']:>15.4f}  {settings}")
    return "\n".join(lines)


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise RelandError("tuning needs Optuna: pip install -r requirements-tune.txt") from error


@contextlib.contextmanager
def _sole_use(workdir: Path) -> Iterator[None]:
    """Holds a lock that the system lets go when the process ends, however it ends."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir / "tune.lock", wait=False))
        except BlockingIOError as error:
            raise RelandError(f"{workdir}: another process is tuning; choose another --workdir") from error
        yield


def define_flags() -> None:
    """The flags; not at module level, because other jobs have flags of the same names."""
    flags.DEFINE_string("dataset", None, "Name of a data set, or a path.", required=True)
    flags.DEFINE_string("backbone", None, "Which recommender.", required=True)
    flags.DEFINE_list("variants", list(VARIANTS), "Which variants.")
    flags.DEFINE_integer("trials", 12, "Trials per variant.", lower_bound=1)
    required_path("workdir", "Folder of this search.")
    flags.DEFINE_integer(
        "max_epochs", None, "Bound on the epochs of a trial; that of the settings if not given."
    )
    define_path("pool", "", "File of rationales; the heuristic's if not given.")
    flags.DEFINE_multi_string("set", [], "section.key=value for all trials, unless the space has it.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
