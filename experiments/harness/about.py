"""By what command, when and from which code a result was made."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reland_jax.artefacts import STAMP

_REPOSITORY = Path(__file__).resolve().parents[2]
_NAMES = "--config.pool.names"
"""A flag with personal names, which are not kept."""


def about(workdir: Path) -> dict[str, str]:
    """The "command", the time when the last artefact "finished" (UTC), and the "commit"; "" if not known."""
    times = [path.stat().st_mtime for path in workdir.glob(f"**/{STAMP}")]
    finished = f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else ""
    return {"command": command(sys.orig_argv), "finished": finished, "commit": commit()}


def command(words: list[str]) -> str:
    """The command line of a command of this project; "" for another program, such as a notebook's.

    Args:
        words: of the command line, with the interpreter.
    """
    if len(words) < 3 or words[1] != "-m" or not words[2].startswith("experiments."):
        return ""
    shown, after = ["python"], ""
    for word in words[1:]:
        hidden = after == _NAMES or word.startswith(f"{_NAMES}=")
        shown.append((f"{_NAMES}=..." if "=" in word else "...") if hidden else word)
        after = word
    return " ".join(map(_quoted, shown))


def _quoted(word: str) -> str:
    """As a person would write it: in double quotes where there are single ones within."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def commit() -> str:
    """The commit of the code, with a plus if files differ from it; the version where it is installed."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        root = _git("rev-parse", "--show-toplevel")
        if Path(root).resolve() == _REPOSITORY:
            changed = _git("status", "--porcelain", "--untracked-files=no")
            return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    with contextlib.suppress(PackageNotFoundError):
        return f"version {version('reland-jax')}"
    return ""


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=_REPOSITORY, capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
