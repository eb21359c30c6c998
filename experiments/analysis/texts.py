"""Texts of all users: the settings under which none of them has read what is tested, and the part of them
that seed users would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.grid.plan import plan
from reland_jax.config import Config
from reland_jax.types import RelandError

_FIXED = (
    "data.protocol=fixed", "data.validation_from=test", "eval.mask_history=True", "pool.held_out=100000",
)  # fmt: skip
OF_DATA: Mapping[str, tuple[str, ...]] = {
    "lastfm": _FIXED,
    "ml-1m-full": (*_FIXED, "data.split_field=profile_split", "text.max_tokens=256"),
    "dbbook": (*_FIXED, "text.max_tokens=256"),
}
"""Data set -> "section.key=value". Its texts were written from the training part of a published split, so
that split is the one to be tested on, and validation items come out of its test part."""
_PRESETS_ARE_OF = 22_363
"""Users of Amazon Beauty, on which `fusion.neighbours` was chosen; a tenth of them are seed users."""


def configs_of(
    dataset: str,
    backbones: Sequence[str],
    variants: Sequence[str],
    seeds: int,
    pool: str | None,
    changes: Sequence[str],
) -> dict[tuple[str, str], Config]:
    """Settings of a data set for a grid of arms, as `experiments.grid.plan.plan` checks them.

    Args:
        dataset: known name or path.
        backbones: of the grid.
        variants: of the grid.
        seeds: number of training seeds.
        pool: "DATASET=PATH", or None for the offline writer.
        changes: "section.key=value", after those of the data set.
    """
    every = [*OF_DATA.get(Path(dataset).name, ()), *changes]
    return plan([dataset], backbones, variants, seeds, [pool] if pool else [], every)


def seed_pool(config: Config, folder: Path) -> Config:
    """The settings with the pool file cut down to the seed users that the sampling chooses.

    `fusion.neighbours` is kept in proportion to the seed users that it was chosen for, so that a text is seen
    with as large a share of them.

    Args:
        config: its pool file has texts of all users.
        folder: of the artefacts that the trainings will use too.

    Raises:
        RelandError: what the stages up to `encode_users` raise; or no text may be used.
    """
    from experiments.seed_counts.curve import encode, sampled
    from experiments.seed_counts.training import usable_users, write_subset

    if config.pool.provider != "file":
        raise RelandError("texts of seed users are cut out of a pool file, and none is given")
    encoded = encode(config, folder)
    found = sampled(encoded, config, folder, config.seeds.fraction, 0, usable_users(config, encoded))
    path = folder / "seed_rationales.jsonl"
    users = encoded.interactions.ids.users
    write_subset(Path(config.pool.path_to_read()), path, set(users[found.user].tolist()))
    near = max(1, round(config.fusion.neighbours * len(users) / _PRESETS_ARE_OF))
    return dataclasses.replace(
        config,
        pool=dataclasses.replace(config.pool, path=str(path)),
        fusion=dataclasses.replace(config.fusion, neighbours=near),
    )


def paths_of(given: Sequence[str]) -> dict[str, str]:
    """Data set -> "DATASET=PATH" as it was given."""
    return {text.partition("=")[0]: text for text in given}
