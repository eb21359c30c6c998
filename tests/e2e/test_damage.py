"""Every file of a finished run, damaged in three ways: none is ever used.

`test_no_damaged_file_is_used` prints a table by folder and kind of damage: what became of how many files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments.run import run
from reland_jax import artefacts, flow
from reland_jax.artefacts import STAMP
from reland_jax.config import Config
from reland_jax.stages import (
    ASSIGN,
    FLOW,
    LOAD,
    SPLIT,
    id_task,
    inputs_of,
    recommender_of,
    trained_recommender,
    training,
)
from reland_jax.text.cache import open_cache
from reland_jax.train.checkpoint import Checkpoints, TrainingCheckpoint
from reland_jax.train.state import init_state
from reland_jax.types import RelandError
from reland_jax.variants import VARIANTS
from tests.e2e.conftest import Finished, merged

WAYS = ("byte", "cut", "exchanged")
NEVER_READ = ("results.json", "report.html", "tensorboard")
"""Written anew by every run, and read by none."""


class MadeAgain(Exception):
    """Raised where a stage would be computed; a stand-in for hours of work."""


class Runs(NamedTuple):
    """Finished runs.

    Attributes:
        config: settings of the run that is damaged.
        workdir: its artefacts.
        others: workdirs of other runs, whose files take the place of its own; the first that has another
            content of a file gives it.
    """

    config: Config
    workdir: Path
    others: list[Path]


@pytest.fixture(scope="module")
def runs(finished: Callable[[str], Finished], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run, one with other seeds and learning rates, and the first stages of one with other data."""
    first = finished("lightgcn")
    changes: list[tuple[dict[str, Any], list[str]]] = [
        ({"seeds": {"seed": 1}, "encoder": {"train": {"seed": 1}}, "train": {"learning_rate": 0.02}}, []),
        ({"data": {"demo_users": 61}}, ["load", "split"]),
    ]
    others = []
    for change, stages in changes:
        others.append(tmp_path_factory.mktemp("other"))
        run(Config.from_dict(merged(first.config.to_dict(), change)), others[-1], stages)
    return Runs(first.config, first.workdir, others)


def files_of(workdir: Path) -> list[Path]:
    """Every file that a run may read."""
    found = (path.relative_to(workdir) for path in sorted(workdir.rglob("*")) if path.is_file())
    return [path for path in found if path.parts[0] not in NEVER_READ and path.suffix != ".lock"]


def is_by_settings(name: str) -> bool:
    """Whether a folder is called by the hash of its settings."""
    return len(name.rpartition("-")[2]) == 16


def exchanged(runs: Runs, file: Path) -> bytes | None:
    """What another run has in the place of a file, where that is something else."""
    # Folders of checkpoints are called NAME-SETTINGS, and some files of Orbax by what they hold.
    parts = [part.rpartition("-")[0] + "-*" if is_by_settings(part) else part for part in file.parts]
    alike = "/".join("*" if len(part) == 32 else part for part in parts)
    for other in runs.others:
        for path in sorted(other.glob(alike)):
            if path.read_bytes() != (runs.workdir / file).read_bytes():
                return path.read_bytes()
    return None


def damaged(runs: Runs, file: Path, way: str) -> bytes | None:
    """The content of a file after the damage; None where it would be as it was."""
    content = (runs.workdir / file).read_bytes()
    place = len(content) // 2
    if way == "exchanged":
        return exchanged(runs, file)
    if not content:
        return b"0" if way == "byte" else None
    changed = bytes([content[place] ^ 1])
    return content[:place] + (changed + content[place + 1 :] if way == "byte" else b"")


def digest(value: Any) -> str:
    """A hash of all that a stage hands on."""
    parts: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            for name in sorted(part):
                parts.append(str(name))
                walk(part[name])
        elif isinstance(part, tuple | list):
            for each in part:
                walk(each)
        elif isinstance(part, np.ndarray | jax.Array):
            parts.append(repr(np.asarray(part).tolist()))
        else:
            parts.append(repr(part))

    walk(value)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_back(config: Config, workdir: Path) -> str:
    """A hash of all that a run reads of a finished workdir, up to the trained recommenders."""
    made = flow.run(FLOW, config, workdir)
    trained = [
        [made.make(training(made, variant, 0)), trained_recommender(made, variant, 0)[1]]
        for variant in VARIANTS
    ]
    return digest([inputs_of(made)._replace(fingerprint=""), made[ASSIGN], trained])


def read_checkpoint(config: Config, workdir: Path, folder: Path) -> str:
    """A hash of the checkpoint in a folder of the workdir; "" where no training would go on from it."""
    made = flow.run(FLOW, config, workdir)
    name, _, stamp = folder.name.rpartition("-")
    if name == "encode_users":
        config = dataclasses.replace(config, model=config.encoder.model, train=config.encoder.train)
        task = id_task(config, made[SPLIT], made[LOAD])
    else:
        task = recommender_of(made, name.removesuffix("-seed0"))
    state = init_state(task, config.train)
    like = TrainingCheckpoint(state, state.params, {})
    saved = Checkpoints(workdir / folder, {"made_from": stamp, "seeds": [0]}).restore(like)
    return digest(saved) if saved else ""


def read_text_cache(runs: Runs, file: Path) -> str:
    """A hash of the vectors in a cache of texts that the run has; "" where it is taken as empty.

    A cache of another run with the same encoder is as good: what it says of a text is the same.
    """
    right = open_cache(runs.workdir / file.parent.name, file.stem.removeprefix("text-")).rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = open_cache(file.parent, file.stem.removeprefix("text-")).rows
    missing = {key: row for key, row in right.items() if key not in rows}
    return digest({key.hex(): (rows | missing)[key] for key in right}) if rows else ""


def reading(runs: Runs, workdir: Path, file: Path) -> str:
    """A hash of what a run reads where a file takes part."""
    if file.parts[0] == "checkpoints":
        folder = next(parent for parent in file.parents if is_by_settings(parent.name))
        return read_checkpoint(runs.config, workdir, folder)
    if file.parts[0] == "text_cache":
        return read_text_cache(runs, workdir / file)
    return read_back(runs.config, workdir)


@contextlib.contextmanager
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a stage that would be computed raise `MadeAgain`."""
    make = artefacts.make

    def refuse(folder: Path, made_from: str, **arguments: Any) -> Any:
        def compute() -> Any:
            raise MadeAgain(folder.name)

        return make(folder, made_from, **{**arguments, "compute": compute})

    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "make", refuse)
        yield


def outcome(runs: Runs, workdir: Path, file: Path, good: str) -> str:
    """What a run does about a damaged file."""
    try:
        found = reading(runs, workdir, file)
    except MadeAgain:
        return "made again"
    except RelandError:
        return "refused"
    return {good: "no effect", "": "made again"}.get(found, "USED")


@pytest.mark.slow
def test_no_damaged_file_is_used(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is refused or made again; only what takes no part in reading may be without effect."""
    work, files = tmp_path / "work", files_of(runs.workdir)
    shutil.copytree(runs.workdir, work)
    told: dict[tuple[str, str], Counter[str]] = {}
    used, good = [], {file.parts[0]: "" for file in files}
    with nothing_is_computed(monkeypatch):
        for file in files:
            top = file.parts[0]
            whole = reading(runs, work, file) if top == "checkpoints" else good[top]
            good[top] = whole = whole or reading(runs, work, file)
            assert whole
            for way in WAYS:
                if (content := damaged(runs, file, way)) is None:
                    told.setdefault((top, way), Counter())["same content"] += 1
                    continue
                (work / file).write_bytes(content)
                found = outcome(runs, work, file, whole)
                told.setdefault((top, way), Counter())[found] += 1
                used += [(str(file), way)] if found == "USED" else []
                for left in work.glob(f"{top}*"):
                    shutil.rmtree(left)
                shutil.copytree(runs.workdir / top, work / top)
    with capsys.disabled():
        print(f"\n{len(files)} files")
        for (top, way), counts in told.items():
            print(f"{top:<14}{way:<11}" + ", ".join(f"{number} {what}" for what, number in counts.items()))
    assert not used
    total = sum(told.values(), Counter())
    assert total["made again"] + total["refused"] > 0.9 * (len(WAYS) * len(files) - total["same content"])


@pytest.mark.slow
def test_what_was_damaged_is_made_again_as_it_was(runs: Runs, tmp_path: Path) -> None:
    """A file of every stage at once, and of the checkpoints: the same numbers come out, in one run."""
    work = tmp_path / "work"
    shutil.copytree(runs.workdir, work)
    for file in {path.parent: path for path in files_of(work) if path.name != STAMP}.values():
        (work / file).write_bytes(damaged(runs, file, "cut") or b"")
    again = run(runs.config, work)
    for variant, before in finished_variants(runs.workdir).items():
        for part in ("valid", "test"):
            assert again["variants"][variant][part] == before[part]
    inputs = [inputs_of(flow.run(FLOW, runs.config, folder)) for folder in (work, runs.workdir)]
    assert digest(inputs[0]) == digest(inputs[1])


def finished_variants(workdir: Path) -> dict[str, Any]:
    """What results.json says of each variant."""
    return json.loads((workdir / "results.json").read_text())["variants"]
