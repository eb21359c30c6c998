"""The cells of a grid: which there are, with which settings, and how long the rest will take."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configs.reland import get_config
from reland_jax.config import BACKBONES, Config, nearest_name
from reland_jax.types import CONTROLS, VARIANTS, RelandError

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
        backbones: names of `BACKBONES`.
        variants: names of `VARIANTS` and `CONTROLS`.
        seeds: number of training seeds; they are 0, 1, ...
        pools: "DATASET=PATH" of a pool file.
        changes: "section.key=value", for every cell.

    Raises:
        RelandError: an unknown name (the nearest is named), a data set or file that is not there, or a
            value that cannot work.
    """
    from reland_jax.data.loading import locate

    _check_names("datasets", datasets, datasets)
    _check_names("backbones", backbones, BACKBONES)
    _check_names("variants", variants, VARIANTS + CONTROLS)
    files = dict(_pool_file(text, datasets) for text in pools)
    configs = {}
    for dataset in datasets:
        for backbone in backbones:
            values = changed(get_config(f"{dataset},{backbone}").to_dict(), changes)
            if dataset in files:
                values["pool"] |= {"provider": "file", "path": files[dataset]}
            values |= {"variants": tuple(dict.fromkeys(variants)), "seeds_of_training": tuple(range(seeds))}
            configs[dataset, backbone] = config = Config.from_dict(values)
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


def changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Puts "section.key=value" into nested settings.

    Args:
        values: as `Config.to_dict` gives them; changed in place and returned.
        changes: each value is read as the type of the setting it replaces.

    Raises:
        RelandError: an unknown section or key (the nearest is named), or a value of another type.
    """
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals:
            raise RelandError(f"--set={text}: expected section.key=value")
        if name in _OWN_FLAGS:
            raise RelandError(f"--set={text}: {name} is given by {_OWN_FLAGS[name]}")
        section, key = _place(values, name)
        section[key] = _typed(text, value, section[key])
    return values


def _place(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The section that a dotted name lies in, and its key there."""
    *sections, key = name.split(".")
    for part in sections:
        _check_setting(name, part, values)
        if not isinstance(values[part], dict):
            raise RelandError(f"--set={name}: {part!r} is a setting and no section")
        values = values[part]
    _check_setting(name, key, values)
    if isinstance(values[key], dict):
        known = ", ".join(values[key])
        raise RelandError(f"--set={name}: {key!r} is a section; its settings are {known}")
    return values, key


def _check_setting(name: str, part: str, values: Mapping[str, Any]) -> None:
    if part not in values:
        raise RelandError(f"--set={name}: {part!r} is not a setting; {nearest_name(part, list(values))}")


def _typed(text: str, value: str, before: Any) -> Any:
    """A value of a flag as the type of the setting it replaces."""
    if isinstance(before, str):
        return value
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        read = {"true": True, "false": False}.get(value.lower())
    if isinstance(before, float) and type(read) is int or isinstance(before, tuple) and type(read) is list:
        read = type(before)(read)
    if type(read) is not type(before):
        raise RelandError(f"--set={text}: {value!r} is not of type {type(before).__name__}")
    return read


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

    def __init__(self, order: Sequence[Cell], finished: Callable[[Cell], bool]) -> None:
        """Asks once which cells are finished."""
        self._order, self._told = list(order), 0
        self._finished = {cell for cell in order if finished(cell)}
        self._seconds: dict[Key, list[float]] = {}

    def tell(self, cell: Cell, found: str, seconds: float | None = None) -> None:
        """Prints the line of the next cell.

        Args:
            cell: the cell.
            found: what it came to.
            seconds: what training it took; None if it was not trained now, or failed.
        """
        self._told += 1
        if seconds is not None:
            self._seconds.setdefault(cell.key, []).append(seconds)
            if cell in self._finished:  # of other settings, so its neighbours are to be trained too
                self._finished = {each for each in self._finished if each.key != cell.key}
        name = f"{cell.dataset} {cell.backbone} {cell.variant} seed {cell.seed}"
        print(f"{self._told}/{len(self._order)} {name}: {found}, ETA {self.eta()}", flush=True)

    def eta(self) -> str:
        """Hours, minutes and seconds to come; "over" them where a backbone has not been timed yet."""
        to_come = [cell for cell in self._order[self._told :] if cell not in self._finished]
        known = [cell for cell in to_come if cell.key in self._seconds]
        if to_come and not known:
            return "unknown"
        total = sum(statistics.median(self._seconds[cell.key]) for cell in known)
        return ("over " if len(known) < len(to_come) else "") + str(timedelta(seconds=round(total)))
