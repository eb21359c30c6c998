"""The machine's peaks, measured, and a timer of compiled functions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.speed.operations import bytes_of
from reland_jax.device import layer_products
from reland_jax.results import environment


class Machine(NamedTuple):
    """Measured peaks of this machine.

    Attributes:
        environment: versions, device and processors.
        load_average: of the last minute as measuring began; what else ran lowers the peaks.
        matmul_flops: dtype name -> operations per second.
        bytes_per_second: of memory, read and written.
    """

    environment: dict[str, Any]
    load_average: float
    matmul_flops: dict[str, float]
    bytes_per_second: float


def measure_machine(seconds: float = 2.0, elements: int = 1 << 26) -> Machine:
    """Measures the peaks.

    Args:
        seconds: about as long the products of one dtype may take.
        elements: length of the two float32 arrays that are read; far more than the caches hold.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    x = jnp.full(elements, 1e-3, jnp.float32)
    triad = Timer(lambda y, x: 0.5 * x + y, (jnp.zeros_like(x), x), in_place=True).best(8)
    peaks = {name: _matmul_peak(jnp.dtype(name), seconds) for name in ("float32", "bfloat16")}
    return Machine(environment(), load, peaks, 3 * bytes_of(x) / triad)


def _matmul_peak(dtype: jnp.dtype, seconds: float) -> float:
    """Best operations per second over growing squares, as many as the time allows."""
    best, end = 0.0, time.perf_counter() + seconds
    for size in (256, 512, 1024, 2048, 4096, 8192):
        work = 2 * size**3
        if best and time.perf_counter() + 6 * work / best > end:
            break
        square = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
        with layer_products():
            timer = Timer(jnp.matmul, (square, square))
        best = max(best, work / timer.best(5))
    return best


class Timer:
    """A compiled function that times its calls.

    Results are written over those of the call before, so that no fresh page is touched for them.

    Attributes:
        results: of the last call.
        compile_seconds: of tracing and compiling it.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[Any], in_place: bool = False
    ) -> None:
        """Compiles, and calls once.

        Args:
            function: to be jitted.
            arguments: its arguments; they stay valid.
            in_place: the result takes the place of the first argument, and is that of the next call.
        """
        if in_place:
            first, *arguments = arguments
            self.results, call = jax.tree.map(jnp.copy, first), function
        else:
            shapes = jax.eval_shape(function, *arguments)
            self.results = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

            def call(_: Any, *arguments: Any) -> Any:
                return function(*arguments)

        jitted = jax.jit(call, donate_argnums=0, keep_unused=True)
        self._arguments = arguments
        start = time.perf_counter()
        self._compiled = jitted.lower(self.results, *arguments).compile()
        self.compile_seconds = time.perf_counter() - start
        self.seconds()

    def seconds(self) -> float:
        """Seconds of one call."""
        start = time.perf_counter()
        self.results = jax.block_until_ready(self._compiled(self.results, *self._arguments))
        return time.perf_counter() - start

    def best(self, calls: int) -> float:
        """Least seconds of some calls."""
        return min(self.seconds() for _ in range(calls))
