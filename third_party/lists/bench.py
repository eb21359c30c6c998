"""Lists for all users: this project's `recommend` beside RecTools' and RecBole's, with the same model.

    python third_party/lists/bench.py --dataset=DATA/amazon-beauty --recbole=FOLDER --rectools=FOLDER

EASE is the model that all three have; it is solved on all interactions of the file, and asked for the best
--k items that a user has not had. Each side runs in a process of its own, one after the other; FOLDER is the
virtual environment of RecBole (`third_party/recbole/setup.sh`) or RecTools (`pip install rectools==0.19.0`).
Solving and the first list, which compiles, are not counted. RecBole's `full_sort_topk` is given several batch
sizes, and the fastest counts.
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
REGULARISATION = 250.0


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def of_reland(arguments: argparse.Namespace) -> dict[str, Any]:
    """This project's side."""
    sys.path.insert(0, str(HERE.parents[2]))
    from reland_jax import Reland

    settings = {"ease.regularisation": REGULARISATION, "data.min_interactions": 1}
    with tempfile.TemporaryDirectory() as workdir:
        data = str(arguments.dataset / f"{arguments.dataset.name}.inter")
        model = Reland(data, backbone="ease", variant="id", settings=settings, workdir=workdir).fit()
    users = len(model.user_ids)
    return {"users": users, "seconds": timed(lambda: model.recommend(k=arguments.k), arguments.repeats)}


def of_rectools(arguments: argparse.Namespace) -> dict[str, Any]:
    """RecTools' side."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    table = pd.read_csv(arguments.dataset / f"{arguments.dataset.name}.inter", sep="\t")
    table = table.iloc[:, :3].set_axis([Columns.User, Columns.Item, Columns.Datetime], axis=1)
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="s")
    table[Columns.Weight] = 1.0
    dataset = Dataset.construct(table)
    model = EASEModel(regularization=REGULARISATION).fit(dataset)
    users = table[Columns.User].unique()

    def work() -> None:
        model.recommend(users=users, dataset=dataset, k=arguments.k, filter_viewed=True)

    return {"users": len(users), "seconds": timed(work, arguments.repeats)}


def of_recbole(arguments: argparse.Namespace) -> dict[str, Any]:
    """RecBole's side."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model
    from recbole.utils.case_study import full_sort_topk

    del sys.argv[1:]  # RecBole reads them
    values = {
        "data_path": str(arguments.dataset.parent),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "reg_weight": REGULARISATION, "show_progress": False, "use_gpu": False, "state": "ERROR",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    }  # fmt: skip
    config = Config(model="EASE", dataset=arguments.dataset.name, config_dict=values)
    train, _, test = data_preparation(config, create_dataset(config))
    model = get_model("EASE")(config, train.dataset)
    users = test.uid_list

    def work(batch: int) -> None:
        for part in torch.split(users, batch):
            full_sort_topk(part, model, test, arguments.k, device="cpu")

    found = {batch: timed(lambda batch=batch: work(batch), arguments.repeats) for batch in (256, 1024, 4096)}
    return {"users": len(users), "seconds": min(found.values()), "batches": found}


SIDES = {"reland_jax": of_reland, "rectools": of_rectools, "recbole": of_recbole}


def main() -> None:
    """One side in this process, or all of them, each in its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder NAME with NAME.inter")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recbole", type=Path, help="virtual environment of RecBole")
    parser.add_argument("--rectools", type=Path, help="virtual environment of RecTools")
    parser.add_argument("--side", choices=sorted(SIDES), help="only this side, in this environment")
    arguments = parser.parse_args()
    arguments.dataset = arguments.dataset.resolve()
    if arguments.side:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # RecBole leaves logs in the current one
            found = {"library": arguments.side} | SIDES[arguments.side](arguments)
            os.chdir("/")
        print(json.dumps(found | {"users_per_second": found["users"] / found["seconds"]}))
        return
    for side in SIDES:
        folder = getattr(arguments, side, None)
        python = sys.executable if side == "reland_jax" else str((folder or Path()) / "bin" / "python")
        if side != "reland_jax" and folder is None:
            continue
        command = [
            python,
            str(HERE),
            f"--side={side}",
            f"--dataset={arguments.dataset}",
            f"--k={arguments.k}",
        ]
        done = subprocess.run(
            [*command, f"--repeats={arguments.repeats}"], stdout=subprocess.PIPE, text=True, check=True
        )
        print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
