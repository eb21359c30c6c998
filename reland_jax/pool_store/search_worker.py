"""Searches texts for patterns: a program of its own, which the system ends if a pattern takes too long.

It is given one JSON object on its standard input ("patterns", "texts": a list of lists, "seconds" of
processor time for each pattern), and answers with JSON lines: {"pattern": n} before each pattern, then
{"error": ...}, {"memory": ...} where it takes too much of it, or {"empty": whether it finds the empty
text, "rows": which of the lists it is found in}.
Nothing of this project is imported, so that it starts at once.
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
    """What is said about one pattern; upper and lower case are the same."""
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
    """Answers what stands on the standard input."""
    text = sys.stdin.read()
    room = _ROOM_BYTES + _BYTES_PER_CHARACTER * len(text)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # an expression may take memory without end, too
    job = json.loads(text)
    for number, pattern in enumerate(job["patterns"]):
        print(json.dumps({"pattern": number}), flush=True)
        # The signal's own action ends the process: no loop of the regular expression can hold it up.
        signal.setitimer(signal.ITIMER_PROF, job["seconds"])
        print(json.dumps(search(pattern, job["texts"])), flush=True)


if __name__ == "__main__":
    main()
