"""The server as a process: the port, the signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import types
from typing import NamedTuple

import uvicorn

from reland_jax.server.app import Server
from reland_jax.server.guard import LOOPBACK
from reland_jax.types import RelandError

_log = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        host: name or address; a loopback one is reached from this machine alone.
        port: number; 0 lets the system choose.
    """

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is reached from this machine alone."""
        return self.host in (*LOOPBACK, "::1")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which clients call it; none where any may do."""
        return tuple(LOOPBACK) if self.is_loopback else ()


def check_open(address: Address, token: str, is_open: bool) -> None:
    """Refuses to listen to a network without a token.

    Raises:
        RelandError: that would be so, and nobody said that it is wanted.
    """
    if not (address.is_loopback or token or is_open):
        raise RelandError(
            f"--host={address.host}: the server would answer everybody in the network; set a token in the "
            "environment variable RELAND_SERVE_TOKEN, or say --open"
        )


class _Process(uvicorn.Server):
    """uvicorn, which says that it is not ready any more a while before it stops."""

    def __init__(self, config: uvicorn.Config, server: Server, grace: float) -> None:
        super().__init__(config)
        self.should_exit, self.force_exit = False, False
        self._server, self._grace = server, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._server.watcher.look_now)
        for each in self.servers:
            for bound in each.sockets:
                _log.info("listening on http://%s:%d", *bound.getsockname()[:2])

    def handle_exit(self, number: int, frame: types.FrameType | None) -> None:
        """SIGTERM or Ctrl-C; a second one does not wait for the grace, a third one for nothing."""
        if self.should_exit:
            self.force_exit = True
        elif self._server.is_draining or not self._grace:
            self._server.is_draining = self.should_exit = True
        else:
            self._server.is_draining = True
            asyncio.get_running_loop().call_later(self._grace, self._end)

    def _end(self) -> None:
        self.should_exit = True


def serve(server: Server, address: Address, *, grace: float = 0.0, patience: float = 30.0) -> None:
    """Serves until SIGTERM or Ctrl-C; SIGHUP looks for new bundles.

    Args:
        server: the application.
        address: where to listen.
        grace: seconds between the signal, from which on /readyz says no, and the end of listening.
        patience: seconds that requests in progress are given to finish.

    Raises:
        RelandError: the port is taken, or the address is not of this machine.
    """
    config = uvicorn.Config(
        server.app, host=address.host, port=address.port, log_config=None, access_log=False,
        server_header=False, date_header=False, ws="none", timeout_keep_alive=30,
        timeout_graceful_shutdown=max(round(patience), 1), lifespan="on",
    )  # fmt: skip
    process = _Process(config, server, grace)
    server.watcher.when_ready = _leave_to_stay
    try:
        bound = config.bind_socket()  # before the programs are compiled
    except SystemExit:  # uvicorn's word for a port that it cannot have, which it logs
        raise RelandError(
            f"--port={address.port}: another program has this port, or {address.host} is no address of this "
            "machine; choose another one"
        ) from None
    process.run([bound])


def _leave_to_stay() -> None:
    """Leaves all objects that there are out of later searches for garbage, which hold up all requests."""
    gc.collect()
    gc.freeze()
