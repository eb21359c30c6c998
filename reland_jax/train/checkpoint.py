"""Checkpoints of a training run, written by Orbax; a run killed at any moment continues from the last.

Orbax is imported where it is used, since it takes 100 MB that training without checkpoints does not need.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax

from reland_jax.files import first_damage, inventory, read_sealed, remove, sync_tree, write_sealed
from reland_jax.mesh import of_first_process
from reland_jax.types import RelandError

_log = logging.getLogger(__name__)


class TrainingCheckpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: the `TrainState`.
        best: parameters of the best validation so far.
        progress: plain values: epochs done, history, best epoch, seconds.
    """

    state: Any
    best: Any
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in one folder; only the newest is kept.

    Training goes on while a checkpoint is written. Orbax copies the arrays, writes them aside and renames
    the folder. ``EPOCH.files.json`` next to it has the checksums of its files and is written once they are on
    the disk; the previous checkpoint is removed after that, at the next save or at the end. So a kill at any
    moment leaves a whole one, and a damaged one is never read.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Mapping[str, Any]) -> None:
        """Opens or creates the folder, and removes the checkpoints in it that are damaged or half-written.

        Args:
            folder: where the checkpoints are.
            run: plain values that identify the run; a checkpoint of another run is refused.

        Raises:
            RelandError: something in the folder is not a checkpoint of this program.
        """
        import orbax.checkpoint as ocp

        self._run, self._folder = dict(run), Path(os.path.abspath(folder))
        # All processes must restore the same one, whatever each of them sees of a shared folder.
        self._newest = of_first_process(self._clear() if jax.process_index() == 0 else -1)
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def _clear(self) -> int:
        """Removes unreadable checkpoints, and returns the epoch of the newest whole one, or -1."""
        newest = -1
        for half in self._folder.glob("*.orbax-checkpoint-tmp*"):
            remove(half)
        for files in self._folder.glob("[0-9]*.files.json"):
            if not (self._folder / files.name.removesuffix(".files.json")).exists():
                files.unlink()
        epochs = (int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdecimal())
        for epoch in sorted(epochs, reverse=True):
            damage = self._damage(epoch)
            if damage:
                where = self._folder / str(epoch)
                _log.warning("%s: this checkpoint cannot be used (%s); removed", where, damage)
            if damage or newest >= 0:
                self._remove(epoch)
            else:
                newest = epoch
        return newest

    def _damage(self, epoch: int) -> str:
        """What is wrong with a checkpoint, or ""."""
        folder, files = self._folder / str(epoch), self._files(epoch)
        if not files.exists():
            if not (folder / "_CHECKPOINT_METADATA").exists():
                raise RelandError(f"{folder}: this is not a checkpoint of this program; move it away")
            return "its writing was not finished"
        try:
            return first_damage(folder, read_sealed(files)["files"])
        except (OSError, ValueError, KeyError) as error:
            return f"{files.name}: {error}"

    def _remove(self, epoch: int) -> None:
        remove(self._folder / str(epoch))
        self._files(epoch).unlink(missing_ok=True)

    def _files(self, epoch: int) -> Path:
        return self._folder / f"{epoch}.files.json"

    def save(self, epoch: int, saved: TrainingCheckpoint) -> None:
        """Begins to write the checkpoint of an epoch; waits until the one before is written.

        The arrays may be donated to the next step once this returns.

        Raises:
            OSError: the one before could not be written.
        """
        import orbax.checkpoint as ocp

        self.wait()
        tree = {"state": saved.state, "best": saved.best}
        notes = {"run": self._run, "progress": saved.progress}
        items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), notes=ocp.args.JsonSave(notes))
        self._manager.save(epoch, args=items, force=True)
        self._writing = self._background.submit(self._finish, epoch)

    def _finish(self, epoch: int) -> None:
        """Waits for Orbax, forces the files to the disk and writes their checksums."""
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            sync_tree(self._folder / str(epoch))
            write_sealed(self._files(epoch), {"files": inventory(self._folder / str(epoch))})
        self._newest = epoch

    def wait(self) -> None:
        """Waits until the checkpoint in progress is whole, and removes those before it.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.result()
        for before in set(self._manager.all_steps()) - {self._newest}:
            self._manager.delete(before)
            if jax.process_index() == 0:
                self._files(before).unlink(missing_ok=True)

    def restore(self, like: TrainingCheckpoint) -> TrainingCheckpoint | None:
        """The newest checkpoint, or None if there is none that is whole.

        It may have been saved on another mesh: padding rows of tables are added or removed.

        Args:
            like: a `TrainingCheckpoint` of the right structure and placement, whose values are ignored.

        Raises:
            RelandError: the checkpoint belongs to a run with other settings or data.
        """
        import orbax.checkpoint as ocp

        self.wait()
        if (epoch := self._newest) < 0:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"state": like.state, "best": like.best})
        notes = self._manager.restore(epoch, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
        if notes["run"] != self._run:
            raise RelandError(
                f"{self._manager.directory}: this checkpoint belongs to a run with other settings or "
                "data; choose another --workdir, or delete the folder to start again"
            )
        items = ocp.args.Composite(tree=ocp.args.StandardRestore(shapes, strict=False))
        tree = self._manager.restore(epoch, args=items)["tree"]
        return TrainingCheckpoint(tree["state"], tree["best"], notes["progress"])

    def close(self) -> None:
        """Waits for the last checkpoint and releases what Orbax holds.

        Raises:
            OSError: the last checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._manager.close()


def save_params(params: Any, folder: str | os.PathLike[str]) -> None:
    """Writes the parameters of a trained recommender to a new folder.

    Args:
        params: whole arrays on the host; if there are several processes, only one of them calls this.
        folder: where they go.
    """
    import orbax.checkpoint as ocp

    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        this = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix="params"
        )

    class OfOneProcess(ocp.Checkpointer):
        """Writes without counting a common operation.

        Processes tell each other by the number of the operation how far a checkpoint is. If one process
        counted alone, it would answer to another number from then on, and the next checkpoint that all
        write together would fail or never end.
        """

        def synchronize_next_awaitable_signal_operation_id(self) -> None:
            pass

    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with OfOneProcess(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(os.path.abspath(folder), args=ocp.args.StandardSave(params))


def load_params(folder: str | os.PathLike[str], like: Any) -> Any:
    """Reads parameters, which may have been saved on another mesh.

    Args:
        folder: what `save_params` wrote.
        like: a tree of arrays, or of their shapes, of the right structure; those without a sharding are put
            on the first device.
    """
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here), like
        )
        return checkpointer.restore(os.path.abspath(folder), shapes, strict=False)
