"""How often JAX compiles while a command runs: a table of programs by name.

    python -m tests.compiles experiments.table2 --datasets=demo --backbones=lightgcn --workdir=DIR

Programs that come from JAX's cache on the disk are counted too: they were traced and lowered again.
"""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts compilations inside, by the name of the jitted function."""
    programs: Counter[str] = Counter()

    def count(event: str, seconds: float, **details: Any) -> None:
        if event == EVENT:
            programs[str(details.get("fun_name", "?"))] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def main() -> None:
    """Runs the module named first with the arguments after it, and prints the table."""
    module, *sys.argv[1:] = sys.argv[1:]
    with counted() as programs:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            print(f"{programs.total()} compilations")
            for name, times in programs.most_common():
                print(f"{times:6} {name}")


if __name__ == "__main__":
    main()
