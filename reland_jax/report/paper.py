"""The figures of the paper's Table 2: NDCG@10 and HR@10 on test, six backbones, three data sets."""

from __future__ import annotations

from collections.abc import Mapping

from reland_jax.types import HR, NDCG
from reland_jax.variants import VARIANTS

BACKBONE_NAMES = {
    "neumf": "NeuMF",
    "ngcf": "NGCF",
    "lightgcn": "LightGCN",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "duorec": "DuoRec",
}
"""Backbones of the paper, collaborative filtering first, as they are written out for people."""

# (data set, metric) -> id, f_item, reland of each backbone, in the order of BACKBONE_NAMES.
_ROWS = {
    ("amazon-sports", NDCG): (
        (0.0088, 0.0091, 0.0094), (0.0132, 0.0134, 0.0136), (0.0155, 0.0155, 0.0164),
        (0.0183, 0.0242, 0.0250), (0.0226, 0.0243, 0.0257), (0.0241, 0.0251, 0.0256),
    ),
    ("amazon-sports", HR): (
        (0.0178, 0.0189, 0.0195), (0.0272, 0.0271, 0.0274), (0.0307, 0.0308, 0.0322),
        (0.0348, 0.0474, 0.0475), (0.0484, 0.0467, 0.0494), (0.0478, 0.0485, 0.0488),
    ),
    ("amazon-beauty", NDCG): (
        (0.0154, 0.0168, 0.0173), (0.0188, 0.0193, 0.0200), (0.0216, 0.0225, 0.0230),
        (0.0343, 0.0406, 0.0406), (0.0410, 0.0429, 0.0440), (0.0426, 0.0433, 0.0443),
    ),
    ("amazon-beauty", HR): (
        (0.0323, 0.0351, 0.0360), (0.0388, 0.0419, 0.0419), (0.0465, 0.0470, 0.0476),
        (0.0620, 0.0724, 0.0776), (0.0831, 0.0811, 0.0841), (0.0799, 0.0811, 0.0829),
    ),
    ("ml-1m", NDCG): (
        (0.0764, 0.0767, 0.0797), (0.0808, 0.0813, 0.0827), (0.0806, 0.0794, 0.0818),
        (0.1419, 0.1451, 0.1474), (0.1167, 0.1183, 0.1224), (0.1180, 0.1196, 0.1245),
    ),
    ("ml-1m", HR): (
        (0.3570, 0.3515, 0.3618), (0.3639, 0.3671, 0.3684), (0.3659, 0.3609, 0.3707),
        (0.2551, 0.2593, 0.2616), (0.2288, 0.2253, 0.2303), (0.2276, 0.2263, 0.2328),
    ),
}  # fmt: skip

NOTES = {
    "ml-1m": "The paper uses all 1,000,209 ratings of ML-1M; where the copy at hand holds only ratings of "
    "3 and above, the two numbers are of different tasks.",
}
"""Data set -> a remark next to any comparison with the paper on it."""


def _by_cell() -> dict[tuple[str, str, str], dict[str, float]]:
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for (dataset, metric), backbones in _ROWS.items():
        for backbone, figures in zip(BACKBONE_NAMES, backbones, strict=True):
            for variant, figure in zip(VARIANTS, figures, strict=True):
                cells.setdefault((dataset, backbone, variant), {})[metric] = figure
    return cells


TABLE_2: Mapping[tuple[str, str, str], Mapping[str, float]] = _by_cell()
"""(data set, backbone, variant) -> {"ndcg@10", "hr@10"}, each in [0, 1]."""
