"""A ranker trained from shards by as many processes as there are, for tests: writes its parameters.

    python -m tests.e2e.shared_ranker SHARDS CHECKPOINTS OUT

One process alone takes the same steps: both halves of each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reland_jax.config import MeshConfig
from reland_jax.events import Encoding, fit
from reland_jax.events.shards import ShardBatches, as_read
from reland_jax.mesh import join_processes, on_host, use_mesh
from reland_jax.ranker_settings import RankerConfig, RankerTrainConfig
from reland_jax.rankers import (
    ARMS,
    Program,
    RankerData,
    ReadBatch,
    Texts,
    create_ranker,
    field_schema,
    train_ranker,
)
from tests.rankers.toys import small_log

LOG = small_log()
ROWS = np.arange(900)


class Halves:
    """What two processes read, in one."""

    size, processes = 128, 1

    def __init__(self, paths: list[Path]) -> None:
        self.parts = [ShardBatches(paths, self.size, 3, 2, process, 2) for process in (0, 1)]
        self.steps_per_epoch = self.parts[0].steps_per_epoch

    def at(self, step: int) -> Any:
        """The rows of both, one after the other."""
        return jax.tree.map(lambda *each: np.concatenate(each), *(part.at(step) for part in self.parts))


def program_of(encoding: Encoding) -> Program:
    """A small network with dropout, which trains for eight epochs."""
    config = RankerConfig(network="dnn", width=4, layers=(8,), dropout=0.2)
    schema = field_schema(encoding, ("click", "conversion"))
    train = RankerTrainConfig(batch_size=128, max_epochs=8, checkpoint_seconds=0.0)
    return Program(create_ranker(config, schema, ARMS["id"]), train, ReadBatch(as_read, schema))


def main(shards: Path, checkpoints: Path, out: Path) -> None:
    """Trains, or goes on, and writes what was learned."""
    join_processes(os.environ)
    paths, processes = sorted(shards.iterdir()), jax.process_count()
    order: Any = Halves(paths)
    if processes > 1:
        order = ShardBatches(paths, 128, 3, 2, jax.process_index(), processes)
    with use_mesh(MeshConfig(data=processes)):
        data = RankerData(None, Texts())
        trained = train_ranker(program_of(fit(LOG, ROWS)), data, order, folder=checkpoints)
        leaves = jax.tree.leaves(on_host(trained.params))
    if jax.process_index() == 0:
        np.savez(out, *leaves)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
