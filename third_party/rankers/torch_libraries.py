"""DCN-V2 of one library of PyTorch, trained and asked by the plainest loop.

The model and its embeddings are the library's own, with its defaults; batches lie in memory already, so that
no loader counts, and the optimiser is torch's Adam, as the libraries have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from ranker_rows import (
    CANDIDATES,
    CROSS,
    HIDDEN,
    LEARNING_RATE,
    WARM_UP,
    WIDTH,
    Rows,
    arguments,
    make_rows,
    milliseconds,
    told,
)
from torch import nn

Scored = Callable[[torch.Tensor], torch.Tensor]
"""Codes ``<int64>[B, F]`` -> probabilities ``<float32>[B]``."""


class Model(nn.Module):
    """A library's model, and how it is called.

    Attributes:
        inner: the library's.
        call: (model, codes) -> probabilities.
    """

    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        """Keeps both."""
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """See `Scored`."""
        return self.call(self.inner, code).reshape(-1)


def _by_name(code: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"f{at}": code[:, at] for at in range(code.shape[1])}


def deepctr(rows: Rows) -> Model:
    """deepctr-torch: DCN with full matrices; it adds its linear model on all features."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN

    columns = [SparseFeat(f"f{at}", size, WIDTH) for at, size in enumerate(rows.sizes)]
    model = DCN(
        columns, columns, cross_num=CROSS, cross_parameterization="matrix", dnn_hidden_units=HIDDEN,
        l2_reg_linear=0, l2_reg_embedding=0, l2_reg_cross=0, l2_reg_dnn=0,
    )  # fmt: skip
    return Model(model, lambda model, code: model(code.float()))


def nextrec(rows: Rows) -> Model:
    """nextrec: DCNv2, parallel."""
    from nextrec.basic.features import SparseFeature
    from nextrec.models.ranking.dcn_v2 import DCNv2

    features = [SparseFeature(f"f{at}", size + 1, embedding_dim=WIDTH) for at, size in enumerate(rows.sizes)]
    model = DCNv2(
        sparse_features=features, target=["label"], cross_num=CROSS, mlp_params={"hidden_dims": list(HIDDEN)}
    )
    return Model(model, lambda model, code: torch.sigmoid(model(_by_name(code + 1))))


def rechub(rows: Rows) -> Model:
    """torch-rechub: DCNv2, parallel; its hidden layers have batch norm."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.ranking import DCNv2

    features = [SparseFeature(f"f{at}", size, WIDTH) for at, size in enumerate(rows.sizes)]
    model = DCNv2(features, CROSS, {"dims": list(HIDDEN)}, use_low_rank_mixture=False)
    return Model(model, lambda model, code: model(_by_name(code)))


class _FuxiDCN(nn.Module):
    """FuxiCTR's layers put together as its model zoo does, which its package does not have."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        from fuxictr.features import FeatureMap
        from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block

        features = FeatureMap("rows", ".")
        for at, size in enumerate(rows.sizes):
            features.features[f"f{at}"] = {"type": "categorical", "source": "", "vocab_size": size}
        width = WIDTH * len(rows.sizes)
        self.embedding = FeatureEmbedding(features, WIDTH)
        self.cross = CrossNetV2(width, CROSS)
        self.deep = MLP_Block(input_dim=width, output_dim=None, hidden_units=list(HIDDEN))
        self.output = nn.Linear(width + HIDDEN[-1], 1)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(_by_name(code), flatten_emb=True)
        return self.output(torch.cat([self.cross(embedded), self.deep(embedded)], -1))


def fuxictr(rows: Rows) -> Model:
    """FuxiCTR: its embedding, cross layers and hidden layers."""
    return Model(_FuxiDCN(rows), lambda model, code: torch.sigmoid(model(code)))


LIBRARIES = {"deepctr-torch": deepctr, "nextrec": nextrec, "torch-rechub": rechub, "fuxictr": fuxictr}


def train(model: Model, rows: Rows, batch: int, epochs: int) -> list[float]:
    """Rows per second of every epoch but the first."""
    code, label = torch.from_numpy(rows.code), torch.from_numpy(rows.label)
    optimiser, rates = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE), []
    model.train()
    for _ in range(epochs):
        order, start = torch.randperm(len(code)), time.perf_counter()
        for at in range(0, len(code) - batch + 1, batch):
            chosen = order[at : at + batch]
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy(model(code[chosen]), label[chosen])
            loss.backward()
            optimiser.step()
        rates.append(len(code) // batch * batch / (time.perf_counter() - start))
    return rates[1:]


def ask(model: Model, rows: Rows, requests: int) -> list[float]:
    """Seconds of every request of candidates, from arrays of the host to probabilities there."""
    rng, seconds = np.random.default_rng(1), []
    model.eval()
    with torch.inference_mode():
        for number in range(WARM_UP + requests):
            code = rows.code[rng.integers(len(rows.code), size=CANDIDATES)]
            start = time.perf_counter()
            found = model(torch.from_numpy(code)).numpy()
            seconds.append(time.perf_counter() - start)
            assert found.shape == (CANDIDATES,) and number >= 0
    return seconds[WARM_UP:]


def main() -> None:
    """Measures one library."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--library", choices=sorted(LIBRARIES), required=True)
    given = parser.parse_args()
    rows = make_rows(given.rows, given.fields, given.values)
    model = LIBRARIES[given.library](rows)
    rates = train(model, rows, given.batch, given.epochs)
    told({
        "library": given.library, "case": "dcn_v2", "rows": given.rows, "rows_per_second": rates,
        "request_ms": milliseconds(ask(model, rows, given.requests)), "threads": torch.get_num_threads(),
        "parameters": sum(each.numel() for each in model.parameters()),
        "versions": {name: version(name) for name in (given.library, "torch")},
    })  # fmt: skip


if __name__ == "__main__":
    main()
