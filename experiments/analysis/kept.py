"""Groups of a grid from kept scores alone, without the data that they are of.

Nothing tells whether a kept cell is of today's settings, so all of a folder are taken as they are, and the
page says so. Who wrote the rationales is read from the summary (table2*.json) that was kept beside the
folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.grid.plan import Key
from experiments.grid.score_cache import ScoreCache
from experiments.grid.scores import Group, GroupPool, Scores
from reland_jax.config import BACKBONES, LINEAR, Config
from reland_jax.presets import preset
from reland_jax.types import RelandError
from reland_jax.variants import BY_NAME

_UNKNOWN = GroupPool(0, {}, 0, 0, 0, False, {}, {"provider": ""}, 0)
"""A pool of which nothing was kept."""


def kept_groups(folder: Path, datasets: Sequence[str]) -> list[Group]:
    """The groups of which a folder has scores, in the order of the grid.

    Levels of activity cannot be had without the data: `Group.activity` is zero for everybody.

    Args:
        folder: of the scores of finished cells.
        datasets: names.

    Raises:
        RelandError: a file that cannot be read, or cells of one backbone that evaluate different users.
    """
    cache, pools = ScoreCache(folder), kept_pools(folder.parent)
    found = {
        key: runs
        for dataset in datasets
        for backbone in (*BACKBONES, *LINEAR)
        if (runs := _runs(cache, key := (dataset, backbone)))
    }
    known = {variant for runs in found.values() for variant in runs}
    variants = tuple(variant for variant in BY_NAME if variant in known)
    seeds = tuple(sorted({seed for runs in found.values() for each in runs.values() for seed in each}))
    return [
        _group(folder, preset(*key, {"variants": variants, "seeds_of_training": seeds}), runs, pools.get(key))
        for key, runs in found.items()
    ]


def kept_pools(folder: Path) -> dict[Key, GroupPool]:
    """(data set, backbone) -> the pool that the summaries in a folder name."""
    groups = [
        group
        for path in sorted(folder.glob("table2*.json"))
        for group in json.loads(path.read_text(encoding="utf-8"))["groups"]
    ]
    return {(group["dataset"], group["backbone"]): _pool(group["pool"]) for group in groups}


def _pool(plain: Mapping[str, Any]) -> GroupPool:
    rest = dict(plain)
    own = {name: rest.pop(name) for name in GroupPool.__dataclass_fields__ if name != "provenance"}
    return GroupPool(**own, provenance=rest)


def _runs(cache: ScoreCache, key: Key) -> dict[str, dict[int, Scores]]:
    runs = {variant: cache.as_kept(key, variant) for variant in BY_NAME}
    return {variant: seeds for variant, seeds in runs.items() if seeds}


def _group(
    folder: Path, config: Config, runs: Mapping[str, dict[int, Scores]], pool: GroupPool | None
) -> Group:
    users = [scores.users for seeds in runs.values() for scores in seeds.values()]
    if any(not np.array_equal(each, users[0]) for each in users):
        raise RelandError(
            f"{folder}: the cells {config.data.name}_{config.model.backbone}_* evaluate different users, so "
            "they are of different data or splits; keep those of one grid in a folder"
        )
    activity = np.zeros(int(users[0].max(initial=-1)) + 1, np.int64)
    every = {variant: runs.get(variant, {}) for variant in config.variants}
    failed: dict[str, dict[int, str]] = {variant: {} for variant in config.variants}
    return Group(config, config.data.protocol, activity, pool or _UNKNOWN, every, failed)
