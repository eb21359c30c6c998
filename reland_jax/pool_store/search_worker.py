"""Searches texts for patterns: a separate program, which the system ends if a pattern takes too long.

It reads one JSON object from standard input ("patterns", "texts": a list of lists, "seconds" of processor
time for each pattern), and writes JSON lines: {"pattern": n} before each pattern, then {"error": ...},
{"memory": ...} if it takes too much, or {"empty": whether it matches the empty text, "rows": the lists with a
match}.
It imports nothing of this project, so that it starts fast.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from typing import Any

_ROOM_BYTES = 1 << 30
_BYTES_PER_CHARACTER = 16


def search(pattern: str, texts: list[list[str]]) -> dict[str, Any]:
    """The result for one pattern; upper and lower case are the same."""
    try:
        expression = re.compile(pattern, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__}
    try:
        return _found(expression, texts)
    except MemoryError:
        return {"memory": True}


def _found(expression: re.Pattern[str], texts: list[list[str]]) -> dict[str, Any]:
    if expression.search(""):
        return {"empty": True, "rows": []}
    return {
        "empty": False,
        "rows": [row for row, some in enumerate(texts) if any(expression.search(text) for text in some)],
    }


def main() -> None:
    """Answers the request on standard input."""
    text = sys.stdin.read()
    room = _ROOM_BYTES + _BYTES_PER_CHARACTER * len(text)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # an expression may also take unlimited memory
    job = json.loads(text)
    for number, pattern in enumerate(job["patterns"]):
        print(json.dumps({"pattern": number}), flush=True)
        # The signal's default action ends the process even inside a loop of the regular expression.
        signal.setitimer(signal.ITIMER_PROF, job["seconds"])
        print(json.dumps(search(pattern, job["texts"])), flush=True)


if __name__ == "__main__":
    main()
