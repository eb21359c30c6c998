"""The training loop: early stopping, going on from a state, and the same numbers after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from reland_jax.events import Batches, encode, fit, gather
from reland_jax.events.shards import ShardBatches, as_read
from reland_jax.ranker_settings import RankerConfig, RankerTrainConfig
from reland_jax.rankers import (
    ARMS,
    Parameters,
    Program,
    RankerData,
    ReadBatch,
    Texts,
    create_ranker,
    field_schema,
    fresh_state,
    predict_rows,
    train_ranker,
    training,
)
from reland_jax.types import RelandError
from tests.rankers.toys import small_log, write_shards

ROWS, VALID = np.arange(900), np.arange(900, 1200)


class Case(NamedTuple):
    """A program on a small log."""

    program: Program
    data: RankerData


def case(**train: Any) -> Case:
    """A small network with dropout, so that the keys of steps matter."""
    log = small_log()
    encoding = fit(log, ROWS)
    schema = field_schema(encoding, ("click", "conversion"))
    config = RankerConfig(network="dnn", width=4, layers=(8,), dropout=0.2)
    settings = RankerTrainConfig(**({"batch_size": 128, "max_epochs": 3, "validations": 2} | train))
    program = Program(create_ranker(config, schema, ARMS["id"]), settings, ReadBatch(gather, schema))
    return Case(program, RankerData(jax.device_put(encode(encoding, log)), Texts()))


@pytest.fixture(scope="module", name="small")
def small_case() -> Case:
    """The case with the settings of most tests."""
    return case()


def order_of(seed: int = 0, rows: np.ndarray = ROWS) -> Batches:
    """Shuffled batches of the training rows."""
    return Batches(rows, 128, seed)


@pytest.fixture(scope="module", name="shards")
def shards_of_the_log(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The training rows as encoded shards, in order."""
    return write_shards(small_log(), ROWS, [200, 210, 650], tmp_path_factory.mktemp("shards"))


def streamed(whole: Case) -> Case:
    """The same where rows are read from shards: there is no log in memory."""
    read = ReadBatch(as_read, whole.program.read.schema)
    return Case(whole.program._replace(read=read), RankerData(None, Texts()))


def scripted(losses: list[float]) -> Callable[[Parameters], dict[str, float]]:
    """A validation that finds what it is told to."""
    left = iter(losses)
    return lambda params: {"logloss": next(left)}


def assert_same(one: Any, other: Any) -> None:
    """Every number of two trees is the same."""
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def test_stops_early_and_keeps_the_parameters_of_the_best(small: Case) -> None:
    seen: list[Parameters] = []
    told = scripted([0.7, 0.5, 0.6, 0.55])

    def validate(params: Parameters) -> dict[str, float]:
        seen.append(jax.device_get(params))
        return told(params)

    trained = train_ranker(*small, order_of(), validate=validate)
    assert [entry["step"] for entry in trained.history] == [4, 8, 12, 16]  # 8 steps are an epoch
    assert trained.best == 1
    assert_same(trained.params, seen[1])
    assert_same(trained.state.params, seen[3])
    assert np.any(seen[0].table != seen[1].table)


def test_a_training_forgets_programs_where_a_process_is_full_of_them(
    small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []
    earlier = jax.jit(lambda x: traced.append(0) or x)
    earlier(1.0)
    train_ranker(*small, order_of())
    earlier(1.0)
    assert len(traced) == 1
    monkeypatch.setattr("reland_jax.rankers.training.let_go_of_programs", jax.clear_caches)
    train_ranker(*small, order_of())
    earlier(1.0)
    assert len(traced) == 2


def test_learns_and_every_step_sees_its_rows_once(small: Case) -> None:
    trained = train_ranker(*small, order_of())
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert trained.best == len(trained.history) - 1 == 5
    scores = predict_rows(small.program, trained.params, small.data, VALID, size=128)
    assert scores.reached.shape == (300, 1)
    at_once = predict_rows(small.program, trained.params, small.data, VALID, size=300)
    np.testing.assert_allclose(scores.reached, at_once.reached, rtol=1e-5)


def test_rows_from_shards_train_as_those_in_memory(small: Case, shards: list[Path]) -> None:
    in_memory = train_ranker(*small, Batches(ROWS, 128, None))
    from_shards = train_ranker(*streamed(small), ShardBatches(shards, 128, None, window=2))
    assert_same(from_shards.state, in_memory.state)
    shuffled = train_ranker(*streamed(small), ShardBatches(shards, 128, 0, window=2))
    assert np.any(shuffled.state.params.table != in_memory.state.params.table)


@pytest.mark.parametrize(("killed_after", "from_shards"), [(1, False), (2, False), (4, False), (2, True)])
def test_killed_and_started_again_ends_with_the_same_numbers(
    tmp_path: Path, shards: list[Path], killed_after: int, from_shards: bool
) -> None:
    class Killed(Exception):
        pass

    small, losses = case(checkpoint_seconds=0.0), [0.9, 0.8, 0.85, 0.7, 0.6, 0.65]
    small = streamed(small) if from_shards else small

    def order_of() -> Batches | ShardBatches:
        return ShardBatches(shards, 128, 3, window=2) if from_shards else Batches(ROWS, 128, 0)

    whole = train_ranker(*small, order_of(), validate=scripted(losses))
    left = iter(range(killed_after))

    def dies(params: Parameters) -> dict[str, float]:
        if (at := next(left, None)) is None:
            raise Killed
        return {"logloss": losses[at]}

    with pytest.raises(Killed):
        train_ranker(*small, order_of(), validate=dies, folder=tmp_path)
    again = train_ranker(*small, order_of(), validate=scripted(losses[killed_after:]), folder=tmp_path)
    assert again.best == whole.best == 4
    assert_same(again.params, whole.params)
    assert_same(again.state, whole.state)
    for one, other in zip(again.history, whole.history, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_checkpoint_of_another_seed_is_refused(tmp_path: Path, small: Case) -> None:
    train_ranker(*small, order_of(), folder=tmp_path)
    with pytest.raises(RelandError, match="another --workdir"):
        train_ranker(*small, order_of(), seed=1, folder=tmp_path)


def test_goes_on_from_an_earlier_state_and_leaves_it_as_it_is(small: Case) -> None:
    first = train_ranker(*small, order_of(rows=ROWS[:500]))
    before = jax.device_get(first.state)
    second = train_ranker(*small, order_of(rows=ROWS[500:]), state=first.state)
    assert_same(first.state, before)
    steps = 3 * (4 + 4)
    assert int(second.state.rows.step) == steps
    assert second.history[0]["loss"] < first.history[0]["loss"]


def test_compiles_once_for_all_seeds_and_days(small: Case) -> None:
    train_ranker(*small, order_of())
    before = training._dispatch._cache_size()
    first = train_ranker(*case(), order_of(1), seed=1)
    train_ranker(*case(), order_of(rows=ROWS[:300]), state=first.state)
    assert training._dispatch._cache_size() == before


def test_loss_that_is_not_finite_names_the_step(small: Case) -> None:
    state = fresh_state(*small, seed=0)
    labels = np.array(small.data.log.labels)
    labels[order_of().at(5).rows[3]] = np.nan
    spoilt = small.data._replace(log=small.data.log._replace(labels=labels))
    with pytest.raises(RelandError, match="step 5: the loss is nan; choose smaller learning rates"):
        train_ranker(small.program, spoilt, order_of(), state=state)
