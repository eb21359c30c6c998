"""Plots: valid SVG that stands alone, with what the data say in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from reland_jax.report import ReportContent, plots, tables
from reland_jax.results import RunResults
from reland_jax.types import Assignment, SeedSet

NO_SEEDS = SeedSet(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int8))


def _texts(svg: str) -> str:
    assert svg.startswith("<svg ") and svg.endswith("</svg>")
    assert svg.count("http") == svg.count(' xmlns="http://www.w3.org/2000/svg"') == 1
    assert "<metadata" not in svg and "#0101" not in svg
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', svg):
        assert reference in ids
    return " ".join(text.strip() for text in root.itertext() if text.strip())


def test_curves_name_every_variant_and_its_best_epoch(results: RunResults) -> None:
    text = _texts(plots.validation_curves(tables.histories(results)))
    for name, one in results.variants.items():
        best = max(row["ndcg@10"] for row in one.history)
        assert f"{name} (best {best:.4f})" in text


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], "nothing was recorded"),
        ([{"epoch": 1, "loss": 2.0}], "nothing was recorded"),
        ([{"epoch": 1, "ndcg@10": 0.25}], "best 0.2500"),
        ([{"epoch": 1}, {"epoch": 2, "ndcg@10": 0.0}], "best 0.0000"),
    ],
)
def test_curves_of_little_data(history: list[dict[str, float]], expected: str) -> None:
    assert expected in _texts(plots.validation_curves({"id": history}))


def test_curves_escape_the_name_of_a_variant() -> None:
    history = [{"epoch": 1, "ndcg@10": 0.1}]
    svg = plots.validation_curves({"<script>": history})
    assert "<script>" not in svg and "<script>" in _texts(svg)


def test_a_drawing_is_a_file_of_its_own() -> None:
    """Notebooks and browsers show it as XML, which needs the namespace."""
    bars = [plots.GainBar("reland>id NDCG@10", -0.01, 0.02, 0.05, True), plots.GainBar("b", 0, 0, 0, False)]
    for svg in (plots.gain_intervals(bars), plots.validation_curves({"id": []})):
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
    assert "nothing was recorded" in _texts(plots.gain_intervals([]))
    assert "reland>id NDCG@10" in _texts(plots.gain_intervals(bars))


def test_cosines_show_the_median_of_those_who_borrow(sample: ReportContent) -> None:
    text = _texts(plots.cosine_histogram(sample.assignment, sample.seeds))
    others = np.setdiff1d(np.arange(2000), sample.seeds.user)
    assert f"their median, {np.median(sample.assignment.cosine[others, 0]):.2f}" in text
    assert "200 seed users (cosine 1) not shown" in text


def test_the_histogram_holds_cosines_a_rounding_above_one() -> None:
    cosine = np.full((3, 1), np.float32(1.0000001))
    assignment = Assignment(np.zeros((3, 1), np.int32), cosine)
    assert "their median, 1.00" in _texts(plots.cosine_histogram(assignment, NO_SEEDS))


def test_everyone_a_seed_leaves_no_histogram() -> None:
    seeds = SeedSet(np.arange(3, dtype=np.int32), np.zeros(3, np.int32), np.zeros(3, np.int8))
    assignment = Assignment(np.arange(3, dtype=np.int32)[:, None], np.ones((3, 1), np.float32))
    assert "nothing was recorded" in _texts(plots.cosine_histogram(assignment, seeds))


def test_activity_names_both_samplings(sample: ReportContent) -> None:
    text = _texts(plots.activity_histogram(sample.activity, sample.seeds))
    assert "representative seeds (100)" in text and "important seeds (100)" in text


@pytest.mark.parametrize("activity", [[], [0], [1], [5, 5, 5], [1, 100_000]])
def test_activity_of_little_data(activity: list[int]) -> None:
    text = _texts(plots.activity_histogram(np.array(activity, np.int64), NO_SEEDS))
    assert "training interactions of a user" in text


def test_clusters_show_the_sampling_share(sample: ReportContent) -> None:
    assert "in proportion (10.0%)" in _texts(plots.cluster_scatter(sample.cluster_sizes, sample.seeds))


@pytest.mark.parametrize("sizes", [[], [0], [4], [0, 7]])
def test_clusters_of_little_data(sizes: list[int]) -> None:
    text = _texts(plots.cluster_scatter(np.array(sizes, np.int64), NO_SEEDS))
    assert "users in the cluster" in text


def test_many_clusters_stay_a_small_drawing() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5000, 20_000)
    seeds = SeedSet(np.arange(40_000), rng.integers(20_000, size=40_000), np.zeros(40_000, np.int8))
    assert len(plots.cluster_scatter(sizes, seeds)) < 300_000


def test_large_numbers_are_rounded_to_two_digits() -> None:
    values = plots._two_digits(np.array([0, 1, 42, 99, 123, 18_765]))
    np.testing.assert_array_equal(values, [0, 1, 42, 99, 120, 19_000])


def test_what_is_counted_has_whole_numbers_at_its_ticks() -> None:
    history = [{"epoch": epoch, "ndcg@10": 0.1 * epoch} for epoch in (1, 2, 3)]
    ticks = _texts(plots.validation_curves({"id": history})).split("epoch")[0].split()
    assert ticks[-3:] == ["1", "2", "3"] and not any("." in tick for tick in ticks[-6:])
