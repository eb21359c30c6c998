"""PEPNet and the low-rank meta layer against what nextrec computes (tests/golden/make_scenarios_golden.py).

Shared bottom, MMoE and PLE are the tasks over labels, which tests/rankers/test_golden.py compares. For STAR
there is no library that follows the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from reland_jax.rankers.scenarios.meta import MetaLayer
from reland_jax.rankers.scenarios.ppnet import PPNet
from reland_jax.rankers.scenarios.rows import Rows
from reland_jax.scenario_settings import ScenarioConfig

FILE = Path(__file__).resolve().parents[2] / "golden" / "scenarios.npz"
with np.load(FILE) as stored:
    GOLDEN = {name: stored[name] for name in stored if name != "versions"}


def parameters(case: str) -> dict[str, Any]:
    """The parameters of a case as Flax has them."""
    tree: dict[str, Any] = {}
    for name, array in GOLDEN.items():
        if name.startswith(f"{case}/params/"):
            *folders, last = name.removeprefix(f"{case}/params/").split("/")
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = array
    return {"params": tree}


def test_pepnet() -> None:
    fields, domain, prior = (GOLDEN[f"pepnet/{name}"] for name in ("fields", "domain", "prior"))
    with jax.enable_x64(True):
        rows = Rows(fields, np.ones((len(fields), 1)), domain, prior, np.ones(len(fields), bool))
        found = PPNet((7, 6), 5, gates_embeddings=True).apply(parameters("pepnet"), rows)
    np.testing.assert_allclose(found, GOLDEN["pepnet/out"], rtol=1e-9)


def test_a_generated_layer() -> None:
    """Knowledge that names its row gives the square that the library has made for it."""
    x, made = GOLDEN["apg/x"], GOLDEN["apg/made"]
    rows, rank = made.shape[:2]
    pick = {"kernel": np.eye(rows), "bias": np.zeros(rows)}
    square = {"kernel": made.reshape(rows, -1), "bias": np.zeros(rank * rank)}
    none = {"kernel": np.zeros((rows, rank)), "bias": np.zeros(rank)}
    params = {
        "before": GOLDEN["apg/before"], "after": GOLDEN["apg/after"],
        "square": {"inner": pick, "outer": square}, "bias": {"inner": pick, "outer": none},
    }  # fmt: skip
    with jax.enable_x64(True):
        layer = MetaLayer(GOLDEN["apg/after"].shape[1], ScenarioConfig(meta_rank=rank, meta_hidden=rows))
        found = layer.apply({"params": params}, x, np.eye(rows))
    np.testing.assert_allclose(found, GOLDEN["apg/out"], rtol=1e-9)
