"""Notes of the users whose prompts were sent, written before sending, so that a purge finds them.

A journal contains prompts but no users. A note links a prompt to its user and its journal, even for users
without a usable answer and for builds that were never finished.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from reland_jax.files import append_line, write_bytes
from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool.prompting.requests import PoolRequests
from reland_jax.types import RelandError

ASKING_FOLDER = "asking"
ASKED_FILE = "asked.jsonl"


class Asked(NamedTuple):
    """A note of one prompt, written before it is sent.

    Attributes:
        user_id: external id of the user in the prompt.
        prompt_hash: hexadecimal SHA-256 of the prompt.
        journal: path of the journal with its answer, relative to the store.
    """

    user_id: str
    prompt_hash: str
    journal: str


def read_asked(store: Path) -> list[Asked]:
    """All distinct notes of a store, oldest first; a last line that a crash cut off is left out.

    Raises:
        RelandError: another line is damaged; or the file cannot be read.
    """
    path = store / ASKING_FOLDER / ASKED_FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise RelandError(
            f"{path}: cannot be read ({error.strerror}); it lists whose prompts were sent: restore it"
        ) from error
    found: dict[Asked, None] = {}
    for number, line in enumerate(lines, start=1):
        try:
            note = Asked(**json.loads(line))
            if not all(isinstance(value, str) for value in note):
                raise ValueError("a value that is no text")
            found[note] = None
        except (ValueError, TypeError, RecursionError) as error:
            raise RelandError(f"{path}:{number}: not a note of a prompt ({error}); remove it") from error
    return list(found)


def note_asked(store: Path, notes: Iterable[Asked]) -> None:
    """Adds notes, which are on disk when this returns. Call it while the store is locked."""
    known = set(read_asked(store))
    new = [note for note in dict.fromkeys(notes) if note not in known]
    if not new:
        return
    path = store / ASKING_FOLDER / ASKED_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        forget_asked(store, ())  # rewrites the complete lines, without the one that was cut off
    append_line(path, _lines(new), private=True)


def note_requests(store: Path, made: PoolRequests, journal: Path) -> None:
    """Notes the users of the requests, before anything is sent. Call it while the store is locked.

    Args:
        store: the folder of the store.
        made: the requests, those of step 0 included.
        journal: the file for their answers.

    Raises:
        RelandError: the journal of earlier prompts is missing or damaged.
    """
    path, whole = journal.resolve(), store.resolve()
    name = str(path.relative_to(whole) if path.is_relative_to(whole) else path)
    _check_journal(store, path, name)
    prompts = [*((each.user_id, each.prompt) for each in made.requests), *made.step0_of.items()]
    note_asked(store, [Asked(user, prompt_hash(prompt), name) for user, prompt in prompts])


def _check_journal(store: Path, path: Path, name: str) -> None:
    """Checks that the journal has all prompts that were sent, so that none is paid for twice."""
    sent = sum(note.journal == name for note in read_asked(store))
    notes = store / ASKING_FOLDER / ASKED_FILE
    if sent and not path.exists():
        raise RelandError(
            f"{path}: the journal is missing, but {notes} lists {sent} prompts that were sent with it: "
            "restore a copy of it; or set another file in config.llm.journal, to send and pay the prompts "
            "again"
        )
    # It is made before the first note, so a note without a journal means that the journal was lost.
    with Journal(path) as opened:
        paid = sum(used.requests for used in opened.usage().values())
    if sent and not paid:
        print(
            f"{path}: the journal has no answers, though {notes} lists {sent} prompts to be sent with it; "
            "they are sent, and paid, now. If it lost its content, stop this and restore a copy",
            file=sys.stderr,
        )


def forget_asked(store: Path, notes: Iterable[Asked]) -> None:
    """Rewrites the notes without some of them. Call it while the store is locked."""
    gone = set(notes)
    path = store / ASKING_FOLDER / ASKED_FILE
    if path.exists():
        kept = _lines(note for note in read_asked(store) if note not in gone)
        write_bytes(path, kept, private=True)


def _lines(notes: Iterable[Asked]) -> bytes:
    lines = (json.dumps(note._asdict(), ensure_ascii=False) + "\n" for note in notes)
    return "".join(lines).encode("utf-8")
