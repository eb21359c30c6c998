"""Compiled programs on the disk: taken back by the next process, and never run when they are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from reland_jax.device import keep_programs, let_go_of_programs, programs
from reland_jax.device.programs import SealedPrograms

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    """JAX as it starts, whatever cache the module before had; restored afterwards."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled_again(number: float) -> list[str]:
    """Hits and misses of the cache while a function is compiled that this process has forgotten."""
    told: list[str] = []

    def note(event: str, **_: object) -> None:
        if event in ("/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"):
            told.append(event.rpartition("_")[2])

    values = np.arange(3, dtype=np.float32)
    jax.clear_caches()
    jax.monitoring.register_event_listener(note)
    try:
        result = jax.jit(lambda x: x * number + 1)(values)
    finally:
        jax.monitoring.unregister_event_listener(note)
    assert result.tolist() == [1.0, 1.0 + number, 1.0 + 2 * number]
    return told


def entry_of(folder: Path) -> Path:
    """The only program in a folder."""
    return next(path for path in folder.rglob("*") if path.is_file())


def test_a_program_is_compiled_once_and_a_damaged_one_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_programs(tmp_path)
    assert compiled_again(0.25) == ["misses"]
    assert compiled_again(0.25) == ["hits"]
    entry = entry_of(tmp_path)
    content = entry.read_bytes()
    place = len(content) // 2
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for damaged in (flipped, content[:place], b"", content + b"0"):
        entry.write_bytes(damaged)
        caplog.clear()
        assert compiled_again(0.25) == ["misses"]
        assert f"{entry}: this compiled program is damaged; it is compiled again" in caplog.text
    assert compiled_again(0.25) == ["hits"]


@pytest.mark.skipif(not programs._MAPS.exists(), reason="memory maps are counted on Linux alone")
@pytest.mark.parametrize("most, forgets", [("100", True), ("1000000", False), ("no number", False)])
def test_programs_are_forgotten_where_maps_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, forgets: bool
) -> None:
    (tmp_path / "max_map_count").write_text(most + "\n")
    monkeypatch.setattr(programs, "_MOST_MAPS", tmp_path / "max_map_count")
    traced = []
    twice = jax.jit(lambda x: traced.append(x) or 2 * x)
    twice(1.0)
    let_go_of_programs()
    twice(1.0)
    assert len(traced) == 1 + forgets


def test_an_entry_under_another_name_is_not_taken(tmp_path: Path) -> None:
    cache = SealedPrograms(tmp_path)
    cache.put("first", b"a program")
    assert cache.get("first") == b"a program"
    (tmp_path / "first").rename(tmp_path / "second")
    assert cache.get("second") is None and cache.get("first") is None


def test_another_process_finds_what_was_kept(tmp_path: Path, repository: Path) -> None:
    program = (
        "import jax, sys\n"
        "from pathlib import Path\n"
        "from reland_jax.device import keep_programs\n"
        "told = []\n"
        "jax.monitoring.register_event_listener(lambda event, **_: told.append(event.rpartition('/')[2]))\n"
        "keep_programs(Path(sys.argv[1]))\n"
        "print(jax.jit(lambda x: x * 3)(2.0), told.count('cache_misses'), told.count('cache_hits'))"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
            env=environment, timeout=120, check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert said == [["6.0", "1", "0"], ["6.0", "0", "1"]]


def test_what_the_disk_refuses_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(programs, "write_bytes", full)
    keep_programs(tmp_path)
    assert compiled_again(0.5) == compiled_again(0.75) == ["misses"]
    told = [record.getMessage() for record in caplog.records if "compiled programs" in record.getMessage()]
    assert len(told) == 1 and "cannot be kept (No space left on device); the job goes on" in told[0]


def test_a_folder_that_cannot_be_made_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    keep_programs(tmp_path / "file" / "programs")
    assert compiled_again(1.5) == ["misses"]
    assert caplog.text.count("compiled programs cannot be") >= 1


def test_the_cache_that_a_user_set_up_is_left_alone(tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    keep_programs(tmp_path / "ours")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
    assert not (tmp_path / "ours").exists()


def test_programs_of_another_processor_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_programs(tmp_path)
    first = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "flags\t\t: fpu vme\nmodel name\t: another")
    keep_programs(tmp_path)
    second = jax.config.jax_compilation_cache_dir
    assert first != second and Path(first).parent == Path(second).parent == tmp_path
