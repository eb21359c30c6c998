r"""Memory and traffic of a training step on each device of a mesh, from the compiled program.

    python -m experiments.mesh_memory --backbone=lightgcn --users=200000 --items=100000 --meshes=1x1,1x2,2x4

Nothing is trained and no accelerator is needed: the step is compiled for virtual devices of the CPU, so a
job can be sized before a machine is rented. The data are generated, as in `experiments.growth`, and the
settings those of Amazon Beauty, variant `id`. With ``--device=gpu`` or ``tpu`` it is the step of such a
device, with its tiles and its form of the sums over edges. It is compiled for a CPU all the same; the
accelerator's own compiler needs other amounts for activations.

MESH is DATAxMODEL: devices that share a batch, times devices that share the rows of tables.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from absl import flags

from experiments.configs.reland import get_config
from experiments.harness import command_line
from experiments.scaling.interactions import generate
from reland_jax.config import BACKBONES, Config, MeshConfig
from reland_jax.types import RelandError, Splits

MEGABYTE = 1e6


class Footprint(NamedTuple):
    """Bytes of one device.

    Attributes:
        state: parameters, the optimiser's moments, and the copy of the best parameters that `fit` keeps where
            that is in the memory of the device.
        data: interactions, shuffles and the graph.
        between: gradients, activations and temporary arrays, at most; they live within a step only.
        sent: results of the operations in which devices exchange arrays, each counted once.
    """

    state: int
    data: int
    between: int
    sent: int


def footprint(config: Config, splits: Splits, device: str = "cpu") -> Footprint:
    """Compiles a step of the variant `id` for the mesh of the config.

    Args:
        config: all settings.
        splits: of generated interactions.
        device: "cpu", "gpu" or "tpu", whose sizes are taken (`reland_jax.device`).
    """
    import jax

    from reland_jax.device import sizes, sizes_of, use_sizes
    from reland_jax.device.aside import DEVICE
    from reland_jax.mesh import use_mesh
    from reland_jax.stages import id_task
    from reland_jax.train import Task
    from reland_jax.train.placement import replicated, shardings
    from reland_jax.train.state import init_state, make_dispatch

    with use_sizes(sizes_of(device)), use_mesh(config.mesh):
        task = id_task(config, splits)
        assert isinstance(task, Task), "a linear model has no steps"
        state = init_state(task, config.train)
        order = jax.jit(task.epoch_order)(task.data, jax.random.key(0))
        step = jax.jit(
            make_dispatch(task, config.train),
            donate_argnums=0,
            out_shardings=(shardings(state), replicated()),
        )
        compiled = step.lower(state, task.tables, task.data, order, jax.numpy.arange(1)).compile()
        best_on_device = sizes().best_kept_in == DEVICE
    memory, program = compiled.memory_analysis(), compiled.as_text()
    if memory is None or program is None:
        raise RelandError(f"JAX on {jax.default_backend()} does not report memory; use a CPU")
    return Footprint(
        state=_held((state, state.params) if best_on_device else state),
        data=_held((task.tables, task.data, order)),
        between=memory.temp_size_in_bytes,
        sent=sent_bytes(program),
    )


def _held(tree: Any) -> int:
    import jax

    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def sent_bytes(program: str) -> int:
    """Bytes of the results of all collective operations in a compiled program."""
    kinds = "all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter"
    total = 0
    for found in re.finditer(rf" = (.*?) (?:{kinds})(?:-start)?\(", program):
        for bits, shape in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", found[1]):
            size = int(bits) // 8
            for extent in filter(None, shape.split(",")):
                size *= int(extent)
            total += size
    return total


def table(backbone: str, meshes: Sequence[MeshConfig], found: Sequence[Footprint]) -> str:
    """A row per mesh."""
    rows = ["| backbone | data x model | state, MB | data, MB | within a step, MB | exchanged, MB |"]
    rows.append("|---|---|---|---|---|---|")
    for mesh, each in zip(meshes, found, strict=True):
        cells = " | ".join(f"{part / MEGABYTE:.1f}" for part in each)
        rows.append(f"| {backbone} | {mesh.data} x {mesh.model} | {cells} |")
    return "\n".join(rows)


def parse_mesh(text: str) -> MeshConfig:
    """``2x4`` -> data 2, model 4.

    Raises:
        RelandError: the text is not of this form.
    """
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise RelandError(f"--meshes: {text!r} is not DATAxMODEL, such as 2x4")
    return MeshConfig(*map(int, found.groups()))


def define_flags() -> None:
    """Registers the flags."""
    flags.DEFINE_enum("backbone", "lightgcn", BACKBONES, "Backbone.")
    flags.DEFINE_enum("device", "cpu", ["cpu", "gpu", "tpu"], "Whose step is compiled, by its sizes.")
    flags.DEFINE_integer("users", 200_000, "Users.", lower_bound=1)
    flags.DEFINE_integer("items", 100_000, "Items.", lower_bound=1)
    flags.DEFINE_list("meshes", ["1x1", "1x2", "1x4", "1x8", "2x4"], "DATAxMODEL of each mesh.")


def main() -> None:
    """Prints the table."""
    given = flags.FLAGS
    meshes = [parse_mesh(text) for text in given.meshes]
    if not meshes:
        raise RelandError("--meshes is empty; name some, such as 1x1,2x4")
    most = max((mesh.data or 1) * mesh.model for mesh in meshes)
    # Before jax is imported. A CPU can be any number of devices.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={most}"
    from reland_jax.data import split

    config = Config.from_dict(get_config(f"amazon-beauty,{given.backbone}").to_dict())
    splits = split(generate(given.users, given.items, 0), config.data.protocol)
    measure = partial(footprint, splits=splits, device=given.device)
    found = [measure(dataclasses.replace(config, mesh=mesh)) for mesh in meshes]
    print(table(given.backbone, meshes, found))


if __name__ == "__main__":
    command_line.run(main, define_flags)
