"""Times one of this project's models; prints the JSON line that `bench.py` describes.

    python third_party/recbole/reland_side.py --model SASRec --objective shifted --dataset DATA/amazon-beauty

Same data, split, width, layers, batch and targets as `recbole_side.py`. Every evaluation starts from
the parameters: it encodes users, ranks all items and computes the metrics, as RecBole's does.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reland_jax.config import DataConfig, EvalConfig, FusionConfig, ModelConfig, TrainConfig
from reland_jax.data import load_interactions, split
from reland_jax.models import MODELS, Tables, bipartite_graph, build_propagation, create_recommender
from reland_jax.train import Evaluator, create_task, fit

PROTOCOLS = {"SASRec": "leave_one_out", "LightGCN": "ratio"}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates as asked, and returns the record that `bench.py` describes."""
    start = time.perf_counter()
    data = DataConfig(name=str(arguments.dataset), source="recbole", protocol=PROTOCOLS[arguments.model])
    splits = split(load_interactions(data), data.protocol)
    model = ModelConfig(backbone=arguments.model.lower(), dim=64, layers=2, heads=2, inner=256)
    config = TrainConfig(objective=arguments.objective, max_epochs=arguments.epochs, batch_size=1024)
    needs_graph = MODELS[model.backbone].needs_graph
    graph = build_propagation(bipartite_graph(splits.train, splits.num_items)) if needs_graph else None
    recommender = create_recommender(
        model, FusionConfig(), "id", num_users=splits.num_users, num_items=splits.num_items,
        max_length=data.max_length, embedding_l2=config.embedding_l2,
    )  # fmt: skip
    task = create_task(recommender, Tables(propagation=graph), splits, config, data.max_length)
    evaluator = Evaluator(task, splits, EvalConfig(mask_history=needs_graph))
    prepared = time.perf_counter() - start
    result = fit(task, evaluator, config)
    return {
        "library": "reland_jax",
        "model": model.backbone,
        "objective": config.objective,
        "preparation_seconds": prepared,
        "compile_seconds": result.compile_seconds,
        "examples": task.targets,
        "complete": True,
        "epoch_seconds": [entry["seconds"] for entry in result.history],
        "evaluation_batch": None,
        "evaluation_seconds": _evaluations(evaluator, result.params, "test", arguments.evaluations),
        "validation_seconds": _evaluations(evaluator, result.params, "valid", arguments.evaluations),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
        | {"python": platform.python_version()},
    }


def _evaluations(evaluator: Evaluator, params: Any, part: str, repeats: int) -> list[float]:
    """Seconds of each full ranking, after one that compiles."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        evaluator.metrics(params, part)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--objective", choices=["bpr", "prefix", "shifted"], required=True)
    parser.add_argument("--dataset", type=Path, required=True, help="folder NAME with NAME.inter")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=3)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
