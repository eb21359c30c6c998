"""TensorBoard events, read back record by record."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from reland_jax.report import scalar_writer


def _read(logdir: Path) -> dict[tuple[str, int], float]:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = logdir.iterdir()
    data, scalars = path.read_bytes(), {}
    while data:
        # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        data = data[12 + length + 4 :]
    return scalars


def test_a_history_is_read_back(tmp_path: Path) -> None:
    later = {"epoch": 3, "loss": np.float32(1.5), "ndcg@10": 0.04}
    history = [{"epoch": 1, "loss": 2.5, "note": "warm"}, later]
    write = scalar_writer(tmp_path / "events")
    for row in history:
        write(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
    write.close()
    read = _read(tmp_path / "events")
    assert read == pytest.approx({("loss", 1): 2.5, ("loss", 3): 1.5, ("ndcg_at_10", 3): 0.04})


def test_the_writer_is_called_while_training(tmp_path: Path) -> None:
    write = scalar_writer(tmp_path)
    write(7, {"loss": 1, "done": True})
    write.close()
    assert _read(tmp_path) == {("loss", 7): 1.0}
