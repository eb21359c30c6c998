"""The figures of the paper's Tables 1 to 3: data sets, backbones and variants, LLM-enhanced recommenders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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

SAME_DATA = {"ml-1m-full": "ml-1m"}
"""Names of copies of the paper's data sets -> how the tables below call them.

MovieLens-1M with all its ratings is what the paper used; "ml-1m" may be a copy that lacks some."""


def paper_name(dataset: str) -> str:
    """The name under which the tables below have a data set."""
    return SAME_DATA.get(dataset, dataset)


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


class DataFigures(NamedTuple):
    """A row of the paper's Table 1."""

    users: int
    items: int
    interactions: int


TABLE_1: Mapping[str, DataFigures] = {
    "amazon-sports": DataFigures(35_598, 18_357, 296_337),
    "amazon-beauty": DataFigures(22_363, 12_101, 198_502),
    "ml-1m": DataFigures(6_040, 3_953, 1_000_000),
}
"""Data sets of the paper, as it counts them; those of ML-1M are rounded or include items without ratings."""


class MethodFigures(NamedTuple):
    """A cell of the paper's Table 3: test metrics with SASRec, and what was asked of an LLM."""

    ndcg: float
    hr: float
    inferences: int
    hours: float


TABLE_3: Mapping[tuple[str, str], MethodFigures] = {
    ("amazon-sports", "kar"): MethodFigures(0.0240, 0.0422, 53_955, 6.29),
    ("amazon-sports", "slim"): MethodFigures(0.0234, 0.0495, 296_337, 34.57),
    ("amazon-sports", "reland"): MethodFigures(0.0257, 0.0494, 3_556, 0.41),
    ("amazon-beauty", "kar"): MethodFigures(0.0417, 0.0740, 34_464, 3.06),
    ("amazon-beauty", "slim"): MethodFigures(0.0445, 0.0850, 198_502, 23.16),
    ("amazon-beauty", "reland"): MethodFigures(0.0440, 0.0841, 2_236, 0.26),
    ("ml-1m", "kar"): MethodFigures(0.1209, 0.2263, 9_993, 1.16),
    ("ml-1m", "slim"): MethodFigures(0.1222, 0.2265, 1_000_000, 116.67),
    ("ml-1m", "reland"): MethodFigures(0.1224, 0.2303, 604, 0.07),
}
"""(data set, method) -> figures."""

SECONDS_PER_INFERENCE = 0.42
"""Of the paper's Table 3, in all cells but that of KAR on Beauty, which comes to 0.32."""
