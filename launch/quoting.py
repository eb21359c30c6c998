"""Quoting of values in the output of launchers: one function for each kind of target, used for every value.

A value is whatever stands behind a flag: it may hold quotes, dollars, line breaks or anything else, and
arrives as it was written, or is refused.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from typing import Any

from reland_jax.types import RelandError

_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
# What readers of YAML take for the end of a line, or do not take at all; JSON itself escapes those below 32.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def for_shell(words: Sequence[str]) -> str:
    """A command for a shell: words with everything in them quoted.

    Raises:
        RelandError: a word that no command can be given.
    """
    for word in words:
        check_word(word)
    return shlex.join(words)


def for_directive(name: str, value: object) -> str:
    """A line ``#SBATCH --name=value``; Slurm reads quotes and backslashes as a shell does.

    Raises:
        RelandError: a value with a line break or another character that does not show.
    """
    text = str(value)
    if bad := next((each for each in text if unicodedata.category(each) in _NOT_SHOWN), None):
        raise RelandError(
            f"--{name}={text!r}: holds {bad!r}, and a directive of Slurm is one line; take it out"
        )
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{name}={text}"


def for_manifest(value: Any) -> str:
    """A manifest: indented JSON, which every reader of YAML reads as the same.

    Raises:
        RelandError: a text that is no Unicode.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    check_word(text)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def check_word(word: str) -> None:
    """Refuses texts that cannot be a word of a command or part of a UTF-8 file.

    Raises:
        RelandError: a NUL, or bytes that are not UTF-8.
    """
    if "\0" in word:
        raise RelandError(f"{word!r} holds a NUL, which no command can be given")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise RelandError(f"{word!r} is not a text in UTF-8; rename what it names") from None
