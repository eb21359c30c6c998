"""Times one RecBole model; runs inside RecBole's own environment and prints one JSON line.

    FOLDER/bin/python third_party/recbole/recbole_side.py --model LightGCN --dataset DATA/amazon-beauty

RecBole is driven through its public pieces (`Config`, `create_dataset`, `data_preparation`,
`Trainer`), with its own defaults except for what has to match this project's side. `_train_epoch` and
`evaluate` are called here and not through `Trainer.fit`, so that each is timed alone and no checkpoint
is written or read. The fields of the JSON line are described in `bench.py`.
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
from pathlib import Path
from typing import Any

DEFAULT_EVAL_BATCH_SIZE = 4096
USERS_PER_STEP = (256, 1024, 4096)
"""Evaluation batches tried, besides RecBole's default."""

COMMON: dict[str, Any] = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "train_batch_size": 1024,
    "eval_batch_size": DEFAULT_EVAL_BATCH_SIZE,
    "metrics": ["Hit", "NDCG", "MRR"],
    "topk": [5, 10, 20],
    "valid_metric": "NDCG@10",
    "learner": "adam",
    "learning_rate": 0.001,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
    "seed": 2020,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "SASRec": {
        "n_layers": 2,
        "n_heads": 2,
        "hidden_size": 64,
        "inner_size": 256,
        "MAX_ITEM_LIST_LENGTH": 50,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
    },
    "LightGCN": {
        "embedding_size": 64,
        "n_layers": 2,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "eval_args": {
            "split": {"RS": [0.8, 0.1, 0.1]},
            "group_by": "user",
            "order": "TO",
            "mode": "full",
        },
    },
}

OBJECTIVES = {"SASRec": "prefix", "LightGCN": "bpr"}
"""This project's name for what RecBole trains: SASRec on one example per prefix."""


def prepare(model_name: str, dataset: Path) -> tuple[Any, Any, Any, Any]:
    """Builds RecBole's config, loaders, model and trainer.

    Returns:
        The trainer and the training, validation and test loaders.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    values = COMMON | SETTINGS[model_name] | {"data_path": str(dataset.parent)}
    config = Config(model=model_name, dataset=dataset.name, config_dict=values)
    logging.disable(logging.WARNING)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(model_name)(config, train._dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], model_name)(config, model), train, valid, test


def time_epochs(trainer: Any, train: Any, epochs: int, max_batches: int | None) -> list[float]:
    """Seconds of each training epoch; `max_batches` cuts an epoch short."""
    seconds = []
    for epoch in range(epochs):
        start = time.perf_counter()
        trainer._train_epoch(itertools.islice(train, max_batches), epoch)
        seconds.append(time.perf_counter() - start)
    return seconds


def users_per_step(trainer: Any, eval_batch_size: int, num_items: int) -> int:
    """Users ranked per step: for a general model RecBole's batch counts user-item pairs."""
    general = trainer.config["MODEL_TYPE"].name == "GENERAL"
    return max(eval_batch_size // num_items, 1) if general else eval_batch_size


def time_evaluations(trainer: Any, loader: Any, users: int, repeats: int) -> list[float]:
    """Seconds of each full ranking of a split, `users` at a time.

    LightGCN keeps its propagated embeddings from one evaluation to the next; they are dropped first,
    as a training step between two evaluations would do, so propagation is part of every evaluation.
    """
    general = trainer.config["MODEL_TYPE"].name == "GENERAL"
    trainer.config["eval_batch_size"] = users * (loader._dataset.item_num if general else 1)
    resized = type(loader)(trainer.config, loader._dataset, loader._sampler, shuffle=False)
    seconds = []
    for _ in range(repeats):
        if hasattr(trainer.model, "restore_user_e"):
            trainer.model.restore_user_e = trainer.model.restore_item_e = None
        start = time.perf_counter()
        trainer.evaluate(resized, load_best_model=False)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tune_evaluation(trainer: Any, test: Any, repeats: int) -> dict[int, dict[str, Any]]:
    """Times the evaluation at several batches, small ones first, so that each has its own peak."""
    default = users_per_step(trainer, DEFAULT_EVAL_BATCH_SIZE, test._dataset.item_num)
    measured = {}
    for users in sorted({default, *USERS_PER_STEP}):
        seconds = time_evaluations(trainer, test, users, repeats)
        measured[users] = {
            "evaluation_batch": users,
            "evaluation_seconds": seconds,
            "peak_bytes": peak_bytes(),
            "is_default": users == default,
        }
    return measured


def versions() -> dict[str, str]:
    """Versions of what was timed."""
    import numpy
    import recbole
    import scipy
    import torch

    found = {module.__name__: module.__version__ for module in (numpy, recbole, scipy, torch)}
    return found | {"python": platform.python_version(), "threads": str(torch.get_num_threads())}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates as asked, and returns the record that `bench.py` describes."""
    start = time.perf_counter()
    trainer, train, valid, test = prepare(arguments.model, arguments.dataset)
    record: dict[str, Any] = {
        "library": "recbole",
        "model": arguments.model.lower(),
        "objective": OBJECTIVES[arguments.model],
        "preparation_seconds": time.perf_counter() - start,
        "compile_seconds": 0.0,
        "examples": len(train._dataset),
        "complete": arguments.max_batches is None,
        "epoch_seconds": time_epochs(trainer, train, arguments.epochs, arguments.max_batches),
    }
    tried = tune_evaluation(trainer, test, arguments.evaluations)
    best = min(tried.values(), key=lambda entry: statistics.median(entry["evaluation_seconds"]))
    record |= {key: best[key] for key in ("evaluation_batch", "evaluation_seconds", "peak_bytes")}
    record["evaluations"] = list(tried.values())
    record["validation_seconds"] = time_evaluations(
        trainer, valid, best["evaluation_batch"], arguments.evaluations
    )
    return record | {"versions": versions()}


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and empties it: RecBole's `Config` would read it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--dataset", type=Path, required=True, help="folder NAME with NAME.inter")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=3, help="evaluations per batch size")
    parser.add_argument("--max_batches", type=int, help="stop epochs early, to try the script out")
    arguments = parser.parse_args()
    arguments.dataset = arguments.dataset.resolve()
    del sys.argv[1:]
    return arguments


def main() -> None:
    """Measures in an empty folder, since RecBole leaves logs in the current one."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        record = measure(arguments)
        os.chdir("/")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
