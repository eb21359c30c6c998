"""This project's DCN-V2 on the rows of the benchmark: training, requests, the rationale, and memory.

Cases: `dcn_v2` is what the other libraries do; `reland` adds item texts, rationales and the cosine, and
`f_item` item texts alone; `stream` is `dcn_v2` from Parquet shards; `memory` runs nothing and asks the
compiler what a step needs beside the parameters, by rows of the table and by rows of the batch.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ranker_rows import (
    CANDIDATES,
    CROSS,
    HIDDEN,
    LEARNING_RATE,
    WARM_UP,
    WIDTH,
    Rows,
    arguments,
    make_rows,
    milliseconds,
    told,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax  # noqa: E402  # after the path of this project
import jax.numpy as jnp  # noqa: E402

from reland_jax import events  # noqa: E402
from reland_jax.events import Batches  # noqa: E402
from reland_jax.events.shards import ShardBatches, as_read, write_batch  # noqa: E402
from reland_jax.ranker_settings import RankerConfig, RankerTrainConfig  # noqa: E402
from reland_jax.rankers import (  # noqa: E402
    ARMS,
    Field,
    FieldSchema,
    Parameters,
    Program,
    RankerData,
    ReadBatch,
    Texts,
    create_ranker,
    init_params,
    init_state,
    predict,
    table_index,
    train_ranker,
    train_step,
)
from reland_jax.rankers.training import optimizers  # noqa: E402

USERS, ITEMS, SEED_USERS, TEXT = 50_000, 20_000, 5_000, 128
PART, WINDOW = 50_000, 2
"""Rows of a shard, and blocks that are mixed."""


class Log(NamedTuple):
    """The rows on the device.

    Attributes:
        code: ``<int32>[n, F]``.
        label: ``<float32>[n]``.
        user: ``<int32>[n]``.
        item: ``<int32>[n]``.
    """

    code: Any
    label: Any
    user: Any
    item: Any


class Batch(NamedTuple):
    """What `rankers.named_columns` reads."""

    categorical: Any
    numeric: Any
    multi: tuple[Any, ...]
    labels: Any
    user: Any
    item: Any
    weight: Any


def gather(log: Log, rows: Any, weight: Any) -> Batch:
    """The batch of some rows."""
    label = log.label[rows][:, None]
    return Batch(log.code[rows], jnp.zeros((len(rows), 0)), (), label, log.user[rows], log.item[rows], weight)


def program_of(rows: Rows, arm: str, given: Any) -> Program:
    """The network of the benchmark."""
    fields = tuple(Field(f"f{at}", "categorical", size + 1) for at, size in enumerate(rows.sizes))
    schema = FieldSchema(fields, ("click",))
    config = RankerConfig(network="dcn_v2", width=WIDTH, layers=HIDDEN, cross_layers=CROSS)
    train = RankerTrainConfig(
        batch_size=given.batch, learning_rate=LEARNING_RATE, table_learning_rate=LEARNING_RATE,
        max_epochs=given.epochs,
    )  # fmt: skip
    return Program(create_ranker(config, schema, ARMS[arm], SEED_USERS), train, ReadBatch(gather, schema))


def data_of(rows: Rows, arm: str) -> RankerData:
    """The rows, and texts of users and items."""
    rng = np.random.default_rng(2)
    user, item = (rng.integers(count, size=len(rows.code)).astype(np.int32) for count in (USERS, ITEMS))
    log = Log((rows.code + 1).astype(np.int32), rows.label, user, item)
    texts = Texts(
        rng.normal(size=(ITEMS, TEXT)).astype(np.float32),
        rng.normal(size=(SEED_USERS, TEXT)).astype(np.float32),
        rng.integers(SEED_USERS, size=USERS).astype(np.int32), rng.random(USERS).astype(np.float32),
    )  # fmt: skip
    read = {"id": Texts(), "f_item": Texts(items=texts.items), "reland": texts}
    return jax.device_put(RankerData(log, read[arm]))


def ask(program: Program, params: Parameters, data: RankerData, rows: Rows, requests: int) -> list[float]:
    """Seconds of every request of candidates, from arrays of the host to probabilities there."""

    @jax.jit
    def scored(params: Parameters, texts: Texts, code: Any, user: Any, item: Any) -> Any:
        log = Log(code, jnp.zeros(CANDIDATES), jnp.broadcast_to(user, (CANDIDATES,)), item)
        batch = program.read(log, jnp.arange(CANDIDATES), jnp.ones(CANDIDATES))
        return predict(program.ranker, params, batch, texts).reached[:, 0]

    rng, seconds = np.random.default_rng(1), []
    for _ in range(WARM_UP + requests):
        code = (rows.code[rng.integers(len(rows.code), size=CANDIDATES)] + 1).astype(np.int32)
        user, item = np.int32(rng.integers(USERS)), rng.integers(ITEMS, size=CANDIDATES).astype(np.int32)
        start = time.perf_counter()
        found = np.asarray(scored(params, data.texts, code, user, item))
        seconds.append(time.perf_counter() - start)
        assert found.shape == (CANDIDATES,)
    return seconds[WARM_UP:]


def stream(given: Any) -> dict[str, Any]:
    """Training from Parquet shards, of which a few blocks are in memory."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, first in enumerate(range(0, given.rows, PART)):
            rows = make_rows(min(PART, given.rows - first), given.fields, given.values, number)
            log = data_of(rows, "id").log
            batch = jax.device_get(gather(log, jnp.arange(len(rows.code)), None))
            paths.append(Path(folder) / f"{number}.parquet")
            write_batch(events.encoding.Batch(*batch), paths[-1])
        program = program_of(rows, "id", given)
        program = program._replace(read=ReadBatch(as_read, program.read.schema))
        order = ShardBatches(paths, given.batch, 0, window=WINDOW)
        trained = train_ranker(program, RankerData(None, Texts()), order)
    steps = order.steps_per_epoch * given.batch
    return {"rows_per_second": [steps / entry["seconds"] for entry in trained.history[1:]]}


def measure(case: str, given: Any) -> dict[str, Any]:
    """Training and requests of one arm."""
    arm = "id" if case == "dcn_v2" else case
    rows = make_rows(given.rows, given.fields, given.values)
    program, data = program_of(rows, arm, given), data_of(rows, arm)
    trained = train_ranker(program, data, Batches(np.arange(given.rows), given.batch, 0))
    steps = -(-given.rows // given.batch)
    rates = [steps * given.batch / entry["seconds"] for entry in trained.history[1:]]
    counts = sum(int(leaf.size) for leaf in jax.tree.leaves(trained.params))
    return {
        "rows_per_second": rates,
        "request_ms": milliseconds(ask(program, trained.params, data, rows, given.requests)),
        "parameters": counts,
    }  # fmt: skip


def memory(given: Any) -> dict[str, Any]:
    """Bytes of a step beside its arguments, by rows of the table and by rows of the batch."""
    found = []
    for values, batch in ((10**4, 1024), (10**5, 1024), (10**6, 1024), (10**6, 2048), (10**6, 4096)):
        rows = make_rows(batch, given.fields, values)
        program, data = program_of(rows, "id", given), data_of(rows, "id")
        index = np.arange(batch, dtype=np.int32)
        read = program.read(data.log, index, np.ones(batch, np.float32))
        fresh = partial(init_params, program.ranker, batch=read, texts=data.texts)
        of_rows, of_dense = optimizers(program)
        state = jax.eval_shape(lambda key, of=of_rows, d=of_dense, make=fresh: init_state(make(key), of, d),
                               jax.random.key(0))  # fmt: skip
        step = jax.jit(partial(train_step, program.ranker, of_rows, of_dense), donate_argnums=0)
        needed = step.lower(state, read, data.texts, jax.random.key(0)).compile().memory_analysis()
        touched = len(np.unique(np.asarray(table_index(program.ranker, read, data.texts))))
        table = int(np.prod(state.params.table.shape))
        found.append({
            "table_rows": table // WIDTH, "batch": batch, "rows_touched": touched,
            "table_bytes": 4 * table, "step_bytes": int(needed.temp_size_in_bytes),
        })  # fmt: skip
    return {"memory": found}


def main() -> None:
    """Measures one case."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--case", choices=("dcn_v2", "f_item", "reland", "stream", "memory"), default="dcn_v2"
    )
    given = parser.parse_args()
    special = {"memory": memory, "stream": stream}
    found = special[given.case](given) if given.case in special else measure(given.case, given)
    names = ("jax", "jaxlib", "flax")
    told({
        "library": "reland_jax", "case": given.case, "rows": given.rows,
        "versions": {name: version(name) for name in names}, **found,
    })  # fmt: skip


if __name__ == "__main__":
    main()
