"""What `experiments.device_check` measures: one function for each part, on generated data."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.reland import get_config
from experiments.scaling.interactions import DATA_SEED, generate
from experiments.speed.least import least_bytes, shares
from experiments.speed.machine import Machine, Timer
from experiments.speed.operations import count
from reland_jax.config import ENCODERS, Config, TextConfig
from reland_jax.data import split
from reland_jax.device import sizes
from reland_jax.retrieval.exact import ExactIndex
from reland_jax.seeds import kmeans
from reland_jax.stages import id_task
from reland_jax.text.bert import Bert, BertConfig
from reland_jax.text.checkpoint import Pooling
from reland_jax.text.encode import embed, load_encoder
from reland_jax.train import Evaluator, Task
from reland_jax.train.state import init_state, make_dispatch, program_of, shuffled
from reland_jax.types import RelandError, Splits

ROUNDS = 5
SEEDS_TOGETHER = 5
CUTOFF = 20
"""Ranks that a validation must know exactly."""
MINILM = BertConfig(30_522, 384, 6, 12, 1536, 512)
"""The shape of all-MiniLM-L6-v2."""

Found = dict[str, Any]


class Scale(NamedTuple):
    """How much is measured.

    Attributes:
        users: U of the generated interactions.
        items: I of them.
        steps: of a timed dispatch.
        matched: users who are assigned to seed users.
        seeds: seed users, S.
        clusters: K of K-means over all users.
        texts: that are encoded.
        bits: random words drawn.
    """

    users: int
    items: int
    steps: int
    matched: int
    seeds: int
    clusters: int
    texts: int
    bits: int


BEAUTY = Scale(22_363, 12_101, 20, 1_000_000, 10_000, 1_118, 20_000, 1 << 26)
"""The users and items of Amazon Beauty."""
SMALL = Scale(400, 250, 2, 2_000, 100, 20, 32, 1 << 20)
"""For a CPU: every part in seconds."""


class Part(NamedTuple):
    """One measurement.

    Attributes:
        name: unique.
        section: the list of the results that it is added to.
        kind: parts of one kind take about as long.
        run: measures.
    """

    name: str
    section: str
    kind: str
    run: Callable[[], Found]


class Prepared(NamedTuple):
    """A backbone with its data.

    Attributes:
        config: all settings.
        task: in float32.
        splits: of the interactions.
        seconds: that preparing took.
    """

    config: Config
    task: Task
    splits: Splits
    seconds: float


class Bench:
    """Measures the backbones; each is prepared once.

    Attributes:
        scale: see `Scale`.
        machine: its peaks.
    """

    def __init__(self, scale: Scale, machine: Machine) -> None:
        """Generates no data yet."""
        self.scale, self.machine = scale, machine
        self._interactions = generate(scale.users, scale.items, DATA_SEED)
        self._prepared: dict[str, Prepared] = {}

    def prepared(self, backbone: str) -> Prepared:
        """The backbone with the settings for Amazon Beauty."""
        if backbone not in self._prepared:
            start = time.perf_counter()
            config = Config.from_dict(get_config(f"amazon-beauty,{backbone}").to_dict())
            splits = split(self._interactions, config.data.protocol)
            task = id_task(config, splits)
            assert isinstance(task, Task), "a linear model has no steps"
            self._prepared[backbone] = Prepared(config, task, splits, time.perf_counter() - start)
        return self._prepared[backbone]

    def steps(self, backbone: str, activations: str, seeds: int) -> Found:
        """Training steps, of several seeds at once if asked for; operations and bytes are of all seeds."""
        prepared, scale = self.prepared(backbone), self.scale
        config, task = prepared.config, _with_activations(prepared, activations)
        (state, order), dispatch = _start(task, config, seeds), make_dispatch(task, config.train)
        batches = jnp.arange(scale.steps, dtype=jnp.int32) % task.steps
        arguments = (state, task.tables, task.data, order, batches)
        timer = Timer(lambda *given: dispatch(*given)[0], arguments, in_place=True)
        rounds = [timer.seconds() / scale.steps for _ in range(ROUNDS)]
        seconds = statistics.median(rounds)
        flops, least = (seeds * each for each in _cost(task, config))
        reached = shares(flops, least, seconds, self.machine, activations)
        return {
            "backbone": backbone,
            "objective": config.train.objective,
            "activations": activations,
            "seeds": seeds,
            "compile_seconds": timer.compile_seconds,
            "seconds_per_step": seconds,
            "fastest": min(rounds),
            "targets_per_second": seeds * task.targets / task.steps / seconds,
            "flops": flops,
            "least_bytes": least,
            **reached,
            "prepare_seconds": prepared.seconds,
        }

    def evaluation(self, backbone: str) -> Found:
        """The full ranking of all users, by a model that has not learned: with a cutoff, and exactly."""
        prepared = self.prepared(backbone)
        task, splits = prepared.task, prepared.splits
        params = init_state(task, prepared.config.train).params
        evaluator = Evaluator(task, splits, prepared.config.eval)
        runs = {
            "vectors": lambda: jax.block_until_ready(task.vectors(params, "test")[:2]),
            "cutoff": lambda: evaluator.ranks(params, "test", CUTOFF),
            "exact": lambda: evaluator.ranks(params, "test"),
        }
        found = {name: _timed(run) for name, run in runs.items()}
        scores = splits.num_users * splits.num_items
        return {
            "backbone": backbone,
            "users_at_a_time": evaluator.users_per_tile,
            **found,
            "exact_scores_per_second": scores / found["exact"]["seconds"],
        }

    def assignment(self, k: int) -> Found:
        """The k seed users of largest cosine of very many users, from the host and back to it."""
        scale, width = self.scale, 64
        rng = np.random.default_rng(0)
        users, keys = (
            rng.standard_normal((rows, width), np.float32) for rows in (scale.matched, scale.seeds)
        )
        index = ExactIndex(keys)
        found = _timed(lambda: index.search(users, k))
        flops = 2 * scale.matched * scale.seeds * width
        least = users.nbytes + keys.nbytes + scale.matched * k * 8
        return {
            "users": scale.matched,
            "seeds": scale.seeds,
            "width": width,
            "k": k,
            **found,
            "users_per_second": scale.matched / found["seconds"],
            **shares(flops, least, found["seconds"], self.machine),
        }

    def clustering(self, iterations: int = 20) -> Found:
        """K-means of all users; the share is that of the iterations' products in all its time."""
        scale, width, rounds = self.scale, 64, 0
        vectors = np.random.default_rng(0).standard_normal((scale.users, width), np.float32)

        def run(iterations: int) -> None:
            nonlocal rounds
            found = kmeans(vectors, scale.clusters, jax.random.key(0), iterations=iterations, tolerance=0.0)
            rounds = found.iterations

        start, whole = _timed(lambda: run(0)), _timed(lambda: run(iterations))
        flops, least = 2 * rounds * scale.users * scale.clusters * width, 2 * rounds * vectors.nbytes
        return {
            "users": scale.users,
            "clusters": scale.clusters,
            "compile_seconds": start["first_seconds"] - start["seconds"],
            "start_seconds": start["seconds"],
            "iterations": rounds,
            "seconds": whole["seconds"],
            "flops": flops,
            **shares(flops, least, whole["seconds"], self.machine),
        }

    def texts(self, tokens: int = 32) -> Found:
        """Texts of so many tokens through MiniLM, with random weights of its shape if it is not installed."""
        weights, config, pooling, params = _encoder()
        rows = min(TextConfig().batch_size * sizes().text_tokens // tokens, self.scale.texts)
        ids = jnp.ones((rows, tokens), jnp.int32)
        arguments = (params, ids, jnp.full(rows, tokens, jnp.int32))
        timer = Timer(partial(embed, config, pooling), arguments)
        batches = math.ceil(self.scale.texts / rows)
        seconds = statistics.median(timer.seconds() for _ in range(batches))
        flops = count(partial(embed, config, pooling), *arguments).flops
        least = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        return {
            "weights": weights,
            "tokens": tokens,
            "texts_at_a_time": rows,
            "compile_seconds": timer.compile_seconds,
            "texts_per_second": rows / seconds,
            "flops": flops,
            **shares(flops, least, seconds, self.machine),
        }

    def random_bits(self, generator: str) -> Found:
        """Random words of one generator, written to memory."""
        timer = Timer(
            lambda key: jax.random.bits(key, (self.scale.bits,)), (jax.random.key(0, impl=generator),)
        )
        seconds = timer.best(ROUNDS)
        found = {"generator": generator, "words": self.scale.bits, "compile_seconds": timer.compile_seconds}
        return found | {"bytes_per_second": 4 * self.scale.bits / seconds}


def parts(bench: Bench, backbones: tuple[str, ...] = ENCODERS) -> Iterator[Part]:
    """All parts, the most important ones first."""

    def steps(activations: str, seeds: int) -> Iterator[Part]:
        for backbone in backbones:
            name = f"step of {backbone}, {activations}, {seeds} seed{'s' if seeds > 1 else ''}"
            run = partial(bench.steps, backbone, activations, seeds)
            yield Part(name, "steps", f"steps of {backbone}", run)

    yield from steps("float32", 1)
    for backbone in backbones:
        name = f"evaluation of {backbone}"
        yield Part(name, "evaluation", "evaluation", partial(bench.evaluation, backbone))
    yield Part("assignment, k=1", "assignment", "assignment", partial(bench.assignment, 1))
    yield Part("text encoding", "texts", "texts", bench.texts)
    yield Part("K-means", "clustering", "clustering", bench.clustering)
    yield from steps("float32", SEEDS_TOGETHER)
    yield from steps("bfloat16", 1)
    yield from steps("bfloat16", SEEDS_TOGETHER)
    yield Part("assignment, k=50", "assignment", "assignment", partial(bench.assignment, 50))
    for generator in ("threefry2x32", "rbg"):
        name = f"random bits of {generator}"
        yield Part(name, "random_bits", "random_bits", partial(bench.random_bits, generator))


def _with_activations(prepared: Prepared, activations: str) -> Task:
    """The task with a backbone that computes in another type; data and tables are the same arrays."""
    model = prepared.task.model
    chosen = dataclasses.replace(prepared.config.model, activations=activations)
    return prepared.task._replace(model=model.clone(backbone=model.backbone.clone(config=chosen)))


def _start(task: Task, config: Config, seeds: int) -> tuple[Any, Any]:
    """State and shuffle of one seed, or of several with an axis of seeds in front."""
    state = init_state(task, config.train, range(seeds))
    return state, shuffled(program_of(task, config.train), task.data, state.seed, 1)


def _cost(task: Task, config: Config) -> tuple[int, int]:
    """Floating-point operations of a step of one seed, and the bytes that must pass."""
    (state, order), dispatch = _start(task, config, 1), make_dispatch(task, config.train)
    batch = jax.eval_shape(task.batch, task.data, order, jnp.int32(0), jax.random.key(0))
    done = count(dispatch, state, task.tables, task.data, order, jnp.zeros(1, jnp.int32))
    return done.flops, least_bytes(state, task.tables, batch)


def _encoder() -> tuple[str, BertConfig, Pooling, Any]:
    try:
        encoder = load_encoder(TextConfig())
    except RelandError:
        ids = jnp.ones((1, 8), jnp.int32)
        params = jax.jit(Bert(MINILM).init)(jax.random.key(0), ids, ids > 0)["params"]
        return "random", MINILM, Pooling(), params
    return "minilm", encoder.config, encoder.pooling, encoder.params


def _timed(run: Callable[[], Any], calls: int = 3) -> Found:
    """Seconds of the first call, which compiles, and the median of later ones."""
    seconds = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"first_seconds": seconds[0], "seconds": statistics.median(seconds[1:])}
