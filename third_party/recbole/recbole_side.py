"""Times one RecBole model; runs inside RecBole's own environment and prints one JSON line.

    FOLDER/bin/python third_party/recbole/recbole_side.py --model=lightgcn --dataset=DATA/amazon-beauty

RecBole is driven through its public pieces (`Config`, `create_dataset`, `data_preparation`,
`Trainer`), with its own defaults except for what has to match this project's side (`matched.py`).
`_train_epoch` and `evaluate` are called here and not through `Trainer.fit`, so that each is timed alone
and no checkpoint is written or read. The fields of the JSON line are described in `bench.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matched import BATCH_SIZE, MODELS, RECBOLE_COMMON, digest, recbole_settings


def prepare(arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Builds RecBole's config, loaders, model and trainer.

    Returns:
        The trainer and the training, validation and test loaders.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    name, dataset = MODELS[arguments.model].recbole, arguments.dataset
    values = recbole_settings(arguments.model, arguments.batch_size) | {"data_path": str(dataset.parent)}
    values["learning_rate"] = arguments.learning_rate
    config = Config(model=name, dataset=dataset.name, config_dict=values)
    logging.disable(logging.WARNING)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(name)(config, train._dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], name)(config, model), train, valid, test


def time_epochs(trainer: Any, train: Any, epochs: int, max_batches: int | None) -> list[float]:
    """Seconds of each training epoch; `max_batches` cuts an epoch short."""
    seconds = []
    for epoch in range(epochs):
        start = time.perf_counter()
        trainer._train_epoch(itertools.islice(train, max_batches), epoch)
        seconds.append(time.perf_counter() - start)
    return seconds


def is_general(trainer: Any) -> bool:
    """Whether RecBole's evaluation batch counts user-item pairs, and not users."""
    return trainer.config["MODEL_TYPE"].name == "GENERAL"


def default_users(trainer: Any, num_items: int) -> int:
    """Users ranked per step at RecBole's default evaluation batch."""
    size = RECBOLE_COMMON["eval_batch_size"]
    return max(size // num_items, 1) if is_general(trainer) else size


def resize(trainer: Any, loader: Any, users: int, is_default: bool) -> Any:
    """A loader of the same split that ranks `users` at a time, as if RecBole had been configured so.

    The trainer keeps the batch too: NeuMF scores at most that many pairs in one pass of its network. At
    the default one user's pairs are therefore cut in pieces.
    """
    per_user = loader._dataset.item_num if is_general(trainer) else 1
    size = RECBOLE_COMMON["eval_batch_size"] if is_default else users * per_user
    trainer.config["eval_batch_size"] = trainer.test_batch_size = size
    return type(loader)(trainer.config, loader._dataset, loader._sampler, shuffle=False)


def time_evaluations(trainer: Any, loader: Any, repeats: int, eval_users: int) -> list[float]:
    """Seconds of each full ranking of a split.

    The graph models keep their propagated embeddings from one evaluation to the next; they are dropped
    first, as a training step between two evaluations would do, so propagation is part of every evaluation.

    Args:
        trainer: RecBole's trainer.
        loader: see `resize`.
        repeats: evaluations.
        eval_users: rank only so many users, and scale the seconds to all of them; 0 ranks all.
    """
    listed = loader.sampler.data_source
    share = min(eval_users or len(listed), len(listed)) / len(listed)
    del listed[round(share * len(listed)) :]
    seconds = []
    for _ in range(repeats):
        if hasattr(trainer.model, "restore_user_e"):
            trainer.model.restore_user_e = trainer.model.restore_item_e = None
        start = time.perf_counter()
        trainer.evaluate(loader, load_best_model=False)
        seconds.append((time.perf_counter() - start) / share)
    return seconds


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tune_evaluation(trainer: Any, test: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Times the evaluation at several batches, small ones first, so that each has its own peak."""
    default = default_users(trainer, test._dataset.item_num)
    tried = {(users, False) for users in MODELS[arguments.model].evaluation_users} - {(default, False)}
    tried |= {(default, True)}
    if arguments.evaluation_batch:
        tried = {(arguments.evaluation_batch, arguments.evaluation_batch == default)}
    measured = []
    for users, is_default in sorted(tried):
        loader = resize(trainer, test, users, is_default)
        seconds = time_evaluations(trainer, loader, arguments.evaluations, arguments.eval_users)
        measured.append(
            {
                "evaluation_batch": users,
                "evaluation_seconds": seconds,
                "peak_bytes": peak_bytes(),
                "is_default": is_default,
            }
        )
    return measured


def held_out(trainer: Any, loader: Any) -> str:
    """Fingerprint of a split's targets and of what is left out of its ranking."""
    dataset = loader._dataset
    users, items = (dataset.field2id_token[field] for field in (dataset.uid_field, dataset.iid_field))
    if not is_general(trainer):
        columns = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
        return digest(((users[user], items[item]) for user, item in zip(*columns, strict=True)), ())

    def pairs(lists: Any) -> Iterator[tuple[str, str]]:
        return ((users[user], items[item]) for user in loader.uid_list.numpy() for item in lists[user])

    return digest(pairs(loader.uid2positive_item), pairs(loader.uid2history_item))


def versions() -> dict[str, str]:
    """Versions of what was timed."""
    import numpy
    import recbole
    import scipy
    import torch

    found = {module.__name__: module.__version__ for module in (numpy, recbole, scipy, torch)}
    return found | {"python": platform.python_version(), "threads": str(torch.get_num_threads())}


def measure(trainer: Any, train: Any, test: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times training epochs and evaluations at several batches; the fastest batch is RecBole's time."""
    seconds = time_epochs(trainer, train, arguments.epochs, arguments.max_batches)
    tried = tune_evaluation(trainer, test, arguments)
    best = min(tried, key=lambda entry: statistics.median(entry["evaluation_seconds"]))
    return {
        "kind": "timing",
        "compile_seconds": 0.0,
        "epoch_seconds": seconds,
        "examples": len(train._dataset),
        "evaluations": tried,
        "evaluated_users": arguments.eval_users,
        **{key: best[key] for key in ("evaluation_batch", "evaluation_seconds", "peak_bytes")},
    }


def train_for_quality(trainer: Any, train: Any, valid: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains with a validation after every epoch, and notes what was reached when."""
    default = default_users(trainer, valid._dataset.item_num)
    users = arguments.evaluation_batch or default
    loader = resize(trainer, valid, users, users == default)
    progress, start = [], time.perf_counter()
    for epoch in range(arguments.quality_epochs):
        trainer._train_epoch(itertools.islice(train, arguments.max_batches), epoch)
        trained = time.perf_counter()
        reached = trainer.evaluate(loader, load_best_model=False)["ndcg@10"]
        now = time.perf_counter()
        progress.append(
            {"seconds": now - start, "evaluation_seconds": now - trained, "ndcg@10": float(reached)}
        )
    return {"kind": "quality", "compile_seconds": 0.0, "progress": progress, "evaluation_batch": users}


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and empties it: RecBole's `Config` would read it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    named = sorted(name for name, match in MODELS.items() if match.recbole)
    parser.add_argument("--model", choices=named, required=True)
    parser.add_argument("--dataset", type=Path, required=True, help="folder NAME with NAME.inter")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=3, help="evaluations per batch size")
    parser.add_argument("--evaluation_batch", type=int, default=0, help="users a step; 0 tries several")
    parser.add_argument("--eval_users", type=int, default=0, help="rank so many users, scale to all; 0: all")
    parser.add_argument("--quality_epochs", type=int, default=0, help="train so many epochs for quality")
    parser.add_argument("--learning_rate", type=float, default=RECBOLE_COMMON["learning_rate"])
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="training targets per step")
    parser.add_argument("--max_batches", type=int, help="stop epochs early, to try the script out")
    arguments = parser.parse_args()
    arguments.dataset = arguments.dataset.resolve()
    del sys.argv[1:]
    return arguments


def make_record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepares, measures as asked, and returns the record that `bench.py` describes."""
    start = time.perf_counter()
    trainer, train, valid, test = prepare(arguments)
    record = {
        "library": "recbole",
        "model": arguments.model,
        "objective": MODELS[arguments.model].recbole_objective,
        "preparation_seconds": time.perf_counter() - start,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
        "complete": arguments.max_batches is None,
        "held_out": {"valid": held_out(trainer, valid), "test": held_out(trainer, test)},
        "versions": versions(),
    }
    if arguments.quality_epochs:
        return record | train_for_quality(trainer, train, valid, arguments)
    return record | measure(trainer, train, test, arguments)


def main() -> None:
    """Measures in an empty folder, since RecBole leaves logs in the current one."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        record = make_record(arguments)
        os.chdir("/")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
