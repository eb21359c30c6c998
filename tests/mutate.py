"""Mutation testing: small faults are put into a file, one at a time, and the tests should notice each.

    python tests/mutate.py reland_jax/eval/ranks.py [--tests TESTS ...] [--most=20] [--seed=0]
    python tests/mutate.py --named [--room=eval]

The first form draws mutants of a file at random: comparisons, arithmetic, boolean operators, conditions and
constants. The second form runs those of tests/mutants.toml, which are faults that a person might make. Each
mutant is put into a copy of the repository, so the working tree is left alone. A mutant that the tests do not
notice is printed with its line; some change nothing that matters, and the others call for a test. What
notices one is run again without it, so that a test that fails anyhow does not count.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = REPOSITORY / "tests" / "mutants.toml"
SECONDS = 900
"""After which the tests of a mutant are stopped; one that makes them hang counts as noticed."""

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
_BOOLEANS = {ast.And: ast.Or, ast.Or: ast.And}


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        file: which it is put into, below the repository.
        old: the text that it replaces; it occurs exactly once in the file.
        new: the text in its place.
        tests: what should notice it: paths, or names of tests, as pytest takes them.
        what: the fault in words.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    what: str

    def apply(self, source: str) -> str:
        """The faulty source.

        Raises:
            ValueError: `old` is not in the file, or more than once.
        """
        if (found := source.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {found} places read {self.old!r}, and there must be one")
        return source.replace(self.old, self.new)


def named(room: str = "") -> list[Mutant]:
    """The mutants of tests/mutants.toml; of one room (a folder or module of the package) if one is given."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutant"]
    found = [Mutant(**(row | {"tests": tuple(row["tests"])})) for row in rows]
    return [mutant for mutant in found if not room or room in mutant.file.replace(".py", "").split("/")]


def drawn(file: str, tests: tuple[str, ...], most: int, seed: int) -> list[Mutant]:
    """Mutants of a file, drawn at random among all that are known."""
    source = (REPOSITORY / file).read_text(encoding="utf-8")
    found = list(mutants_of(file, source, tests))
    return random.Random(seed).sample(found, min(most, len(found)))


def mutants_of(file: str, source: str, tests: tuple[str, ...]) -> Iterator[Mutant]:
    """All mutants of a source: each replaces whole lines, with their neighbours where lines repeat."""
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    for node in _executed(tree):
        for changed in _changes(node):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            start = len(lines[first].encode()[: node.col_offset].decode())
            end = len(lines[last - 1].encode()[: node.end_col_offset].decode())
            text = lines[first][:start] + changed + lines[last - 1][end:]
            what = f"line {node.lineno}: {ast.unparse(node)} -> {changed}"
            yield _unique(file, lines, slice(first, last), text, tests, what)


def _unique(
    file: str, lines: list[str], where: slice, text: str, tests: tuple[str, ...], what: str
) -> Mutant:
    """The mutant with as many lines around as make its place the only one in the file."""
    source, before, after = "".join(lines), where.start, where.stop
    while source.count("".join(lines[before:after])) > 1:
        before, after = max(before - 1, 0), min(after + 1, len(lines))
    new = "".join([*lines[before : where.start], text, *lines[where.stop : after]])
    return Mutant(file, "".join(lines[before:after]), new, tests, what)


def _executed(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions that run: no annotations, and nothing within a raised error or a message of the log.

    `strict=` is left out too: it only tells of lists that are never of different lengths.
    """
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise) or "_log." in _called(child):
            continue
        if isinstance(child, ast.keyword) and child.arg == "strict":
            continue
        if isinstance(child, ast.AnnAssign):
            yield from _executed(child.value) if child.value else ()
            continue
        if isinstance(child, ast.expr):
            yield child
        if not isinstance(child, ast.arguments):
            yield from _executed(child)


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _changes(node: ast.expr) -> Iterator[str]:
    """Texts that may stand in the place of an expression."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        ops = [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield f"({ast.unparse(ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(_BOOLEANS[type(node.op)](), node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.IfExp):
        yield f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield str(node.value + 1)


class Copy:
    """A copy of the repository's tracked and new files, for mutants to be put into."""

    def __init__(self, folder: Path) -> None:
        """Copies them; `folder` is empty."""
        self.folder, self._cache = folder, folder / ".pytest_cache"
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(command, cwd=REPOSITORY, text=True).splitlines():
            if (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, folder / name)

    def status(self, tests: tuple[str, ...], *options: str) -> int:
        """The exit status of the tests; that of a failure where they do not end."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", ""]
        command += ["-o", f"cache_dir={self._cache}", *options]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [*command, *tests], cwd=self.folder, env=environment, timeout=SECONDS,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 1
        return done.returncode

    def noticed_by(self, mutant: Mutant) -> str:
        """The test that fails with a mutant and not without it; "" if none does.

        Raises:
            SystemExit: the tests fail without it too, or are not there.
        """
        path = self.folder / mutant.file
        source = path.read_text(encoding="utf-8")
        shutil.rmtree(self._cache, ignore_errors=True)
        path.write_text(mutant.apply(source), encoding="utf-8")
        try:
            status = self.status(mutant.tests)
        finally:
            path.write_text(source, encoding="utf-8")
        if not status:
            return ""
        failed = self._failed()
        # Only what failed runs again; all tests where none came to its end.
        if without := self.status(mutant.tests, "--last-failed"):
            raise SystemExit(
                f"without a mutant, {failed or ' '.join(mutant.tests)} ends with status {without}"
            )
        return failed or "tests that did not end"

    def _failed(self) -> str:
        """What failed last, "" where no test came to its end."""
        kept = self._cache / "v" / "cache" / "lastfailed"
        return ", ".join(json.loads(kept.read_text(encoding="utf-8"))) if kept.is_file() else ""


def run(mutants: list[Mutant]) -> list[Mutant]:
    """Tries every mutant, prints what came of each, and returns those that no test noticed.

    Raises:
        SystemExit: tests fail, or are not there, without any mutant.
    """
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for number, mutant in enumerate(mutants, start=1):
            start = time.perf_counter()
            test = copy.noticed_by(mutant)
            survived += [] if test else [mutant]
            verdict = f"noticed by {test}" if test else "SURVIVED"
            seconds = time.perf_counter() - start
            print(
                f"{number}/{len(mutants)} {seconds:4.0f} s  {mutant.file}: {mutant.what}: {verdict}",
                flush=True,
            )
    print(f"{len(mutants) - len(survived)} of {len(mutants)} mutants were noticed")
    return survived


def mirrored(file: str) -> tuple[str, ...]:
    """The test file that mirrors a file of the package.

    Raises:
        SystemExit: there is none; `--tests` names others.
    """
    path = Path(file)
    if path.parts[0] == "reland_jax":
        path = Path(*path.parts[1:])
    test = Path("tests") / path.parent / f"test_{path.name}"
    if not (REPOSITORY / test).is_file():
        raise SystemExit(f"{file} has no tests in {test}; name some with --tests")
    return (str(test),)


def main() -> None:
    """Runs the mutants that were asked for; ends with status 1 if one survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", help="file to put mutants into")
    parser.add_argument("--named", action="store_true", help="the mutants of tests/mutants.toml")
    parser.add_argument("--room", default="", help="with --named: those of one folder or module")
    parser.add_argument("--tests", nargs="+", default=(), help="what should notice them")
    parser.add_argument("--most", type=int, default=20, help="how many mutants of the file are drawn")
    parser.add_argument("--seed", type=int, default=0, help="which ones are drawn")
    given = parser.parse_args()
    if given.named == bool(given.file):
        parser.error("give a file, or --named")
    mutants = (
        named(given.room)
        if given.named
        else drawn(given.file, tuple(given.tests) or mirrored(given.file), given.most, given.seed)
    )
    sys.exit(bool(run(mutants)))


if __name__ == "__main__":
    main()
