"""Bundles of three variants of a small recommender, and programs that compile quickly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.toys import model_of, toy_bundle
from tests.toys import quick_programs

VARIANTS = ("reland", "f_item", "id")


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of saved bundles of EASE, by variant."""
    root = tmp_path_factory.mktemp("bundles")
    found = {name: root / name for name in VARIANTS}
    for name, folder in found.items():
        model_of(toy_bundle(root / f"made-{name}", "ease", name)).save(folder)
    return found
