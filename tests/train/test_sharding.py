"""Eight devices: the numbers of one, its memory shared out, and no table gathered anywhere.

The devices are virtual ones of the CPU; tests/conftest.py asks for them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from reland_jax.config import BACKBONES, EvalConfig, FusionConfig, MeshConfig, ModelConfig, TrainConfig
from reland_jax.mesh import pad_to_axis, use_mesh
from reland_jax.models import MODELS, Tables, create_recommender, training_graph
from reland_jax.train import (
    Evaluator,
    FitResult,
    Task,
    create_task,
    fit,
    load_params,
    param_shapes,
    save_params,
)
from reland_jax.train.loop import _Epoch
from reland_jax.train.state import init_state
from reland_jax.types import RelandError, Splits
from reland_jax.variants import RELAND
from tests.toys import random_ragged
from tests.train.toys import PAIRS, SEQUENTIAL

USERS, ITEMS, SEEDS, TEXT, LENGTH, WIDTH = 269, 397, 61, 12, 6, 8
ONE, BOTH, ROWS = MeshConfig(), MeshConfig(data=2, model=4), MeshConfig(model=8)
TABLES = {"id_embedding": ITEMS + 1, "user_embedding": USERS}
RNG = np.random.default_rng(0)
SPLITS = Splits(
    random_ragged(RNG.integers(3, 7, USERS).tolist(), ITEMS, 1),
    random_ragged([1] * USERS, ITEMS, 2), random_ragged([1] * USERS, ITEMS, 3), ITEMS, "leave_one_out",
)  # fmt: skip


DISTINCT = ("lightgcn", "neumf", "sasrec")
"""A graph, two tables of each kind, and a loss over all items."""
SAMPLED = ("lightgcn sampled", "gat sampled")
"""Trained on three neighbours of every node."""


def family(backbone: str) -> Any:
    """The line of the table of backbones."""
    return MODELS[backbone.split()[0]]


def task_of(backbone: str, config: TrainConfig) -> Task:
    """`reland` with all its tables; no size is a multiple of the devices."""
    rng = np.random.default_rng(1)
    tables = Tables(
        item_text=rng.normal(size=(ITEMS + 1, TEXT)).astype(np.float32),
        rationale=rng.normal(size=(SEEDS, TEXT)).astype(np.float32),
        seed=rng.integers(0, SEEDS, (USERS, 3)).astype(np.int32),
    )
    sizes = ModelConfig(
        backbone=backbone.split()[0], dim=WIDTH, layers=1, heads=2, inner=16, dropout=0.2, hidden=8,
        tower=(8, 4), fanout=(3,) if backbone in SAMPLED else (),
    )  # fmt: skip
    tables = tables._replace(propagation=training_graph(sizes, SPLITS.train, ITEMS))
    model = create_recommender(
        sizes, FusionConfig(), RELAND,
        num_users=USERS, num_items=ITEMS, max_length=LENGTH, embedding_l2=1e-4,
    )  # fmt: skip
    return create_task(model, tables, SPLITS, config, LENGTH)


def config_of(backbone: str, epochs: int = 2) -> TrainConfig:
    base = SEQUENTIAL if family(backbone).sequential else PAIRS
    # Adam makes a step of the whole learning rate out of a gradient near zero, and so out of its rounding.
    return dataclasses.replace(
        base, learning_rate=0.01, batch_size=300, max_epochs=epochs, steps_per_dispatch=2
    )


class Run(NamedTuple):
    """What a training left: losses, parameters and vectors of the rows in use, and the compiled step."""

    losses: list[float]
    params: Any
    users: np.ndarray
    items: np.ndarray
    ndcg: float
    step: jax.stages.Compiled
    state: Any


def run(backbone: str, mesh: MeshConfig, folder: Path | None = None, epochs: int = 2) -> Run:
    """Trains `backbone` on a mesh; with a folder, from the checkpoint in it if there is one."""
    config = config_of(backbone, epochs)
    with use_mesh(mesh):
        task = task_of(backbone, config)
        evaluator = Evaluator(task, SPLITS, EvalConfig())
        result: FitResult = fit(task, evaluator, config, folder)
        vectors = task.vectors(result.params, "test")
        state = init_state(task, config)
        return Run(
            [entry["loss"] for entry in result.history], in_use(result.params),
            np.asarray(vectors.users)[:USERS], np.asarray(vectors.items)[: ITEMS + 1],
            evaluator.metrics(result.params, "test")["ndcg@10"],
            _Epoch(task, config, state)._compiled, state,
        )  # fmt: skip


def in_use(params: Any) -> Any:
    """Arrays of the host without the rows that fill tables up, and without what no score depends on."""

    def rows(path: Any, leaf: jax.Array) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        values = np.asarray(leaf)[: TABLES.get(name.rpartition("/")[2])] if leaf.ndim else np.asarray(leaf)
        # The same number added to all keys changes no attention, and added to all items in NeuMF's product
        # no order: the gradient is what rounding leaves of 0, and Adam makes whole steps of it.
        if name.endswith("query_key_value/bias"):
            return np.delete(values, np.s_[WIDTH : 2 * WIDTH])
        if name.endswith("from_id/bias") and len(values) == 2 * WIDTH:
            return values[WIDTH:]
        return values

    return jax.tree_util.tree_map_with_path(rows, params)


@pytest.fixture(scope="module")
def runs(programs: Path) -> dict[tuple[str, MeshConfig], Run]:
    """Trainings by backbone and mesh, each run once."""
    return {}


def trained(runs: dict[tuple[str, MeshConfig], Run], backbone: str, mesh: MeshConfig) -> Run:
    if (backbone, mesh) not in runs:
        runs[backbone, mesh] = run(backbone, mesh)
    return runs[backbone, mesh]


EVERYWHERE = [
    pytest.param(backbone, mesh, marks=[] if mesh == BOTH and backbone in DISTINCT else pytest.mark.slow)
    for backbone in (*BACKBONES, *SAMPLED)
    for mesh in (BOTH, ROWS)
]


@pytest.mark.parametrize(("backbone", "mesh"), EVERYWHERE)
def test_a_mesh_trains_to_the_numbers_of_one_device(runs: Any, backbone: str, mesh: MeshConfig) -> None:
    one, many = (trained(runs, backbone, each) for each in (ONE, mesh))
    np.testing.assert_allclose(many.losses, one.losses, rtol=1e-5)
    assert_close(many.params, one.params, 1e-5)
    np.testing.assert_allclose(many.users, one.users, 1e-5, 1e-5)
    np.testing.assert_allclose(*(each.items[2:] - each.items[1] for each in (many, one)), 1e-5, 1e-5)
    assert many.ndcg == pytest.approx(one.ndcg, abs=2 / USERS)
    assert one.losses[1] < one.losses[0]


@pytest.mark.parametrize(("backbone", "mesh"), EVERYWHERE)
def test_a_device_holds_its_share_of_the_tables(runs: Any, backbone: str, mesh: MeshConfig) -> None:
    """Also of Adam's two moments of them; what is not a table is small."""
    state = trained(runs, backbone, mesh).state
    held = {"table": 0, "other": 0}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        table = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")[2] in TABLES
        held["table" if table else "other"] += leaf.addressable_shards[0].data.nbytes
    width = WIDTH * family(backbone).embeddings
    with use_mesh(mesh):
        names = TABLES if not family(backbone).sequential else {"id_embedding"}
        rows = sum(pad_to_axis(TABLES[name]) for name in names)
    assert held["table"] == 3 * 4 * width * rows / mesh.model
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(trained(runs, backbone, ONE).state))
    assert held["table"] + held["other"] < whole / mesh.model + held["other"] + 3 * 4 * width * mesh.model


@pytest.mark.parametrize(("backbone", "mesh"), EVERYWHERE)
def test_no_table_is_gathered(runs: Any, backbone: str, mesh: MeshConfig) -> None:
    """What crosses devices in a step is of the size of a batch, or a share of a table."""
    crossing = list(collectives(trained(runs, backbone, mesh).step.as_text()))
    assert crossing, "nothing crosses devices: is the mesh in use?"
    for kind, shape in crossing:
        whole = {each(rows, mesh) for rows in TABLES.values() for each in (lambda rows, _: rows, even_of)}
        assert not whole & set(shape), (kind, shape)
        if kind == "all-gather":
            assert math.prod(shape) < USERS * WIDTH, (kind, shape)


def even_of(rows: int, mesh: MeshConfig) -> int:
    return math.ceil(rows / mesh.model) * mesh.model


def collectives(program: str) -> list[tuple[str, tuple[int, ...]]]:
    """Every array that crosses devices in a compiled program: the operation and the array's shape."""
    kinds = "all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter"
    found = []
    for line in program.splitlines():
        if match := re.search(rf" = (.*?) ({kinds})(?:-start)?\(", line):
            for numbers in re.findall(r"[a-z]+\d+\[([\d,]*)\]", match[1]):
                found.append((match[2], tuple(map(int, numbers.split(","))) if numbers else ()))
    return found


def test_collectives_are_found() -> None:
    """The check above sees a table that is gathered on purpose."""
    with use_mesh(ROWS):
        sharding = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.sharding.PartitionSpec("model"))
        whole = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.sharding.PartitionSpec())
        table = jax.ShapeDtypeStruct((400, WIDTH), np.float32, sharding=sharding)
        program = jax.jit(lambda x: x * 2, out_shardings=whole).lower(table).compile().as_text()
    assert ("all-gather", (400, WIDTH)) in collectives(program)


@pytest.mark.parametrize(
    ("backbone", "meshes"),
    [
        ("lightgcn", (BOTH, ONE)),
        pytest.param("lightgcn", (ONE, BOTH), marks=pytest.mark.slow),
        pytest.param("sasrec", (BOTH, MeshConfig(model=2), ONE), marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_goes_on_on_another_mesh(
    runs: Any, tmp_path: Path, backbone: str, meshes: tuple[MeshConfig, ...]
) -> None:
    """An epoch on each mesh, saved there and restored by the next: the numbers of one device."""
    for epochs, mesh in enumerate(meshes, 1):
        last = run(backbone, mesh, tmp_path, epochs)
        assert len(last.losses) == epochs
    expected = trained(runs, backbone, ONE) if epochs == 2 else run(backbone, ONE, epochs=epochs)
    np.testing.assert_allclose(last.losses, expected.losses, rtol=1e-5)
    assert_close(last.params, expected.params, 2e-5)


@pytest.mark.parametrize("backbone", ["lightgcn"])
def test_parameters_saved_on_a_mesh_are_read_without_one(runs: Any, tmp_path: Path, backbone: str) -> None:
    """And the other way round: the rows in use are the same, those that fill up are zero."""
    config = config_of(backbone)
    with use_mesh(ROWS):
        params = init_state(task_of(backbone, config), config).params
        save_params(params, tmp_path / "many")
    alone = load_params(tmp_path / "many", param_shapes(task_of(backbone, config), config))
    assert_close(in_use(alone), in_use(params), 0)
    assert alone["params"]["user_embedding"].shape == (USERS, WIDTH)
    save_params(alone, tmp_path / "one")
    with use_mesh(BOTH):
        again = load_params(tmp_path / "one", param_shapes(task_of(backbone, config), config))
    assert_close(in_use(again), in_use(params), 0)
    assert not np.asarray(again["params"]["user_embedding"])[USERS:].any()
    assert again["params"]["user_embedding"].sharding.spec == jax.sharding.PartitionSpec("model")


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(RelandError, match="data=3 x model=4 devices are asked for, and there are 8"):
        with use_mesh(MeshConfig(data=3, model=4)):
            pass
    with use_mesh(MeshConfig(data=None, model=4)):
        assert dict(jax.sharding.get_mesh().shape) == {"data": 2, "model": 4}


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), ours, theirs)
