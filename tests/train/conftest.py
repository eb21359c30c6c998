"""The toys of these tests are compiled once and with few optimisations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toys import quick_programs


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """In force for every module of this folder and for no other."""
    with quick_programs(programs):
        yield
