"""The benchmark of `attach` replaces what is in its folder, and so takes none that it did not make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLAIM = "import sys, pathlib; from experiments.bench_attach import claim; claim(pathlib.Path(sys.argv[1]))"


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "thesis.txt").write_text("years of work")
    results = [
        subprocess.run(
            [sys.executable, "-c", CLAIM, folder], cwd=repository, capture_output=True, text=True, check=False
        )
        for folder in (tmp_path, tmp_path / "new", tmp_path / "new")
    ]
    assert [result.returncode for result in results] == [1, 0, 0]
    assert "files that are not of this benchmark; choose a new folder" in results[0].stderr
    assert (tmp_path / "users" / "thesis.txt").exists()
