"""Searches rationales for regular expressions from users, within a time limit.

An expression such as ``(\\w+\\s?)+!`` can take exponential time. The search therefore runs in its own process
(`search_worker`), which ends after `SECONDS` and a little for each rationale.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reland_jax.pool_store import search_worker
from reland_jax.types import Rationale, RelandError

SECONDS = 3.0
"""Processor time for a pattern, in addition to `SECONDS_PER_RATIONALE`."""
SECONDS_PER_RATIONALE = 0.001


def check_patterns(patterns: Sequence[str], flag: str = "--pattern") -> None:
    """Refuses invalid patterns.

    Args:
        patterns: regular expressions; upper and lower case are the same.
        flag: name of the command-line flag, for the message.

    Raises:
        RelandError: not a regular expression, or one that matches the empty text and so everything.
    """
    found_in((), patterns, flag)


def found_in(rationales: Sequence[Rationale], patterns: Sequence[str], flag: str = "--pattern") -> np.ndarray:
    """Which rationales match a pattern in step 1, step 2 or the raw answer: ``<bool>[S]``.

    Args:
        rationales: ``S`` rationales.
        patterns: regular expressions; upper and lower case are the same.
        flag: name of the command-line flag, for the message.

    Raises:
        RelandError: see `check_patterns`; or a pattern takes too long.
    """
    found = np.zeros(len(rationales), bool)
    if not patterns:
        return found
    seconds = SECONDS + SECONDS_PER_RATIONALE * len(rationales)
    texts = [[each.step1, each.step2, each.response] for each in rationales]
    job = json.dumps({"patterns": list(patterns), "texts": texts, "seconds": seconds})
    program = [sys.executable, "-I", "-S", str(Path(search_worker.__file__))]
    ended = subprocess.run(program, input=job, capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    for number, pattern in enumerate(patterns):
        told = said[2 * number + 1] if len(said) > 2 * number + 1 else None
        if told is None:
            raise RelandError(_unfinished(pattern, flag, seconds, ended))
        if "error" in told:
            raise RelandError(f"{flag}={pattern!r} is not a regular expression: {told['error']}")
        if "memory" in told:
            raise RelandError(f"{flag}={pattern!r} takes too much memory to search for; write a simpler one")
        if told["empty"]:
            raise RelandError(f"{flag}={pattern!r} matches the empty text, and so every rationale")
        found[told["rows"]] = True
    return found


def _unfinished(pattern: str, flag: str, seconds: float, ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode == -signal.SIGPROF:
        return (
            f"{flag}={pattern!r} takes longer than {seconds:g} s to search for; write it without a "
            "repetition inside a repetition, or, if it is on the moderation list, unblock it"
        )
    last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
    return f"{flag}={pattern!r} could not be searched for: {last[0]}"
