"""The server as a process: its port, its signals, and its end."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from reland_jax.serve import Reland
from reland_jax.types import RelandError
from tests.server.process import serving

pytestmark = [pytest.mark.optional("starlette", requirements="serve")]


@pytest.mark.slow
def test_signals_exchange_bundles_and_end_it_without_loss(bundles: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(bundles["id"], tmp_path / "served")
    with serving(f"--bundle=a={tmp_path / 'served'}", "--watch=0", "--max_k=5", "--batch=8") as server:
        asked = {"user": "u1", "k": 3}
        status, first = server.call("/recommend", asked)
        assert status == 200 and first["model"] == "a"
        Reland.load(bundles["reland"]).save(tmp_path / "served")
        assert server.call("/recommend", asked)[1] == first
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.call("/recommend", asked)[1]["version"] != first["version"])
        assert server.call("/models")[1]["models"][0]["variant"] == "reland"

        (victim,) = (tmp_path / "served").glob("pool/*.parquet")
        victim.write_bytes(b"")
        (tmp_path / "served" / "manifest.json").touch()
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: "the new bundle is refused" in "".join(server.said))
        assert server.call("/recommend", asked)[0] == 200

        found, under_way = list[tuple[int, Any]](), threading.Barrier(5)

        def ask() -> None:
            under_way.wait()
            found.append(server.call("/explain", {"user": "u1"}))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        under_way.wait()
        server.until(lambda: bool(found))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        for thread in threads:
            thread.join()
        assert all(status == 200 for status, _ in found)


@pytest.mark.slow
def test_programs_are_kept_for_the_next_start(bundles: dict[str, Path], tmp_path: Path) -> None:
    with serving(f"--bundle={bundles['id']}", XDG_CACHE_HOME=str(tmp_path)):
        kept = sorted((tmp_path / "reland_jax" / "programs").rglob("*"))
        assert any(each.is_file() for each in kept)
    with serving(f"--bundle={bundles['id']}", XDG_CACHE_HOME=str(tmp_path)):
        assert sorted((tmp_path / "reland_jax" / "programs").rglob("*")) == kept
    with serving(f"--bundle={bundles['id']}", "--programs=", XDG_CACHE_HOME=str(tmp_path / "no")):
        assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(bundles: dict[str, Path], tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.server.process import REPOSITORY

    with serving(f"--bundle={bundles['id']}") as server:
        port = server.url.rpartition(":")[2]
        command = [sys.executable, "-m", "experiments.serve", f"--bundle={bundles['id']}", f"--port={port}"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"error: --port={port}: ")


def test_a_network_wants_a_token() -> None:
    from reland_jax.server import Address, check_open

    for host, token, is_open in (("127.0.0.1", "", False), ("0.0.0.0", "x", False), ("0.0.0.0", "", True)):
        check_open(Address(host, 8000), token, is_open)
    with pytest.raises(RelandError, match="set a token in the environment variable RELAND_SERVE_TOKEN"):
        check_open(Address("0.0.0.0", 8000), "", False)
    assert Address("0.0.0.0", 1).hosts == () and "localhost" in Address("::1", 1).hosts
