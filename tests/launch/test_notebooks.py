"""The notebooks: well formed, without outputs, and run from top to bottom in smoke mode."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"
NOTEBOOKS = ("reland_quickstart.ipynb", "reland_tpu_demo.ipynb")

# Runs the code cells one after the other as Jupyter does, with a stand-in for its display.
RUNNER = """
import json, sys, types
shown = []
display = types.ModuleType("IPython.display")
display.SVG, display.display = str, shown.append
sys.modules["IPython"], sys.modules["IPython.display"] = types.ModuleType("IPython"), display
sys.modules["IPython"].version_info = (9, 0)
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
assert len(shown) == 2 and all(drawing.startswith("<svg") for drawing in shown), shown
"""


def load(name: str) -> dict[str, Any]:
    """A notebook."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def code_of(name: str) -> list[str]:
    """The code cells."""
    return ["".join(cell["source"]) for cell in load(name)["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_well_formed_and_has_no_outputs(name: str) -> None:
    notebook = load(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_holds_no_logic(name: str) -> None:
    logic = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.While)
    for text in code_of(name):
        assert not any(isinstance(node, logic) for node in ast.walk(ast.parse(text)))
        assert len(text.splitlines()) <= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SMOKE": "1", "RELAND_WORKDIR": str(tmp_path / "run"), "HF_HUB_OFFLINE": "1"}
    # As for a user: one device, and the compiler as it is.
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, name], cwd=FOLDER, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "borrows from" in done.stdout and "NO TPU OR GPU FOUND" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()
