"""Times one of this project's models; the counterpart of `recbole_side.py`, printing one JSON line.

    python third_party/recbole/reland_side.py --model=sasrec --objective=shifted --dataset=amazon-beauty

The fields of the line are described in `bench.py`.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags

# This script is started by its path, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

FLAGS = flags.FLAGS

PROTOCOLS = {"sasrec": "leave_one_out", "lightgcn": "ratio"}


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


def measure(model: str, objective: str, dataset: str, epochs: int, evaluations: int) -> dict[str, Any]:
    """Trains and evaluates the `id` variant.

    Returns:
        "epoch_seconds" (without compilation), "compile_seconds", "evaluation_seconds" (test split,
        propagation included), "evaluation_batch" (users ranked at a time) and "examples" (training
        targets in an epoch).
    """
    from reland_jax.config import DataConfig, EvalConfig, FusionConfig, ModelConfig, TrainConfig
    from reland_jax.data import load_interactions, split
    from reland_jax.models import MODELS, Tables, bipartite_graph, build_propagation, create_recommender
    from reland_jax.train import Evaluator, create_task, fit

    data = DataConfig(name=dataset, protocol=PROTOCOLS[model])
    splits = split(load_interactions(data), data.protocol)
    sizes = ModelConfig(backbone=model, dim=64, layers=2, heads=2, inner=256)
    config = TrainConfig(objective=objective, max_epochs=epochs, batch_size=1024)
    in_graph = MODELS[model].needs_graph
    graph = build_propagation(bipartite_graph(splits.train, splits.num_items)) if in_graph else None
    recommender = create_recommender(
        sizes,
        FusionConfig(),
        "id",
        num_users=splits.num_users,
        num_items=splits.num_items,
        max_length=data.max_length,
        embedding_l2=config.embedding_l2,
    )
    task = create_task(recommender, Tables(propagation=graph), splits, config, data.max_length)
    evaluator = Evaluator(task, splits, EvalConfig(mask_history=in_graph))
    result = fit(task, evaluator, config)
    return {
        "compile_seconds": result.compile_seconds,
        "examples": task.targets,
        "epoch_seconds": [entry["seconds"] for entry in result.history],
        "evaluation_batch": evaluator.users_per_tile,
        "evaluation_seconds": time_evaluations(evaluator, result.params, evaluations),
    }


def time_evaluations(evaluator: Any, params: Any, repeats: int) -> list[float]:
    """Seconds of each full ranking of the test split, from parameters to metrics, after a first one."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        evaluator.metrics(params, "test")
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def define_flags() -> None:
    """Defines the flags; not on import, where they could meet another script's."""
    flags.DEFINE_string("model", None, "backbone: sasrec or lightgcn", required=True)
    flags.DEFINE_enum("objective", None, ["bpr", "prefix", "shifted"], "what is trained", required=True)
    flags.DEFINE_string("dataset", None, "data set, by name or path", required=True)
    flags.DEFINE_integer("epochs", 1, "training epochs to time", lower_bound=1)
    flags.DEFINE_integer("evaluations", 3, "full-ranking evaluations to time", lower_bound=1)


def main(_: list[str]) -> None:
    """Measures and prints the record."""
    measured = measure(FLAGS.model, FLAGS.objective, FLAGS.dataset, FLAGS.epochs, FLAGS.evaluations)
    record = {"library": "reland_jax", "model": FLAGS.model, "objective": FLAGS.objective, "complete": True}
    print(json.dumps(record | measured | {"peak_bytes": peak_bytes(), "versions": versions()}))


if __name__ == "__main__":
    define_flags()
    app.run(main)
