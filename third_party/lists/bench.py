"""Lists for all users: this project's `recommend` beside RecTools' and RecBole's, with the same model.

    python third_party/lists/bench.py --dataset=DATA/amazon-beauty --recbole=FOLDER --rectools=FOLDER

Each side is asked for the best --k items that a user has not had, in a process of its own, one after the
other. FOLDER is the virtual environment of RecBole (`third_party/recbole/setup.sh`) or RecTools (`pip
install "rectools[torch]==0.19.0"`). Models are those that a side has; sizes are those of
`third_party/recbole/matched.py`. How well they are trained changes no time: ours and RecTools' are
trained for an epoch or a step, RecBole's not at all. Loading, solving and a first list, which compiles,
are not counted; encoding the histories of users is.

Ours are asked twice: "api" makes a table in memory, "command" what `experiments.recommend` does with it,
a Parquet file. "started" is that command from a shell, with Python's start, loading and compilation.
RecBole's `full_sort_topk` takes a batch of users; it is given several sizes, of which the fastest counts,
and the first --users users alone, since a batch takes the same time for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
REGULARISATION, FACTORS, LENGTH = 250.0, 64, 50
BATCHES = (256, 1024, 4096)
OF_SIDE = {
    "reland_jax": ("ease", "ials", "lightgcn", "sasrec"),
    "rectools": ("ease", "ials", "sasrec"),
    "recbole": ("ease", "lightgcn", "sasrec"),
}
"""Which models a side has."""

Found = list[dict[str, Any]]
"""For each way to ask: "way", "users" and "seconds"."""


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def of_reland(given: argparse.Namespace) -> Found:
    """This project's side."""
    sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1] / "recbole")]
    from experiments.recommend import write_lists
    from experiments.serving.source import Source
    from reland_jax import Reland

    folder, data = Path.cwd(), str(given.dataset / f"{given.dataset.name}.inter")
    settings = _settings(given.model)
    trained = Reland(data, backbone=given.model, variant="id", settings=settings, workdir="work").fit()
    trained.save("bundle")
    model, users = Reland.load("bundle"), len(trained.user_ids)

    def table() -> Any:
        for name in ("predictor", "_today"):  # the vectors of users are made again
            model.__dict__.pop(name, None)
        return model.recommend(k=given.k)

    def file() -> None:
        for name in ("predictor", "_today"):
            model.__dict__.pop(name, None)
        Path("lists.parquet").unlink(missing_ok=True)
        write_lists(Source(model, "here"), None, Path("lists.parquet"), 10_000, {"k": given.k})

    def started() -> None:
        flags = [f"--bundle={folder}/bundle", f"--out={folder}/lists.parquet", "--overwrite"]
        command = [sys.executable, "-m", "experiments.recommend", *flags, f"--k={given.k}"]
        subprocess.run(command, check=True, cwd=HERE.parents[2], capture_output=True)

    ways = {"api": table, "command": file, "started": started}
    return [{"way": way, "users": users, "seconds": timed(do, given.repeats)} for way, do in ways.items()]


def _settings(model: str) -> dict[str, Any]:
    """Those of the presets with the sizes of the other sides."""
    from matched import MODELS, model_sizes

    settings: dict[str, Any] = {"data.min_interactions": 1, "ease.regularisation": REGULARISATION}
    settings |= {"model.dim": FACTORS} if model == "ials" else {}
    if model in MODELS:
        settings |= {f"model.{name}": size for name, size in model_sizes(model).items()}
        settings |= {"train.max_epochs": 1, "data.max_length": LENGTH}
    return settings


def of_rectools(given: argparse.Namespace) -> Found:
    """RecTools' side."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    table = pd.read_csv(given.dataset / f"{given.dataset.name}.inter", sep="\t")
    table = table.iloc[:, :3].set_axis([Columns.User, Columns.Item, Columns.Datetime], axis=1)
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="s")
    table[Columns.Weight] = 1.0
    dataset = Dataset.construct(table)
    model = _rectools_model(given.model).fit(dataset)
    users = table[Columns.User].unique()

    def work() -> None:
        model.recommend(users=users, dataset=dataset, k=given.k, filter_viewed=True)

    return [{"way": "recommend", "users": len(users), "seconds": timed(work, given.repeats)}]


def _rectools_model(name: str) -> Any:
    from rectools import models

    if name == "ease":
        return models.EASEModel(regularization=REGULARISATION)
    if name == "ials":
        from implicit.als import AlternatingLeastSquares

        return models.ImplicitALSWrapperModel(AlternatingLeastSquares(factors=FACTORS, iterations=1))
    from pytorch_lightning import Trainer

    def one_step() -> Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(max_steps=1, accelerator="cpu", **quiet)

    return models.SASRecModel(
        n_blocks=2, n_heads=2, n_factors=FACTORS, session_max_len=LENGTH, get_trainer_func=one_step
    )


def of_recbole(given: argparse.Namespace) -> Found:
    """RecBole's side."""
    import torch
    from recbole.utils.case_study import full_sort_topk

    model, test = _recbole_model(given)
    fields = test._dataset
    users = torch.unique(fields.inter_feat[fields.uid_field])[: given.users]

    def work(batch: int) -> None:
        for part in torch.split(users, batch):
            full_sort_topk(part, model, test, given.k, device="cpu")

    batches = [batch for batch in BATCHES if batch <= len(users)] or [len(users)]
    found = {batch: timed(lambda batch=batch: work(batch), given.repeats) for batch in batches}
    tried = {str(batch): round(len(users) / seconds, 1) for batch, seconds in found.items()}
    return [{"way": "full_sort_topk", "users": len(users), "seconds": min(found.values()), "batches": tried}]


def _recbole_model(given: argparse.Namespace) -> tuple[Any, Any]:
    """The model and the loader of its test part."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model

    sys.path.insert(0, str(HERE.parents[1] / "recbole"))
    from matched import MODELS, RECBOLE_COMMON, recbole_settings

    del sys.argv[1:]  # RecBole reads them
    in_time = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
    values = RECBOLE_COMMON | {"reg_weight": REGULARISATION, "eval_args": in_time}
    if given.model in MODELS:
        values = recbole_settings(given.model)
    name = {"ease": "EASE"}.get(given.model) or MODELS[given.model].recbole
    config = Config(
        model=name, dataset=given.dataset.name, config_dict=values | {"data_path": str(given.dataset.parent)}
    )
    train, _, test = data_preparation(config, create_dataset(config))
    return get_model(name)(config, train._dataset).eval(), test


SIDES: dict[str, Callable[[argparse.Namespace], Found]] = {
    "reland_jax": of_reland, "rectools": of_rectools, "recbole": of_recbole,
}  # fmt: skip


def measured(given: argparse.Namespace) -> None:
    """One side and one model in this process; prints a line for each way to ask."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole leaves logs in the current one
        for found in SIDES[given.side](given):
            rate = round(found["users"] / found["seconds"], 1)
            told = {"model": given.model, "library": given.side} | found | {"users_per_second": rate}
            print(json.dumps(told))
        os.chdir("/")


def main() -> None:
    """One side in this process, or all of them, each in its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder NAME with NAME.inter")
    parser.add_argument("--models", default="ease,ials,lightgcn,sasrec")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--users", type=int, default=4096, help="RecBole's users")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recbole", type=Path, help="virtual environment of RecBole")
    parser.add_argument("--rectools", type=Path, help="virtual environment of RecTools")
    parser.add_argument("--side", choices=sorted(SIDES), help="only this side, in this environment")
    parser.add_argument("--model", choices=OF_SIDE["reland_jax"], help="with --side: its model")
    given = parser.parse_args()
    given.dataset = given.dataset.resolve()
    if given.side:
        measured(given)
        return
    for model in given.models.split(","):
        for side in (side for side in SIDES if model in OF_SIDE[side]):
            folder = getattr(given, side, None)
            if side != "reland_jax" and folder is None:
                continue
            python = sys.executable if folder is None else str(folder / "bin" / "python")
            flags = {"side": side, "model": model, "dataset": given.dataset, "k": given.k}
            flags |= {"users": given.users, "repeats": given.repeats}
            command = [python, str(HERE), *(f"--{name}={value}" for name, value in flags.items())]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            lines = [line for line in done.stdout.splitlines() if line.startswith('{"model"')]
            print("\n".join(lines or [f"{side}, {model}: failed"]), flush=True)


if __name__ == "__main__":
    main()
