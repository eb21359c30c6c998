"""The rooms of the house and the doors between them, checked on the import graph.

The table `MAY_IMPORT` is the architecture: an arrow that is not in it fails. Every import counts,
also one inside a function. `reland_jax/__init__.py` is the public surface and may name any room, but
only inside functions, so that importing the package stays cheap.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "reland_jax"

GROUND = {"types", "files", "strings", "plain", "hashes", "fields", "records", "progress", "variants"}
CONTRACTS = GROUND | {"config", "linear", "pool_settings", "ranker_settings", "scenario_settings"}
CONTRACTS |= {"deploy_settings"}
SHARED = CONTRACTS | {"mesh", "device"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "files": {"types"},
    "strings": {"types"},
    "plain": {"strings"},
    "fields": {"types", "files"},
    "records": set(),
    "hashes": set(),
    "progress": set(),
    "variants": {"types", "fields"},
    "linear": {"types", "fields"},
    "pool_settings": {"types", "fields"},
    "ranker_settings": {"types", "fields"},
    "scenario_settings": {"types", "fields", "ranker_settings", "pool_settings"},
    "deploy_settings": {"types", "fields", "ranker_settings"},
    "config": GROUND | {"linear", "pool_settings"},
    "presets": CONTRACTS,
    "mesh": CONTRACTS,
    "device": {"types", "files"},
    "data": CONTRACTS,
    "text": CONTRACTS | {"device"},
    "seeds": SHARED,
    "pool": CONTRACTS,
    "retrieval": SHARED,
    "models": SHARED,
    "eval": SHARED,
    "train": SHARED | {"models", "data", "eval"},
    "events": SHARED | {"data", "eval", "artefacts"},
    "knowledge": CONTRACTS | {"data", "events", "pool"},
    "pool_store": CONTRACTS | {"pool", "retrieval"},
    "scale": SHARED | {"retrieval"},
    "rankers": SHARED | {"models", "text", "train"},
    "artefacts": GROUND,
    "storage": CONTRACTS | {"artefacts", "data", "pool", "train"},
    "overview": CONTRACTS | {"mesh", "storage", "pool", "eval"},
    "results": CONTRACTS | {"device", "storage", "overview", "pool", "eval"},
    "report": CONTRACTS | {"results", "overview", "storage", "data", "pool"},
    "flow": CONTRACTS | {"mesh", "artefacts"},
    "stages": SHARED
    | {"artefacts", "storage", "flow"}
    | {"data", "text", "seeds", "pool", "retrieval", "models", "train", "eval", "report"},
    "bundle": CONTRACTS | {"artefacts", "storage", "pool", "retrieval"},
    "serve": SHARED
    | {"presets", "artefacts", "storage", "bundle", "flow", "stages"}
    | {"data", "pool_store", "retrieval", "models", "train", "eval", "report"},
    "server": CONTRACTS | {"serve", "bundle"},
    "__init__": CONTRACTS,
}

WITHIN: dict[str, dict[str, set[str]]] = {
    "pool": {
        "contract": set(),
        "templates": set(),
        "answer_format": set(),
        "folder": {"contract"},
        "reading": {"contract", "templates", "answer_format"},
        "prompting": {"contract", "templates", "answer_format", "reading"},
        "asking": {"contract", "answer_format", "prompting", "reading"},
        "providers": {"contract", "answer_format", "prompting", "reading", "asking"},
        "histories": set(),
        "pool_file": {"contract", "histories", "reading"},
        "sources": {"contract", "prompting", "pool_file"},
        "build": {"contract", "templates", "prompting", "asking", "providers", "sources"},
        "ready": {"prompting", "asking", "providers", "sources"},
        "item_facts": {"contract", "templates", "prompting", "providers", "reading", "build"},
        "pairs": {"templates", "prompting"},
    },
    "data": {
        "describe": set(),
        "entities": set(),
        "packing": set(),
        "sources": set(),
        "splits": set(),
        "views": {"packing"},
        "filtering": {"sources"},
        "finding": {"sources"},
        "accounting": {"describe", "filtering", "sources", "splits"},
        "loading": {"accounting", "filtering", "finding", "sources"},
    },
}
"""The same between the parts of a room; its `__init__.py` may name any of them."""

WINGS = ("pool_store", "rankers", "scale", "serve", "server")
"""Rooms that the method does without. From outside only what their `__init__.py` names is imported."""

FAMILIES: dict[str, set[str]] = {
    "grid": set(),
    "analysis": {"grid", "seed_counts"},
    "ranking": set(),
    "scenario_grid": {"ranking"},
    "deployment": {"ranking"},
    "pool_commands": set(),
    "seed_counts": set(),
    "serving": set(),
    "scaling": set(),
    "speed": {"scaling"},
}
"""Folders of experiments/ with what several commands, or one long one, need; others that each may import."""

COMPOSES = {"paper": {"table2", "seed_count"}}
"""Commands that are made of other commands, and of which."""

ONLY_IN = {"jraph": {"models"}}
"""Outside libraries that are kept behind one room, so that they can be replaced."""

HEAVY = {
    "jinja2",
    "matplotlib",
    "optuna",
    "pandas",
    "pyarrow",
    "ray",
    "scann",
    "sentence_transformers",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
}
"""Libraries that cost seconds to import, or that are optional: imported where they are used."""

CLOSED_TO_MODELS = {"absl", "io", "ml_collections", "os", "pandas", "pathlib", "requests", "shutil", "urllib"}
"""`models/` never sees files, flags, tables or an LLM."""


class Import(NamedTuple):
    """One imported module: its absolute dotted name, its line, and whether importing the file runs it."""

    name: str
    line: int
    at_module_level: bool


def walk_imports(node: ast.AST, package: str, at_module_level: bool = True) -> Iterator[Import]:
    """Yields every import below `node` of a file that lies in the dotted `package`."""
    for child in ast.iter_child_nodes(node):
        level = at_module_level and not _is_deferred(child)
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, level) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute_name(child, package)
            yield from (Import(f"{base}.{alias.name}", child.lineno, level) for alias in child.names)
        elif isinstance(child, ast.Call) and (name := _dynamic_name(child)):
            yield Import(name, child.lineno, level)
        yield from walk_imports(child, package, level)


def _is_deferred(node: ast.AST) -> bool:
    """Whether what is below runs later than the import of the file, or never (`TYPE_CHECKING`)."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _absolute_name(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parents = parts[: len(parts) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _dynamic_name(node: ast.Call) -> str | None:
    """The module of `importlib.import_module("...")` or `__import__("...")`."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
        return str(first.value)
    return None


def room_of(path: Path, root: Path, room: str = "") -> str:
    """The room of a file: the folder, or the module's own name, directly below the package.

    With a room it is the part of that room.
    """
    return path.relative_to(root / PACKAGE / room).parts[0].removesuffix(".py")


@functools.cache
def imports_of(path: Path, root: Path) -> list[Import]:
    """Every import of one file."""
    package = ".".join(path.relative_to(root).parent.parts)
    return list(walk_imports(ast.parse(path.read_text(encoding="utf-8")), package))


def forbidden_arrows(root: Path) -> list[str]:
    """Every import of one room by another that `MAY_IMPORT` does not allow, as `file:line: what`."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        room = room_of(path, root)
        for item in imports_of(path, root):
            target = _target_room(item.name)
            if target is None or target == room or (room == "__init__" and not item.at_module_level):
                continue
            if target not in MAY_IMPORT.get(room, set()):
                found.append(f"{path.relative_to(root)}:{item.line}: {room} -> {target} is not allowed")
    return found


def _target_room(name: str) -> str | None:
    """The room that an absolute name lies in; a folder outside the package by its own name."""
    first, _, rest = name.partition(".")
    if first in ("experiments", "tests", "launch", "third_party"):
        return first
    return (rest.split(".")[0] or "__init__") if first == PACKAGE else None


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the package and of the experiments."""
    paths = [path for folder in (PACKAGE, "experiments") for path in sorted((root / folder).rglob("*.py"))]
    return {_dotted(path, root): path for path in paths}


def _dotted(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def module_graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules that it imports, with the packages around them unless it lies there itself."""
    modules = modules_of(root)
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for item in imports_of(path, root):
            target = item.name if item.name in modules else item.name.rpartition(".")[0]
            around = [target.rsplit(".", depth)[0] for depth in range(target.count(".") + 1)]
            around = [each for each in around if each in modules and not f"{name}.".startswith(f"{each}.")]
            graph[name].update(around)
    return graph


def circle_of(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, [] if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def forbidden_within(root: Path, room: str) -> list[str]:
    """Every import of one part of a room by another that `WITHIN` does not allow."""
    found = []
    for path in sorted((root / PACKAGE / room).rglob("*.py")):
        part = room_of(path, root, room)
        for item in imports_of(path, root):
            first, _, rest = item.name.removeprefix(f"{PACKAGE}.").partition(".")
            target = rest.partition(".")[0]
            if first != room or part in ("__init__", target):
                continue
            if target not in WITHIN[room].get(part, set()):
                found.append(f"{path.relative_to(root)}:{item.line}: {part} -> {target} is not allowed")
    return found


def past_the_door(root: Path) -> list[str]:
    """Every import from outside of a wing that its `__all__` does not name."""
    found = []
    for path in modules_of(root).values():
        for item in imports_of(path, root):
            package, _, name = item.name.partition(".")
            wing, _, name = name.partition(".")
            is_inside = path.is_relative_to(root / PACKAGE / wing)
            if package != PACKAGE or wing not in WINGS or is_inside or not name:
                continue
            if name not in names_of(root / PACKAGE / wing / "__init__.py"):
                found.append(f"{path.relative_to(root)}:{item.line}: {name} is not at the door of {wing}")
    return found


def names_of(door: Path) -> set[str]:
    """What a module lists in `__all__`."""
    for node in ast.parse(door.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def experiment_arrows(root: Path) -> list[str]:
    """Imports that go against the order command -> family -> configs -> harness, or across."""
    found = []
    for path in sorted((root / "experiments").rglob("*.py")):
        place = _place(_dotted(path, root))
        for item in imports_of(path, root):
            target = _place(item.name) if item.name.startswith("experiments.") else place
            if target not in (place, *_below(place)):
                found.append(f"{path.relative_to(root)}:{item.line}: {place} -> {target} is not allowed")
    return found


def _place(name: str) -> str:
    """The folder of experiments/ that a module lies in; of a command its own name."""
    return name.split(".")[1]


def _below(place: str) -> set[str]:
    if place in ("harness", "configs"):
        return {"harness"}
    commands = {"run", *FAMILIES, *COMPOSES.get(place, ())}
    return {"harness", "configs", *(FAMILIES[place] if place in FAMILIES else commands)}


def outside_imports(root: Path, folder: str) -> Iterator[tuple[Path, Import, str]]:
    """Every import below a folder: the file, the import and the name of the library."""
    for path in sorted((root / folder).rglob("*.py")):
        for item in imports_of(path, root):
            yield path, item, item.name.partition(".")[0]


def loaded_modules(statement: str) -> set[str]:
    """Top-level names in `sys.modules` after a statement, in a fresh interpreter."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path, REPOSITORY) for path in (REPOSITORY / PACKAGE).rglob("*.py")}
    assert rooms - set(MAY_IMPORT) == set(), "add the room, and what it may import, to MAY_IMPORT"


def test_rooms_import_only_what_they_may() -> None:
    found = forbidden_arrows(REPOSITORY)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", sorted(WITHIN))
def test_parts_of_a_room_import_only_what_they_may(room: str) -> None:
    parts = {room_of(path, REPOSITORY, room) for path in (REPOSITORY / PACKAGE / room).rglob("*.py")}
    assert parts - {"__init__"} == set(WITHIN[room]), "WITHIN lists every part"
    found = forbidden_within(REPOSITORY, room)
    assert not found, "\n".join(found)


def test_a_wing_is_entered_by_its_door() -> None:
    found = past_the_door(REPOSITORY)
    assert not found, "\n".join(found)


def test_modules_import_each_other_in_no_circle() -> None:
    assert circle_of(module_graph(REPOSITORY)) == []


def test_experiments_keep_their_order() -> None:
    found = experiment_arrows(REPOSITORY)
    assert not found, "\n".join(found)


def test_the_top_of_experiments_has_commands_only() -> None:
    for path in (REPOSITORY / "experiments").rglob("*.py"):
        is_command = '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        assert is_command == (path.parent.name == "experiments"), path


def test_libraries_stay_in_their_room() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: {library} belongs in {sorted(ONLY_IN[library])}"
        for path, item, library in outside_imports(REPOSITORY, PACKAGE)
        if library in ONLY_IN and room_of(path, REPOSITORY) not in ONLY_IN[library]
    ]
    assert not found, "\n".join(found)


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: import {library} inside the function that uses it"
        for folder in (PACKAGE, "experiments")
        for path, item, library in outside_imports(REPOSITORY, folder)
        if item.at_module_level and library in HEAVY
    ]
    assert not found, "\n".join(found)


def test_models_see_no_files_flags_or_network() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: models/ may not import {library}"
        for path, item, library in outside_imports(REPOSITORY, f"{PACKAGE}/models")
        if library in CLOSED_TO_MODELS
    ]
    assert not found, "\n".join(found)


def test_launchers_import_no_jax() -> None:
    found = [str(path) for path, _, library in outside_imports(REPOSITORY, "launch") if library == "jax"]
    assert not found, found


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.types", f"{PACKAGE}.config"])
def test_the_surface_is_light(module: str) -> None:
    heavy = loaded_modules(f"import {module}") & (HEAVY | {"jax", "flax", "optax", "orbax", "jraph"})
    assert not heavy, f"import {module} pulls in {sorted(heavy)}"


def write_house(root: Path, files: dict[str, str]) -> None:
    """Writes a small package, and experiments, to check the checks with."""
    for name, text in files.items():
        path = root / ("" if name.startswith("experiments/") else PACKAGE) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "arrow"),
    [
        ("data/load.py", "from reland_jax.models import layers", "data -> models"),
        ("data/load.py", "from ..models import layers", "data -> models"),
        ("data/load.py", "from reland_jax import models", "data -> models"),
        ("data/load.py", "def f():\n    import reland_jax.models.layers", "data -> models"),
        ("pool/x.py", "import importlib\nimportlib.import_module('reland_jax.train')", "pool -> train"),
        ("eval/x.py", "import experiments.run", "eval -> experiments"),
        ("__init__.py", "from reland_jax.models import layers", "__init__ -> models"),
        ("types.py", "from reland_jax import config", "types -> config"),
    ],
)
def test_a_forbidden_arrow_is_found(tmp_path: Path, name: str, text: str, arrow: str) -> None:
    write_house(tmp_path, {name: text})
    (found,) = forbidden_arrows(tmp_path)
    assert f"{arrow} is not allowed" in found


def test_a_forbidden_arrow_within_a_room_is_found(tmp_path: Path) -> None:
    write_house(tmp_path, {
        "pool/reading/a.py": "from reland_jax.pool.contract import X\nfrom reland_jax.pool.reading import b",
        "pool/asking/b.py": "def f():\n    from reland_jax.pool.providers import c",
        "pool/contract.py": "import reland_jax.pool.build",
        "pool/__init__.py": "from reland_jax.pool.build import x",
    })  # fmt: skip
    found = [line.partition(": ")[2] for line in forbidden_within(tmp_path, "pool")]
    assert found == ["asking -> providers is not allowed", "contract -> build is not allowed"]


def test_a_way_past_the_door_is_found(tmp_path: Path) -> None:
    write_house(tmp_path, {
        "scale/__init__.py": "from reland_jax.scale.stream import run\n__all__ = ['run']",
        "scale/stream.py": "from reland_jax.scale.shards import cut",
        "experiments/a.py": "from reland_jax.scale import run\nimport reland_jax.scale",
        "experiments/b.py": "from reland_jax.scale.stream import run",
        "experiments/c.py": "def f():\n    from reland_jax.scale import stream",
    })  # fmt: skip
    found = past_the_door(tmp_path)
    assert [line.partition(":")[0] for line in found] == ["experiments/b.py", "experiments/c.py"]


IMPORTS_P = "from reland_jax.p.x import y"


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a.py": "import reland_jax.b", "b.py": "def f():\n    from reland_jax import a"}, True),
        ({"a.py": "import reland_jax.b", "b.py": "import reland_jax.c", "c.py": ""}, False),
        # By the door of a package, which runs before any part of it.
        ({"a.py": IMPORTS_P, "p/__init__.py": "import reland_jax.a", "p/x.py": ""}, True),
        ({"p/__init__.py": IMPORTS_P, "p/x.py": "from reland_jax.p import z", "p/z.py": ""}, False),
    ],
)
def test_a_circle_is_found(tmp_path: Path, files: dict[str, str], circle: bool) -> None:
    write_house(tmp_path, files)
    assert bool(circle_of(module_graph(tmp_path))) == circle


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("experiments/table2.py", "from experiments.grid import plan\nfrom experiments import run", True),
        ("experiments/table2.py", "from experiments.tune import search", False),
        ("experiments/grid/plan.py", "from experiments.configs.reland import get_config", True),
        ("experiments/grid/plan.py", "from experiments.speed import operations", False),
        ("experiments/grid/plan.py", "def f():\n    from experiments import run", False),
        ("experiments/harness/settings.py", "from experiments.configs import reland", False),
    ],
)
def test_the_order_of_experiments(tmp_path: Path, name: str, text: str, allowed: bool) -> None:
    write_house(tmp_path, {name: text})
    assert bool(experiment_arrows(tmp_path)) != allowed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train/loop.py", "from reland_jax.models import layers\nfrom . import state\nimport jax"),
        ("models/sasrec.py", "from reland_jax.models.layers import Block\nfrom ..types import Splits"),
        ("__init__.py", "def __getattr__(name):\n    from reland_jax import flow"),
    ],
)
def test_an_allowed_arrow_passes(tmp_path: Path, name: str, text: str) -> None:
    write_house(tmp_path, {name: text})
    assert forbidden_arrows(tmp_path) == []


def test_imports_for_type_checkers_are_not_module_level() -> None:
    text = "if TYPE_CHECKING:\n    import pandas\nclass A:\n    import torch\ndef f():\n    import ray"
    levels = {item.name: item.at_module_level for item in walk_imports(ast.parse(text), PACKAGE)}
    assert levels == {"pandas": False, "torch": True, "ray": False}
