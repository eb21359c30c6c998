"""The results of `experiments.device_check` as text."""

from __future__ import annotations

from typing import Any

PLACE = "{devices} x {device} ({backend}), jax {jax}, products in {matmul_precision}"


def row(section: str, found: dict[str, Any]) -> str:
    """What one part has found, in a line."""
    return _LINES[section].format(**found)


_LINES = {
    "steps": "{seconds_per_step:.5f} s, {targets_per_second:,.0f} targets/s, {share_reached:.1%} of the peak "
    "({bound}), compiled in {compile_seconds:.1f} s",
    "evaluation": "exact {exact[seconds]:.4f} s, with a cutoff {cutoff[seconds]:.4f} s, of these vectors "
    "{vectors[seconds]:.4f} s",
    "assignment": "{users_per_second:,.0f} users/s against {seeds:,} seed users, {share_reached:.1%} of the "
    "peak",
    "texts": "{texts_per_second:,.0f} texts/s of {tokens} tokens ({weights} weights), {share_reached:.1%} of "
    "the peak",
    "clustering": "{seconds:.3f} s for {iterations} iterations, of these {start_seconds:.3f} s the start, "
    "{share_reached:.1%} of the peak",
    "random_bits": "{bytes_per_second:,.0f} bytes/s",
}


_STEP = (
    "| {backbone} | {activations} | {seeds} | {milliseconds:.3f} | {targets_per_second:,.0f} | "
    "{share_reached:.1%} | {compile_seconds:.1f} |"
)


def table(found: dict[str, Any]) -> str:
    """The peaks, a row for every step, and what is missing."""
    machine = found["machine"]
    peaks = ", ".join(f"{name} {flops / 1e12:.2f}" for name, flops in machine["matmul_flops"].items())
    lines = [
        PLACE.format(**machine["environment"]),
        f"products, TFLOP/s: {peaks}; memory {machine['bytes_per_second'] / 1e9:,.0f} GB/s",
        "| backbone | activations | seeds | ms a step | targets/s | share of peak | compile, s |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for one in found.get("steps", []):
        lines.append(_STEP.format(**one, milliseconds=1e3 * one["seconds_per_step"]))
    if found["left_out"]:
        lines.append(f"no time was left for {len(found['left_out'])} parts: {'; '.join(found['left_out'])}")
    lines += [f"failed: {name}: {error.splitlines()[0]}" for name, error in found["failed"].items()]
    return "\n".join(lines)
