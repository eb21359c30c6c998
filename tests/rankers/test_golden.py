"""Networks, tasks, an optimiser and metrics against what independent libraries compute.

tests/golden/make_rankers_golden.py made the arrays, and says which libraries, in which versions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.events import metrics
from reland_jax.rankers.aitm import Transfer
from reland_jax.rankers.dcn_v2 import DCNV2
from reland_jax.rankers.din import CandidateAttention
from reland_jax.rankers.dnn import DNN
from reland_jax.rankers.esmm import ESMM
from reland_jax.rankers.masknet import ParallelMaskNet
from reland_jax.rankers.mmoe import MMoE
from reland_jax.rankers.ple import PLE
from reland_jax.rankers.row_optimizers import lazy_adam
from reland_jax.rankers.scores import scores

FILE = Path(__file__).resolve().parents[1] / "golden" / "rankers.npz"
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@cache
def golden(case: str) -> dict[str, np.ndarray]:
    """The arrays of a case."""
    with np.load(FILE) as file:
        return {name.removeprefix(f"{case}/"): file[name] for name in file if name.startswith(f"{case}/")}


def parameters(case: str) -> dict[str, Any]:
    """The parameters of a case as Flax has them."""
    tree: dict[str, Any] = {}
    for name, array in golden(case).items():
        first, *folders = name.split("/")
        if first == "params":
            place = tree
            for folder in folders[:-1]:
                place = place.setdefault(folder, {})
            place[folders[-1]] = array
    return {"params": tree}


def computed(module: nn.Module, case: str, *inputs: str) -> np.ndarray:
    """What a module makes of the inputs of a case with its parameters, all in float64."""
    params, arrays = parameters(case), [golden(case)[name] for name in inputs]
    with jax.enable_x64(True):
        shapes = jax.eval_shape(module.init, jax.random.key(0), *arrays)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes), "other parameters"
        return np.asarray(module.apply(params, *arrays))


def hidden(name: str) -> DNN:
    """The networks of the tasks, of one hidden layer."""
    return DNN((6,), name=name)


def two_hidden(name: str) -> DNN:
    """Those of ESMM."""
    return DNN((6, 3), name=name)


def test_parallel_masknet_is_that_of_nextrec() -> None:
    found = computed(ParallelMaskNet(2, 6, 0.5, (7, 3)), "masknet_parallel", "fields")
    np.testing.assert_allclose(found, golden("masknet_parallel")["out"], **CLOSE)


@pytest.mark.parametrize(
    ("case", "module"),
    [
        ("esmm", ESMM(two_hidden, 2)),
        ("mmoe", MMoE(hidden, 2, 3, (4,))),
        ("ple", PLE(hidden, 2, 2, 2, 2, (6,))),
    ],
)
def test_tasks_are_those_of_deepctr_torch(case: str, module: nn.Module) -> None:
    logits = computed(module, case, "fields")
    with jax.enable_x64(True):
        found = np.asarray(scores(jnp.asarray(logits)).reached)
    np.testing.assert_allclose(found, golden(case)["probabilities"], **CLOSE)


def test_transfer_of_aitm_is_that_of_nextrec() -> None:
    found = computed(Transfer(), "aitm_transfer", "handed", "own")
    np.testing.assert_allclose(found, golden("aitm_transfer")["out"], **CLOSE)


def test_cross_layers_are_those_of_deepctr_torch() -> None:
    found = computed(DCNV2(3, ()), "cross_layers", "fields")
    fields = golden("cross_layers")["fields"]
    np.testing.assert_allclose(found[:, : fields[0].size], fields.reshape(len(fields), -1))
    np.testing.assert_allclose(found[:, fields[0].size :], golden("cross_layers")["out"], **CLOSE)


def test_attention_of_din_is_that_of_deepctr_torch() -> None:
    found = computed(CandidateAttention((5, 3)), "attention", "history", "there", "candidate")
    np.testing.assert_allclose(found, golden("attention")["out"], **CLOSE)


def test_lazy_adam_is_the_sparse_adam_of_torch() -> None:
    case = golden("sparse_adam")
    with jax.enable_x64(True):
        optimiser = lazy_adam(float(case["rate"]))
        table = jnp.asarray(case["start"])
        state = optimiser.init(table)
        for index, target, after in zip(case["index"], case["target"], case["after"], strict=True):
            gradients = 2 * (table[index] - target)
            table, state = optimiser.update(table, state, jnp.asarray(index, jnp.int32), gradients)
            # The powers of the decays are of float32, as steps are whole numbers of 32 bits.
            np.testing.assert_allclose(table, after, rtol=1e-6, atol=1e-6)


def test_metrics_are_those_of_scikit_learn_and_fuxictr() -> None:
    case = golden("metrics")
    user, label, score = case["user"], case["label"], case["score"]
    grouped = metrics.grouped_auc(user, label, score)
    ranked = metrics.ordered(label, score)
    weighted = metrics.ordered_auc(ranked, *(case["weight"][each] for each in ranked[:2]))
    found = {
        "auc": metrics.auc(label, score), "logloss": metrics.logloss(label, score),
        "gAUC": grouped.weighted, "avgAUC": grouped.mean, "weighted_auc": weighted,
    }  # fmt: skip
    for name, value in found.items():
        assert value == pytest.approx(float(case[name]), abs=1e-12), name
    assert grouped.covered_users < 1
