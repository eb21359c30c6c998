"""The grid on tiny demo data: killed, started again, made larger; and what mistakes are answered with."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.grid.plan import Cell, Progress, cells, plan
from experiments.table2 import run
from reland_jax import flow
from reland_jax.config import Config
from reland_jax.records import to_plain
from reland_jax.stages import behaviour, train
from reland_jax.types import RelandError

VARIANTS = ("id", "reland", "permuted")


class Killed(Exception):
    """Stands for the end of the process."""


@dataclasses.dataclass
class Watched:
    """What the trainings and the stages did.

    Attributes:
        epochs: label of the training and number of every epoch, in order.
        prepared: how often the stages before training were asked for.
        kill_at: label and epoch at which to stop.
        fail: label of a training that fails.
    """

    epochs: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    prepared: int = 0
    kill_at: tuple[str, int] | None = None
    fail: str = ""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Counts epochs and preparations; stops or fails trainings on demand."""
    seen, prepare = Watched(), flow.run

    def watched_fit(
        fit: Callable[..., Any], *arguments: Any, label: str,
        on_epoch: Callable[..., None] = lambda *_: None, **rest: Any,
    ) -> Any:  # fmt: skip
        if label == seen.fail:
            raise RelandError("the loss is not finite")

        def told(*epoch: Any) -> None:  # after the seed, where several are trained together
            on_epoch(*epoch)
            entry = epoch[-1]
            seen.epochs.append((label, int(entry["epoch"])))
            if seen.epochs[-1] == seen.kill_at:
                raise Killed

        return fit(*arguments, label=label, on_epoch=told, **rest)

    def watched_prepare(*given: Any, **named: Any) -> flow.Made:
        seen.prepared += 1
        return prepare(*given, **named)

    monkeypatch.setattr(behaviour, "fit", partial(watched_fit, behaviour.fit))
    monkeypatch.setattr(train, "fit_together", partial(watched_fit, train.fit_together))
    monkeypatch.setattr(flow, "run", watched_prepare)
    return seen


def flags_of(changes: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Nested settings as "section.key=value"."""
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from flags_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={value}"


def written(workdir: Path) -> dict[str, Any]:
    """The content of table2.json."""
    return json.loads((workdir / "table2.json").read_text())


def folder_times(workdir: Path) -> dict[str, int]:
    """When the stamp of every artefact was written."""
    stamps = workdir.rglob("stamp.json")
    return {str(path.parent.relative_to(workdir)): path.stat().st_mtime_ns for path in stamps}


def test_killed_and_started_again_and_made_larger(
    settings: Callable[..., dict[str, Any]],
    watched: Watched,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A kill in reland's second epoch; then the rest; then one more backbone beside it."""
    small = list(flags_of(settings(train={"max_epochs": 2})))
    one = plan(["demo"], ["lightgcn"], VARIANTS, 2, changes=small)
    killed_in = "train/lightgcn/reland-seed0"
    watched.kill_at = (killed_in, 2)
    with pytest.raises(Killed):
        run(one, tmp_path)
    before = folder_times(tmp_path)
    assert "demo-ratio/train/lightgcn/id-seed0" in before and f"demo-ratio/{killed_in}" not in before

    watched.kill_at = None
    watched.epochs.clear()
    (group,) = run(one, tmp_path, finished_only=True).groups
    assert {variant: cell.seeds for variant, cell in group.cells.items()} == {
        "id": [0],
        "reland": [],
        "permuted": [],
    }
    assert not watched.epochs and folder_times(tmp_path) == before

    watched.prepared = 0
    capsys.readouterr()
    table = run(one, tmp_path)
    assert watched.prepared == 1
    assert watched.epochs[0] == (killed_in, 2), "it began anew, or did something twice"
    names = [f"train/lightgcn/{variant}-seed{seed}" for seed in (0, 1) for variant in VARIANTS]
    assert watched.epochs == [(name, epoch) for name in names for epoch in (1, 2)][3:]
    after = folder_times(tmp_path)
    assert before.items() <= after.items()
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("prepared")]
    assert len(lines) == 6
    assert lines[0].startswith("1/6 demo lightgcn id seed 0: test NDCG@10") and "finished before" in lines[0]
    assert "finished before" not in lines[1] and lines[-1].endswith("ETA 0:00:00")
    check_table(to_plain(table), tmp_path)

    watched.epochs.clear()
    watched.prepared = 0
    two = plan(["demo"], ["neumf", "lightgcn"], VARIANTS[:2], 1, changes=small)
    watched.fail = "train/neumf/reland-seed0"
    table = run(two, tmp_path)
    assert watched.prepared == 2
    assert watched.epochs == [("train/neumf/id-seed0", 1), ("train/neumf/id-seed0", 2)]
    assert after.items() <= folder_times(tmp_path).items(), "neumf shares the stages before training"
    neumf, lightgcn = table.groups
    assert neumf.cells["reland"].failed == {0: "the loss is not finite"}
    assert neumf.cells["reland"].test["ndcg@10"] is None
    assert lightgcn.cells["id"].seeds == [0]
    assert "neumf" in (tmp_path / "table2.md").read_text(encoding="utf-8").lower()


def test_kept_scores_stand_for_a_training_made_elsewhere(
    settings: Callable[..., dict[str, Any]], watched: Watched, tmp_path: Path
) -> None:
    """Copied to another machine they are the same table; of other settings, or damaged, they are not."""
    changes = [*flags_of(settings(train={"max_epochs": 2})), "retrieval.neighbours=2"]
    grid = plan(["demo"], ["lightgcn"], VARIANTS[:2], 1, changes=changes)
    here, there, cells_folder = tmp_path / "here", tmp_path / "there", tmp_path / "cells"
    table = run(grid, here)
    shutil.copytree(here / "cells", cells_folder)
    watched.epochs.clear()
    assert run(grid, there, cells_folder) == table
    assert run(grid, there, cells_folder, finished_only=True) == table
    assert {label for label, _ in watched.epochs} == {"behaviour encoder"}
    assert not (there / "demo-ratio/train").exists()

    watched.epochs.clear()

    run(plan(["demo"], ["lightgcn"], VARIANTS[:1], 2, changes=changes), there, cells_folder)
    assert watched.epochs == [("train/lightgcn/id-seed1", epoch) for epoch in (1, 2)]
    watched.epochs.clear()
    run(plan(["demo"], ["lightgcn"], ["id"], 1, changes=[*changes, "train.negatives=2"]), there, cells_folder)
    assert watched.epochs == [("train/lightgcn/id-seed0", epoch) for epoch in (1, 2)]
    (group,) = run(grid, tmp_path / "third", cells_folder, finished_only=True).groups
    assert (group.cells["id"].seeds, group.cells["id"].failed) == ([], {})
    assert group.cells["reland"].seeds == [0]

    damaged = cells_folder / "demo_lightgcn_reland_seed0.npz"
    damaged.write_bytes(damaged.read_bytes()[:300])
    for finished_only in (True, False):
        (group,) = run(grid, tmp_path / "third", cells_folder, finished_only=finished_only).groups
        assert f"{damaged}: cannot be read" in group.cells["reland"].failed[0]


def test_finished_only_makes_nothing(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    one = plan(["demo"], ["lightgcn"], ["id"], 1, changes=list(flags_of(settings())))
    with pytest.raises(RelandError, match="no training of this grid is finished"):
        run(one, tmp_path, finished_only=True)
    assert not folder_times(tmp_path) and not list(tmp_path.glob("table2*"))


def check_table(table: dict[str, Any], workdir: Path) -> None:
    """Every figure is that of the artefacts."""
    assert table == written(workdir)
    (group,) = table["groups"]
    assert list(group["cells"]) == list(VARIANTS) and table["training_seeds"] == [0, 1]
    for variant, cell in group["cells"].items():
        folders = [workdir / f"demo-ratio/train/lightgcn/{variant}-seed{seed}" for seed in (0, 1)]
        summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
        for part in ("valid", "test"):
            assert cell["per_seed"][part]["hr@10"] == [summary[part]["hr@10"] for summary in summaries]
            mean = np.mean([summary[part]["ndcg@10"] for summary in summaries])
            assert cell[part]["ndcg@10"] == pytest.approx(mean)
    ours, base = (group["cells"][name]["test"]["ndcg@10"] for name in ("reland", "permuted"))
    assert group["comparisons"]["reland>permuted"]["ndcg@10"]["difference"] == pytest.approx(ours - base)
    assert sum(level["users"] for level in group["levels"]) == 60
    assert group["pool"]["provider"] == "heuristic" and group["attribution"] == "not_llm"
    assert Config.from_dict(group["config"]).seeds_of_training == (0, 1)
    assert {"jax", "python", "device"} <= set(table["environment"])
    assert not [name for name in os.listdir(workdir) if ".tmp" in name]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"datasets": ["amazon-beuty"]}, "did you mean 'amazon-beauty'?"),
        ({"datasets": []}, "--datasets is empty"),
        ({"backbones": ["sasrek"]}, "--backbones: 'sasrek' is not known; did you mean 'sasrec'?"),
        ({"variants": ["id", "relnd"]}, "--variants: 'relnd' is not known; did you mean 'reland'?"),
        ({"pools": ["dem=x"]}, "--pools: 'dem' is not known; did you mean 'demo'?"),
        ({"pools": ["demo=nowhere.jsonl"]}, "there is no file 'nowhere.jsonl'"),
        ({"changes": ["train.max_epoch=3"]}, "'max_epoch': did you mean 'max_epochs'?"),
        ({"changes": ["trian.max_epochs=3"]}, "'trian': did you mean 'train'?"),
        ({"changes": ["train=3"]}, "config.train is a section of settings"),
        ({"changes": ["train.seed.x=3"]}, "0 has no settings below it"),
        ({"changes": ["train.max_epochs=few"]}, "max_epochs='few' must be a whole number, not a text"),
        ({"changes": ["train.max_epochs"]}, "expected section.key=value"),
        ({"changes": ["model.backbone=sasrec"]}, "model.backbone is set by --backbones"),
        ({"changes": ["train.max_epochs=0"]}, "max_epochs=0 must be at least 1"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(arguments: dict[str, Any], expected: str) -> None:
    good: dict[str, Any] = {"datasets": ["demo"], "backbones": ["sasrec"], "variants": ["id"], "seeds": 1}
    with pytest.raises(RelandError) as error:
        plan(**(good | arguments))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_settings_of_cells(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.touch()
    changes = ["train.learning_rate=1", "eval.mask_history=true", "model.tower=[8, 4]"]
    changes += ["encoder.train.patience=2"]
    configs = plan(["demo"], ["lightgcn", "sasrec"], ["id", "noise", "id"], 3, [f"demo={pool}"], changes)
    assert list(configs) == [("demo", "lightgcn"), ("demo", "sasrec")]
    config = configs["demo", "sasrec"]
    assert (config.train.learning_rate, config.eval.mask_history, config.model.tower) == (1.0, True, (8, 4))
    assert (config.encoder.train.patience, config.pool.provider, config.pool.path) == (2, "file", str(pool))
    assert (config.variants, config.seeds_of_training) == (("id", "noise"), (0, 1, 2))
    assert configs["demo", "lightgcn"].data.protocol == "ratio" and config.data.protocol == "leave_one_out"


def test_cells_come_seed_by_seed() -> None:
    order = cells(plan(["demo"], ["lightgcn", "sasrec"], ["id", "reland"], 2))
    assert [(cell.seed, cell.backbone, cell.variant) for cell in order[:5]] == [
        (0, "lightgcn", "id"), (0, "lightgcn", "reland"), (0, "sasrec", "id"), (0, "sasrec", "reland"),
        (1, "lightgcn", "id"),
    ]  # fmt: skip
    assert len(order) == len(set(order)) == 8


def test_time_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    order = [Cell("demo", backbone, "id", seed) for seed in range(4) for backbone in ("a", "b")]
    progress = Progress(order, [cell for cell in order if cell.seed == 0 or cell == order[-1]])
    progress.tell(order[0], "read")
    progress.tell(order[1], "read")
    progress.tell(order[2], "done", 10.0)  # a; to come: b, a, b, a and a finished b
    progress.tell(order[3], "done", 100.0)  # a, b, a
    progress.tell(order[4], "done", 30.0)  # b, a; the median of a is 20
    progress.tell(order[5], "failed")
    etas = [line.rpartition("ETA ")[2] for line in capsys.readouterr().out.splitlines()]
    unknown = "not known yet: the other backbones have not been timed"
    more = "0:00:20, and backbones that have not been timed"
    assert etas == [unknown, unknown, more, "0:02:00", "0:02:00", "0:00:20"]


def test_time_to_come_when_settings_have_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """A cell that was finished and is trained again says that the other finished ones will be too."""
    order = [Cell("demo", "a", "id", seed) for seed in range(3)]
    Progress(order, order).tell(order[0], "done", 60.0)
    assert capsys.readouterr().out == "1/3 demo a id seed 0: done, ETA 0:02:00\n"
