"""The programs an accelerator would get, lowered for CUDA and for TPU on a machine that has neither.

What is looked at is StableHLO, which is what JAX hands to the compiler of the device. On a CPU the sums over
edges are another program, so every test works with the sizes of the device it lowers for.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from reland_jax.config import ENCODERS, IalsConfig, MeshConfig, TrainConfig
from reland_jax.device import Sizes, sizes, sizes_of, use_sizes
from reland_jax.eval import cold as eval_cold
from reland_jax.eval import plan_ranking, ranks
from reland_jax.eval.lists import best
from reland_jax.mesh import MODEL, device_put_rows, use_mesh
from reland_jax.models import MODELS, Tables, bipartite_graph, build_propagation
from reland_jax.models.ease import Gram, item_weights
from reland_jax.models.graph import propagate
from reland_jax.models.ials import factorise, weights_of
from reland_jax.models.losses import catalogue_cross_entropy
from reland_jax.models.sharded_ease import score_by_columns, sharded_table
from reland_jax.models.sparse_ease import SparseGram, sparse_score, sparse_weights
from reland_jax.retrieval import cold as assign_cold
from reland_jax.retrieval import exact
from reland_jax.scale import ivf
from reland_jax.seeds import kmeans_passes
from reland_jax.seeds.kmeans import _start_and_iterate
from reland_jax.text.bert import Bert, BertConfig
from reland_jax.text.checkpoint import Pooling
from reland_jax.text.encode import embed
from reland_jax.train import Task, closed_form
from reland_jax.train.ials import tiles
from reland_jax.train.placement import distribute
from reland_jax.train.state import _dispatch, init_state, program_of, shuffled
from tests.toys import planted_splits, random_ragged
from tests.train.test_sharding import collectives
from tests.train.toys import PAIRS, SEQUENTIAL, scored, tiny_task

PLATFORMS = {"cuda": "gpu", "tpu": "tpu"}
TILE = 50
"""Edges of a tile; the toy graph has 512."""

CROSSES_TO_THE_HOST = {"send", "recv", "infeed", "outfeed"}
OF_THE_COMPILER = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
"""Custom calls that say where arrays lie and call nothing; on a GPU and a TPU there must be no other."""


class Operation(NamedTuple):
    """An operation of a program.

    Attributes:
        name: without its dialect.
        attributes: as they are printed.
        shapes: of its operands.
        types: of their elements.
        trips_known: of a while loop, whether it ends where a counter reaches a constant.
    """

    name: str
    attributes: dict[str, str]
    shapes: list[tuple[int, ...]]
    types: list[str]
    trips_known: bool


def operations(function: Callable[..., Any], platform: str, *arguments: Any) -> list[Operation]:
    """All operations of a function's program, those in loops and in called functions too."""
    return lowered(jax.jit(function).trace(*arguments), platform)


def lowered(traced: jax.stages.Traced, platform: str) -> list[Operation]:
    """The same of a function that was traced before."""
    program = traced.lower(lowering_platforms=(platform,))
    return list(_below(program.compiler_ir("stablehlo").operation))


def _below(parent: Any) -> Iterator[Operation]:
    for operation in (each for region in parent.regions for block in region for each in block):
        dialect, _, name = operation.operation.name.partition(".")
        if dialect in ("stablehlo", "chlo"):
            attributes = {each: str(operation.attributes[each]) for each in operation.attributes}
            arrays = [each.type for each in operation.operands if hasattr(each.type, "shape")]
            shapes, types = (
                [tuple(each.shape) for each in arrays],
                [str(each.element_type) for each in arrays],
            )
            yield Operation(name, attributes, shapes, types, name == "while" and _trips_known(operation))
        yield from _below(operation)


def _trips_known(loop: Any) -> bool:
    """Whether the loop goes on while a counter that it carries is less than a constant."""
    *_, end = loop.regions[0].blocks[0]
    (compared,) = (each.owner for each in end.operands)
    kinds = {getattr(each.owner, "name", "carried") for each in compared.operands}
    return compared.name == "stablehlo.compare" and kinds == {"carried", "stablehlo.constant"}


def loops_without_end(found: list[Operation]) -> int:
    """How many while loops do not say how often they turn."""
    return sum(each.name == "while" and not each.trips_known for each in found)


def assert_stays_on_the_device(found: list[Operation]) -> None:
    """Nothing is called on the host, and no kernel that only a CPU has."""
    assert found and not CROSSES_TO_THE_HOST & {each.name for each in found}
    called = {each.attributes["call_target_name"] for each in found if each.name == "custom_call"}
    assert {name.strip('"') for name in called} <= OF_THE_COMPILER, called


def scatters(found: list[Operation]) -> Counter[tuple[str, str]]:
    """How often (whether indices are sorted, whether they are distinct)."""
    hints = ("indices_are_sorted", "unique_indices")
    return Counter(tuple(each.attributes[hint] for hint in hints) for each in found if each.name == "scatter")


SORTED = ("true", "false")
"""A sorted segment sum: receivers in order, and more than one edge into each."""


@pytest.fixture(scope="module", params=list(PLATFORMS))
def platform(request: pytest.FixtureRequest) -> Iterator[str]:
    """A platform, whose sizes are in use, with edges in several tiles."""
    with use_sizes(dataclasses.replace(sizes_of(PLATFORMS[request.param]), edges=TILE)):
        yield request.param


# --- the checks themselves ---------------------------------------------------------------------


def test_the_checks_can_fail() -> None:
    def calls_back(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(AssertionError):
        assert_stays_on_the_device(operations(calls_back, "cpu", jnp.ones(3)))

    def open_ended(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: jax.lax.fori_loop(0, 3, add_one, x), x)

    def add_one(i: jax.Array, x: jax.Array) -> jax.Array:
        return x + jnp.sin(i.astype(float))

    found = operations(open_ended, "cuda", jnp.ones(3))
    assert [each.trips_known for each in found if each.name == "while"] == [False, True]
    assert loops_without_end(found) == 1


def test_compressed_rows_are_no_product_of_an_accelerator() -> None:
    """Why `Sizes.compressed_rows` is for CPUs: elsewhere every product finds the rows of all edges anew."""
    graph = bipartite_graph(planted_splits().train, 12)
    propagation = build_propagation(graph, 32, compressed_rows=True)
    found = operations(propagate, "cuda", propagation, jnp.ones((32, 4)), jnp.ones((13, 4)))
    # A function of both halves: it scatters into the rows and, besides, to find out which they are (by a
    # running sum over the edges, whose form depends on the release of JAX).
    assert scatters(found) == {("false", "false"): 4}
    on_cpu = operations(propagate, "cpu", propagation, jnp.ones((32, 4)), jnp.ones((13, 4)))
    assert sum(each.name == "custom_call" for each in on_cpu) == 2 and not scatters(on_cpu)


# --- training ----------------------------------------------------------------------------------


class Training(NamedTuple):
    """A toy task, the shapes of its state, and its training dispatch."""

    task: Task
    state: Any
    dispatch: jax.stages.Traced


def training(backbone: str, fanout: tuple[int, ...] = (), variant: str = "id") -> Training:
    """With the sizes in use; nothing is compiled or run."""
    return _training(backbone, fanout, variant, sizes())


@cache
def _training(backbone: str, fanout: tuple[int, ...], variant: str, in_use: Sizes) -> Training:
    config: TrainConfig = SEQUENTIAL if MODELS[backbone].sequential else PAIRS
    tables = (
        None if variant == "id" else Tables(np.ones((13, 5)), np.ones((7, 5)), np.ones((32, 2), np.int32))
    )
    task = tiny_task(backbone, planted_splits(), config, variant, tables, fanout)
    program, seed = program_of(task, config), jnp.int32(0)
    state = jax.eval_shape(lambda: init_state(task, config))
    order = jax.eval_shape(partial(shuffled, program), task.data, seed, 0)
    arguments = state, task.tables, task.data, order, jnp.arange(config.steps_per_dispatch)
    return Training(task, state, jax.jit(partial(_dispatch, program)).trace(*arguments))


@pytest.mark.parametrize("backbone", ENCODERS)
def test_training_stays_on_the_device(backbone: str, platform: str) -> None:
    """And every loop says how often it turns."""
    task, state, dispatch = training(backbone)
    found = lowered(dispatch, platform)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)
    shuffle = operations(task.epoch_order, platform, task.data, jax.random.key(0))
    assert_stays_on_the_device(shuffle)
    assert not loops_without_end(shuffle)


@pytest.mark.parametrize("backbone", ["neumf", "sasrec"])
def test_fusion(backbone: str, platform: str) -> None:
    """What rationales add stays on the device: in a training step, and in the vectors that are ranked."""
    task, state, dispatch = training(backbone, variant="reland")
    vectors = operations(lambda params: task.vectors(params, "test")[:2], platform, state.params)
    for found in (lowered(dispatch, platform), vectors):
        assert_stays_on_the_device(found)
        assert not loops_without_end(found)


@pytest.mark.parametrize("backbone", ["lightgcn", "ngcf"])
def test_training_propagates_by_sorted_segment_sums(backbone: str, platform: str) -> None:
    """One for each half, forward and backward. Other scatters are the gradients of a batch's rows."""
    found = lowered(training(backbone).dispatch, platform)
    assert scatters(found)[SORTED] == 2 * 2
    for each in found:
        if each.name == "scatter" and each.attributes["indices_are_sorted"] == "false":
            assert TILE not in each.shapes[1], "an unsorted scatter of a tile of edges"


@pytest.mark.parametrize(("backbone", "sums"), [("lightgcn", 1), ("gat", 3)])
def test_training_on_sampled_neighbours(backbone: str, sums: int, platform: str) -> None:
    """Vectors are made from all edges: LightGCN's one sum, GAT's largest logits, their masses and its sum."""
    task, state, dispatch = training(backbone, fanout=(3,))
    found = lowered(dispatch, platform)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)
    of_users = partial(task.model.apply, method="user_vectors")
    sides = operations(of_users, platform, state.params, task.tables)
    assert_stays_on_the_device(sides)
    found = scatters(sides)  # and one that sets the row of the padding item to zero
    assert found == {SORTED: sums, ("true", "true"): 1}


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(model=8)], ids=["one", "eight"])
@pytest.mark.parametrize("whole", [True, False], ids=["one tile", "tiles"])
def test_propagation_is_two_sorted_segment_sums(platform: str, mesh: MeshConfig, whole: bool) -> None:
    """Forward two, with the backward pass four; their only other lookups are those of the senders."""
    splits = planted_splits()
    with use_sizes(dataclasses.replace(sizes(), edges=1 << 20 if whole else TILE)), use_mesh(mesh):
        propagation = distribute(build_propagation(bipartite_graph(splits.train, 12), 32))

        def there_and_back(users: jax.Array, items: jax.Array) -> Any:
            summed, pull_back = jax.vjp(partial(propagate, propagation), users, items)
            return summed, pull_back(summed)

        sides = jnp.ones((32, 4)), jnp.ones((16, 4))
        forward = operations(partial(propagate, propagation), platform, *sides)
        both = operations(there_and_back, platform, *sides)
    for found, sums in ((forward, 2), (both, 4)):
        assert_stays_on_the_device(found)
        assert scatters(found) == {SORTED: sums}
        lookups = [each for each in found if each.name == "gather" and each.shapes[0][-1:] == (4,)]
        assert len(lookups) == sums
        names = Counter(each.name for each in found)
        assert not names["sort"] and not loops_without_end(found)
        if mesh.model > 1:
            assert names["collective_permute"] == sums and not names["all_gather"]


@pytest.mark.parametrize(("dtype", "of"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_cross_entropy_multiplies_what_the_settings_say(platform: str, dtype: str, of: str) -> None:
    """float32 in full, and not in the fewer bits that an accelerator takes by itself."""
    loss = jax.value_and_grad(partial(catalogue_cross_entropy, num_items=9, dtype=dtype), (0, 1))
    weight, target = jnp.ones(20), jnp.ones(20, jnp.int32)
    found = operations(loss, platform, jnp.ones((20, 4)), jnp.ones((10, 4)), target, weight)
    products = [each for each in found if each.name == "dot_general"]
    assert len(products) == 3
    for each in products:
        assert each.types == [of, of]
        assert each.attributes["precision_config"].count("HIGHEST") == 2


# --- evaluation, clustering, matching, texts ---------------------------------------------------


USERS, ITEMS, WIDTH = 30, 64, 4


def ranking() -> tuple[Any, ...]:
    """Tiles of a plan, with its frequent items, and vectors."""
    bought = random_ragged([5] * USERS, ITEMS)
    targets = random_ragged([2] * USERS, ITEMS, 1)
    plan = plan_ranking(targets, bought, ITEMS, 7 * 8 * (ITEMS + 1), bought)
    assert len(plan.frequent) and plan.users_at_a_time < plan.tiles.user.shape[1]
    return plan, scored(jnp.ones((USERS, WIDTH)), jnp.ones((ITEMS + 1, WIDTH)))


def test_ranking(platform: str) -> None:
    """Also the rest after the first look turns as often as the host has said."""
    plan, vectors = ranking()
    tiles, cutoff = plan.tiles, jnp.int32(10)
    first = operations(
        partial(ranks._open_rows, num_items=ITEMS), platform, tiles, plan.frequent, vectors, cutoff
    )
    assert_stays_on_the_device(first)
    assert not loops_without_end(first)
    open_rows = ranks._all_rows(tiles)
    for turns in (ranks._turns(plan, None), ranks._turns(plan, open_rows)):
        rest = partial(ranks._rank_tiles, num_items=ITEMS, at_a_time=plan.users_at_a_time, turns=turns)
        found = operations(rest, platform, tiles, open_rows, vectors, cutoff)
        assert_stays_on_the_device(found)
        assert not loops_without_end(found)
    for small in (partial(ranks._most_open, open_rows), partial(ranks._soundness, *vectors[:2])):
        assert_stays_on_the_device(operations(small, platform))
    for each in (*first, *found):
        if each.name == "dot_general":
            assert each.attributes["precision_config"].count("HIGHEST") == 2


def test_a_mesh_gathers_no_table_to_rank() -> None:
    """Compiled for eight CPUs, by the sizes of a GPU: the compiler decides what crosses devices."""
    with use_sizes(sizes_of("gpu")), use_mesh(MeshConfig(data=2, model=4)):
        bought, targets = random_ragged([5] * USERS, ITEMS), random_ragged([2] * USERS, ITEMS, 1)
        plan = plan_ranking(targets, bought, ITEMS, 7 * 8 * (ITEMS + 1), bought)
        users, items = (
            device_put_rows(np.ones((rows, WIDTH), np.float32), MODEL) for rows in (USERS, ITEMS + 1)
        )
        vectors, cutoff, turns = scored(users, items), jnp.int32(10), ranks._turns(plan, None)
        first = ranks._open_rows.lower(plan.tiles, plan.frequent, vectors, cutoff, num_items=ITEMS)
        rest = ranks._rank_tiles.lower(
            plan.tiles, ranks._all_rows(plan.tiles), vectors, cutoff, ITEMS, plan.users_at_a_time, turns
        )
        listed = best.lower(vectors, jnp.arange(3), jnp.ones((3, 2), jnp.int32), None, 5, ITEMS)
        programs = [each.compile().as_text() for each in (first, rest, listed)]
    for program in programs:
        crossing = list(collectives(program))
        assert crossing
        for kind, shape in crossing:
            assert shape not in {users.shape, items.shape}, (kind, shape)


def test_recommendations(platform: str) -> None:
    _, vectors = ranking()
    top = partial(best, allowed=None, count=5, num_items=ITEMS)
    found = operations(top, platform, vectors, jnp.arange(3), jnp.ones((3, 2), jnp.int32))
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)


@pytest.mark.parametrize("backbone", ["lightgcn", "neumf", "sasrec"])
def test_vectors_for_ranking(backbone: str, platform: str) -> None:
    task, state, _ = training(backbone)
    found = operations(lambda params: task.vectors(params, "test")[:2], platform, state.params)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)


def test_clustering(platform: str) -> None:
    """Lloyd's iterations end when they no longer improve; nothing else is without an end."""
    start = partial(_start_and_iterate, num_clusters=5, tile=8)
    found = operations(start, platform, jnp.ones((USERS, WIDTH)), jax.random.key(0), 10, 1e-4)
    assert_stays_on_the_device(found)
    assert loops_without_end(found) == 1


def test_a_pass_over_very_many_users(platform: str) -> None:
    placed = kmeans_passes.place(np.ones((USERS, WIDTH), np.float32), None)
    centres, half, number = jnp.ones((3, WIDTH, 8)), jnp.ones((3, 8)), jnp.arange(3)
    whose = jnp.zeros(USERS, jnp.int32)
    nobody = whose, jnp.zeros(USERS)
    found = operations(
        partial(kmeans_passes._compare, placed.mesh),
        platform,
        placed.rows,
        placed.mean,
        *nobody,
        centres,
        half,
        number,
    )
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)
    tiles = jnp.ones((3, WIDTH, 1)), jnp.ones((3, 1)), jnp.arange(3)[:, None], jnp.ones((3, 2), jnp.int32)
    choose = partial(kmeans_passes._choose_near, placed.mesh)
    chosen = operations(choose, platform, placed.rows, placed.mean, whose, *tiles)
    assert_stays_on_the_device(chosen)
    assert loops_without_end(chosen) == 1, "over blocks of users of one tile, as many as there are"
    measured = partial(kmeans_passes._measure, placed.mesh)
    found = operations(measured, platform, placed.rows, placed.mean, whose, jnp.ones((3, WIDTH)), USERS)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)


@pytest.mark.parametrize("k", [1, 3])
def test_assignment(platform: str, k: int) -> None:
    found = operations(
        partial(exact._top_k, k=k, tile=8), platform, jnp.ones((USERS, WIDTH)), jnp.ones((9, WIDTH))
    )
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)
    index = exact.ExactIndex(np.ones((9, WIDTH), np.float32), devices=jax.devices()[:1])
    search = exact._on_each(index._mesh, k, 1.0)
    streamed = operations(search, platform, jnp.ones((8, WIDTH)), index._layout)
    assert_stays_on_the_device(streamed)
    assert not loops_without_end(streamed)


def test_assignment_by_cells(platform: str) -> None:
    """As many blocks of a cell are visited as it has; an accelerator's search is the exact one."""
    index = ivf.IvfIndex(np.eye(9, WIDTH, dtype=np.float32) + 1, np.arange(9, dtype=np.int32) // 3)
    route = operations(ivf._route, platform, jnp.ones((8, WIDTH)), index._mean, index._spread, 0.1)
    best, slots, cells = jnp.ones((9, 2)), jnp.zeros((3, 4), jnp.int32), jnp.zeros(3, jnp.int32)
    visit = operations(
        ivf._visit, platform, best, jnp.zeros((9, 2), jnp.int32), jnp.ones((9, WIDTH)), slots, cells, cells,
        index._layout[2:],
    )  # fmt: skip
    assert_stays_on_the_device(route + visit)
    assert loops_without_end(route) == 0 and loops_without_end(visit) == 1


def test_users_without_history(platform: str) -> None:
    """Their seed users by vote, and the vectors that they are lent."""
    ones, several = jnp.ones((3, 2)), jnp.zeros(5, jnp.int32)
    votes = partial(assign_cold._most_voted, num_seeds=6, k=2)
    found = operations(votes, platform, ones, jnp.zeros((2, 5), jnp.int32), jnp.ones(5))
    borrowed = eval_cold.ColdUserWeights(jnp.arange(4), jnp.zeros(4, jnp.int32), ones, several, several)
    found += operations(eval_cold._imputed, platform, jnp.ones((USERS, WIDTH)), borrowed)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)


SOLVERS = {"cuda": {"cusolver_potrf_ffi", "cublas_trsm_ffi"}, "tpu": set[str]()}
"""Kernels of the vendor that a factorisation calls, on the device."""

EIGENVALUES = {"cuda": {"cusolver_syevd_ffi"}, "tpu": {"Eigh"}}
"""Those of the eigenvectors of a symmetric matrix."""


def assert_calls_only(kernels: set[str], found: list[Operation]) -> None:
    """These of the vendor and no others, none on the host, and loops that say how often they turn."""
    called = {each.attributes["call_target_name"].strip('"') for each in found if each.name == "custom_call"}
    assert called <= OF_THE_COMPILER | kernels, called
    assert not CROSSES_TO_THE_HOST & {each.name for each in found} and not loops_without_end(found)


def test_the_closed_form(platform: str) -> None:
    """A factorisation and triangular solves; its scatters put counts and a diagonal into a matrix."""
    at, text = jnp.arange(6), jnp.ones((6, 3))
    gram = Gram(at, at, jnp.ones(6), text, text, jnp.eye(3))
    found = operations(partial(item_weights, num_items=6), platform, gram, jnp.float32(1))
    assert_calls_only(SOLVERS[platform], found)
    table = partial(closed_form._table, num_items=6)
    assert_stays_on_the_device(operations(table, platform, jnp.ones((9, 6)), jnp.ones((4, 3))))


def test_the_sharded_closed_form(platform: str) -> None:
    """Products and sums over the devices, and no kernel of a vendor."""
    at, text = jnp.arange(6), jnp.ones((6, 3))
    gram = Gram(at, at, jnp.ones(6), text, text, jnp.eye(3))
    with use_mesh(MeshConfig(data=1, model=8)):
        arguments = gram, jnp.float32(1), jnp.ones((4, 3))
        found = lowered(sharded_table.trace(*arguments, num_items=6), platform)
        found += operations(score_by_columns, platform, jnp.ones(3), jnp.ones((4, 3)), jnp.ones((8, 12)))
    assert_calls_only(set(), found)
    assert "all_reduce" in {each.name for each in found}


def test_the_sparse_closed_form(platform: str) -> None:
    """No kernel of a vendor, and loops that say how often they turn."""
    sign = jnp.array([1.0, 1, 1, -1, -1])
    gram = SparseGram(jnp.array([*range(7), 6]), jnp.arange(6), jnp.ones(6), jnp.ones((6, 5)), sign)
    rows = (jnp.arange(8).clip(max=6).reshape(2, 4),)
    solve = partial(sparse_weights, widths=(2,), neighbours=3)
    found = operations(solve, platform, gram, rows, jnp.float32(1))
    tables = {"nearest": jnp.ones((7, 3), jnp.int32), "weight": jnp.ones((7, 3))}
    tables["rationale_weights"] = jnp.ones((2, 7))
    for items in (jnp.ones((7, 1)), jnp.ones((4, 2, 1))):
        scored = partial(sparse_score, jnp.ones(3), jnp.ones((5, 2)), tables)
        found += operations(scored, platform, jnp.ones((4, 3)), items)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found)


def test_alternating_least_squares(platform: str) -> None:
    """One eigendecomposition a side and a solve for the loadings of texts, never one for each row."""
    had = sparse.csr_array((np.arange(54) % 4 == 0).reshape(9, 6).astype(np.int8))
    parts = tiles(had), tiles(had.T.tocsr()), jnp.ones((9, 5)), jnp.ones((6, 5)), jax.random.key(0)
    solve = partial(factorise, num_users=9, num_items=6, dim=4, sweeps=16, steps=3)
    found = operations(solve, platform, *parts, weights_of(IalsConfig()))
    assert_calls_only(SOLVERS[platform] | EIGENVALUES[platform], found)
    for each in found:
        if each.name in {"cholesky", "triangular_solve", "custom_call"}:
            assert all(len(shape) <= 2 for shape in each.shapes), each


def test_encoding_of_texts(platform: str) -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    ids, lengths = jnp.ones((3, 16), jnp.int32), jnp.array([3, 16, 1])
    params = jax.eval_shape(Bert(config).init, jax.random.key(0), ids, ids > 0)["params"]
    found = operations(partial(embed, config, Pooling()), platform, params, ids, lengths)
    assert_stays_on_the_device(found)
    assert not loops_without_end(found) and not scatters(found)
