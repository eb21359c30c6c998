"""The bundles that are served, and their exchange while requests come in.

A new edition is read and its programs are compiled beside the old one, which answers meanwhile; then one
assignment puts it in its place. Requests that were asked of the old edition are answered by it. A bundle that
is damaged is refused: the log says why, and the old edition goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from reland_jax.bundle import MANIFEST_FILE, read_manifest
from reland_jax.server.edition import Edition
from reland_jax.server.limits import Limits
from reland_jax.server.refusals import Refusal
from reland_jax.types import RelandError

RETRY_SECONDS = 30.0
"""A bundle that was refused is looked at again after so long, since it may still be on its way."""

_log = logging.getLogger(__name__)


class _Mark(NamedTuple):
    """Tells that another bundle stands in a folder, without reading it."""

    inode: int
    changed: int
    size: int


class _Refused(NamedTuple):
    mark: _Mark | None
    at: float


class Shelf:
    """The editions in service, by name.

    Attributes:
        is_ready: whether all of them are compiled.
    """

    def __init__(
        self, folders: Mapping[str, Path], limits: Limits, swapped: Callable[[str, bool], None]
    ) -> None:
        """Reads the bundles.

        Args:
            folders: of the bundles, by the name of the recommender; the first is the usual one.
            limits: of the server.
            swapped: called after every exchange with the name, and whether the new bundle is in service.

        Raises:
            RelandError: a bundle cannot be used.
        """
        self._folders, self._limits, self._swapped, self.is_ready = dict(folders), limits, swapped, False
        self._marks = {name: _mark(folder) for name, folder in self._folders.items()}
        self._editions = {name: Edition(name, folder, limits) for name, folder in self._folders.items()}
        self._refused: dict[str, _Refused] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Compiles what is needed; from then on the server is ready."""
        for edition in self._editions.values():
            begun = time.monotonic()
            edition.warm()
            _log.info("%s %s: ready after %.1f s", edition.name, edition.version, time.monotonic() - begun)
        self.is_ready = True

    def editions(self) -> list[Edition]:
        """Those in service, the usual one first."""
        return list(self._editions.values())

    def get(self, name: str | None) -> Edition:
        """The edition of a name, which goes on answering even if another takes its place meanwhile.

        Raises:
            Refusal: there is none.
        """
        editions = self._editions
        if name is None:
            return next(iter(editions.values()))
        if name not in editions:
            raise Refusal(404, "there is no such model", "model", f"choose one of {', '.join(editions)}")
        return editions[name]

    def look(self) -> int:
        """Puts bundles that are new in their folders into service; how many were exchanged."""
        with self._lock:
            return sum(self._look_at(name, folder) for name, folder in self._folders.items())

    def _look_at(self, name: str, folder: Path) -> bool:
        mark = _mark(folder)
        if mark is None or mark == self._marks[name] or self._is_refused(name, mark):
            return False
        try:
            edition = Edition(name, folder, self._limits)
            edition.warm()
        except RelandError as error:
            if _mark(folder) == mark:  # not exchanged once more while it was read
                self._refuse(name, mark, error)
            return False
        self._marks[name] = mark
        self._refused.pop(name, None)
        old = self._editions[name].version
        self._editions = {**self._editions, name: edition}
        _log.info("%s: bundle %s takes the place of %s", name, edition.version, old)
        self._swapped(name, True)
        return True

    def _is_refused(self, name: str, mark: _Mark) -> bool:
        refused = self._refused.get(name)
        return refused is not None and refused.mark == mark and time.monotonic() - refused.at < RETRY_SECONDS

    def _refuse(self, name: str, mark: _Mark, error: RelandError) -> None:
        before = self._refused.get(name)
        self._refused[name] = _Refused(mark, time.monotonic())
        if before is None or before.mark != mark:
            old = self._editions[name].version
            _log.error("%s: the new bundle is refused, and %s goes on: %s", name, old, error)
            self._swapped(name, False)


class Watcher:
    """A thread that looks for new bundles every so many seconds, and when it is told to.

    Attributes:
        when_ready: called in the thread once everything in service is compiled.
    """

    def __init__(self, shelf: Shelf, seconds: float) -> None:
        """Starts nothing yet; with 0 seconds it looks only when it is told to."""
        self.when_ready: Callable[[], None] = lambda: None
        self._shelf, self._seconds = shelf, seconds
        self._now, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)

    def start(self) -> None:
        """Compiles what is in service, then begins to look."""
        self._thread.start()

    def look_now(self) -> None:
        """Looks at once."""
        self._now.set()

    def stop(self) -> None:
        """Ends the thread, once it has read and compiled what it is at: a thread of JAX cannot be left."""
        self._stopping = True
        self._now.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        self._shelf.warm()
        self.when_ready()
        while not self._stopping:
            self._now.wait(self._seconds or None)
            self._now.clear()
            try:
                if not self._stopping:
                    self._shelf.look()
            except Exception:
                _log.exception("looking for new bundles failed; the old ones go on")


def names_of(bundles: list[str]) -> dict[str, Path]:
    """Folders by name of "NAME=FOLDER" or of a folder, whose variant is the name then.

    Raises:
        RelandError: a bundle cannot be read, or two have one name.
    """
    found: dict[str, Path] = {}
    for given in bundles:
        name, equals, path = given.partition("=")
        if not equals or Path(given).exists():
            name, path = str(read_manifest(Path(given))["variant"]), given
        if not name or name in found:
            raise RelandError(f"--bundle={given}: two bundles are called {name!r}; write NAME=FOLDER")
        found[name] = Path(path)
    return found


def _mark(folder: Path) -> _Mark | None:
    """None while there is no manifest, as in the middle of a copy."""
    try:
        found = (folder / MANIFEST_FILE).stat()
    except OSError:
        return None
    return _Mark(found.st_ino, found.st_mtime_ns, found.st_size)
