"""Mutual exclusion of purging and asking: processes that ask hold a lock; a purge stops them and waits.

A process that asks writes prompts and answers into the journal long after it has read the removal list. So it
holds a shared lock of the store until it has finished writing, and checks a `Guard` (the `may_ask` of the
providers) before every request and before it keeps an answer.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reland_jax.files import locked
from reland_jax.pool.prompting.prompts import prompt_hash
from reland_jax.pool_store.asked import ASKED_FILE, ASKING_FOLDER, read_asked
from reland_jax.pool_store.lists import LIST_FILES, read_removals
from reland_jax.pool_store.store import PoolStore
from reland_jax.types import RelandError

ASKING_LOCK = "asking.lock"
"""Shared lock of the processes that ask in a store."""
PURGING_LOCK = "purging.lock"
"""Exclusive lock of a purge, also while it waits for them."""

_LOOK_SECONDS = 0.1


class Guard:
    """Decides which prompts may be sent; safe to call from several threads."""

    def __init__(self, store: PoolStore) -> None:
        """Reads nothing yet.

        Args:
            store: the store; its notes have the users of every prompt.
        """
        self._store, self._seen = store, ""
        self._lock = threading.Lock()
        self._users: dict[str, set[str]] = {}
        self._barred: frozenset[str] = frozenset()

    def may_ask(self, prompt: str) -> bool:
        """Whether a prompt may be sent and its answer kept: none of its users was removed.

        Raises:
            RelandError: the store is being purged, so that all asking has to stop; or its lists are damaged.
        """
        folder = self._store.folder
        if _is_held(folder / PURGING_LOCK):
            raise RelandError(
                f"{folder}: a purge is in progress (--purge), so asking stops; answers so far "
                "are kept: run the same command again"
            )
        with self._lock:
            state = _state(folder)
            if state != self._seen:
                self._look()
                self._seen = state
        return prompt_hash(prompt) not in self._barred

    def _look(self) -> None:
        """Reads the removal list. Users of prompts are remembered, since a purge deletes the notes."""
        for note in read_asked(self._store.folder):
            self._users.setdefault(note.prompt_hash, set()).add(note.user_id)
        removals = read_removals(self._store.folder)
        users = sorted(set().union(*self._users.values()))
        gone = {user for user, barred in zip(users, removals.barred(users).tolist(), strict=True) if barred}
        self._barred = frozenset(digest for digest, users in self._users.items() if users & gone)


@contextlib.contextmanager
def asking(store: PoolStore) -> Iterator[None]:
    """Context for asking in a store, which is created if necessary; a purge waits for its end.

    Raises:
        RelandError: the folder is not a store; or it is being purged.
    """
    with store.locked():
        pass  # creates the store, or refuses the folder
    with contextlib.ExitStack() as held:
        try:
            with locked(store.folder / PURGING_LOCK, shared=True, wait=False):
                held.enter_context(locked(store.folder / ASKING_LOCK, shared=True, wait=False))
        except BlockingIOError:
            raise RelandError(
                f"{store.folder}: a purge is in progress (--purge); run the command again when it has ended"
            ) from None
        yield


@contextlib.contextmanager
def asking_stopped(
    store: PoolStore, wait: float, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Stops the processes that ask in a store, waits for them, and prevents new ones from starting.

    Args:
        store: the store.
        wait: longest wait in seconds.
        on_wait: called once before waiting, to inform the user.

    Raises:
        RelandError: a process still asks, or another one purges.
    """
    deadline = time.monotonic() + max(wait, 1.0)
    with contextlib.ExitStack() as held:
        for name, who in ((PURGING_LOCK, "purges"), (ASKING_LOCK, "asks in")):
            while True:
                try:
                    held.enter_context(locked(store.folder / name, wait=False))
                    break
                except BlockingIOError:
                    if on_wait and name == ASKING_LOCK:
                        on_wait()
                        on_wait = None
                    if time.monotonic() >= deadline:
                        raise RelandError(
                            f"{store.folder}: not purged: another process {who} this store and may write "
                            "what is to be purged; run the command again when it has ended"
                        ) from None
                    time.sleep(_LOOK_SECONDS)
        yield


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock exclusively."""
    if not path.exists():
        return False
    try:
        with locked(path, shared=True, wait=False):
            return False
    except BlockingIOError:
        return True


def _state(folder: Path) -> str:
    """A value that changes with the lists and the notes."""
    found = []
    for path in (*(folder / name for name in LIST_FILES), folder / ASKING_FOLDER / ASKED_FILE):
        try:
            about = os.stat(path)
            found.append((about.st_ino, about.st_mtime_ns, about.st_size))
        except FileNotFoundError:
            found.append((0, 0, 0))
    return repr(found)
