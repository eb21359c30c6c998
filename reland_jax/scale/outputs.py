"""The records of a folder of outputs: what each output was made from, and whether it is unchanged.

The record of an output is ``_made/NAME.json``. An output counts as finished if its record says that it was
made by the same job from the same input, and its bytes have the recorded checksum. All bytes are read for
that, of inputs and outputs: at the disk's speed, about a second per gigabyte.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.files import checksum, locked, read_regular, write_json
from reland_jax.scale.shards import is_stamped
from reland_jax.types import RelandError

MANIFEST, RECORDS = "_manifest.json", "_made"
_WITHOUT_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)

_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """What is kept of a finished output.

    Attributes:
        job: hash of the settings and seed users.
        made_from: hash of those, the index and the input's content.
        rows: of the output.
        unmatched: users that have no direction, and so no seed user.
        checksum: of the output's bytes.
    """

    job: str
    made_from: str
    rows: int
    unmatched: int
    checksum: str


class Outputs:
    """The outputs of one job.

    Attributes:
        folder: where they are.
        job: hash of the settings and seed users that they are made from.
    """

    def __init__(self, folder: Path, job: str) -> None:
        """Looks at nothing yet.

        Args:
            folder: of the outputs.
            job: hash of the settings and seed users.
        """
        self.folder, self.job = folder, job

    def target(self, name: str) -> Path:
        """The output of an input shard, by the name of `shards.name_of`."""
        return self.folder / name

    def _record_path(self, name: str) -> Path:
        return self.folder / RECORDS / f"{name}.json"

    def record(self, name: str) -> Record | None:
        """The record of an output; None where there is none, or a damaged one."""
        try:
            return _record(json.loads(read_regular(self._record_path(name))))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def is_finished(self, name: str, record: Record | None, made_from: str, rows: int) -> bool:
        """Whether an output is whole and was made from exactly this input."""
        if record is None or (record.made_from, record.rows) != (made_from, rows):
            return False
        try:
            found = checksum(self.target(name))
        except OSError:  # it is missing, or a pipe or a folder stands there
            return False
        if found != record.checksum:
            _log.warning("%s is not what was written; it is made again", self.target(name))
        return found == record.checksum

    def finish(self, name: str, made_from: str, rows: int, unmatched: int) -> None:
        """Records that an output was made."""
        record = Record(self.job, made_from, rows, unmatched, checksum(self.target(name)))
        write_json(self._record_path(name), record._asdict())

    def unmatched(self) -> int:
        """Users without a seed user in all finished outputs."""
        return sum(record.unmatched for name in self._recorded() if (record := self.record(name)))

    def check_replaceable(self, names: Iterable[str]) -> None:
        """Refuses to replace files that this program did not write.

        Raises:
            RelandError: there is one.
        """
        for name in names:
            target = self.target(name)
            if os.path.lexists(target) and not self._record_path(name).exists() and not is_stamped(target):
                raise RelandError(
                    f"{target} was not made by this program, so it is not replaced; choose another --out"
                )

    def tell_strays(self, names: Iterable[str]) -> None:
        """Warns of outputs whose input is gone; readers of the folder would read them too."""
        known = set(names)
        strays = sorted(name for name in self._recorded() if name not in known and self.target(name).exists())
        if strays:
            _log.warning(
                "%s: %d outputs belong to shards that are no longer among the users, such as %s; remove them "
                "if their users are not wanted", self.folder, len(strays), strays[0],
            )  # fmt: skip

    def _recorded(self) -> list[str]:
        records = self.folder / RECORDS
        return [path.relative_to(records).as_posix()[: -len(".json")] for path in records.rglob("*.json")]

    def check_manifest(self, wanted: dict[str, Any]) -> None:
        """Refuses a folder with outputs of other settings or seed users; keeps what these are.

        Raises:
            RelandError: there are such outputs.
        """
        path = self.folder / MANIFEST
        stored = _stored(path)
        if stored is None:
            records = ((name, self.record(name)) for name in self._recorded())
            if other := next((name for name, record in records if record and record.job != self.job), None):
                raise RelandError(
                    f"{path} is missing or damaged, and {other} was not made with these settings and seed "
                    "users; choose another --out or empty it"
                )
            if path.exists():
                _log.warning("%s was damaged; all outputs are of this job, so it is written again", path)
        stored = wanted if stored is None else stored
        differ = [name for name in sorted(wanted | stored) if wanted.get(name) != stored.get(name)]
        if differ:
            what = ", ".join(f"{name} {stored.get(name)} (now {wanted.get(name)})" for name in differ)
            raise RelandError(
                f"{self.folder} holds outputs made with {what}; choose another --out or empty it"
            )
        write_json(path, wanted)

    @contextlib.contextmanager
    def turn(self, name: str, wait: bool) -> Iterator[bool]:
        """Holds the lock of an output, so that two processes do not make the same one.

        Args:
            name: of the shard.
            wait: whether to wait for a process that is making it.

        Yields:
            Whether it is this process's turn.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._record_path(name).with_suffix(".lock"), wait=wait))
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:  # without, two may do the same work, and write the same
                    raise
            yield True


def _record(values: Any) -> Record:
    record = Record(**values)
    if not all(isinstance(value, str) for value in (record.job, record.made_from, record.checksum)):
        raise ValueError("a hash is not a text")
    if not isinstance(record.rows, int) or not isinstance(record.unmatched, int):
        raise ValueError("a count is not a number")
    return record


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
