"""Figures of the paper's Table 2."""

from __future__ import annotations

import pytest

from reland_jax.report import TABLE_2


@pytest.mark.parametrize(
    ("dataset", "backbone", "variant", "ndcg", "hr"),
    [
        ("amazon-beauty", "sasrec", "id", 0.0410, 0.0831),
        ("amazon-beauty", "lightgcn", "reland", 0.0230, 0.0476),
        ("amazon-sports", "duorec", "f_item", 0.0251, 0.0485),
        ("amazon-sports", "neumf", "id", 0.0088, 0.0178),
        ("ml-1m", "gru4rec", "reland", 0.1474, 0.2616),
        ("ml-1m", "ngcf", "f_item", 0.0813, 0.3671),
    ],
)
def test_cells_read_from_the_paper(dataset: str, backbone: str, variant: str, ndcg: float, hr: float) -> None:
    assert TABLE_2[dataset, backbone, variant] == {"ndcg@10": ndcg, "hr@10": hr}


def test_the_table_is_whole() -> None:
    assert len(TABLE_2) == 3 * 6 * 3


def test_reland_is_never_below_id_in_the_paper() -> None:
    # True of the printed table, so a slip of a column shows here.
    for (dataset, backbone, variant), figures in TABLE_2.items():
        if variant == "reland":
            base = TABLE_2[dataset, backbone, "id"]
            assert all(figures[metric] > base[metric] for metric in base), (dataset, backbone)
