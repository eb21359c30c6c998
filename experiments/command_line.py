"""Mistakes on a command line, told in one line that names the nearest flag or setting."""

from __future__ import annotations

import re
import sys

from absl import flags

from reland_jax.types import RelandError

MISTAKES = (flags.Error, RelandError, AttributeError, KeyError)
"""What parsing raises for a mistake: absl, this project, and ml_collections for an unknown setting."""


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses the flags, for `app.run(main, flags_parser=parse_flags)`; a mistake ends the command."""
    try:
        return flags.FLAGS(arguments)
    except MISTAKES as error:
        sys.exit(f"error: {told(error)}")


def told(mistake: Exception) -> str:
    """One of `MISTAKES` in one line."""
    if isinstance(mistake, (AttributeError, KeyError)):
        # ml_collections knows the nearest name: ... Did you mean "known" instead of "given"?
        near = re.search('mean "(.+)" instead of "(.+)"', str(mistake))
        hint = f"{near[2]!r} is not a setting; did you mean {near[1]!r}?" if near else str(mistake)
        return f"--config: {hint}"
    # An error of the config file arrives inside the flag's, behind its traceback.
    return str(mistake).rpartition("RelandError: ")[-1].strip()
