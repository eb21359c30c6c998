"""The house style that a linter does not know: annotations, docstrings, and the size of things."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CODE_FOLDERS = ("reland_jax", "experiments", "launch", "docs", "third_party")

LONGEST_FUNCTION = 60
LONGEST_MODULE = 500
MEDIAN_FUNCTION = 12
P90_FUNCTION = 35

Function = ast.FunctionDef | ast.AsyncFunctionDef

UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
# A folder of one machine at the start of an absolute path; not the middle of a URL or a longer path.
MACHINE_PATH = re.compile(r"(?<![\w.\-/:}])/(?:work|root|home|Users|mnt|scratch)/\w")
TEXT_SUFFIXES = {"", ".cfg", ".css", ".html", ".ini", ".j2", ".json", ".jsonl", ".md", ".py", ".sh", ".toml"}
TEXT_SUFFIXES |= {".txt", ".yaml", ".yml"}


def code_files() -> list[Path]:
    """The Python files of the product, without the tests."""
    return sorted(path for folder in CODE_FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))


def project_files() -> list[Path]:
    """Every text file that is, or could be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:  # an unpacked archive
        paths = [path for path in REPOSITORY.rglob("*") if ".venv" not in path.parts]
    else:
        paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return sorted(path for path in paths if path.is_file() and path.suffix in TEXT_SUFFIXES)


def functions_of(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def missing_annotations(function: Function) -> list[str]:
    """Names of the arguments without annotation, and "return"."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    missing = [item.arg for item in named if item.annotation is None and item.arg not in ("self", "cls")]
    return missing + ([] if function.returns else ["return"])


def undocumented(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and name of the module, public classes, functions and methods without a docstring."""
    found = [] if ast.get_docstring(tree) else [(1, "module")]
    return found + list(_undocumented_members(tree))


def _undocumented_members(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    for node in scope.body:
        if not isinstance(node, (ast.ClassDef, *Function.__args__)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.lineno, node.name
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_members(node)


def function_length(function: Function) -> int:
    """Lines from `def` to the end, docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def body_length(function: Function) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return function_length(function) - docstring


def every_function() -> Iterator[tuple[str, Function]]:
    """Every function of the product, with `file:line`."""
    for path in code_files():
        for function in functions_of(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(REPOSITORY)}:{function.lineno}", function


def matching_lines(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` of every line of the project that matches."""
    found = []
    for path in project_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    return found


def test_every_function_is_annotated() -> None:
    found = [
        f"{where}: {function.name} lacks annotations of {', '.join(missing)}"
        for where, function in every_function()
        if (missing := missing_annotations(function))
    ]
    assert not found, "\n".join(found)


def test_every_public_name_has_a_docstring() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name} has no docstring"
        for path in code_files()
        for line, name in undocumented(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


def test_no_function_is_too_long() -> None:
    found = [
        f"{where}: {function.name} has {function_length(function)} lines, more than {LONGEST_FUNCTION}"
        for where, function in every_function()
        if function_length(function) > LONGEST_FUNCTION
    ]
    assert not found, "\n".join(found)


def test_functions_are_short_on_the_whole() -> None:
    lengths = sorted(body_length(function) for _, function in every_function())
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(0.9 * len(lengths))] <= P90_FUNCTION


def test_no_module_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in code_files()}
    found = [
        f"{path.relative_to(REPOSITORY)}: {n} lines" for path, n in lengths.items() if n > LONGEST_MODULE
    ]
    assert not found, "\n".join(found)


def test_nothing_is_left_unfinished() -> None:
    found = matching_lines(UNFINISHED)
    assert not found, "\n".join(found)


def test_no_path_of_one_machine() -> None:
    found = matching_lines(MACHINE_PATH)
    assert not found, "\n".join(found)


def test_the_checks_can_fail() -> None:
    tree = ast.parse(
        "class A:\n    def f(self, x, *, y: int = 1, **z):\n        pass\n    def _g(self): ...\n"
    )
    method = next(functions_of(tree))
    assert missing_annotations(method) == ["x", "z", "return"]
    assert undocumented(tree) == [(1, "module"), (1, "A"), (2, "f")]
    assert (function_length(method), body_length(method)) == (2, 2)
    documented = next(
        functions_of(ast.parse('def f() -> int:\n    """One.\n\n    Two.\n    """\n    return 1'))
    )
    assert (function_length(documented), body_length(documented)) == (6, 2)
    home = "/ho" + "me/me/data"
    assert MACHINE_PATH.search(f"root = '{home}'") and not MACHINE_PATH.search(f"https://host{home}")
    assert UNFINISHED.search("# TO" + "DO: later")
