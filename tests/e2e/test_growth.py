"""The cost of more users: the generated data, the exponent, and the command, stopped and given again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import growth
from experiments.growth import Cell, Setup, draw, exponents, plan, time_to_come
from experiments.scaling.interactions import generate
from experiments.scaling.measuring import growth_exponent
from reland_jax.data import split
from reland_jax.types import Interactions, RelandError

BEAUTY = (22_363, 12_101)
TINY = Setup(users=300, items=120, epochs=1, grow_batch=True)

# --- the data ----------------------------------------------------------------------------------------


def lengths_of(made: Interactions) -> np.ndarray:
    """Interactions of every user."""
    return np.bincount(made.user, minlength=made.num_users)


def popularity_of(made: Interactions) -> np.ndarray:
    """Interactions of every item, the most popular first."""
    return np.sort(np.bincount(made.item, minlength=made.num_items + 1)[1:])[::-1]


@pytest.fixture(scope="module")
def beauty() -> Interactions:
    """With the sizes of Amazon Beauty."""
    return generate(*BEAUTY, seed=0)


def test_lengths_are_those_of_beauty(beauty: Interactions) -> None:
    lengths = lengths_of(beauty)
    assert beauty.num_users == len(lengths) == 22_363
    assert len(beauty.user) == pytest.approx(198_502, rel=0.01)
    assert (lengths.min(), lengths.max() <= 200) == (5, True)
    assert np.quantile(lengths, (0.25, 0.5, 0.75, 0.9)).tolist() == [5, 6, 9, 14]
    assert np.quantile(lengths, 0.99) == pytest.approx(43, abs=3)


def test_popularity_is_that_of_beauty(beauty: Interactions) -> None:
    count = popularity_of(beauty)
    assert beauty.num_items == len(count) == 12_101
    assert count[0] == pytest.approx(431, rel=0.1) and np.median(count) == pytest.approx(9, abs=1)
    assert count[:1210].sum() / count.sum() == pytest.approx(0.43, abs=0.03)
    assert (beauty.item.min(), beauty.item.max()) == (1, 12_101)
    # Popular items are not neighbours in the tables, which would be kind to a cache.
    by_item = np.bincount(beauty.item)[1:].astype(float)
    assert abs(np.corrcoef(by_item[1:], by_item[:-1])[0, 1]) < 0.05


def test_no_user_has_an_item_twice() -> None:
    for made in (generate(500, 12, seed=3), generate(3000, 450, seed=3)):
        pairs = np.stack([made.user, made.item])
        assert len(np.unique(pairs, axis=1).T) == len(made.user)
        assert (np.diff(made.user) >= 0).all()
    assert lengths_of(made).max() == 200, "a user with many items is part of the test"


def test_the_seed_decides() -> None:
    first, same, other = (generate(200, 90, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.user, same.user)
    np.testing.assert_array_equal(first.item, same.item)
    assert not np.array_equal(first.item[:500], other.item[:500])


def test_more_users_change_no_distribution(beauty: Interactions) -> None:
    more = generate(4 * BEAUTY[0], BEAUTY[1], seed=0)
    assert more.num_users == 4 * beauty.num_users and more.num_items == beauty.num_items
    shares = [np.bincount(lengths_of(made), minlength=201) / made.num_users for made in (beauty, more)]
    assert np.abs(np.cumsum(shares[0]) - np.cumsum(shares[1])).max() < 0.01
    top, few = ([popularity_of(made)[rank] / len(made.user) for made in (beauty, more)] for rank in (0, 6000))
    assert top[0] == pytest.approx(top[1], rel=0.1) and few[0] == pytest.approx(few[1], rel=0.1)


@pytest.mark.parametrize("protocol", ["leave_one_out", "ratio"])
def test_every_user_can_be_split(protocol: str) -> None:
    made = generate(300, 120, seed=0)
    splits = split(made, protocol)
    assert (splits.valid.lengths() >= 1).all() and (splits.test.lengths() >= 1).all()
    parts = (splits.train, splits.valid, splits.test)
    assert sum(len(part.items) for part in parts) == len(made.item)


# --- the exponent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_exponent_of_a_power_law(exponent: float) -> None:
    users = [100, 200, 400, 800, 7000]
    assert growth_exponent(users, [0.3 * n**exponent for n in users]) == pytest.approx(exponent, abs=1e-9)
    assert growth_exponent([100, 100], [1.0, 2.0]) is None and growth_exponent([7], [1.0]) is None


def made_up(backbone: str, factor: int) -> dict[str, Any]:
    """A record whose epoch grows with the square of the users and whose evaluation with the users."""
    return {
        "users": 300 * factor, "targets": 2000 * factor, "compile_seconds": 1.5,
        "epoch_seconds": 2.0 * factor**2, "evaluation_seconds": 0.1 * factor,
        "base_bytes": 2**28, "peak_bytes": 2**29 * factor, "process_seconds": 10.0 * factor,
    }  # fmt: skip


def test_exponents_table_and_plot(tmp_path: Path) -> None:
    cells = plan(["sasrec", "neumf"], ["4", "1", "2", "1"])
    assert cells == [Cell(name, factor) for factor in (1, 2, 4) for name in ("sasrec", "neumf")]
    found = {cell: made_up(*cell) for cell in reversed(cells[:-1])}
    slopes = exponents(found)
    assert slopes["sasrec"] == pytest.approx({"epoch_seconds": 2.0, "evaluation_seconds": 1.0})
    lines = [line.split() for line in growth.table(found).splitlines()]
    assert ["sasrec", "1,200", "8,000", "1.500", "32.000", "0.400", "0.25", "2.00"] in lines
    assert ["neumf", "2.00", "1.00"] in lines
    assert [line[1] for line in lines if line[:1] == ["sasrec"]][:3] == ["300", "600", "1,200"]
    draw(found, tmp_path / "growth.svg")
    check_plot(tmp_path / "growth.svg", ["sasrec", "neumf"])
    assert os.listdir(tmp_path) == ["growth.svg"]


def check_plot(path: Path, backbones: list[str]) -> None:
    """Three panels against users, and a line for each backbone."""
    root = ElementTree.parse(path).getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("users") == 3
    assert {title for _, _, title in growth.PANELS} | {"in proportion to users", *backbones} <= set(texts)


def test_time_to_come() -> None:
    cells = plan(["sasrec", "neumf"], ["1", "2", "4"])
    assert time_to_come(cells, {}) == "unknown" and time_to_come([], {}) == "0:00:00"
    found = {cell: made_up(*cell) for cell in cells[:1]}
    assert time_to_come(cells[1:], found) == "over 0:01:00"  # sasrec x2 and x4
    found[Cell("neumf", 2)] = {"process_seconds": 100.0}
    assert time_to_come(cells[1:], found) == "0:05:10"  # and neumf x1 and x4


# --- the command -----------------------------------------------------------------------------------------


def command(repository: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """Runs the module as a user does."""
    line = [sys.executable, "-m", "experiments.growth", *given]
    return subprocess.run(line, cwd=repository, capture_output=True, text=True)


@pytest.mark.slow
def test_measured_once_and_read_back(repository: Path, tmp_path: Path) -> None:
    """One factor, then another one beside it, then nothing to measure."""
    sizes = [f"--{name}={value}" for name, value in TINY._asdict().items()]
    given = ["--backbones=lightgcn", f"--workdir={tmp_path / 'new'}", *sizes]
    first = command(repository, *given, "--factors=1")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("1/1 lightgcn x1: epoch") and "ETA 0:00:00" in first.stdout
    one = written(tmp_path / "new")
    assert one["exponents"] == {"lightgcn": {"epoch_seconds": None, "evaluation_seconds": None}}

    both = command(repository, *given, "--factors=2,1")
    assert both.returncode == 0, both.stderr
    lines = both.stdout.splitlines()
    assert re.fullmatch(r"1/2 lightgcn x1: measured before, ETA \d:\d\d:\d\d", lines[0])
    assert lines[1].startswith("2/2 lightgcn x2: epoch")
    two = written(tmp_path / "new")
    assert one["records"].items() <= two["records"].items()
    check_records(two)
    check_plot(tmp_path / "new" / "growth.svg", ["lightgcn"])

    again = command(repository, *given, "--factors=1,2")
    assert again.stdout.count("measured before") == 2 and written(tmp_path / "new") == two
    assert sorted(os.listdir(tmp_path / "new")) == ["growth.json", "growth.svg"]


def written(workdir: Path) -> dict[str, Any]:
    """The content of growth.json."""
    return json.loads((workdir / "growth.json").read_text())


def check_records(content: dict[str, Any]) -> None:
    """Two records of LightGCN agree with the data that they were made from."""
    small, large = content["records"].values()
    for record, factor in ((small, 1), (large, 2)):
        made = generate(TINY.users * factor, TINY.items, growth.DATA_SEED)
        assert (record["backbone"], record["factor"], record["items"]) == ("lightgcn", factor, TINY.items)
        assert (record["users"], record["interactions"]) == (300 * factor, len(made.user))
        assert record["targets"] == len(split(made, "ratio").train.items)
        assert len(record["seconds_of_epochs"]) == TINY.epochs
        assert 0 < record["epoch_seconds"] + record["evaluation_seconds"] + record["compile_seconds"]
        assert record["process_seconds"] > record["compile_seconds"]
        # Of its own: not what pytest or the other measurement occupies.
        assert 50 * 2**20 < record["base_bytes"] < record["peak_bytes"] < 4 * 2**30
        assert {"jax", "python", "device"} <= set(record["environment"])
    slope = np.log2(large["epoch_seconds"] / small["epoch_seconds"])
    assert content["exponents"]["lightgcn"]["epoch_seconds"] == pytest.approx(slope)


def test_the_starting_process_is_small(repository: Path) -> None:
    """On Linux the peak memory of a process begins with that of the one that started it."""
    program = "import experiments.growth, sys; print({'jax', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_other_settings_are_other_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("neumf", 1), Cell("neumf", 2), Cell("sasrec", 1)]
    changes = ({"users": 301}, {"items": 121}, {"epochs": 2}, {"grow_batch": False})
    setups = [TINY, *(TINY._replace(**change) for change in changes)]
    keys = [growth.key_of(cell, setup) for cell in cells for setup in setups]
    assert len(set(keys)) == len(keys) and growth.key_of(cells[0], TINY) == keys[0]
    monkeypatch.setattr(growth, "STATISTICS", (1.0,))
    assert growth.key_of(cells[0], TINY) not in keys


@pytest.mark.parametrize(
    ("backbone", "grow_batch", "times"), [("lightgcn", True, 4), ("lightgcn", False, 1), ("sasrec", True, 1)]
)
def test_the_batch_grows_where_a_step_touches_all_users(backbone: str, grow_batch: bool, times: int) -> None:
    setup = TINY._replace(grow_batch=grow_batch)
    sizes = [growth.config_of(Cell(backbone, n), setup).train.batch_size for n in (1, 4)]
    assert sizes[1] == times * sizes[0]


def test_a_failed_measurement_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[Cell] = []

    def apart(cell: Cell, setup: Setup) -> dict[str, Any]:
        tried.append(cell)
        if cell == Cell("neumf", 2) and len(tried) <= 4:
            raise RelandError("the process ended with status -9: killed")
        return made_up(*cell)

    monkeypatch.setattr(growth, "measure_apart", apart)
    cells = plan(["neumf", "sasrec"], ["1", "2"])
    assert list(growth.run(cells, TINY, tmp_path)) == [cells[0], cells[1], cells[3]]
    line = "3/4 neumf x2: failed: the process ended with status -9: killed, ETA 0:00:20"
    assert line in capsys.readouterr().out.splitlines()
    assert list(growth.run(cells, TINY, tmp_path)) == cells and tried == [*cells, cells[2]]


def test_the_last_words_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RelandError, match="ended with status 1: error: --backbones: 'sasrek' is not known"):
        growth.measure_apart(Cell("sasrek", 1), TINY)
    killed = subprocess.CompletedProcess([], -9, "", "epoch 1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(RelandError, match="status -9: killed, perhaps for lack of memory"):
        growth.measure_apart(Cell("sasrec", 1), TINY)


@pytest.mark.parametrize(
    ("backbones", "factors", "expected"),
    [
        (["sasrek"], ["1"], "--backbones: 'sasrek' is not known; did you mean 'sasrec'?"),
        ([], ["1"], "--backbones is empty"),
        (["sasrec"], [], "--factors is empty"),
        (["sasrec"], ["1", "0"], "--factors: '0' is not a whole number from 1"),
        (["sasrec"], ["1.5"], "--factors: '1.5' is not a whole number"),
        (["sasrec"], ["-2"], "--factors: '-2' is not a whole number"),
    ],
)
def test_a_mistake_in_the_plan(backbones: list[str], factors: list[str], expected: str) -> None:
    with pytest.raises(RelandError) as error:
        plan(backbones, factors)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--workdir=x", "--factors=two"], "error: --factors: 'two' is not a whole number from 1"),
        (["--factors=1"], "error: --workdir is missing"),
        (["--workdir=x", "--epochs=0"], "error: flag --epochs=0"),
        (["--workdir=x", "--factor=2"], "error: Unknown command line flag 'factor'. Did you mean: factors ?"),
        (["--workdir=README.md"], "error: README.md: a file is in the place of a folder"),
        (["--workdir=x", "more"], "error: unexpected arguments: more"),
    ],
)
def test_a_mistake_in_the_flags(repository: Path, given: list[str], expected: str) -> None:
    done = command(repository, *given)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(expected)
