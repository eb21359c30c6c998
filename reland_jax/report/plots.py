"""Plots of a run as inline SVG.

Colours are CSS variables of the page (with a fallback for an SVG that stands alone), so one drawing
serves a light and a dark page. Nothing in the SVG refers to anything outside it.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reland_jax.files import written_aside
from reland_jax.report.words import borrowed
from reland_jax.types import HOW_NAMES, IMPORTANT, NDCG, REPRESENTATIVE, Assignment, SeedSet
from reland_jax.variants import F_ITEM, ID, RELAND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# matplotlib draws in these stand-ins, which `_to_svg` replaces by (CSS variable, fallback).
_INK, _FAINT, _GREY, _ORANGE, _BLUE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink, #1f2937)",
    _FAINT: "var(--line, #d1d5db)",
    _GREY: "var(--grey, #6b7280)",
    _ORANGE: "var(--orange, #b45309)",
    _BLUE: "var(--blue, #1d4ed8)",
}
_VARIANT_STYLES = {
    ID.name: (_GREY, ":", "s"),
    F_ITEM.name: (_ORANGE, "--", "^"),
    RELAND.name: (_BLUE, "-", "o"),
}
_STYLE = "background: var(--paper, #ffffff); max-width: 100%; height: auto"
_PIXELS = 576
"""Width where nothing else says one, as in a notebook."""
_NAMESPACE = "http://www.w3.org/2000/svg"
_HOW_STYLES = {REPRESENTATIVE: (_BLUE, "-"), IMPORTANT: (_ORANGE, "--")}
_BINS = 40
_INCHES, _POINTS = (5.2, 3.7), 11
"""Size of a drawing and of the text in it: about 370 units wide, so that it can be read on a phone."""


class GainBar(NamedTuple):
    """A gain with its interval.

    Attributes:
        name: what is compared.
        low: lower end, as a share of the baseline; 0.01 is one percent.
        gain: in the same unit.
        high: upper end.
        is_gain: whether it is a gain with significance.
    """

    name: str
    low: float
    gain: float
    high: float
    is_gain: bool


def gain_intervals(bars: Sequence[GainBar], name: str = "gains") -> str:
    """Relative gains with their 95% intervals, one row each.

    Args:
        bars: from top to bottom.
        name: of the drawing, for several on one page.
    """
    figure, axes = _new_figure("gain on test, with 95% interval", "", max(2.2, 1.3 + 0.36 * len(bars)))
    for place, bar in enumerate(bars):
        colour = _BLUE if bar.is_gain else _GREY
        axes.plot([100 * bar.low, 100 * bar.high], [-place, -place], color=colour, linewidth=2.4)
        axes.plot([100 * bar.gain], [-place], "o", color=colour, markersize=7)
    if bars:
        axes.axvline(0, color=_INK, linewidth=0.9)
        axes.set_yticks([-place for place in range(len(bars))], [bar.name for bar in bars])
        axes.set_ylim(0.6 - len(bars), 0.6)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:+g}%" if share else "0%")
        axes.locator_params(axis="x", nbins=6)
        for colour, label in ((_BLUE, "p < 0.05 after Holm"), (_GREY, "not significant, or a loss")):
            axes.plot([], [], "o-", color=colour, label=label)
    return _finish(figure, axes, bool(bars), name, "Relative gains on test with 95% intervals")


def score_dots(scores: Mapping[str, Mapping[str, float]], name: str = "scores") -> str:
    """Test NDCG@10 of variants, one row for each backbone.

    Args:
        scores: backbone -> variant -> NDCG@10.
        name: of the drawing, for several on one page.
    """
    figure, axes = _new_figure("test NDCG@10", "", max(2.2, 1.5 + 0.36 * len(scores)))
    variants = list(dict.fromkeys(variant for row in scores.values() for variant in row))
    for variant in variants:
        colour, _, marker = _VARIANT_STYLES.get(variant, (_INK, "", "d"))
        found = [(row[variant], -place) for place, row in enumerate(scores.values()) if variant in row]
        axes.plot(*zip(*found, strict=True), marker, color=colour, markersize=7, label=variant)
    axes.set_yticks([-place for place in range(len(scores))], list(scores))
    axes.set_ylim(0.6 - max(len(scores), 1), 0.6)
    axes.locator_params(axis="x", nbins=6)
    return _finish(figure, axes, bool(variants), name, "Test NDCG at 10 of the variants by backbone")


def validation_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Validation NDCG@10 per epoch of every variant, the best epoch marked (paper, Fig. 7).

    Args:
        histories: variant -> entries of its epochs; see `TrainingSummary`.
    """
    figure, axes = _new_figure("epoch", "validation NDCG@10")
    _whole_numbers(axes.xaxis)
    drawn = False
    for name, history in histories.items():
        rows = [row for row in history if NDCG in row]
        if not rows:
            continue
        drawn = True
        colour, line, marker = _VARIANT_STYLES.get(name, (_INK, "-.", "d"))
        epochs, scores = [row["epoch"] for row in rows], [row[NDCG] for row in rows]
        best = int(np.argmax(scores))
        label = f"{name} (best {scores[best]:.4f})"
        axes.plot(epochs, scores, line, color=colour, linewidth=1.8, label=label)
        axes.plot(epochs[best], scores[best], marker, color=colour, markersize=7)
    return _finish(figure, axes, drawn, "curves", "Validation NDCG at 10 per epoch, one line per variant")


class Band(NamedTuple):
    """Scores by epoch over training seeds.

    Attributes:
        epochs: ascending.
        mean: of each.
        low: of each, the least.
        high: of each, the greatest.
    """

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def curve_bands(bands: Mapping[str, Band], name: str = "bands") -> str:
    """Validation NDCG@10 per epoch, mean and range over training seeds of every variant (paper, Fig. 7).

    Args:
        bands: variant -> its scores.
        name: of the drawing, for several on one page.
    """
    figure, axes = _new_figure("epoch", "validation NDCG@10")
    _whole_numbers(axes.xaxis)
    for variant, band in bands.items():
        colour, line, _ = _VARIANT_STYLES.get(variant, (_INK, "-.", "d"))
        axes.fill_between(list(band.epochs), list(band.low), list(band.high), color=colour, alpha=0.2)
        axes.plot(band.epochs, band.mean, line, color=colour, linewidth=1.8, label=variant)
    return _finish(figure, axes, bool(bands), name, "Validation NDCG at 10 per epoch, bands over seeds")


def share_curves(
    shares: Sequence[float],
    values: Sequence[Sequence[float]],
    flat: Sequence[float],
    tokens: Sequence[float],
    name: str = "shares",
) -> str:
    """NDCG@10 by the share of users who are seed users (paper, Fig. 6).

    Args:
        shares: ascending, in (0, 1].
        values: of each share, NDCG@10 with every training seed.
        flat: NDCG@10 of `f_item` with every training seed, drawn as a flat line.
        tokens: of each share, in millions, on an axis of their own.
        name: of the drawing, for several on one page.
    """
    figure, axes = _new_figure("seed users, % of all users", "NDCG@10")
    percent = [100 * share for share in shares]
    means = [float(np.mean(each)) for each in values]
    axes.fill_between(percent, [min(v) for v in values], [max(v) for v in values], color=_BLUE, alpha=0.25)
    axes.plot(percent, means, "o-", color=_BLUE, markersize=5, label="reland")
    axes.axhline(float(np.mean(flat)), color=_GREY, linewidth=1.8, label="f_item")
    axes.set_xscale("log")
    _plain_log_ticks(axes)
    other = axes.twinx()
    other.plot(percent, tokens, ":", color=_ORANGE, linewidth=1.8)
    other.set_ylabel("million tokens", color=_INK, fontsize=_POINTS)
    other.tick_params(colors=_INK, labelsize=_POINTS)
    other.patch.set_visible(False)
    other.spines[["top", "left", "bottom"]].set_visible(False)
    axes.plot([], [], ":", color=_ORANGE, label="tokens")
    return _finish(figure, axes, True, name, "NDCG at 10 and tokens by share of seed users")


def cosine_histogram(assignment: Assignment, seeds: SeedSet) -> str:
    """Histogram of users by their cosine to the matched seed; seed users are counted apart."""
    figure, axes = _new_figure("cosine to the matched seed user", "users")
    cosine = borrowed(assignment, seeds)
    if len(cosine):
        edges = np.linspace(min(float(cosine.min()), 0.98), 1.0, _BINS + 1)
        clipped = np.clip(cosine, None, 1.0)
        axes.hist(clipped, edges.tolist(), color=_BLUE, alpha=0.75, label="users who borrow a rationale")
        median = float(np.median(cosine))
        axes.axvline(median, color=_ORANGE, linestyle="--", label=f"their median, {median:.2f}")
        axes.plot([], [], " ", label=f"{len(seeds.user):,} seed users (cosine 1) not shown")
    label = "Histogram of the cosine between every user and the matched seed user"
    return _finish(figure, axes, bool(len(cosine)), "cosines", label)


def activity_histogram(activity: np.ndarray, seeds: SeedSet) -> str:
    """Density of users over their training interactions: all users, and seeds by how they were chosen.

    Bins are wider to the right, so heights are shares per unit of the horizontal axis.

    Args:
        activity: ``<int64>[U]``, training interactions of every user.
        seeds: the seed users.
    """
    figure, axes = _new_figure("training interactions of a user", "share of the group, per interaction")
    if len(activity):
        activity = np.maximum(activity, 1)  # the axis is logarithmic
        edges = np.geomspace(activity.min(), activity.max() + 1, _BINS // 2)
        edges = np.unique(edges.round()) - 0.5
        bins = edges.tolist()
        axes.hist(activity, bins, density=True, color=_GREY, alpha=0.35, label="all users")
        for how, (colour, line) in _HOW_STYLES.items():
            chosen = activity[seeds.user[seeds.how == how]]
            if not len(chosen):
                continue
            label = f"{HOW_NAMES[how]} seeds ({len(chosen):,})"
            axes.hist(
                chosen, bins, density=True, label=label,
                histtype="step", color=colour, linestyle=line, linewidth=1.8,
            )  # fmt: skip
        axes.set_xscale("log")
        _plain_log_ticks(axes)
    label = "Users by their number of training interactions, all users against seed users"
    return _finish(figure, axes, bool(len(activity)), "activity", label)


def cluster_scatter(cluster_sizes: np.ndarray, seeds: SeedSet) -> str:
    """Seeds chosen in each cluster against the cluster's size; a dot grows with the clusters it stands for.

    Args:
        cluster_sizes: ``<int64>[clusters]``, users in each K-means cluster.
        seeds: the seed users.
    """
    figure, axes = _new_figure("users in the cluster", "seed users in the cluster")
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)
    drawn = bool(len(cluster_sizes)) and int(cluster_sizes.sum()) > 0
    if drawn:
        chosen = np.bincount(seeds.cluster, minlength=len(cluster_sizes))[: len(cluster_sizes)]
        # Equal dots are drawn once, large numbers are rounded and a dot's size has few steps (each is one
        # shape of the SVG), so the drawing stays small for any number of clusters.
        pairs = np.stack([_two_digits(cluster_sizes), _two_digits(chosen)], 1)
        dots, clusters = np.unique(pairs, axis=0, return_counts=True)
        step = np.log2(clusters).astype(int)
        for one in np.unique(step):
            x, y = dots[step == one].T
            axes.plot(x, y, "o", color=_BLUE, alpha=0.6, markersize=3 + one, markeredgewidth=0)
        ends = np.array([0, int(cluster_sizes.max())])
        share = len(seeds.user) / int(cluster_sizes.sum())
        axes.plot(ends, share * ends, "--", color=_ORANGE, label=f"in proportion ({share:.1%})")
    label = "Seed users in each cluster against the size of the cluster"
    return _finish(figure, axes, drawn, "clusters", label)


def _whole_numbers(axis: Axis) -> None:
    """Ticks of what is counted: there is no epoch 1.25."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _new_figure(x_label: str, y_label: str, height: float = _INCHES[1]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot's: no global state and no display needed.
    figure = Figure(figsize=(_INCHES[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_INK, fontsize=_POINTS)
    axes.set_ylabel(y_label, color=_INK, fontsize=_POINTS)
    axes.tick_params(colors=_INK, which="both", labelsize=_POINTS)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_color(_FAINT)
        spine.set_visible(side in ("left", "bottom"))
    axes.patch.set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes, drawn: bool, name: str, label: str) -> str:
    if drawn:
        # Above the axes, where it covers nothing.
        axes.legend(
            labelcolor=_INK, frameon=False, fontsize=_POINTS, loc="lower left", bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "nothing was recorded", color=_INK, ha="center", transform=axes.transAxes)
    return _to_svg(figure, name, label)


def save_svg(figure: Figure, path: Path, name: str) -> None:
    """Writes a figure into an SVG file of which equal figures of the same name make equal bytes."""
    with written_aside(path) as aside, _reproducible(name):
        figure.savefig(aside, format="svg", metadata={"Date": None})


def _reproducible(name: str) -> contextlib.AbstractContextManager[None]:
    """Texts stay texts, and the ids that Matplotlib draws depend on the figure and `name` alone."""
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name})


def _to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element whose ids start with `name`, so several fit on one page."""
    buffer = io.StringIO()
    with _reproducible(name):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    # Its own size is for where it stands alone; on the page it takes the width that there is.
    height = round(_PIXELS * figure.get_figheight() / figure.get_figwidth())
    size = f'width="{_PIXELS}" height="{height}"'
    # With its namespace it is a file of its own, too, which notebooks and browsers show.
    opening = rf'<svg xmlns="{_NAMESPACE}" {size} \1 role="img" aria-label="{label}" style="{_STYLE}">'
    return re.sub(r'<svg[^>]*(viewBox="[^"]+")[^>]*>', opening, svg, count=1)


def _two_digits(values: np.ndarray) -> np.ndarray:
    """Values rounded to two significant digits; those below 100 stay as they are."""
    digits = np.floor(np.log10(np.maximum(values, 1))) - 1
    unit = 10.0 ** np.maximum(digits, 0)
    return np.round(values / unit) * unit


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
