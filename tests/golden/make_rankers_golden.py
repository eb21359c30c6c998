"""Writes rankers.npz: what independent libraries of PyTorch compute, for tests/rankers/test_golden.py.

Run it in an environment of its own; the versions it ran with are stored in the file:

    pip install torch nextrec==0.6.14 deepctr-torch==0.3.0 fuxictr==2.3.10 scikit-learn==1.9.1
    python tests/golden/make_rankers_golden.py

Parameters are stored by the names that they have here, kernels transposed. What a library does otherwise than
the papers is avoided: nextrec's mask block has a bias in its hidden layer (set to 0) and a layer norm of the
embeddings in each block (all set to one); its transfer of AITM hands on without a hidden layer, so the
transfer alone is compared; deepctr-torch makes as many shared experts of PLE as own ones.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import fuxictr.metrics
import numpy as np
import sklearn.metrics
import torch
from deepctr_torch.inputs import DenseFeat
from deepctr_torch.layers.interaction import CrossNet
from deepctr_torch.layers.sequence import AttentionSequencePoolingLayer
from deepctr_torch.models.multitask.esmm import ESMM
from deepctr_torch.models.multitask.mmoe import MMOE
from deepctr_torch.models.multitask.ple import PLE
from nextrec.basic.layers import MLP
from nextrec.models.multitask.aitm import AITMTransfer
from nextrec.models.ranking.masknet import MaskBlockOnEmbedding
from torch import nn

FIELDS, WIDTH, ROWS, HIDDEN = 5, 4, 9, 6
M = FIELDS * WIDTH
Stored = dict[str, np.ndarray]


def main() -> None:
    """Writes the file."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(20240914)
    stored: Stored = {"versions": np.array(versions())}
    for name, case in CASES.items():
        stored |= {f"{name}/{key}": value for key, value in case().items()}
    path = Path(__file__).resolve().parent / "rankers.npz"
    np.savez_compressed(path, **stored)
    print(path, f"{path.stat().st_size:,} bytes", *stored["versions"])


def versions() -> list[str]:
    """Of the libraries."""
    names = ("torch", "nextrec", "deepctr-torch", "fuxictr", "scikit-learn")
    return [f"{name} {version(name)}" for name in names]


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64, every parameter drawn anew, biases too."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


def linear(name: str, layer: nn.Linear) -> Stored:
    """A linear layer by our names."""
    found = {f"params/{name}/kernel": layer.weight.detach().numpy().T}
    return found | ({} if layer.bias is None else {f"params/{name}/bias": layer.bias.detach().numpy()})


def output(name: str, layer: nn.Linear, prediction: nn.Module) -> Stored:
    """An output of deepctr-torch, whose bias is in the layer that makes the probability."""
    return linear(name, layer) | {f"params/{name}/bias": prediction.bias.detach().numpy()}


def layers(name: str, found: nn.ModuleList | list[nn.Module]) -> Stored:
    """Hidden layers by our names."""
    only = [each for each in found if isinstance(each, nn.Linear)]
    return merged(linear(f"{name}/layer_{at}", each) for at, each in enumerate(only))


def merged(parts: object) -> Stored:
    """One mapping of several."""
    found: Stored = {}
    for part in parts:  # type: ignore[attr-defined]  # an iterable of mappings
        found |= part
    return found


def fields() -> torch.Tensor:
    """Embedded fields."""
    return torch.randn(ROWS, FIELDS, WIDTH)


def masknet_parallel() -> Stored:
    """Two mask blocks on the embeddings, and hidden layers on both."""
    blocks = [randomised(MaskBlockOnEmbedding(FIELDS, WIDTH, M // 2, HIDDEN)) for _ in range(2)]
    top = randomised(MLP(2 * HIDDEN, [7, 3], output_dim=None))
    x = fields()
    with torch.no_grad():
        for block in blocks:
            block.ffn.bias.zero_()
            block.ln_emb.load_state_dict(blocks[0].ln_emb.state_dict())
        both = torch.cat([block(x, x.reshape(ROWS, -1)) for block in blocks], 1)
        out = top(both)
    norm = blocks[0].ln_emb
    found = {
        "params/field_norm/gain": np.tile(norm.weight.detach().numpy(), (FIELDS, 1)),
        "params/field_norm/bias": np.tile(norm.bias.detach().numpy(), (FIELDS, 1)),
        "fields": x.numpy(), "out": out.numpy(), "blocks": both.numpy(),
    }  # fmt: skip
    for at, block in enumerate(blocks):
        found |= linear(f"block_{at}/mask_inner", block.mask_gen.fc1)
        found |= linear(f"block_{at}/mask_outer", block.mask_gen.fc2)
        found[f"params/block_{at}/hidden/kernel"] = block.ffn.weight.detach().numpy().T
        found[f"params/block_{at}/norm/scale"] = block.ln_hid.weight.detach().numpy()
        found[f"params/block_{at}/norm/bias"] = block.ln_hid.bias.detach().numpy()
    return found | layers("layers", list(top.mlp))


def _scored(model: nn.Module, x: torch.Tensor) -> Stored:
    with torch.no_grad():
        return {"fields": x.numpy(), "probabilities": model(x.reshape(ROWS, -1)).numpy()}


def esmm() -> Stored:
    """Two networks on the same embeddings; pCTR and their product."""
    model = randomised(ESMM([DenseFeat("x", M)], (HIDDEN, 3)))
    found = layers("network_0/layers", model.ctr_dnn.linears) | layers(
        "network_1/layers", model.cvr_dnn.linears
    )
    found |= output("logit_0/output", model.ctr_dnn_final_layer, model.out)
    return found | output("logit_1/output", model.cvr_dnn_final_layer, model.out) | _scored(model, fields())


def mmoe() -> Stored:
    """Three experts, gates of one linear layer, towers."""
    model = randomised(MMOE([DenseFeat("x", M)], 3, (HIDDEN,), (), (4,), task_types=("binary", "binary")))
    found = merged(layers(f"expert_{at}/layers", each.linears) for at, each in enumerate(model.expert_dnn))
    for at in range(2):
        found |= linear(f"gate_{at}/weights", model.gate_dnn_final_layer[at])
        found |= _tower(at, model)
    return found | _scored(model, fields())


def _tower(at: int, model: nn.Module) -> Stored:
    found = layers(f"tower_{at}/layers", model.tower_dnn[at].linears)
    return found | output(f"tower_{at}/logit/output", model.tower_dnn_final_layer[at], model.out[at])


def ple() -> Stored:
    """Two levels, two experts of every label and two shared ones."""
    model = randomised(
        PLE(
            [DenseFeat("x", M)], shared_expert_num=2, specific_expert_num=2, num_levels=2,
            expert_dnn_hidden_units=(HIDDEN,), gate_dnn_hidden_units=(), tower_dnn_hidden_units=(HIDDEN,),
            task_types=("binary", "binary"),
        )
    )  # fmt: skip
    found: Stored = {}
    for level in range(2):
        inner = "" if level else "/layers"
        for at in range(2):
            found |= linear(
                f"level_{level}_gate_{at}/weights", model.specific_gate_dnn_final_layer[level][at]
            )
            for n in range(2):
                own, shared = model.specific_experts[level][at][n], model.shared_experts[level][0][n]
                found |= layers(f"level_{level}_expert_{at}_{n}{inner}", own.linears)
                found |= layers(f"level_{level}_shared_{n}{inner}", shared.linears)
    found |= linear("level_0_gate_shared/weights", model.shared_gate_dnn_final_layer[0])
    return found | _tower(0, model) | _tower(1, model) | _scored(model, fields())


def aitm_transfer() -> Stored:
    """The attention of a step to what it was handed, and the penalty for the wrong order."""
    transfer = randomised(AITMTransfer(HIDDEN))
    with torch.no_grad():
        transfer.prev_proj.weight.copy_(torch.eye(HIDDEN))
        transfer.prev_proj.bias.zero_()
        handed, own = torch.randn(ROWS, HIDDEN), torch.randn(ROWS, HIDDEN)
        found = {"handed": handed.numpy(), "own": own.numpy(), "out": transfer(handed, own).numpy()}
    return found | merged(linear(name, getattr(transfer, name)) for name in ("value", "key", "query"))


def cross_layers() -> Stored:
    """DCN-V2: three cross layers with full matrices."""
    cross = randomised(CrossNet(M, 3, parameterization="matrix"))
    x = fields()
    with torch.no_grad():
        found = {"fields": x.numpy(), "out": cross(x.reshape(ROWS, -1)).numpy()}
    for at in range(3):
        found[f"params/cross_{at}/kernel"] = cross.kernels[at].detach().numpy().T
        found[f"params/cross_{at}/bias"] = cross.bias[at, :, 0].detach().numpy()
    return found


def attention() -> Stored:
    """DIN: sigmoid layers on candidate, item, difference and product; weights that are not normalised."""
    pooling = randomised(AttentionSequencePoolingLayer((5, 3), "sigmoid", embedding_dim=WIDTH))
    history, candidate = torch.randn(ROWS, 7, WIDTH), torch.randn(ROWS, 1, WIDTH)
    length = torch.randint(0, 8, (ROWS, 1))
    with torch.no_grad():
        out = pooling(candidate, history, length)[:, 0]
    unit = pooling.local_att
    first, second = unit.dnn.linears
    query, item, difference, product = first.weight.detach().numpy().T.reshape(4, WIDTH, -1)
    # There the difference is the candidate's less the item's; here the item comes first in everything.
    kernel = np.concatenate([item, query, -difference, product])
    found = linear("layer_0", first) | {"params/layer_0/kernel": kernel} | linear("layer_1", second)
    found |= linear("weight", unit.dense)
    there = np.arange(7) < length.numpy()
    return found | {
        "history": history.numpy(), "candidate": candidate[:, 0].numpy(), "there": there, "out": out.numpy()
    }  # fmt: skip


def sparse_adam() -> Stored:
    """Five steps of torch's sparse Adam on a table, rows read twice in a step among them."""
    table = nn.Embedding(8, 3, sparse=True)
    optimiser = torch.optim.SparseAdam(table.parameters(), lr=0.05)
    start = table.weight.detach().numpy().copy()
    index = torch.tensor([[0, 3, 3, 5], [1, 1, 1, 1], [0, 2, 3, 7], [7, 6, 0, 0], [3, 5, 2, 1]])
    target, after = torch.randn(5, 4, 3), []
    for step in range(5):
        optimiser.zero_grad()
        ((table(index[step]) - target[step]) ** 2).sum().backward()
        optimiser.step()
        after.append(table.weight.detach().numpy().copy())
    return {
        "start": start, "index": index.numpy(), "target": target.numpy(), "after": np.stack(after),
        "rate": np.array(0.05),
    }  # fmt: skip


def measured() -> Stored:
    """Metrics of predictions with ties, of users of one class too."""
    rng = np.random.default_rng(7)
    user = rng.integers(40, size=600)
    score = np.round(rng.random(600), 2) * 0.98 + 0.01
    label = (rng.random(600) < score).astype(np.int64)
    label[user < 3] = 1
    grouped = {"gAUC": fuxictr.metrics.gAUC, "avgAUC": fuxictr.metrics.avgAUC}
    found = {"user": user, "score": score, "label": label}
    for name, of_user in grouped.items():
        parts = np.array([of_user(label[user == one], score[user == one]) for one in np.unique(user)])
        found[name] = np.array(parts[:, 0].sum() / parts[:, 1].sum())
    whole = fuxictr.metrics.evaluate_metrics(label, score, ["AUC", "logloss"])
    weight = rng.integers(0, 4, size=600)
    return found | {
        "auc": np.array(whole["AUC"]), "logloss": np.array(whole["logloss"]), "weight": weight,
        "weighted_auc": np.array(sklearn.metrics.roc_auc_score(label, score, sample_weight=weight)),
    }  # fmt: skip


CASES = {
    "masknet_parallel": masknet_parallel, "esmm": esmm, "mmoe": mmoe, "ple": ple,
    "aitm_transfer": aitm_transfer, "cross_layers": cross_layers, "attention": attention,
    "sparse_adam": sparse_adam, "metrics": measured,
}  # fmt: skip

if __name__ == "__main__":
    main()
