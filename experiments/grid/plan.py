"""The cells of a grid: which there are, with which settings, and how long the rest will take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configs.reland import get_config
from experiments.harness.settings import parse_setting, with_settings
from reland_jax.config import Config, nearest_name
from reland_jax.presets import NAMES
from reland_jax.types import RelandError
from reland_jax.variants import BY_NAME

Key = tuple[str, str]
"""Data set and backbone."""

_OWN_FLAGS = {
    "data.name": "--datasets",
    "model.backbone": "--backbones",
    "variants": "--variants",
    "seeds_of_training": "--seeds",
}


class Cell(NamedTuple):
    """One training of the grid."""

    dataset: str
    backbone: str
    variant: str
    seed: int

    @property
    def key(self) -> Key:
        """Data set and backbone."""
        return self.dataset, self.backbone


def plan(
    datasets: Sequence[str],
    backbones: Sequence[str],
    variants: Sequence[str],
    seeds: int,
    pools: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> dict[Key, Config]:
    """Settings by data set and backbone, in the order of the grid, checked before anything runs.

    Args:
        datasets: known names or paths.
        backbones: of `reland_jax.presets.NAMES`.
        variants: names of `reland_jax.variants.BY_NAME`.
        seeds: number of training seeds; they are 0, 1, ...
        pools: "DATASET=PATH" of a pool file.
        changes: "section.key=value", for every cell.

    Raises:
        RelandError: an unknown name (the nearest is named), a data set or file that is not there, or a
            value that cannot work.
    """
    from reland_jax.data.finding import locate

    _check_names("datasets", datasets, datasets)
    _check_names("backbones", backbones, NAMES)
    _check_names("variants", variants, tuple(BY_NAME))
    files = dict(_pool_file(text, datasets) for text in pools)
    configs = {}
    for dataset in datasets:
        for backbone in backbones:
            config = Config.from_dict(get_config(f"{dataset},{backbone}").to_dict())
            values = _changes(changes, config)
            if dataset in files:
                values |= {"pool.provider": "file", "pool.path": files[dataset]}
            values |= {"variants": tuple(dict.fromkeys(variants)), "seeds_of_training": tuple(range(seeds))}
            configs[dataset, backbone] = config = with_settings(config, values)
            locate(config.data)
    return configs


def cells(configs: Mapping[Key, Config]) -> list[Cell]:
    """Every training in order: seed, then data set and backbone, then variant."""
    first = next(iter(configs.values()))
    return [
        Cell(*key, variant, seed)
        for seed in first.seeds_of_training
        for key in configs
        for variant in first.variants
    ]


def _changes(texts: Sequence[str], config: Config) -> dict[str, Any]:
    values = dict(parse_setting(text, config) for text in texts)
    for name in values:
        if name in _OWN_FLAGS:
            raise RelandError(f"--set: {name} is set by {_OWN_FLAGS[name]}")
    return values


def _check_names(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    if not names:
        raise RelandError(f"--{flag} is empty; name at least one")
    for name in names:
        if name not in known:
            raise RelandError(f"--{flag}: {name!r} is not known; {nearest_name(name, known)}")


def _pool_file(text: str, datasets: Sequence[str]) -> tuple[str, str]:
    dataset, _, path = text.partition("=")
    _check_names("pools", [dataset], datasets)
    if not Path(path).is_file():
        raise RelandError(f"--pools={text}: there is no file {path!r}; expected DATASET=PATH")
    return dataset, path


class Progress:
    """Prints one line per cell, with the time that the rest will take.

    A cell to come takes the median of the seconds that this process needed for cells of the same
    backbone on the same data set; a finished one takes none.
    """

    def __init__(self, order: Sequence[Cell], finished: Iterable[Cell], *, quiet: bool = False) -> None:
        """Starts before the first cell.

        Args:
            order: all cells.
            finished: those that an earlier process finished.
            quiet: prints nothing.
        """
        self._order, self._done, self._quiet = list(order), 0, quiet
        self._finished = set(finished)
        self._seconds: dict[Key, list[float]] = {}

    def tell(self, cell: Cell, found: str, seconds: float | None = None) -> None:
        """Prints the line of the next cell.

        Args:
            cell: the cell.
            found: what it came to.
            seconds: what training it took; None if it was not trained now, or failed.
        """
        self._done += 1
        if seconds is not None:
            self._seconds.setdefault(cell.key, []).append(seconds)
            if cell in self._finished:  # of other settings, so its neighbours are to be trained too
                self._finished = {each for each in self._finished if each.key != cell.key}
        name = f"{cell.dataset} {cell.backbone} {cell.variant} seed {cell.seed}"
        if not self._quiet:
            print(f"{self._done}/{len(self._order)} {name}: {found}, {self.eta()}", flush=True)

    def eta(self) -> str:
        """The time to come; that of backbones that have not been timed yet is left out, and said to be."""
        to_come = [cell for cell in self._order[self._done :] if cell not in self._finished]
        known = [cell for cell in to_come if cell.key in self._seconds]
        if to_come and not known:
            return "ETA not known yet: the other backbones have not been timed"
        total = sum(statistics.median(self._seconds[cell.key]) for cell in known)
        more = ", and backbones that have not been timed" if len(known) < len(to_come) else ""
        return f"ETA {timedelta(seconds=round(total))}{more}"
