"""Groups the engine's writes to the journal: one commit for all that arrived meanwhile."""

from __future__ import annotations

import asyncio

from reland_jax.pool.asking.journal import Journal
from reland_jax.pool.asking.records import Reception, Sent


class Recorder:
    """Commits to the journal in groups: entries that arrive during one commit share the next.

    For use in one asyncio loop; the commits run in a thread.
    """

    def __init__(self, journal: Journal) -> None:
        """Nothing is waiting."""
        self._journal = journal
        self._waiting: list[tuple[Reception | Sent, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def record(self, entry: Reception | Sent) -> None:
        """Returns when the entry is on disk.

        Raises:
            RelandError: the journal cannot be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit())
        await done

    async def finish(self) -> None:
        """Returns when all entries are on disk, or writing failed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _commit(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            receptions = [entry for entry, _ in group if isinstance(entry, Reception)]
            sent = [entry for entry, _ in group if isinstance(entry, Sent)]
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._journal.record, receptions, sent)
            except Exception as raised:  # raised by the callers that wait
                error = raised
            for _, done in group:
                if not done.done():
                    done.set_result(None) if error is None else done.set_exception(error)
