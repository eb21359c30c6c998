"""The least that a step costs by the roofline, and the share of the machine's peaks that it reaches."""

from __future__ import annotations

from typing import Any

import jax

from experiments.speed.machine import Machine
from experiments.speed.operations import bytes_of
from reland_jax.models import Tables
from reland_jax.train.state import TrainState


def shares(
    flops: int, least: int, seconds: float, machine: Machine, dtype: str = "float32"
) -> dict[str, Any]:
    """What the roofline allows and what is reached of it.

    Args:
        flops: floating-point operations.
        least: bytes that must pass.
        seconds: that it took.
        machine: its peaks.
        dtype: the products whose peak is taken.
    """
    computing, moving = flops / machine.matmul_flops[dtype], least / machine.bytes_per_second
    return {
        "least_seconds": max(computing, moving),
        "bound": "matmul peak" if computing > moving else "memory bandwidth",
        "share_reached": max(computing, moving) / seconds,
        "share_of_matmul_peak": computing / seconds,
        "share_of_bandwidth": moving / seconds,
    }


def least_bytes(state: TrainState, tables: Tables[jax.Array], batch: Any) -> int:
    """Bytes of parameters and optimiser state twice, and once of gradients, batch and tables.

    Of the pool and of the assignment a step reads only the rows of the batch's users.
    """
    rows = len(batch.user)
    whole = bytes_of((tables.item_text, tables.propagation))
    picked = sum(
        min(bytes_of(table), rows * table[0].size * table.dtype.itemsize)
        for table in (tables.rationale, tables.seed)
        if table is not None
    )
    return 3 * bytes_of(state.params) + 2 * bytes_of(state.opt_state) + bytes_of(batch) + whole + picked
