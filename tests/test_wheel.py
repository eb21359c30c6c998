"""The wheel: the commands work where it is installed, in a folder that has nothing of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.serve.toys import model_of, toy_bundle

SHIPPED = ("reland_jax", "experiments", "pyproject.toml", "README.md", "LICENSE")


def ran(*command: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program without this repository on its path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    return subprocess.run(command, cwd=at, env=kept, capture_output=True, text=True)


@pytest.fixture(scope="module")
def scripts(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the console scripts of an environment that has the wheel, and the libraries of this one."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    for name in (*SHIPPED, *(path.name for path in repository.glob("requirements*.txt"))):
        copy = shutil.copytree if (repository / name).is_dir() else shutil.copy
        copy(repository / name, source / name)
    pip = (sys.executable, "-m", "pip")
    built = ran(*pip, "wheel", "-q", "--no-deps", "--wheel-dir", root, source, at=root)
    if "Could not find a version" in built.stderr or "Connection" in built.stderr:
        pytest.skip("setuptools, which builds the wheel, cannot be fetched")
    assert built.returncode == 0, built.stderr
    ran(sys.executable, "-m", "venv", "--without-pip", root / "venv", at=root)
    python = root / "venv" / "bin" / "python"
    (wheel,) = root.glob("*.whl")
    done = ran(*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, at=root)
    assert done.returncode == 0, done.stderr
    libraries = next((root / "venv" / "lib").glob("python*")) / "site-packages"
    shared = [each for each in sys.path if each.endswith("site-packages")]
    (libraries / "shared.pth").write_text("\n".join(shared))
    return python.parent


@pytest.mark.slow
def test_the_commands_work_from_an_installed_wheel(scripts: Path, tmp_path: Path) -> None:
    model = model_of(toy_bundle(tmp_path / "made", "ease"))
    model.save(tmp_path / "bundle")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = ran(scripts / "reland-recommend", f"--bundle={tmp_path / 'bundle'}", "--out=a.parquet", at=empty)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(empty / "a.parquet").drop_columns("score") == model.recommend().drop_columns("score")
    assert [path.name for path in empty.iterdir()] == ["a.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "recommend", "export", "serve", "pool"])
def test_every_script_has_its_help(scripts: Path, tmp_path: Path, name: str) -> None:
    done = ran(scripts / f"reland-{name}", "--help", at=tmp_path)
    assert f"experiments.{name}" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_presets_are_found_in_any_folder(scripts: Path, tmp_path: Path) -> None:
    done = ran(scripts / "reland-run", "--config=demo,sasrce", "--workdir=w", at=tmp_path)
    assert done.returncode == 1
    assert "backbone 'sasrce': did you mean 'sasrec'" in done.stderr
