"""Checkpoints of a training run, written by Orbax; a run killed at any moment goes on from the last.

Orbax is imported where it is used: training without checkpoints does without its 100 MB.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from reland_jax.mesh import of_first_process
from reland_jax.types import RelandError


class Saved(NamedTuple):
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

    Orbax writes a checkpoint aside and renames it, so a kill in the middle leaves the one before.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Mapping[str, Any]) -> None:
        """Opens or creates the folder.

        Args:
            folder: where the checkpoints are.
            run: plain values that identify the run; a checkpoint of another run is refused.
        """
        import orbax.checkpoint as ocp

        self._run = dict(run)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(os.path.abspath(folder), options=options)

    def save(self, epoch: int, saved: Saved) -> None:
        """Writes the checkpoint of an epoch, replacing the one before."""
        import orbax.checkpoint as ocp

        tree = {"state": saved.state, "best": saved.best}
        notes = {"run": self._run, "progress": saved.progress}
        items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), notes=ocp.args.JsonSave(notes))
        self._manager.save(epoch, args=items, force=True)

    def restore(self, like: Saved) -> Saved | None:
        """The newest checkpoint, or None if there is none.

        It may have been saved on another mesh: rows that only fill a table up are added or left out.

        Args:
            like: a `Saved` of the right structure and placement, whose values are ignored.

        Raises:
            RelandError: the checkpoint belongs to a run with other settings or data.
        """
        import orbax.checkpoint as ocp

        # Several processes must take the same one, whatever each of them sees of a shared folder.
        newest = self._manager.latest_step()
        epoch = of_first_process(-1 if newest is None else newest)
        if epoch < 0:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"state": like.state, "best": like.best})
        notes = self._manager.restore(epoch, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
        if notes["run"] != self._run:
            raise RelandError(
                f"{self._manager.directory}: this checkpoint belongs to a run with other settings or "
                "data; choose another --workdir, or delete the folder to start anew"
            )
        items = ocp.args.Composite(tree=ocp.args.StandardRestore(shapes, strict=False))
        tree = self._manager.restore(epoch, args=items)["tree"]
        return Saved(tree["state"], tree["best"], notes["progress"])

    def close(self) -> None:
        """Waits for and releases what Orbax holds."""
        self._manager.close()


def save_params(params: Any, folder: str | os.PathLike[str]) -> None:
    """Writes the parameters of a trained recommender to a new folder.

    Args:
        params: of several processes only this one writes them, as whole arrays of the host.
        folder: where they go.
    """
    import orbax.checkpoint as ocp

    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        this = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix="params"
        )
    with ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer:
        checkpointer.save(os.path.abspath(folder), params)


def load_params(folder: str | os.PathLike[str], like: Any) -> Any:
    """Reads parameters, which may have been saved on another mesh.

    Args:
        folder: what `save_params` wrote.
        like: a tree of arrays, or of their shapes, of the right structure; what does not say where it
            lies comes to the first device.
    """
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here), like
        )
        return checkpointer.restore(os.path.abspath(folder), shapes, strict=False)
