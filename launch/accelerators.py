"""Accelerators by their common names, and the names on each platform.

To check them against, as they change: the documentation pages "GPU machine types" (Compute Engine),
"Configure compute resources" (Vertex AI), "TPU versions" and "TPU software versions" (Cloud TPU), and
"Plan TPUs in GKE".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

CPU_MACHINE = "n2-standard-16"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: in Compute Engine, Batch and the labels of GKE.
        vertex: in Vertex AI.
        machines: machine type by number of GPUs.
        attached: whether the GPUs are not part of the machine type and must be asked for beside it.
    """

    name: str
    vertex: str
    machines: Mapping[int, str]
    attached: bool = False


@dataclass(frozen=True)
class Tpu:
    """A generation of TPUs.

    Attributes:
        slice_type: beginning of the accelerator type in Cloud TPU.
        cores: what is counted in the accelerator type, per chip.
        runtime: software version of TPU VMs.
        gke: label of GKE nodes.
        machine: machine type of GKE and Vertex AI, up to the number of chips.
        topologies: topology by number of chips.
        on_one_host: numbers of chips that one host has; larger slices have 4 chips per host.
    """

    slice_type: str
    cores: int
    runtime: str
    gke: str
    machine: str
    topologies: Mapping[int, str]
    on_one_host: tuple[int, ...]

    def accelerator_type(self, chips: int) -> str:
        """The accelerator type in Cloud TPU, such as v5litepod-16."""
        return f"{self.slice_type}-{chips * self.cores}"

    def hosts(self, chips: int) -> int:
        """Number of machines, each with one process."""
        return 1 if chips in self.on_one_host else chips // 4


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}

GPUS = {
    "t4": Gpu(
        "nvidia-tesla-t4", "NVIDIA_TESLA_T4",
        {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"}, attached=True,
    ),
    "l4": Gpu(
        "nvidia-l4", "NVIDIA_L4",
        {1: "g2-standard-12", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
    ),
    "a100-40gb": Gpu(
        "nvidia-tesla-a100", "NVIDIA_TESLA_A100", {n: f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)}
    ),
    "a100-80gb": Gpu(
        "nvidia-a100-80gb", "NVIDIA_A100_80GB", {n: f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)}
    ),
    "h100": Gpu("nvidia-h100-80gb", "NVIDIA_H100_80GB", {n: f"a3-highgpu-{n}g" for n in (1, 2, 4, 8)}),
}  # fmt: skip

TPUS = {
    "v4": Tpu("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", "ct4p-hightpu", _CUBES, (4,)),
    "v5e": Tpu(
        "v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", "ct5lp-hightpu", _FLAT, (1, 4, 8)
    ),
    "v5p": Tpu("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", "ct5p-hightpu", _CUBES, (4,)),
    "v6e": Tpu("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", "ct6e-standard", _FLAT, (1, 4, 8)),
}


def find(name: str, kinds: tuple[str, ...], instead: str = "") -> Gpu | Tpu | None:
    """The accelerator of a name; None for "cpu".

    Args:
        name: what --accelerator says.
        kinds: of "cpu", "gpu" and "tpu", those that the platform has.
        instead: what to use for the other kinds.

    Raises:
        RelandError: an unknown name, or one that the platform does not have.
    """
    of_kind: dict[str, Mapping[str, Gpu | Tpu | None]] = {"cpu": {"cpu": None}, "gpu": GPUS, "tpu": TPUS}
    known = {key: found for kind in kinds for key, found in of_kind[kind].items()}
    if name in known:
        return known[name]
    if any(name in found for found in of_kind.values()):
        raise RelandError(f"--accelerator={name}: not here ({', '.join(known)}); use {instead}")
    raise RelandError(f"--accelerator={name}: {nearest_name(name, list(known))}")


def machine_of(gpu: Gpu, devices: int) -> str:
    """The machine type with that many GPUs.

    Raises:
        RelandError: there is none.
    """
    if devices not in gpu.machines:
        raise RelandError(f"--devices={devices}: machines have {_listed(gpu.machines)} of {gpu.name}")
    return gpu.machines[devices]


def topology_of(tpu: Tpu, chips: int) -> str:
    """The topology of a slice with that many chips.

    Raises:
        RelandError: there is none.
    """
    if chips not in tpu.topologies:
        raise RelandError(
            f"--devices={chips}: slices of {tpu.slice_type} have {_listed(tpu.topologies)} chips"
        )
    return tpu.topologies[chips]


def _listed(counts: Mapping[int, str]) -> str:
    return ", ".join(map(str, counts))
