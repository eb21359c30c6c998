"""The launcher of a local LLM tells mistakes in one line. What it serves: tests/e2e/test_local_llm.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("missing.gguf", "error: --model=missing.gguf: there is no such file"),
        # With llama.cpp it is the model that cannot be used, without it the package that is missing.
        ("README.md", "error: "),
    ],
)
def test_what_cannot_be_served(model: str, told: str) -> None:
    command = [sys.executable, "-m", "launch.local_llm", f"--model={model}", "--port=0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert last.startswith(told)
    missing = "pip install --no-deps -r requirements-local.txt" in last
    assert model != "README.md" or missing or "README.md cannot be served" in last
