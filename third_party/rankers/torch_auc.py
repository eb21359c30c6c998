"""Rankers of nextrec and FuxiCTR on the rows of `log_rows.py`: how well they rank, tuned as ours are.

    .venv/bin/python torch_auc.py --rows=workdir-rows/kuairand.npz --model=nextrec-masknet --out=masknet.json

The layers and embeddings are the library's own, initialised as it does. Equal to `experiments.ranker_ladder`
are sizes, batch, learning rate, trials, validations, patience, and the choice by validation logloss with
seed 0; the optimiser is torch's Adam on all parameters. scikit-learn measures.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

WIDTH, LAYERS, BLOCKS, BLOCK_WIDTH, REDUCTION = 8, [128, 64], 2, 64, 0.5
BATCH, LEARNING_RATE, EPOCHS, VALIDATIONS, PATIENCE = 1024, 1e-3, 20, 2, 3
TRIALS = [(dropout, penalty) for dropout in (0.0, 0.2) for penalty in (0.0, 1e-3, 1e-2)]
"""Dropout, and weight of the mean over rows of the squared embeddings that a row reads."""

Columns = Mapping[str, torch.Tensor]


class Rows(NamedTuple):
    """A log.

    Attributes:
        features: "name", "kind", "size", "length" and "shares" of each.
        columns: by name.
        label: ``<float32>[n]``.
        parts: rows of "train", "valid" and "test".
    """

    features: list[dict[str, Any]]
    columns: Columns
    label: torch.Tensor
    parts: dict[str, torch.Tensor]

    def vocabulary(self, feature: Mapping[str, Any]) -> tuple[str, int]:
        """Name and size of the table that a feature reads."""
        name = feature["shares"] or feature["name"]
        return name, next(each["size"] for each in self.features if each["name"] == name)

    def at(self, rows: torch.Tensor) -> Columns:
        """Some rows."""
        return {name: column[rows] for name, column in self.columns.items()}


class Model(nn.Module):
    """A library's layers, and the tables of their embeddings.

    Attributes:
        inner: the library's; gives logits.
        tables: feature -> its table.
    """

    def __init__(self, inner: nn.Module, tables: Mapping[str, nn.Embedding]) -> None:
        """Keeps both."""
        super().__init__()
        self.inner, self.tables = inner, dict(tables)

    def forward(self, columns: Columns) -> torch.Tensor:
        """Logits ``<float32>[B]``."""
        return self.inner(columns).reshape(-1)

    def penalty(self, columns: Columns) -> torch.Tensor:
        """The mean over rows of the squared embeddings that a row reads; padding is zero."""
        squares = [table(columns[name].long()) ** 2 for name, table in self.tables.items()]
        return sum(each.sum() for each in squares) / len(columns["user_id"])


class Stack(nn.Module):
    """Hidden layers on a library's flattened embeddings."""

    def __init__(self, embedded: Callable[[Columns], torch.Tensor], **parts: nn.Module) -> None:
        """Keeps the parts, of which `layers` is what comes after the embeddings."""
        super().__init__()
        self.embedded = embedded
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, columns: Columns) -> torch.Tensor:
        """Logits ``<float32>[B, 1]``."""
        return self.layers(self.embedded(columns))


def _nextrec_features(rows: Rows) -> tuple[list[Any], list[Any], list[Any]]:
    from nextrec.basic.features import DenseFeature, SequenceFeature, SparseFeature

    dense, sparse, lists = [], [], []
    for each in rows.features:
        name, (table, size) = each["name"], (None, 0) if each["kind"] == "numeric" else rows.vocabulary(each)
        if each["kind"] == "numeric":
            dense.append(DenseFeature(name, proj_dim=WIDTH, use_projection=True))
        elif each["length"]:
            lists.append(SequenceFeature(name, size, each["length"], table, WIDTH))
        else:
            sparse.append(SparseFeature(name, size, table, WIDTH))
    return dense, sparse, lists


def _nextrec_tables(rows: Rows, embedding: Any) -> dict[str, nn.Embedding]:
    named = [each for each in rows.features if each["kind"] != "numeric"]
    return {each["name"]: embedding.embed_dict[rows.vocabulary(each)[0]] for each in named}


def nextrec_masknet(rows: Rows, dropout: float) -> Model:
    """nextrec's MaskNet, parallel."""
    from nextrec.models.ranking.masknet import MaskNet

    model = MaskNet(
        *_nextrec_features(rows), target=["label"], architecture="parallel", num_blocks=BLOCKS,
        mask_hidden_dim=int(REDUCTION * WIDTH * len(rows.features)), block_hidden_dim=BLOCK_WIDTH,
        block_dropout=dropout, mlp_params={"hidden_dims": list(LAYERS), "dropout": dropout},
    )  # fmt: skip
    return Model(model, _nextrec_tables(rows, model.embedding))


def nextrec_dnn(rows: Rows, dropout: float) -> Model:
    """nextrec's embeddings and hidden layers."""
    from nextrec.basic.layers import MLP, EmbeddingLayer

    features = sum(_nextrec_features(rows), [])
    embedding = EmbeddingLayer(features)
    layers = MLP(WIDTH * len(features), list(LAYERS), 1, dropout)
    stack = Stack(
        lambda columns: embedding(columns, features, squeeze_dim=True), rows=embedding, layers=layers
    )
    return Model(stack, _nextrec_tables(rows, embedding))


def fuxictr_dnn(rows: Rows, dropout: float) -> Model:
    """FuxiCTR's embeddings and hidden layers; its package has no model zoo."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block

    features = FeatureMap("rows", ".")
    for each in rows.features:
        entry = {"type": each["kind"], "source": ""}
        if each["kind"] != "numeric":
            entry |= {"vocab_size": rows.vocabulary(each)[1], "padding_idx": 0}
        if each["length"]:
            entry |= {"type": "sequence", "feature_encoder": "layers.MaskedAveragePooling()"}
        if each["shares"]:
            entry["share_embedding"] = each["shares"]
        features.features[each["name"]] = entry
    embedding = FeatureEmbedding(features, WIDTH)
    layers = MLP_Block(
        input_dim=WIDTH * len(rows.features), output_dim=1, hidden_units=list(LAYERS), dropout_rates=dropout
    )
    stack = Stack(lambda columns: embedding(columns, flatten_emb=True), rows=embedding, layers=layers)
    tables = embedding.embedding_layer.embedding_layers
    return Model(stack, {e["name"]: tables[e["name"]] for e in rows.features if e["kind"] != "numeric"})


MODELS = {"nextrec-masknet": nextrec_masknet, "nextrec-dnn": nextrec_dnn, "fuxictr-dnn": fuxictr_dnn}


def predict(model: Model, rows: Rows, part: torch.Tensor) -> np.ndarray:
    """Probabilities."""
    model.eval()
    with torch.inference_mode():
        found = [torch.sigmoid(model(rows.at(some))) for some in part.split(8192)]
    return torch.cat(found).double().numpy()


def measured(model: Model, rows: Rows, part: str) -> dict[str, float]:
    """AUC and logloss of a part."""
    score, label = predict(model, rows, rows.parts[part]), rows.label[rows.parts[part]].numpy()
    return {"auc": float(roc_auc_score(label, score)), "logloss": float(log_loss(label, score))}


def train(make: Callable[[Rows, float], Model], rows: Rows, dropout: float, penalty: float, seed: int) -> Any:
    """Trains, with early stopping; returns the best model and its validation."""
    torch.manual_seed(seed)
    model = make(rows, dropout)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    best, best_at, kept, number = {"logloss": np.inf}, -1, model.state_dict(), 0
    for epoch in range(EPOCHS):
        batches = rows.parts["train"][torch.randperm(len(rows.parts["train"]))].split(BATCH)
        ends = [round(len(batches) * (part + 1) / VALIDATIONS) for part in range(VALIDATIONS)]
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            model.train()
            for some in batches[first:end]:
                optimiser.zero_grad()
                columns = rows.at(some)
                loss = nn.functional.binary_cross_entropy_with_logits(model(columns), rows.label[some])
                (loss + penalty * model.penalty(columns) if penalty else loss).backward()
                optimiser.step()
            found = measured(model, rows, "valid")
            if found["logloss"] < best["logloss"]:
                best, best_at, kept = found, number, copy.deepcopy(model.state_dict())
                best["epoch"] = epoch + end / len(batches)
            number += 1
            if number - 1 - best_at >= PATIENCE:
                model.load_state_dict(kept)
                return model, best
    model.load_state_dict(kept)
    return model, best


def read(path: Path) -> Rows:
    """The rows."""
    with np.load(path) as found:
        features = json.loads(str(found["features"]))
        columns = {each["name"]: torch.from_numpy(found[f"column.{each['name']}"]) for each in features}
        parts = {name: torch.from_numpy(found[name]) for name in ("train", "valid", "test")}
        return Rows(features, columns, torch.from_numpy(found["label"]), parts)


def main() -> None:
    """Tunes a model, trains it with all seeds, and measures it on the test rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows, make = read(given.rows), MODELS[given.model]
    trials = []
    for dropout, penalty in TRIALS:
        found = train(make, rows, dropout, penalty, 0)[1]
        trials.append({"dropout": dropout, "embedding_l2": penalty, **found})
        print(trials[-1], flush=True)
    best = min(trials, key=lambda each: each["logloss"])
    tests = []
    for seed in range(given.seeds):
        model, found = train(make, rows, best["dropout"], best["embedding_l2"], seed)
        tests.append({"seed": seed, "valid": found, "test": measured(model, rows, "test")})
        print(tests[-1], flush=True)
    aucs = [each["test"]["auc"] for each in tests]
    record = {
        "model": given.model, "trials": trials, "chosen": best, "seeds": tests,
        "auc": float(np.mean(aucs)), "auc_deviation": float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None,
        "parameters": sum(each.numel() for each in model.parameters()),
        "versions": {name: version(name) for name in (given.model.split("-")[0], "torch", "scikit-learn")},
    }  # fmt: skip
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{given.model}: AUC {record['auc']:.4f}, {given.out}")


if __name__ == "__main__":
    main()
