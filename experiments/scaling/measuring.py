"""What measurements at growing numbers of users share: a process for each, exponents, dress of the plots."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reland_jax.types import RelandError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GIBIBYTE = 2**30

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Of the backbones, those of Okabe and Ito, which colour-blind readers tell apart."""

MARKERS = "os^Dv*"

_REPOSITORY = Path(__file__).resolve().parents[2]


def measured_apart(
    module: str, values: Mapping[str, Any], environment: Mapping[str, str] | None = None, show: bool = False
) -> dict[str, Any]:
    """Starts a command as a process of its own, and reads the record that it prints as its last line.

    Args:
        module: the command.
        values: flag -> value.
        environment: variables beyond those of this process.
        show: whether what it says meanwhile is shown.

    Raises:
        RelandError: the process failed; its last words are given unless they were shown.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in values.items())],
        cwd=_REPOSITORY, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE,
        stderr=None if show else subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in (done.stderr or "").splitlines() if line.strip()]
        said = said or ["see above" if show else "no message"]
        why = "killed, perhaps for lack of memory" if done.returncode == -signal.SIGKILL else said[-1]
        raise RelandError(f"the process ended with status {done.returncode}: {why}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def growth_exponent(users: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Least-squares slope of log seconds on log users: 1 is linear; None for fewer than two sizes."""
    return float(np.polyfit(np.log(users), np.log(seconds), 1)[0]) if len(set(users)) > 1 else None


def dress_axes(axes: Axes, title: str) -> None:
    """Title, scale and grid of a panel over the number of users."""
    axes.set(title=title, xlabel="users", xlim=(0, None), ylim=(0, None))
    axes.locator_params("x", nbins=4)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(color="#d1d5db", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
