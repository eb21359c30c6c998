"""The results of `experiments.seed_count`, as text and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reland_jax.types import HR, NDCG, PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#6b7280"


def table(result: dict[str, Any]) -> str:
    """The curve, the recommendations and, once there are any, the gains."""
    about = "counted" if result["exact"] else "estimated"
    heads = ["seed users", "share", "M tokens", result["currency"], "covered", "others"]
    heads += [f"cos >= {name}" for name in result["repeats"][0][0]["above"]]
    lines = [
        f"{result['data']}: {result['users']:,} users, {len(result['repeats'])} samplings; prompts for "
        f"{result['model']} {about}, {result['answer_tokens']:.0f} tokens an answer",
        "",
        "".join(f"{head:>15}" for head in (*heads, "gain/M tokens")),
    ]
    lines += [_row(result, index) for index in range(len(result["repeats"][0]))]
    return "\n".join([*lines, "", *_recommended(result), *_gain_lines(result)])


def _row(result: dict[str, Any], index: int) -> str:
    points = [repeat[index] for repeat in result["repeats"]]
    gains = [np.nan if not index else each[index - 1] * 1e6 for each in result["marginal_gain"]]
    prices = [point["price"] for point in points]
    cells = [
        f"{points[0]['seeds']:,}",
        f"{points[0]['fraction']:.2%}",
        f"{_mean(points, 'tokens') / 1e6:,.3f}",
        "-" if None in prices else f"{np.mean(prices):,.2f}",
        f"{_mean(points, 'covered'):.4f}",
        f"{_mean(points, 'others'):.4f}",
        *(f"{np.mean([point['above'][name] for point in points]):.1%}" for name in points[0]["above"]),
        f"{np.mean(gains):.4f}",
    ]
    return "".join(f"{cell:>15}" for cell in cells).replace("nan", "  -")


def _mean(points: list[dict[str, Any]], name: str) -> float:
    """Mean over the samplings, NaN where a value is missing."""
    return float(np.mean(np.array([point[name] for point in points], np.float64)))


def _recommended(result: dict[str, Any]) -> list[str]:
    lines = []
    for rule, found in result["recommended"].items():
        edge = ", at the edge of the sizes looked at" if found["at_edge"] else ""
        chosen = " <- recommended" if rule == result["rule"] else ""
        share = f"{found['seeds'] / result['users']:.1%}"
        lines.append(
            f"{rule:<10}{found['seeds']:>8,} seed users ({share}), {found['low']:,} to {found['high']:,}; "
            f"{found['cost'] / 1e6:,.2f} M tokens, covered {found['covered']:.4f}{edge}{chosen}"
        )
    return lines


def _gain_lines(result: dict[str, Any]) -> list[str]:
    if "validation" not in result:
        return []
    found = result["validation"]
    lines = ["", f"gain over {found['reference']}, {found['seeds']} training seeds, 95% interval over users"]
    for part in PARTS:
        for size in (size for size in found["sizes"] if part in size):
            gains = (f"{name} {_gain(size[part][name])}" for name in size[part])
            lines.append(
                f"{part} {size['fraction']:>7.2%}{size['seeds']:>8,} seed users, covered "
                f"{size['covered']:.4f}: {'; '.join(gains)}"
            )
    return lines


def _gain(one: dict[str, Any]) -> str:
    return f"{one['mean_ours']:.4f} ({one['difference']:+.4f}, {one['low']:+.4f} to {one['high']:+.4f})"


def plot(result: dict[str, Any], path: Path) -> None:
    """Writes coverage, marginal gain and, once there are any, validation gains against tokens, as SVG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    from reland_jax.report.plots import save_svg

    count = 3 if "validation" in result else 2
    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count)
    _plot_coverage(panels[0], result)
    _plot_marginal(panels[1], result)
    if count == 3:
        _plot_gain(panels[2], result["validation"])
    for axes in panels:
        axes.set(xscale="log", xlabel="million tokens")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axvline(result["recommended"][result["rule"]]["cost"] / 1e6, color=GREY, ls="--", lw=1)
        axes.grid(color="#d1d5db", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save_svg(figure, path, "seed_count")


def _plot_coverage(axes: Axes, result: dict[str, Any]) -> None:
    tokens = _array(result, "tokens").mean(axis=0) / 1e6
    for name, label, colour in (("covered", "all users", BLUE), ("others", "other users", ORANGE)):
        values = _array(result, name)
        axes.plot(tokens, values.mean(axis=0), "o-", color=colour, markersize=4, label=label)
        axes.fill_between(tokens, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25)
    axes.plot([], [], "--", color=GREY, label=_chosen(result))
    axes.set(title=f"{result['data']}: cosine to the nearest seed user")
    axes.legend(frameon=False, fontsize=8)


def _chosen(result: dict[str, Any]) -> str:
    best = result["recommended"][result["rule"]]
    return f"{result['rule']}: {best['seeds']:,} seed users ({best['low']:,} to {best['high']:,})"


def _plot_marginal(axes: Axes, result: dict[str, Any]) -> None:
    tokens = _array(result, "tokens").mean(axis=0) / 1e6
    middle = np.sqrt(tokens[1:] * tokens[:-1])
    gain = 1e6 * np.array(result["marginal_gain"])
    axes.plot(middle, gain.mean(axis=0), "o-", color=GREEN, markersize=4)
    axes.fill_between(middle, gain.min(axis=0), gain.max(axis=0), color=GREEN, alpha=0.25)
    axes.set(title="coverage gained per million tokens", yscale="log")


def _plot_gain(axes: Axes, found: dict[str, Any]) -> None:
    tokens = np.array([size["tokens"] for size in found["sizes"]]) / 1e6
    for name, colour in ((NDCG, BLUE), (HR, ORANGE)):
        gains = [size["valid"][name] for size in found["sizes"]]
        middle, low, high = (np.array([gain[key] for gain in gains]) for key in ("difference", "low", "high"))
        axes.errorbar(
            tokens, middle, (middle - low, high - middle), fmt="o-", color=colour, capsize=3, label=name
        )
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=f"validation gain over {found['reference']}")
    axes.legend(frameon=False, fontsize=8)


def _array(result: dict[str, Any], name: str) -> np.ndarray:
    """``<float64>[repeats, sizes]``."""
    return np.array([[point[name] for point in repeat] for repeat in result["repeats"]], np.float64)
