"""The device mesh: devices that share the work, along two axes.

The axis `data` shards batches, the axis `model` the rows of tables: embeddings, rationales, and everything
else with a row per user or item. The mesh is a context, entered once for the whole job; functions that depend
on it call `active_mesh`. Without a mesh, or with a mesh of one device, nothing is sharded.

Shards have equal sizes, so a table is padded to a multiple of the axis `model` (`pad_to_axis`), and a batch
to a multiple of the axis `data`. Padding rows are never looked up; code that runs over all rows must leave
them out. (The compiler accepts uneven shards too, but in jax 0.10.2 the gradients of gathers from them were
wrong on a mesh with two axes.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from reland_jax.config import MeshConfig
from reland_jax.types import RelandError

DATA, MODEL = "data", "model"

_log = logging.getLogger(__name__)


def join_processes(environment: Mapping[str, str]) -> None:
    """Joins the processes of a job, each with its own devices; nothing for a single one.

    Args:
        environment: JAX_NUM_PROCESSES, JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID, as launch/worker.py
            exports them. On a TPU the first is enough: JAX finds the other hosts.
    """
    number = int(environment.get("JAX_NUM_PROCESSES", "1"))
    if number == 1:
        return
    if sys.excepthook is sys.__excepthook__:  # else whoever started this job ends it
        sys.excepthook = lambda *error: fail("".join(traceback.format_exception(*error)))
    if "JAX_PROCESS_ID" not in environment:
        jax.distributed.initialize()
        return
    address, index = environment["JAX_COORDINATOR_ADDRESS"], int(environment["JAX_PROCESS_ID"])
    # Else JAX, where it finds Slurm, gives every process one GPU of its node only.
    jax.distributed.initialize(address, number, index, cluster_detection_method="deactivate")


def fail(message: str) -> NoReturn:
    """Prints an error and ends this process, immediately if there are others."""
    if not jax.distributed.is_initialized():
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    leave(1)


def leave(status: int) -> NoReturn:
    """Ends this process after an error, immediately if there are others.

    An orderly exit would wait minutes for the others, while they wait for this one.
    """
    if not jax.distributed.is_initialized():
        sys.exit(status)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def create_mesh(config: MeshConfig) -> Mesh:
    """A mesh over the devices of all processes.

    Raises:
        RelandError: there are fewer devices, or a device of another process would be left out.
    """
    found = jax.devices()
    data = config.data or max(len(found) // config.model, 1)
    wanted = data * config.model
    if wanted > len(found) or (jax.process_count() > 1 and wanted != len(found)):
        raise RelandError(
            f"config.mesh: data={data} x model={config.model} devices are asked for, and there are "
            f"{len(found)} ({jax.default_backend()}) in {jax.process_count()} processes; data=None takes all"
        )
    devices = np.asarray(found[:wanted]).reshape(data, config.model)
    # Auto: `placement` declares the shardings, and the compiler propagates them.
    return Mesh(devices, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


@contextlib.contextmanager
def use_mesh(config: MeshConfig) -> Iterator[None]:
    """Context in which everything runs on the mesh of the config.

    Raises:
        RelandError: see `create_mesh`.
    """
    if config.data == config.model == 1 and jax.process_count() == 1:
        yield
        return
    mesh = create_mesh(config)
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    _log.info("mesh: %s; process %d of %d", sizes, jax.process_index(), jax.process_count())
    with jax.set_mesh(mesh):
        yield


def use_mesh_alone(config: MeshConfig) -> contextlib.AbstractContextManager[None]:
    """Context for work done by process 0 alone: no mesh in a multi-process job, else the configured mesh.

    Raises:
        RelandError: see `create_mesh`.
    """
    return use_mesh(config) if jax.process_count() == 1 else contextlib.nullcontext()


def use_mesh_together(config: MeshConfig) -> contextlib.AbstractContextManager[None]:
    """Context for a collective step within work of process 0 alone, see `use_mesh_alone`.

    Raises:
        RelandError: see `create_mesh`.
    """
    return use_mesh(config) if jax.process_count() > 1 else contextlib.nullcontext()


def own_devices(config: MeshConfig) -> Mesh | None:
    """The devices of the config's mesh that belong to this process, in a row; None for a single one.

    Raises:
        RelandError: see `create_mesh`.
    """
    devices = create_mesh(config).devices
    own = [device for device in devices.flat if device.process_index == jax.process_index()]
    return Mesh(np.asarray(own), (DATA,), axis_types=(AxisType.Auto,)) if len(own) > 1 else None


def on_host(tree: Any) -> Any:
    """Gathers arrays, sharded ones too, onto the host of every process."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental.multihost_utils import process_allgather

    return jax.tree.map(partial(process_allgather, tiled=True), tree)


def of_first_process(value: int) -> int:
    """Broadcasts the decision of process 0 to every process.

    For decisions that depend on what processes may see differently, such as a clock or a folder: if only some
    processes enter a collective, the job fails.

    Args:
        value: this process's own decision, in the range of int32; only that of process 0 counts.
    """
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return int(broadcast_one_to_all(np.int32(value)))


def active_mesh() -> Any | None:
    """The mesh in use, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def axis_size(axis: str) -> int:
    """Devices along an axis of the mesh in use, 1 without one."""
    mesh = active_mesh()
    return mesh.shape[axis] if mesh is not None else 1


def pad_to_axis(rows: int, axis: str = MODEL) -> int:
    """`rows` rounded up to a multiple of the size of an axis."""
    size = axis_size(axis)
    return -(-rows // size) * size


def constrain(array: jax.Array, *axes: str | None) -> jax.Array:
    """Declares inside a compiled function along which axes an array is sharded.

    Args:
        array: of at least as many dimensions as there are axes.
        axes: the axis of each leading dimension, or None for one that is not sharded; without any the array
            is replicated.
    """
    if active_mesh() is None:
        return array
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*axes))


def device_put_rows(array: np.ndarray | jax.Array, axis: str | None = None) -> jax.Array:
    """Puts an array of the host on the devices; every process puts what its own devices hold.

    A process reads only these rows of an array mapped from a file (`reland_jax.artefacts.load_arrays`).

    Args:
        array: the same on every process.
        axis: along which the rows are sharded, padded with zeros; None replicates the array.
    """
    if active_mesh() is None:
        return jnp.asarray(array)
    array = np.asarray(array)
    shape = (pad_to_axis(len(array), axis), *array.shape[1:]) if axis else array.shape
    sharding = NamedSharding(jax.sharding.get_mesh(), PartitionSpec(axis) if axis else PartitionSpec())
    return jax.make_array_from_callback(shape, sharding, lambda index: padded_shard(array, index, shape))


def of_all_processes(array: np.ndarray, processes: int) -> np.ndarray | jax.Array:
    """Steps ``[S, B, ...]`` of which every process has its part of the rows, as one array of all of them.

    Args:
        array: ``[S, B / processes, ...]`` of this process.
        processes: number of processes; with one the array stays as it is.
    """
    if processes == 1:
        return array
    sharding = NamedSharding(jax.sharding.get_mesh(), PartitionSpec(None, DATA))
    return jax.make_array_from_process_local_data(sharding, array)


def padded_shard(array: np.ndarray, index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> np.ndarray:
    """The shard of an array that is padded with rows of zeros.

    Args:
        array: on the host; only the rows of the shard are read.
        index: the shard of the padded array, as JAX requests it; none for the whole of it.
        shape: of the padded array.
    """
    if not index:
        return array
    own = array[index]
    missing = len(range(*index[0].indices(shape[0]))) - len(own)
    return np.pad(own, ((0, missing),) + ((0, 0),) * (array.ndim - 1)) if missing else own
