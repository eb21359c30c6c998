"""The small networks of these tests are compiled once and with few optimisations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.toys import quick_programs


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In force for every module of this folder and for no other."""
    with quick_programs(tmp_path_factory.mktemp("programs")):
        yield
