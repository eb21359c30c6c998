"""The notebooks: well formed, run from top to bottom in smoke mode, and what their figures look like."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"
NOTEBOOKS = ("reland_quickstart.ipynb", "reland_tpu_demo.ipynb")
RUN_ON_A_CPU = NOTEBOOKS[0]
"""The one with stored outputs; the other is for machines with a TPU."""

SVG = "{http://www.w3.org/2000/svg}"

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
for place, drawing in enumerate(shown):
    open(f"{sys.argv[2]}/{place}.svg", "w", encoding="utf-8").write(drawing)
"""


def load(name: str) -> dict[str, Any]:
    """A notebook."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def code_of(name: str) -> list[str]:
    """The code cells."""
    return ["".join(cell["source"]) for cell in load(name)["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


def check_figures(drawings: list[str], folder: Path) -> None:
    """Two whole SVG files with curves and bars in them, which a browser shows on light and dark pages."""
    assert len(drawings) == 2
    axes = ("validation NDCG@10", "cosine to the matched seed user")
    for drawing, axis in zip(drawings, axes, strict=True):
        root = ElementTree.fromstring(drawing)
        assert root.tag == f"{SVG}svg", "without its namespace it is not shown"
        assert axis in [text.text for text in root.iter(f"{SVG}text")]
        drawn = [path for path in root.iter(f"{SVG}path") if len(path.get("d", "").split()) > 4]
        assert len(drawn) >= 8
        if chromium := shutil.which("chromium") or shutil.which("chromium-browser"):
            assert colours(chromium, drawing, folder) > 20, "the browser shows an empty page"


def colours(chromium: str, drawing: str, folder: Path) -> int:
    """How many colours the picture of a drawing in a browser has."""
    from matplotlib.image import imread

    (folder / "one.svg").write_text(drawing, encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", f"--user-data-dir={folder / 'chromium'}"]
    command += [f"--screenshot={folder / 'one.png'}", "--window-size=600,450", f"file://{folder / 'one.svg'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    picture = imread(folder / "one.png")
    return len({tuple(colour) for colour in picture.reshape(-1, picture.shape[-1]).tolist()})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_in_colab_and_clones_what_its_badge_names(name: str) -> None:
    badge = re.search(
        r"\(https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/(\S+)\)",
        "".join(load(name)["cells"][0]["source"]),
    )
    assert badge is not None and badge[2] == f"experiments/notebooks/{name}"
    assert f'REPOSITORY = "https://github.com/{badge[1]}"' in code_of(name)[0]
    assert '"git", "clone"' in code_of(name)[0]


def test_the_stored_outputs_are_figures_lists_and_reasons(tmp_path: Path) -> None:
    cells = [cell for cell in load(RUN_ON_A_CPU)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    drawings = ["".join(o["data"]["image/svg+xml"]) for o in outputs if "image/svg+xml" in o.get("data", ())]
    check_figures(drawings, tmp_path)
    text = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    for said in ("borrows from", "\n5. ", "a rationale, that of", "words ", "like "):
        assert said in text, said
    assert str(Path.home()) not in text and "/tmp/" not in text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_well_formed(name: str) -> None:
    notebook = load(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code" and name != RUN_ON_A_CPU:
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
        [sys.executable, "-c", RUNNER, name, str(tmp_path)],
        cwd=FOLDER, env=environment, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "borrows from" in done.stdout and "NO TPU OR GPU FOUND" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file() and "a rationale, " in done.stdout
    check_figures([path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.svg"))], tmp_path)
