"""Exported functions: the lists of the API without Flax and this package, and damage that is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reland_jax.models import neumf
from reland_jax.serve.api import Reland
from reland_jax.serve.listing import Batch, in_rows
from reland_jax.serve.stablehlo import PLATFORMS, read_exported
from reland_jax.types import RelandError
from tests.serve.toys import model_of, toy_bundle
from tests.stages.toys import REPEATS
from tests.test_bundle import cut, flip
from tests.toys import quick_programs

pytest.importorskip("flatbuffers")
pytestmark = pytest.mark.slow

ALONE = """
import json, sys
sys.modules["flax"] = sys.modules["reland_jax"] = None  # importing them fails

{documented}
print(json.dumps(found))
"""
CALL = """
found = recommend(sys.argv[1], ["i2", "i6"])
"""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="module")
def sasrec(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reland, Path]:
    """A sequential recommender and the folder that it was exported to."""
    folder = tmp_path_factory.mktemp("work")
    model = model_of(toy_bundle(folder, "sasrec"))
    model.export(folder / "exported", k=6)
    return model, folder / "exported"


def assert_same_lists(model: Reland, folder: Path) -> None:
    """Of old users and of new ones, whatever their number is."""
    found, seen = read_exported(folder), REPEATS.train.joined(REPEATS.valid).joined(REPEATS.test)
    for rows in (np.array([2]), np.arange(4)):
        masked = np.stack([in_rows(seen, Batch(int(row), 1, 1), 6)[0] for row in rows])
        ranked, expected = (
            found.ranked("users", rows.astype(np.int32), masked),
            model.predictor.users(rows, 6),
        )
        np.testing.assert_array_equal(ranked.item, expected.item)
        np.testing.assert_allclose(ranked.score, expected.score, rtol=1e-4, atol=1e-5)
    history = in_rows(seen, Batch(0, 4, 4), found.manifest["history"])
    ranked, (expected, _) = found.ranked("histories", history, history), model.predictor.histories(seen, 6)
    np.testing.assert_array_equal(ranked.item, expected.item)
    np.testing.assert_allclose(ranked.score, expected.score, rtol=1e-4, atol=1e-5)


def test_a_sequential_backbone_gives_the_same_lists(sasrec: tuple[Reland, Path]) -> None:
    assert_same_lists(*sasrec)
    told = json.loads((sasrec[1] / "manifest.json").read_text())
    assert told["platforms"] == list(PLATFORMS) and (told["k"], told["history"]) == (6, 50)


@pytest.mark.parametrize(
    ("backbone", "variant"),
    [
        ("neumf", "reland"), ("lightgcn", "reland"), ("ease", "reland"), ("ials", "reland"), ("sasrec", "id"),
    ],
)
def test_so_do_the_others(backbone: str, variant: str, tmp_path: Path) -> None:
    model = model_of(toy_bundle(tmp_path / "work", backbone, variant))
    model.export(tmp_path / "exported")
    assert_same_lists(model, tmp_path / "exported")


def test_a_tower_that_is_too_large_to_be_unrolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neumf, "UNROLLED", 0)
    model = model_of(toy_bundle(tmp_path / "work", "neumf", "id"))
    model.export(tmp_path / "exported")
    assert_same_lists(model, tmp_path / "exported")


def test_the_documented_lines_need_neither_flax_nor_this_package(sasrec: tuple[Reland, Path]) -> None:
    model, folder = sasrec
    text = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text(encoding="utf-8")
    lines = text.split("<!-- loading -->")[1].split("```python")[1].split("```")[0]
    program = ALONE.format(documented=lines + CALL)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    expected = model.recommend_from_history(["i2", "i6"], 6)["item"].to_pylist()
    assert json.loads(ran.stdout) == expected and len(expected) == 4


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_every_damaged_file_is_refused(damage: Any, sasrec: tuple[Reland, Path], tmp_path: Path) -> None:
    for path in sorted(sasrec[1].iterdir()):
        shutil.copytree(sasrec[1], tmp_path / path.name)
        damage(tmp_path / path.name / path.name)
        with pytest.raises(RelandError, match="not an exported recommender, or damaged"):
            read_exported(tmp_path / path.name)


def test_it_replaces_what_was_exported_and_nothing_else(sasrec: tuple[Reland, Path], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep this")
    with pytest.raises(RelandError, match="not made by this program"):
        sasrec[0].export(tmp_path)
    with pytest.raises(RelandError, match="k=0"):
        sasrec[0].export(tmp_path / "new", k=0)
