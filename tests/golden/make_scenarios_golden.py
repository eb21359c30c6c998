"""Writes scenarios.npz: what nextrec computes, for tests/rankers/scenarios/test_golden.py.

Run it in the environment of make_rankers_golden.py, whose arrays have MMoE and PLE:

    pip install torch nextrec==0.6.14
    python tests/golden/make_scenarios_golden.py

What the library does otherwise than the papers is avoided: the gate of PPNet's output is not doubled (the
weights of that output are, in its place), and generated layers of APG have biases within (set to 0).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from nextrec.basic.layers import GateMLP
from nextrec.models.multitask.apg import APGLayer
from nextrec.models.multitask.pepnet import PPNet
from torch import nn

FIELDS, WIDTH, ROWS, HIDDEN, RANK, KNOWN = 4, 3, 9, 5, 4, 6
M = FIELDS * WIDTH
Stored = dict[str, np.ndarray]


def main() -> None:
    """Writes the file."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(20241021)
    stored: Stored = {"versions": np.array([f"{name} {version(name)}" for name in ("torch", "nextrec")])}
    for name, case in {"pepnet": pepnet, "apg": apg}.items():
        stored |= {f"{name}/{key}": value for key, value in case().items()}
    path = Path(__file__).resolve().parent / "scenarios.npz"
    np.savez_compressed(path, **stored)
    print(path, f"{path.stat().st_size:,} bytes", *stored["versions"])


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64, every parameter drawn anew, biases too."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


def linear(name: str, layer: nn.Linear) -> Stored:
    """A linear layer by our names."""
    return {
        f"params/{name}/kernel": layer.weight.detach().numpy().T,
        f"params/{name}/bias": layer.bias.detach().numpy(),
    }


def gate(name: str, found: GateMLP) -> Stored:
    """A gate by our names."""
    inner, outer = (each for each in found.gate.mlp if isinstance(each, nn.Linear))
    return linear(f"{name}/inner", inner) | linear(f"{name}/outer", outer)


def pepnet() -> Stored:
    """EPNet's gate of the embeddings, and PPNet with two layers on what it gives."""
    epnet = randomised(GateMLP(WIDTH + M, HIDDEN, M))
    ppnet = randomised(PPNet(M, 1, 2 * WIDTH + M, {"hidden_dims": [7, 6]}, {"hidden_dim": HIDDEN}))
    x, domain, prior = torch.randn(ROWS, M), torch.randn(ROWS, WIDTH), torch.randn(ROWS, 2 * WIDTH)
    with torch.no_grad():
        scaled = x * epnet(torch.cat([domain, x], 1))
        out = ppnet(scaled, prior)[:, 0]
    layers = [part[0] if isinstance(part, nn.Sequential) else part for part in ppnet.mlp_layers]
    found = gate("epnet/gate", epnet)
    for at, name in enumerate(("0", "1", "output")):
        found |= gate(f"gate_{name}", ppnet.gate_layers[at])
        found |= linear("output" if name == "output" else f"layer_{name}", layers[at])
    found["params/output/kernel"] = found["params/output/kernel"] / 2
    return found | {
        "fields": x.numpy().reshape(ROWS, FIELDS, WIDTH), "domain": domain.numpy(), "prior": prior.numpy(),
        "out": out.numpy(),
    }  # fmt: skip


def apg() -> Stored:
    """A layer U S(h) V whose square is made of knowledge by one linear map."""
    layer = randomised(APGLayer(M, RANK, KNOWN, activation=None, mf_k=1, use_uv_shared=True, use_mf_p=False))
    x, known = torch.randn(ROWS, M), torch.randn(ROWS, KNOWN)
    with torch.no_grad():
        layer.shared_bias_nk.zero_()
        layer.shared_bias_km.zero_()
        for part in layer.specific_bias_kk.parameters():
            part.zero_()
        out = layer(x, known)
        made = layer.specific_weight_kk(known)
    return {
        "before": layer.shared_weight_nk.detach().numpy(), "after": layer.shared_weight_km.detach().numpy(),
        "made": made.numpy().reshape(ROWS, RANK, RANK), "x": x.numpy(), "out": out.numpy(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
