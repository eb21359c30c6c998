"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from reland_jax.memory import release_memory

MIB = 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps it")
def test_freed_blocks_below_one_in_use_go_back() -> None:
    """What C code freed stays resident below a block in use, until it is released."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size = 64 * 1024
    blocks = [libc.malloc(size) for _ in range(100 * MIB // size)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident_bytes()
    release_memory()
    after = resident_bytes()
    libc.free(blocks[-1])
    assert before - after > 80 * MIB


def test_arrow_is_asked_if_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    asked: list[str] = []

    class Pool:
        def release_unused(self) -> None:
            asked.append("release_unused")

    monkeypatch.setattr(pyarrow, "default_memory_pool", Pool)
    release_memory()
    assert asked == ["release_unused"]
