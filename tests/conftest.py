"""Settings that every test shares: the CPU, no network, and what is skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Set before any test module imports jax. A test that wants another device sets it for a subprocess,
# or the whole run is started with JAX_PLATFORMS set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
XLA_FLAGS = (
    # Virtual devices, for the tests of meshes; all others use the first one.
    "--xla_force_host_platform_device_count=8",
    # They share few cores: one may come to an exchange long after the others.
    "--xla_cpu_collective_call_terminate_timeout_seconds=86400",
    # Most of what the tests cost is compilation of small programs; without optimisations, and with XLA's
    # older emitters, it takes a third of the time.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    # (Newer releases have no older emitters, and end a process that names this flag.)
    *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith("0.10.") else []),
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))

# A shell starts what runs in its background with Ctrl-C ignored, and so would every process of these tests.
_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
if _ignored and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every run; no deadline, because the first one of a shape compiles.
hypothesis.settings.register_profile("reland", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("reland")

REPOSITORY = Path(__file__).resolve().parents[1]
NEEDS_DATA = "needs the real data sets: set RELAND_DATA to their folder"


def find_shared_data() -> Path | None:
    """The folder of the real data sets, or None where there is none."""
    root = Path(os.environ.get("RELAND_DATA") or REPOSITORY.parent / "shared" / "data")
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of compiled programs, one for all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium by Playwright: its own, or that of the system."""
    reason = "needs Playwright and Chromium: pip install playwright; playwright install chromium"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip(reason)
        yield found
        found.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    root = find_shared_data()
    if root is None:
        pytest.skip(NEEDS_DATA)
    return root


def why_skipped(item: pytest.Item, without_packages: bool) -> str:
    """What a marked test needs and does not find here; empty if nothing."""
    if item.get_closest_marker("shared_data") and find_shared_data() is None:
        return NEEDS_DATA
    optional = item.get_closest_marker("optional")
    missing = [name for name in (optional.args if optional else ()) if find_spec(name) is None]
    if missing and without_packages:
        given = optional.kwargs.get("requirements", missing[0]) if optional else ""
        return f"needs {missing[0]}: pip install -r requirements-{given}.txt"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests for want of data or of optional packages; the latter fail if they are what is asked for."""
    without_packages = config.option.markexpr != "optional"
    for item in items:
        if reason := why_skipped(item, without_packages):
            item.add_marker(pytest.mark.skip(reason=reason))
