"""Memory that was freed and is still held."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Gives the system back what libraries have freed and keep for arrays to come.

    Arrow keeps a pool, and glibc what the compiler freed in each of its threads; the next large arrays are
    laid beside that and not into it. With NeuMF on Beauty it is a fifth of the peak. Where the C library is
    another, that part is left out. Costs 4 to 26 milliseconds there, so it is for the ends of stages and not
    for steps.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
