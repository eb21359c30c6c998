"""The results of `experiments.roofline`, as text and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def table(found: dict[str, Any]) -> str:
    """The content of roofline.json as text."""
    machine, peaks = found["machine"], found["machine"]["matmul_flops"]
    place = "{devices} x {device} ({backend}), {processors} processors, jax {jax}"
    lines = [
        f"{place.format(**machine['environment'])}, load average {machine['load_average']:.1f}",
        f"matmul peak {peaks['float32'] / 1e9:,.1f} GFLOP/s in float32, {peaks['bfloat16'] / 1e9:,.1f} in "
        f"bfloat16; memory {machine['bytes_per_second'] / 1e9:,.1f} GB/s",
        *_busy(machine),
    ]
    for one in found["steps"]:
        lines += ["", *_step_lines(one), "", *_part_lines(one, peaks["float32"])]
    return "\n".join(lines)


def _busy(machine: dict[str, Any]) -> list[str]:
    """A warning if half of the processors were taken before anything was measured."""
    if machine["load_average"] < machine["environment"]["processors"] / 2:
        return []
    return ["the machine was busy with something else: trust the fastest calls rather than the medians"]


def _step_lines(one: dict[str, Any]) -> list[str]:
    done, moved, intensity = one["operations"], one["bytes"], one["intensity"]
    slowest = max(one["seconds_per_step_of_rounds"])
    groups = ", ".join(
        f"{name} {done[name] / 1e6:,.1f}" for name in ("matmul", "sparse", "elementwise", "transcendental")
    )
    return [
        f"{one['backbone']} {one['variant']} on {one['dataset']}: "
        f"{one['targets_per_step']:,.0f} targets a step, {one['parameters']:,} parameters",
        f"  {1e3 * one['seconds_per_step']:.2f} ms a step, {1e3 * one['fastest']:.2f} to {1e3 * slowest:.2f}",
        f"  {done['flops'] / 1e6:,.1f} MFLOP: {groups}; {done['random_bits'] / 8e6:,.1f} MB of random bits",
        f"  {moved['least'] / 1e6:,.1f} MB at least, {moved['unfused'] / 1e6:,.1f} MB unfused: "
        f"{intensity['least']:.2f} and {intensity['unfused']:.2f} FLOP/byte",
        f"  {1e3 * one['least_seconds']:.2f} ms at least, by {one['bound']}: {one['share_reached']:.1%} "
        f"reached ({one['share_of_matmul_peak']:.1%} of the matmul peak, "
        f"{one['share_of_bandwidth']:.1%} of the bandwidth)",
    ]


def _part_lines(one: dict[str, Any], peak: float) -> list[str]:
    lines = [f"  {'part':<34}{'ms':>9}{'of step':>9}{'fastest':>9}{'MFLOP':>10}{'of peak':>9}"]
    for part in one["parts"]:
        name, seconds = "  " * part["depth"] + part["name"], part["seconds"]
        line = f"  {name:<34}{1e3 * seconds:>9.2f}{seconds / one['seconds_per_step']:>9.1%}"
        line += f"{1e3 * part['fastest']:>9.2f}"
        if part["flops"]:
            line += f"{part['flops'] / 1e6:>10,.1f}{part['flops'] / part['fastest'] / peak:>9.1%}"
        lines.append(line)
    return lines


def plot(found: dict[str, Any], path: Path) -> None:
    """Writes the roofline as SVG: a dot at each step's least bytes, a line to its unfused bytes."""
    from matplotlib.figure import Figure

    from reland_jax.report.plots import save_svg

    machine, steps = found["machine"], found["steps"]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    axes.set_xlabel("floating-point operations per byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color="#d1d5db", linewidth=0.6)
    ends = [value for one in steps for value in one["intensity"].values()]
    bandwidth = machine["bytes_per_second"] / 1e9
    ridges = [peak / 1e9 / bandwidth for peak in machine["matmul_flops"].values()]
    x = np.geomspace(min(ends) / 3, 4 * max(ends + ridges), 200)
    for (name, peak), line in zip(machine["matmul_flops"].items(), ("-", "--"), strict=True):
        label = f"{name} matmul, {peak / 1e9:,.0f} GFLOP/s"
        axes.plot(x, np.minimum(peak / 1e9, x * bandwidth), line, color="#6b7280", label=label)
    axes.plot([], [], " ", label=f"slope: memory, {bandwidth:,.1f} GB/s")
    for number, one in enumerate(steps):
        reached = one["operations"]["flops"] / one["seconds_per_step"] / 1e9
        least, unfused = one["intensity"]["least"], one["intensity"]["unfused"]
        label = f"{one['backbone']}, {one['share_reached']:.1%} reached"
        axes.plot([unfused, least], [reached] * 2, "-", color=f"C{number}", linewidth=1)
        axes.plot(least, reached, "o", color=f"C{number}", label=label)
    axes.legend(frameon=False, fontsize=9)
    save_svg(figure, path, "roofline")
