r"""One training step against this machine's roofline: its operations, the share of the peaks, and the parts.

    python -m experiments.roofline --dataset=amazon-beauty --backbones=sasrec,lightgcn --workdir=DIR \
        [--variant=id] [--steps=20]

The settings are those of `experiments/configs/reland.py`. Prints a table and writes DIR/roofline.json and
DIR/roofline.svg. The variant `id` needs the interactions only; for another one the stages before training
are run in DIR/prepared.

The *machine* is measured, not looked up: the best float32 and bfloat16 products of square matrices, at the
precision of the step (`reland_jax.device.matmul_precision`), and the best ``a * x + y`` over arrays far
larger than a cache. Anything else that runs at the time lowers these peaks as it lowers the step.

*Operations* are counted in the jaxpr of the step that training scans over (`experiments.speed.operations`);
the model of a roofline is that of Williams et al., CACM 2009.

*Bytes* have two figures. "Least" is what no schedule avoids once the state does not stay in a cache:
parameters and optimiser state read and written, gradients, the batch and the tables it needs, each once.
"Unfused" is what would pass if every equation of the jaxpr read its operands from memory and wrote its
results there; reshapes and broadcasts are free, and a sparse product reads a dense row for every non-zero.
The truth lies between them, or below both where the state fits a cache.

The *share reached* is the larger of operations / matmul peak and least bytes / bandwidth, over the measured
seconds. Few kernels can come near 1: element-wise work cannot use the matmul peak, and the two do not
overlap perfectly.

The *parts* of a step are compiled and timed on their own, on the same arrays, writing into buffers that are
reused; what one call costs (tens of microseconds) is in each. Whole steps and parts are timed in turns, so
that what else the machine does falls on all of them; on a busy one trust the "fastest" of all calls rather
than the median. They need not add up: "rest" is what is left, and may be negative.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import flags
from jax.extend.core import JaxprEqn

from experiments.configs.reland import get_config
from experiments.harness import command_line
from experiments.harness.command_line import required_path
from experiments.speed.least import least_bytes, shares
from experiments.speed.machine import Machine, Timer, measure_machine
from experiments.speed.operations import SPARSE, count, equations, width
from experiments.speed.roofline_view import plot, table
from reland_jax import flow
from reland_jax.config import LINEAR, Config, TrainConfig
from reland_jax.data import load_interactions, split
from reland_jax.files import write_json
from reland_jax.models import SequenceBatch, SequentialRecommender, Tables, applied
from reland_jax.models.graph import CompressedRows, Propagation, propagate
from reland_jax.models.losses import catalogue_cross_entropy
from reland_jax.stages import FLOW, id_task, recommender_of
from reland_jax.train import Task
from reland_jax.train.state import TrainState, create_optimizer, init_state, make_dispatch, step_key
from reland_jax.types import RelandError
from reland_jax.variants import ID, find_variant

ROUNDS = 5
"""Of one dispatch of several steps, and as many calls of each part."""

# --- the parts of a step ----------------------------------------------------------------------------

STEP, GRADIENTS, ENCODER, ASIDE = "step", "loss and gradients", "encoder with gradients", "aside"


class Part(NamedTuple):
    """Something that a step does.

    Attributes:
        name: what it is called in the table.
        within: name of the part that it belongs to; `ASIDE` if it is a view of others.
        function: to be timed and counted.
        arguments: of the function.
        in_place: see `Timer`.
    """

    name: str
    within: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    in_place: bool = False


def step_parts(task: Task, config: TrainConfig, state: TrainState, order: Any) -> list[Part]:
    """The parts of one step, on the arrays of the first batch."""
    key = step_key(state)
    batch = jax.jit(task.batch)(task.data, order, jnp.int32(0), key)
    optimizer = create_optimizer(config, task.steps)

    def loss(params: Any, tables: Tables[jax.Array], batch: Any, key: jax.Array) -> jax.Array:
        return applied(task.model, params, tables, batch, rngs={"dropout": key}, method="loss")

    def update(old: tuple[Any, Any], gradients: Any) -> tuple[Any, Any]:
        updates, opt_state = optimizer.update(gradients, old[1], old[0])
        return optax.apply_updates(old[0], updates), opt_state

    inputs = (state.params, task.tables, batch, key)
    parts = [
        Part("batch assembly", STEP, task.batch, (task.data, order, jnp.int32(0), key)),
        Part(GRADIENTS, STEP, jax.value_and_grad(loss), inputs),
        Part("optimiser", STEP, update, ((state.params, state.opt_state), state.params), in_place=True),
        Part("(loss without gradients)", ASIDE, loss, inputs),
    ]
    drawing = list(equations(jax.make_jaxpr(parts[1].function)(*inputs).jaxpr))
    if isinstance(task.model, SequentialRecommender):
        parts += _sequence_parts(task, *inputs)
    if isinstance(task.tables.propagation, Propagation):
        parts += _propagation_parts(task.tables.propagation, drawing)
    return parts + _random_parts(drawing, key, parts[-1].name)


def _sequence_parts(
    task: Task, params: Any, tables: Tables[jax.Array], batch: SequenceBatch, key: jax.Array
) -> list[Part]:
    def encode(module: Any, tables: Tables[jax.Array], batch: SequenceBatch) -> jax.Array:
        embedded = module.items(tables.item_text)[batch.items]
        return module.backbone(embedded, batch.position, batch.segment, True)

    def half_square(
        params: Any, tables: Tables[jax.Array], batch: SequenceBatch, key: jax.Array
    ) -> jax.Array:
        hidden = applied(task.model, params, tables, batch, rngs={"dropout": key}, method=encode)
        return 0.5 * jnp.sum(jnp.square(hidden))  # its cotangent is the hidden state itself

    @jax.jit
    def scored(params: Any, tables: Tables[jax.Array], batch: SequenceBatch) -> tuple[jax.Array, ...]:
        users = applied(task.model, params, tables, batch, method="user_vectors")
        items = applied(task.model, params, tables, method="item_vectors")
        return users, items, batch.target, batch.weight

    loss = jax.value_and_grad(partial(catalogue_cross_entropy, num_items=task.model.num_items), (0, 1))
    return [
        Part("cross-entropy with gradients", GRADIENTS, loss, scored(params, tables, batch)),
        Part(ENCODER, GRADIENTS, jax.grad(half_square), (params, tables, batch, key)),
    ]


def _propagation_parts(propagation: Propagation, drawing: Sequence[tuple[JaxprEqn, int]]) -> list[Part]:
    """As many hops as the step has, forward and backward, at their widths.

    None where they are sums over edges and not sparse products, as on accelerators: those are in the rest.
    """
    rows = [len(half.indptr) - 1 for half in propagation if isinstance(half, CompressedRows)]
    if not rows:
        return []
    widths = [width(each) for each, times in drawing if each.primitive.name in SPARSE for _ in range(times)]
    # A hop is two sparse products, one for each half of the graph.
    widths = widths[::2]
    nodes = {each: tuple(jnp.full((count, each), 1e-2) for count in rows) for each in widths}

    def hops(propagation: Any, nodes: dict[int, Any]) -> dict[int, Any]:
        for columns in widths:
            nodes = nodes | {columns: propagate(propagation, *nodes[columns])}
        return nodes

    return [Part(f"propagation, {len(widths)} hops", GRADIENTS, hops, (propagation, nodes))]


def _random_parts(drawing: Sequence[tuple[JaxprEqn, int]], key: jax.Array, before: str) -> list[Part]:
    """The bits that the loss draws, mostly for dropout; nothing if it draws none."""
    shapes = [
        ((times, *each.params["shape"]), jnp.dtype(f"uint{each.params['bit_width']}"))
        for each, times in drawing
        if each.primitive.name == "random_bits"
    ]

    def draw(key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key, len(shapes))
        return [jax.random.bits(one, *shape) for one, shape in zip(keys, shapes, strict=True)]

    within = ENCODER if before == ENCODER else GRADIENTS
    return [Part("random bits", within, draw, (key,))] if shapes else []


# --- one backbone -----------------------------------------------------------------------------------


def prepare(config: Config, variant: str, workdir: Path) -> Task:
    """The recommender with its data; for a variant other than `id` after the stages before training."""
    if variant != ID.name:
        config = dataclasses.replace(config, variants=(variant,))
        task = recommender_of(flow.run(FLOW, config, workdir / "prepared"), variant)
    else:
        task = id_task(config, split(load_interactions(config.data), config.data.protocol))
    assert isinstance(task, Task), "a linear model has no steps"
    return task


def measure(task: Task, config: TrainConfig, machine: Machine, steps: int) -> dict[str, Any]:
    """Counts and times a step and its parts.

    Args:
        task: recommender and data.
        config: how it is optimised.
        machine: the peaks.
        steps: in one dispatch, and calls of each part.

    Returns:
        Plain values: operations, bytes, seconds, and shares of 1.
    """
    state = init_state(task, config)
    order = jax.jit(task.epoch_order)(task.data, jax.random.key(config.seed))
    batch = jax.jit(task.batch)(task.data, order, jnp.int32(0), jax.random.key(0))
    dispatch, rest = make_dispatch(task, config), (task.tables, task.data, order)
    done = count(dispatch, state, *rest, jnp.zeros(1, jnp.int32))
    parts = step_parts(task, config, state, order)
    batches = jnp.arange(steps, dtype=jnp.int32) % task.steps
    whole = Timer(lambda *given: dispatch(*given)[0], (state, *rest, batches), in_place=True)
    rounds, of_parts = _in_turns(whole, parts, steps)
    seconds, least = statistics.median(rounds), least_bytes(state, task.tables, batch)
    times = {"seconds": seconds, "fastest": min(rounds)}
    return {
        "objective": config.objective,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "targets_per_step": task.targets / task.steps,
        "operations": {**done._asdict(), "flops": done.flops},
        "bytes": {"least": least, "unfused": done.unfused_bytes},
        "intensity": {"least": done.flops / least, "unfused": done.flops / done.unfused_bytes},
        "seconds_per_step": seconds,
        "fastest": min(rounds),
        "seconds_per_step_of_rounds": rounds,
        **shares(done.flops, least, seconds, machine),
        "parts": _with_rests([_entry(*each) for each in zip(parts, of_parts, strict=True)], times),
    }


def _in_turns(whole: Timer, parts: Sequence[Part], steps: int) -> tuple[list[float], list[list[float]]]:
    """Seconds of a step in every round, and of all calls of each part."""
    timers = [Timer(part.function, part.arguments, part.in_place) for part in parts]
    rounds: list[float] = []
    of_parts: list[list[float]] = [[] for _ in parts]
    for _ in range(ROUNDS):
        rounds.append(whole.seconds() / steps)
        for timer, seconds in zip(timers, of_parts, strict=True):
            seconds += [timer.seconds() for _ in range(steps)]
    return rounds, of_parts


def _entry(part: Part, seconds: Sequence[float]) -> dict[str, Any]:
    # Without gradients the compiler drops some of what the jaxpr has, so there is no honest count.
    flops = None if part.within == ASIDE else count(part.function, *part.arguments).flops
    times = {"seconds": statistics.median(seconds), "fastest": min(seconds)}
    return {"name": part.name, "within": part.within, "flops": flops, **times}


def _with_rests(parts: Sequence[dict[str, Any]], step: dict[str, float]) -> list[dict[str, Any]]:
    """The parts as a tree in preorder, each level closed by what its members leave over.

    Args:
        parts: see `_entry`.
        step: "seconds" and "fastest" of the whole step.
    """

    def below(name: str, whole: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        members = [part for part in parts if part["within"] == name]
        for part in members:
            yield part | {"depth": depth}
            yield from below(part["name"], part, depth + 1)
        if members and name in (STEP, GRADIENTS):
            left = {each: whole[each] - sum(part[each] for part in members) for each in step}
            yield {"name": "rest", "within": name, "flops": None, **left, "depth": depth}

    aside = [part | {"depth": 0} for part in parts if part["within"] == ASIDE]
    return [*below(STEP, step, 0), *aside]


# --- the job ----------------------------------------------------------------------------------------


def run(
    configs: Sequence[Config], variant: str, workdir: Path, steps: int, machine: Machine | None = None
) -> dict[str, Any]:
    """Measures the step of each config and writes roofline.json and roofline.svg.

    Args:
        configs: data set and backbone of each step.
        variant: of `reland_jax.variants.BY_NAME`.
        workdir: where the files go.
        steps: in one dispatch, and calls of each part.
        machine: its peaks; measured if not given.

    Returns:
        The content of roofline.json.

    Raises:
        RelandError: an unknown variant, or bad data or settings.
    """
    find_variant(variant, "--variant")
    if linear := [config.model.backbone for config in configs if config.model.backbone in LINEAR]:
        raise RelandError(f"--backbones: {linear[0]} is solved at once and has no training step to measure")
    workdir.mkdir(parents=True, exist_ok=True)
    machine = machine or measure_machine()
    found: dict[str, Any] = {"machine": machine._asdict(), "steps": []}
    for config in configs:
        names = {"backbone": config.model.backbone, "variant": variant, "dataset": config.data.name}
        task = prepare(config, variant, workdir)
        found["steps"].append(names | measure(task, config.train, machine, steps))
        write_json(workdir / "roofline.json", found)
    plot(found, workdir / "roofline.svg")
    return found


def main() -> None:
    """Measures and prints the table."""
    given = flags.FLAGS
    workdir = Path(given.workdir)
    names = [f"{given.dataset},{backbone}" for backbone in given.backbones]
    configs = [Config.from_dict(get_config(name).to_dict()) for name in names]
    print(table(run(configs, given.variant, workdir, given.steps)))
    print(f"\nresults: {workdir / 'roofline.json'}\nplot:    {workdir / 'roofline.svg'}")


def define_flags() -> None:
    """The flags; not at module level, because other jobs have flags of the same names."""
    flags.DEFINE_string("dataset", None, "Name of a data set, or a path.", required=True)
    flags.DEFINE_list("backbones", ["sasrec", "lightgcn"], "Which recommenders.")
    flags.DEFINE_string("variant", ID.name, "Which variant.")
    flags.DEFINE_integer("steps", 20, "Steps in one dispatch, and calls of each part.", lower_bound=1)
    required_path("workdir", "Folder of the results.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
