"""Files and folders that are complete or absent: written aside, forced to the disk, then renamed.

The ground floor: every room may import it. Nothing else in the project writes aside, takes a lock on a
file, or removes what a killed process left behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.types import RelandError

_MARK = ".tmp-"
_FOREIGN_SECONDS = 24 * 3600.0
"""What another machine wrote aside is taken for abandoned after this long without a change."""


def expanded(path: str) -> str:
    """A path as a person wrote it, with ``~`` and ``~user`` at its beginning replaced by the home folder.

    Anything else, also "", stays as it is.

    Raises:
        RelandError: there is no such user.
    """
    found = os.path.expanduser(path)
    if path.startswith("~") and found == path:
        user = path[1:].partition("/")[0]
        raise RelandError(
            f"{path}: there is no home folder of {f'a user {user!r}' if user else 'this user'}; a file whose "
            f"name begins with ~ is written ./{path}"
        )
    return found


def resolve(path: str | os.PathLike[str]) -> Path:
    """A path as a person wrote it, with ``~`` and ``~user`` replaced by the home folder.

    Raises:
        RelandError: there is no such user.
    """
    return Path(expanded(os.fspath(path)))


@contextmanager
def written_aside(
    path: Path, *, private: bool = False, ours: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yields a path in the folder of `path` to write a file or a folder to; renamed to `path` on success.

    What is written is on the disk (fsync) before it gets its name, and the name when this returns. On an
    exception `path` is untouched and nothing is left behind. What killed processes wrote aside for the same
    path is removed.

    Args:
        path: the file or folder to make or replace.
        private: readable by its owner alone (files 0600, folders 0700).
        ours: whether a folder that stands at `path` may be replaced; by default only an empty one.

    Raises:
        RelandError: `path` is a folder that is not ours, or a file where a folder is to go.
    """
    check_replaceable(path, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    aside = aside_name(path)
    remove(aside)
    try:
        yield aside
        if private:
            make_private(aside)
        sync_tree(aside)
        check_replaceable(path, ours, aside.is_dir())
        _put_in_place(aside, path)
    finally:
        remove(aside)
    sync(path.parent)


def check_replaceable(path: Path, ours: Callable[[Path], bool] | None, by_folder: bool | None = None) -> None:
    """Refuses to replace a folder that does not carry our mark.

    Args:
        path: what would be replaced.
        ours: tells a folder of this project; None accepts an empty folder only.
        by_folder: whether a folder is to replace it; None where that is not known yet.

    Raises:
        RelandError: the folder holds something and is not ours, or a file is in the place of the folder.
    """
    if path.is_dir():
        if any(path.iterdir()) and not (ours and ours(path)):
            raise RelandError(
                f"{path}: this folder was not made by this program, so it is not replaced; "
                "choose another place, or move it away"
            )
    elif by_folder and os.path.lexists(path):
        raise RelandError(f"{path}: a file is in the place of a folder; move it away")


def _put_in_place(aside: Path, path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        os.replace(aside, path)
        return
    # A folder cannot replace one that is not empty, so the old one is renamed first.
    old = aside_name(path.with_name(f"{path.name}.old"))
    remove(old)
    os.replace(path, old)
    os.replace(aside, path)
    remove(old)


def aside_name(path: Path) -> Path:
    """Where this process writes aside for a path; `sweep` removes it once the process is gone."""
    return path.with_name(f".{path.name}{_MARK}{_machine()}-{os.getpid()}")


def _machine() -> str:
    """Identifies this machine, since its last start, among others that share the folder."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        boot += os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = ""
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()[:8]


def sweep(path: Path) -> list[Path]:
    """Removes what killed processes wrote aside for a path, and returns what was removed."""
    names = (path.name, f"{path.name}.old")
    found = [
        each for each in sorted(path.parent.glob(f".*{_MARK}*"))
        if each.name.rpartition(_MARK)[0] in {f".{name}" for name in names} and is_abandoned(each)
    ]  # fmt: skip
    for each in found:
        remove(each)
    return found


def sweep_folder(folder: Path) -> list[Path]:
    """Removes everything that killed processes wrote aside in a folder, and returns what was removed."""
    found = [each for each in sorted(folder.glob(f".*{_MARK}*")) if is_abandoned(each)]
    for each in found:
        remove(each)
    return found


def is_abandoned(aside: Path) -> bool:
    """Whether the process that wrote something aside is gone.

    Nothing is known about a process on another machine: what it wrote counts as abandoned a day after its
    last change.
    """
    machine, _, process = aside.name.rpartition(_MARK)[2].partition("-")
    if not machine or not process.isdecimal():
        return False  # not a name of ours
    if machine == _machine():
        return not _is_alive(int(process))
    try:
        return time.time() - aside.stat().st_mtime > _FOREIGN_SECONDS
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Replaces a file as a whole."""
    with written_aside(path, private=private) as aside:
        if private:  # from its first byte on
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        aside.write_bytes(content)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replaces a text file as a whole, in UTF-8."""
    write_bytes(path, text.encode(), private=private)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Replaces a file of indented JSON as a whole; NumPy's numbers and arrays become plain ones."""
    write_text(path, json.dumps(value, indent=1, default=_plain), private=private)


def read_json(path: Path) -> Any:
    """Reads a file of JSON that this program keeps.

    Raises:
        RelandError: it is damaged.
    """
    try:
        return json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise RelandError(f"{path}: damaged ({error}); move it away to start again") from error


def read_regular(path: Path) -> bytes:
    """The content of a file; what stands in its place and is none, such as a pipe, is never waited for.

    Raises:
        OSError: there is no such file, or it is no regular one, or cannot be read.
    """
    _check_regular(path)
    return path.read_bytes()


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(mode := path.stat().st_mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENODEV
        raise OSError(number, "this is not a file", str(path))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")


def append_line(path: Path, line: bytes, *, private: bool = False) -> None:
    """Appends one line and forces it to the disk."""
    new = not path.exists()
    with path.open("ab") as file:
        if private:
            os.chmod(path, 0o600)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)


def make_private(path: Path) -> None:
    """Makes a file, or a folder and all that is in it, readable by its owner alone."""
    if path.is_dir():
        os.chmod(path, 0o700)
        for each in path.rglob("*"):
            os.chmod(each, 0o700 if each.is_dir() else 0o600)
    else:
        os.chmod(path, 0o600)


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Forces a file, or a folder and everything below it, to the disk."""
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            sync(each)
    sync(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits; OSError for what is not a regular file."""
    _check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """ "bytes" and "sha256" of every file in a folder and below it, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": checksum(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def first_damage(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with the first file that is not as `inventory` found it, or ""; more files do not matter.

    Every file is read once, which takes about a second for each GB on one core.
    """
    for name, was in expected.items():
        path = folder / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return f"{name} is not a file"
            if (size := found.st_size) != was["bytes"]:
                return f"{name} has {size} bytes, of {was['bytes']} that were written"
            if checksum(path) != was["sha256"]:
                return f"the content of {name} is not what was written"
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a file of JSON that holds its own checksum."""
    plain = json.loads(json.dumps(value, default=_plain))
    write_json(path, {**plain, "seal": _seal(plain)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is not such a file, or it was changed.
    """
    try:
        value = json.loads(read_regular(path))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict) or value.pop("seal", None) != _seal(value):
        raise ValueError("its checksum is not that of what it says")
    return value


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(
    path: Path, *, shared: bool = False, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Holds the lock of a file, creating the file if necessary; the system releases it when the process ends.

    Args:
        path: the lock file. It stays: a lock file that is removed can be locked twice.
        shared: take a shared lock, which excludes exclusive ones only.
        wait: whether to wait for those who hold it.
        on_wait: called once before waiting, to tell a person.

    Yields:
        Whether others were waited for.

    Raises:
        BlockingIOError: somebody holds it and `wait` is False.
        OSError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, waited = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, False
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if on_wait:
                on_wait()
            waited = True
            fcntl.flock(file, kind)
        yield waited


class Lock:
    """The exclusive lock of a file, which says to those who wait who holds it.

    For one thread at a time. The system releases it when the process ends.

    Attributes:
        path: the lock file. It stays.
        is_held: whether this object holds the lock.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is locked yet."""
        self.path, self.is_held, self._held = path, False, ExitStack()

    def take(self) -> bool:
        """Takes the lock unless somebody else has it; whether it is held now.

        Raises:
            OSError: the file cannot be made, or the file system has no locks.
        """
        if not self.is_held:
            try:
                self._held.enter_context(locked(self.path, wait=False))
            except BlockingIOError:
                return False
            self.is_held = True
            with suppress(OSError):  # on a full disk the lock holds all the same
                self.path.write_text(str(os.getpid()))
        return True

    def release(self) -> None:
        """Releases the lock, if it is held."""
        self.is_held = False
        self._held.close()

    def holder(self) -> str:
        """Number of the process that holds the lock, or held it last; "?" if that is not known."""
        try:
            return self.path.read_text("utf-8", "replace") or "?"
        except OSError:
            return "?"
