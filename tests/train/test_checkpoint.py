"""Checkpoints: what goes in comes out, only the newest stays, and nothing foreign or half-written is read."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reland_jax.train import checkpoint, load_params, save_params
from reland_jax.train.checkpoint import Checkpoints, TrainingCheckpoint
from reland_jax.train.state import TrainState
from reland_jax.types import RelandError
from tests.train.toys import assert_same_tree

RUN = {"made_from": "0123"}


def saved(value: float) -> TrainingCheckpoint:
    """Something like a training state, every array filled with its own multiple of `value`."""
    params = {"params": {"a": jnp.full((2, 3), value), "b": {"c": jnp.full(4, 2 * value)}}}
    state = TrainState(params, {"mu": jnp.full(3, 3 * value)}, jnp.int32(value), jnp.int32(0))
    history = [{"epoch": 1, "loss": value / 3, "ndcg@10": 0.1 + value}]
    return TrainingCheckpoint(state, params, {"history": history, "best_epoch": 1, "best": 0.1 + value})


def test_the_newest_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, RUN)
    assert checkpoints.restore(saved(0.0)) is None
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, saved(float(epoch) + 0.1))
    checkpoints.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["3"]
    found = Checkpoints(tmp_path, RUN).restore(saved(0.0))
    assert found is not None
    assert_same_tree(found.state, saved(3.1).state)
    assert_same_tree(found.best, saved(3.1).best)
    assert found.progress == saved(3.1).progress, "floats must survive JSON exactly"


def test_a_half_written_checkpoint_is_not_read(tmp_path: Path) -> None:
    """A kill in the middle of writing leaves a folder that still has its temporary name."""
    checkpoints = Checkpoints(tmp_path, RUN)
    checkpoints.save(1, saved(1.0))
    checkpoints.close()
    half = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", half)
    shutil.rmtree(half / "tree")
    found = Checkpoints(tmp_path, RUN).restore(saved(0.0))
    assert found is not None and int(found.state.step) == 1
    assert not half.exists()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with the checkpoint of epoch 1."""
    checkpoints = Checkpoints(tmp_path / "run", RUN)
    checkpoints.save(1, saved(1.0))
    checkpoints.close()
    return tmp_path / "run"


def test_a_kill_before_its_checksums_are_written_leaves_the_checkpoint_before(
    written: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(written, RUN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "write_sealed", Mock(side_effect=KeyboardInterrupt))
        checkpoints.save(2, saved(2.0))
        checkpoints.close()
    found = Checkpoints(written, RUN).restore(saved(0.0))
    assert found is not None and int(found.state.step) == 1
    assert f"{written / '2'}: this checkpoint cannot be used (its writing was not finished)" in caplog.text
    assert sorted(path.name for path in written.iterdir() if path.name[0].isdigit()) == ["1", "1.files.json"]


def test_a_kill_before_the_checkpoint_before_is_removed_leaves_two_and_the_newest_counts(
    written: Path,
) -> None:
    before = written.with_name("before")
    shutil.copytree(written, before)
    checkpoints = Checkpoints(written, RUN)
    checkpoints.save(2, saved(2.0))
    checkpoints.close()
    shutil.copytree(before, written, dirs_exist_ok=True)
    assert (written / "1.files.json").exists() and (written / "2.files.json").exists()
    found = Checkpoints(written, RUN).restore(saved(0.0))
    assert found is not None and int(found.state.step) == 2
    assert sorted(path.name for path in written.iterdir() if path.name[0].isdigit()) == ["2", "2.files.json"]


def test_training_goes_on_while_a_checkpoint_is_written(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is whole it has no checksums and the one before stays; arrays may change meanwhile."""
    may_end, write = threading.Event(), checkpoint.write_sealed

    def slowly(*given: Any) -> None:
        assert may_end.wait(60)
        write(*given)

    monkeypatch.setattr(checkpoint, "write_sealed", slowly)
    checkpoints, values = Checkpoints(written, RUN), saved(2.0)
    checkpoints.save(2, values)
    jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)((values.state, values.best))
    assert (written / "1.files.json").exists() and not (written / "2.files.json").exists()
    may_end.set()
    checkpoints.close()
    found = Checkpoints(written, RUN).restore(saved(0.0))
    assert found is not None
    assert_same_tree((found.state, found.best), (saved(2.0).state, saved(2.0).best))
    assert not (written / "1.files.json").exists()


def test_no_damaged_checkpoint_is_ever_read(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of its files changed, cut, emptied or missing: the training starts anew, and says so."""
    whole = written.with_name("whole")
    shutil.copytree(written, whole)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    names = [name for name in names if name.parts[0] != "_METADATA"]
    assert Path("1.files.json") in names and len(names) > 5
    for name in names:
        content = (whole / name).read_bytes()
        place = len(content) // 2
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] if content else b"0"
        for damaged in (flipped, content[:place], content + b" 0", None):
            if damaged == content:
                continue
            shutil.rmtree(written)
            shutil.copytree(whole, written)
            (written / name).unlink() if damaged is None else (written / name).write_bytes(damaged)
            caplog.clear()
            again = Checkpoints(written, RUN)
            assert again.restore(saved(0.0)) is None, f"{name} was damaged"
            assert f"{written / '1'}: this checkpoint cannot be used" in caplog.text
            again.close()
    again = Checkpoints(written, RUN)
    again.save(1, saved(3.0))
    again.close()
    found = Checkpoints(written, RUN).restore(saved(0.0))
    assert found is not None and int(found.state.step) == 3


def test_a_folder_of_somebody_else_is_not_removed(written: Path) -> None:
    (written / "2025").mkdir()
    (written / "2025" / "photo.jpg").write_text("a summer")
    with pytest.raises(RelandError, match="2025: this is not a checkpoint of this program; move it away"):
        Checkpoints(written, RUN)
    assert (written / "2025" / "photo.jpg").exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, RUN)
    checkpoints.save(1, saved(1.0))
    checkpoints.close()
    with pytest.raises(RelandError, match="a run with other settings or data; .*delete the folder"):
        Checkpoints(tmp_path, {"made_from": "4567"}).restore(saved(0.0))


def test_parameters_alone(tmp_path: Path) -> None:
    params = saved(1.5).best
    save_params(params, tmp_path / "params")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    found = load_params(tmp_path / "params", shapes)
    assert_same_tree(found, params)
    assert found["params"]["a"].dtype == np.float32


def test_parameters_of_one_process_are_no_common_operation(tmp_path: Path) -> None:
    """Several processes number the checkpoints that they write together; none may count alone."""
    from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

    before = OperationIdGenerator.get_current_operation_id()
    save_params(saved(1.5).best, tmp_path / "params")
    assert OperationIdGenerator.get_current_operation_id() == before
