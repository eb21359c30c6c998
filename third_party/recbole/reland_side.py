"""Times one of this project's models; the counterpart of `recbole_side.py`, printing one JSON line.

    python third_party/recbole/reland_side.py --model=sasrec --objective=shifted --dataset=amazon-beauty

The fields of the line are described in `bench.py`.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS


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
    raise NotImplementedError("the measurement of this project's side is not written yet")


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
