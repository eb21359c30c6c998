"""Times one of this project's models; the counterpart of `recbole_side.py`, printing one JSON line.

    python third_party/recbole/reland_side.py --model=sasrec --objective=shifted --dataset=amazon-beauty

With `--until=NDCG` the settings of `experiments/configs/reland.py` are trained up to that validation
NDCG@10 instead. The fields of the line are described in `bench.py`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from matched import BATCH_SIZE, MODELS, digest, model_sizes

# This script is started by its path, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

FLAGS = flags.FLAGS


class Prepared(NamedTuple):
    """What is trained and evaluated: `Task`, `Evaluator`, and fingerprints of both held-out parts."""

    task: Any
    evaluator: Any
    held_out: dict[str, str]


class Reached(Exception):
    """Training stops because the wanted quality was reached."""


class LastSeen:
    """An evaluator that remembers the parameters that it last saw.

    Attributes:
        evaluator: the `Evaluator` that does the work.
        params: of the last evaluation.
    """

    def __init__(self, evaluator: Any) -> None:
        """Nothing seen yet."""
        self.evaluator, self.params = evaluator, None

    def metrics(self, params: Any, part: str) -> dict[str, float]:
        """As `Evaluator.metrics`."""
        self.params = params
        return self.evaluator.metrics(params, part)


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Versions of what was timed."""
    import flax
    import jax
    import numpy

    found = {module.__name__: module.__version__ for module in (flax, jax, numpy)}
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def matched_config(model: str, objective: str, dataset: str, epochs: int) -> Any:
    """The `Config` with the sizes that RecBole's side has too."""
    from reland_jax.config import Config, DataConfig, EvalConfig, ModelConfig, TrainConfig

    sequential = MODELS[model].sequential
    return Config(
        data=DataConfig(name=dataset, protocol="leave_one_out" if sequential else "ratio"),
        model=ModelConfig(backbone=model, **model_sizes(model)),
        train=TrainConfig(objective=objective, max_epochs=epochs, batch_size=BATCH_SIZE),
        eval=EvalConfig(mask_history=not sequential),
    )


def tuned_config(model: str, dataset: str) -> Any:
    """The `Config` of `experiments/configs/reland.py`, validated after every epoch and never given up."""
    from experiments.configs.reland import get_config
    from reland_jax.config import Config

    config = Config.from_dict(get_config(f"{Path(dataset).name},{model}").to_dict())
    train = dataclasses.replace(config.train, eval_every=1, patience=config.train.max_epochs)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, name=dataset), train=train)


def prepare(config: Any) -> Prepared:
    """Reads the data and builds the `id` variant with its evaluation.

    Raises:
        RelandError: a setting that cannot work, such as no objective.
    """
    from reland_jax.data import load_interactions, split
    from reland_jax.stages import id_task
    from reland_jax.train import Evaluator

    config.validate()
    interactions = load_interactions(config.data)
    splits = split(interactions, config.data.protocol)
    task = id_task(config, splits)
    evaluator = Evaluator(task, splits, config.eval)
    return Prepared(task, evaluator, held_out(interactions.ids, splits, config.eval.mask_history))


def held_out(ids: Any, splits: Any, mask_history: bool) -> dict[str, str]:
    """Fingerprints of the targets of both held-out parts and of what is left out of their rankings."""

    def pairs(lists: Any) -> Iterator[tuple[str, str]]:
        users = ids.users.repeat(lists.lengths())
        return zip(map(str, users), map(str, ids.items[lists.items]), strict=True)

    history = {"valid": splits.train, "test": splits.train.joined(splits.valid)}
    return {
        part: digest(pairs(getattr(splits, part)), pairs(seen) if mask_history else ())
        for part, seen in history.items()
    }


def measure(config: Any, evaluations: int) -> dict[str, Any]:
    """Times training epochs, without compilation, and evaluations of the test split."""
    from reland_jax.train import fit

    task, evaluator, targets = prepare(config)
    result = fit(task, evaluator, config.train)
    return {
        "kind": "timing",
        "compile_seconds": result.compile_seconds,
        "examples": task.targets,
        "epoch_seconds": [entry["seconds"] for entry in result.history],
        "evaluation_batch": evaluator.users_per_tile,
        "evaluation_seconds": time_evaluations(evaluator, result.params, "test", evaluations),
        "evaluated_users": 0,
        "held_out": targets,
        "peak_bytes": peak_bytes(),
    }


def time_evaluations(evaluator: Any, params: Any, part: str, repeats: int) -> list[float]:
    """Seconds of each full ranking of a part, from parameters to metrics, after a first one."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        evaluator.metrics(params, part)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def train_until(config: Any, until: float) -> dict[str, Any]:
    """Trains up to a validation NDCG@10, or to the config's last epoch.

    The clock starts after the data are ready, as on RecBole's side, and runs through initialisation
    and all compilation. "compile_seconds" is what remains of the time up to the first validation's end
    without the first epoch's steps and one evaluation.
    """
    from reland_jax.train import fit

    task, evaluator, targets = prepare(config)
    last, progress, start = LastSeen(evaluator), [], time.perf_counter()

    def note(entry: dict[str, float]) -> None:
        progress.append({"seconds": time.perf_counter() - start, "training_seconds": entry["seconds"]})
        progress[-1] |= {key: entry[key] for key in ("evaluation_seconds", "ndcg@10")}
        if entry["ndcg@10"] >= until:
            raise Reached

    try:
        fit(task, last, config.train, on_epoch=note)
    except Reached:
        pass
    (evaluation,) = time_evaluations(evaluator, last.params, "valid", 1)
    started = progress[0]["seconds"] - progress[0]["training_seconds"] - evaluation
    return {
        "kind": "quality",
        "compile_seconds": max(started, 0.0),
        "progress": progress,
        "until": until,
        "evaluation_batch": evaluator.users_per_tile,
        "held_out": targets,
    }


def define_flags() -> None:
    """Defines the flags; not on import, where they could meet another script's."""
    from experiments.harness.command_line import required_path

    flags.DEFINE_enum("model", None, list(MODELS), "backbone", required=True)
    flags.DEFINE_enum("objective", "", ["", "bpr", "prefix", "shifted"], "what is timed; --until needs none")
    required_path("dataset", "folder NAME with NAME.inter")
    flags.DEFINE_integer("epochs", 1, "training epochs to time", lower_bound=1)
    flags.DEFINE_integer("evaluations", 3, "full-ranking evaluations to time", lower_bound=1)
    flags.DEFINE_float("until", None, "train the tuned settings up to this validation NDCG@10 instead")


def main() -> None:
    """Measures and prints the record."""
    if FLAGS.until is None:
        config = matched_config(FLAGS.model, FLAGS.objective, FLAGS.dataset, FLAGS.epochs)
        measured = measure(config, FLAGS.evaluations)
    else:
        config = tuned_config(FLAGS.model, FLAGS.dataset)
        measured = train_until(config, FLAGS.until)
    record = {"library": "reland_jax", "model": FLAGS.model, "objective": config.train.objective}
    print(json.dumps(record | {"complete": True} | measured | {"versions": versions()}))


if __name__ == "__main__":
    from experiments.harness import command_line  # found by the path that was added above

    command_line.run(main, define_flags)
