"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Returns memory that libraries have freed but keep for later arrays to the system.

    Arrow's pool and glibc's per-thread arenas keep freed memory; new large arrays do not reuse it. For
    NeuMF on Beauty this is a fifth of the peak. With another C library than glibc only Arrow's pool is
    released. A call takes 4 to 26 milliseconds on Beauty, so it belongs at the end of a stage and not in a
    training step.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
