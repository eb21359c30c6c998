"""Compiled programs: kept on the disk for the next run of a command, forgotten where a process has too many.

JAX itself can keep them, but writes entries in place and runs whatever it reads. Here every entry is written
aside, renamed, and sealed with a checksum over its key and content; one that does not match is removed and
compiled again. Whatever the file system refuses is told once, and the job goes on without.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path
from typing import Any

from reland_jax.files import sweep_folder, write_bytes

PROGRAMS = "programs"
"""Folder of compiled programs in a workdir; it may be deleted at any time."""

_MAPS, _MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
_SEAL_BYTES = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


def keep_programs(folder: Path) -> None:
    """Keeps what this process compiles from now on in a folder, and takes from it what is there.

    A cache that the user has set up (``JAX_COMPILATION_CACHE_DIR``) or switched off
    (``JAX_ENABLE_COMPILATION_CACHE=false``) is left as it is.

    Args:
        folder: made if it does not exist. Programs lie in a folder by the processor they were compiled on:
            code for one with other instructions must not be run.
    """
    import jax
    from jax._src import compilation_cache

    ours = isinstance(getattr(compilation_cache, "_cache", None), SealedPrograms)
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # made when JAX is imported
    if given is not None and not ours:
        return
    if not hasattr(compilation_cache, "_cache") or not hasattr(compilation_cache, "_cache_initialized"):
        _log.warning("jax %s has another kind of cache: no compiled programs are kept", jax.__version__)
        return
    place = folder / _processor()
    compilation_cache.reset_cache()
    for name, value in {
        "jax_compilation_cache_dir": str(place),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        # XLA would keep files of its own beside them, without a checksum.
        "jax_persistent_cache_enable_xla_caches": "none",
    }.items():
        jax.config.update(name, value)
    # The only way to give JAX a cache of one's own; it looks for these two before it makes one.
    compilation_cache._cache = SealedPrograms(place)  # type: ignore[assignment]  # it is one by its methods
    compilation_cache._cache_initialized = True


def let_go_of_programs() -> None:
    """Forgets compiled programs, if this process has half as many memory maps as Linux lets it have.

    On a CPU a training that differs from those before takes about a thousand maps, and a process may have
    65,530 of them by default. One that has no more is ended in the midst of a compilation, whatever memory
    is free. What is forgotten and needed again is read from the disk (`keep_programs`) or compiled again.
    """
    import jax

    try:
        held = _MAPS.read_bytes().count(b"\n")
        most = int(_MOST_MAPS.read_text())
    except (OSError, ValueError):  # not Linux
        return
    if 2 * held > most:
        _log.debug("forgetting compiled programs: %d of %d memory maps are taken", held, most)
        jax.clear_caches()


def _processor() -> str:
    """A name for this processor and its instructions."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:  # not Linux
        pass
    return f"{platform.machine()}-{hashlib.sha256(repr(told).encode()).hexdigest()[:8]}"


class SealedPrograms:
    """A folder of compiled programs with checksums, as JAX's compilation cache calls it."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the folder, and removes what killed processes were writing."""
        self._path, self._told = folder, set[str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep_folder(folder)
        except OSError as error:
            self._tell("kept", error)

    def get(self, key: str) -> bytes | None:
        """The program of a key, or None if there is none that is whole."""
        path = self._path / key
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell("read", error)
            return None
        program = content[_SEAL_BYTES:]
        if content[:_SEAL_BYTES] == _seal(key, program):
            return program
        _log.warning("%s: this compiled program is damaged; it is compiled again", path)
        try:
            path.unlink()
        except OSError as error:
            self._tell("removed", error)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program; after a first failure to write no other is tried."""
        if "kept" in self._told or (self._path / key).exists():
            return
        try:
            write_bytes(self._path / key, _seal(key, value) + value)
        except OSError as error:
            self._tell("kept", error)

    def _tell(self, verb: str, error: OSError) -> None:
        if verb not in self._told:
            self._told.add(verb)
            why = error.strerror or os.strerror(error.errno or 0)
            _log.warning("%s: compiled programs cannot be %s (%s); the job goes on", self._path, verb, why)


def _seal(key: str, program: Any) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + program).digest()
