"""The script of mutation testing."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests import mutate
from tests.mutate import Copy, Mutant, drawn, mirrored, mutants_of, named

SOURCE = '''
"""Adds."""

def add(a: int = 0, b: int | None = 3) -> int:
    if a < 1 and not b:
        raise ValueError(f"{a + 1}")
    return a + b

def twice(a: int) -> int:
    return a + b

def pairs(a: list, b: list) -> dict:
    return dict(zip(a, b, strict=True))
'''


def test_mutants_change_what_runs_and_nothing_else() -> None:
    found = [mutant.what for mutant in mutants_of("a.py", SOURCE, ())]
    assert found == [
        "line 5: a < 1 and (not b) -> (a < 1 or not b)",
        "line 5: a < 1 -> (a <= 1)",
        "line 5: 1 -> 2",
        "line 5: not b -> (b)",
        "line 7: a + b -> (a - b)",
        "line 10: a + b -> (a - b)",
    ]


def test_a_mutant_changes_one_place_of_several_equal_lines() -> None:
    *_, first, second = mutants_of("a.py", SOURCE, ())
    assert first.apply(SOURCE) != second.apply(SOURCE)
    for mutant in (first, second):
        changed = mutant.apply(SOURCE)
        assert changed.count("a - b") == 1
        ast.parse(changed)


@pytest.mark.parametrize("mutant", named(), ids=lambda mutant: mutant.what)
def test_named_mutants_fit_the_code(mutant: Mutant) -> None:
    changed = mutant.apply((mutate.REPOSITORY / mutant.file).read_text(encoding="utf-8"))
    ast.parse(changed)
    for test in mutant.tests:
        assert (mutate.REPOSITORY / test.partition("::")[0]).exists(), test


def test_the_text_of_a_mutant_must_be_in_one_place() -> None:
    with pytest.raises(ValueError, match=r"a.py: 2 places read 'a \+ b'"):
        Mutant("a.py", "a + b", "a", (), "").apply(SOURCE)


def test_the_same_seed_draws_the_same_mutants() -> None:
    file = "reland_jax/eval/metrics.py"
    first, again, other = (drawn(file, mirrored(file), 5, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_file_without_tests_is_reported() -> None:
    with pytest.raises(SystemExit, match="name some with --tests"):
        mirrored("reland_jax/nothing.py")


def test_tests_notice_a_mutant_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tmp_path / "original"
    original.mkdir()
    subprocess.run(["git", "init", "-q", original], check=True)
    (original / "code_.py").write_text("def add(a, b):\n    return a + b\n")
    (original / "test_code.py").write_text(
        "import code_\n\ndef test_add():\n    assert code_.add(2, 2) == 4\n"
    )
    monkeypatch.setattr(mutate, "REPOSITORY", original)
    # Of the plugins only the one that `-n` belongs to: the others take most of the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist")
    copy = Copy(tmp_path / "copy")
    tests = ("test_code.py",)
    assert copy.noticed_by(Mutant("code_.py", "a + b", "a - b", tests, "")) == "test_code.py::test_add"
    assert not copy.noticed_by(Mutant("code_.py", "a + b", "a * b", tests, ""))
    assert (copy.folder / "code_.py").read_text() == (original / "code_.py").read_text()
    (copy.folder / "test_code.py").write_text("def test_add():\n    assert False\n")
    with pytest.raises(SystemExit, match="without a mutant, test_code.py::test_add ends with status 1"):
        copy.noticed_by(Mutant("code_.py", "a + b", "a - b", tests, ""))
