r"""The paper's evidence by one command: its tables, figures and claims, each with a verdict by rule.

    python -m experiments.paper --workdir=DIR [--parts=table1,table2,table3,figure5,...,cost] \
        [--datasets=amazon-beauty,amazon-sports,ml-1m] [--backbones=...] [--seeds=5] \
        [--pools=DATASET=PATH,...] [--own_pools=DATASET=PATH,...] [--set=section.key=value ...] \
        [--cells=FOLDER] [--curves=FOLDER] [--finished_only] [--seconds_per_inference=S]

Parts are those of PARTS, each made of a command that exists: table2 by `experiments.table2`, figure6 by
`experiments.seed_count`. What is finished is read back, so the same command continues after a stop. With
--finished_only nothing is trained: Table 2, its pooled tests and the verdicts come from the scores in
--cells, and all else from --curves (seed_count_*.json for Figure 6, curves_*.json for Figure 7, cost_*.json,
and arms/GRID/cells for Table 3 and Figure 5), in a minute and without the data. Writes DIR/paper.json and
DIR/paper.html. docs/paper.md has the plan of comparisons and the rules of the verdicts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import define_path, required_path
from experiments.harness.programs import keep_programs_of
from experiments.harness.written import check_own
from reland_jax.config import BACKBONES, nearest_name
from reland_jax.files import read_json, write_json
from reland_jax.presets import preset
from reland_jax.types import RelandError
from reland_jax.variants import BY_NAME, VARIANTS

if TYPE_CHECKING:
    from experiments.analysis.arms import Arm
    from experiments.analysis.findings import Part
    from experiments.grid.scores import GroupPool
    from experiments.grid.summary import GridSummary
    from reland_jax.config import Config
    from reland_jax.report.paper import DataFigures

DATASETS = ("amazon-beauty", "amazon-sports", "ml-1m")
COMPARED = (*BACKBONES, "ease", "ials")
"""The paper's backbones, and the linear models that are worth having beside them."""
OF_FIGURES = ("neumf", "sasrec")
"""The backbones of the paper's figures, one for each of its two scenarios."""


class Asked(NamedTuple):
    """What the command was asked for.

    Attributes:
        workdir: folder of artefacts and results.
        datasets: names or paths.
        backbones: of Table 2.
        seeds: training seeds 0, 1, ... up to this many.
        pools: "DATASET=PATH", files of rationales.
        own_pools: the same of texts of all users, for the baselines that ask about everyone.
        changes: "section.key=value", for every training.
        cells: folder of the scores of finished cells.
        curves: folder of kept results of the figures, of the ledger and of arms; None for those in `workdir`
            alone.
        finished_only: train nothing.
        seconds: measured for an inference; None where nothing was measured.
        figure_backbones: of Table 3 and Figures 5 to 7; () for those of the paper.
    """

    workdir: Path
    datasets: Sequence[str] = DATASETS
    backbones: Sequence[str] = COMPARED
    seeds: int = 5
    pools: Sequence[str] = ()
    own_pools: Sequence[str] = ()
    changes: Sequence[str] = ()
    cells: Path | None = None
    curves: Path | None = None
    finished_only: bool = False
    seconds: float | None = None
    figure_backbones: Sequence[str] = ()

    def configs(self, backbones: Sequence[str], variants: Sequence[str]) -> dict[tuple[str, str], Config]:
        """Settings of trainings, checked."""
        from experiments.grid.plan import plan

        return plan(self.datasets, backbones, variants, self.seeds, self.pools, self.changes)


class Results:
    """What several parts need, made once."""

    def __init__(self, asked: Asked) -> None:
        """Nothing is made yet."""
        self.asked = asked
        self._grid: GridSummary | None = None

    def grid(self) -> GridSummary:
        """Table 2: trained, or, with `finished_only`, from kept cells.

        Raises:
            RelandError: bad data or settings; nothing is kept.
        """
        if self._grid is None:
            self._grid = self._kept() if self.asked.finished_only else self._trained()
        return self._grid

    def _kept(self) -> GridSummary:
        from experiments.analysis.kept import kept_groups
        from experiments.analysis.quality import grid_of
        from reland_jax.results import environment

        folder = self.cells
        groups = kept_groups(folder, self.asked.datasets)
        if not groups:
            raise RelandError(
                f"{folder}: there are no scores of {', '.join(self.asked.datasets)}; name their folder by "
                "--cells, or run without --finished_only"
            )
        return grid_of(groups, environment())

    def _trained(self) -> GridSummary:
        from experiments import table2

        asked = self.asked
        configs = asked.configs(asked.backbones, list(BY_NAME))
        keep_programs_of(configs.values(), asked.workdir)
        return table2.run(configs, asked.workdir / "table2", self.cells)

    @property
    def cells(self) -> Path:
        """Folder of the scores of finished cells."""
        return self.asked.cells or self.asked.workdir / "cells"

    def counts(self) -> dict[str, DataFigures]:
        """Users, items and interactions of the data sets that are here."""
        from reland_jax.data import load_interactions, statistics
        from reland_jax.data.finding import locate
        from reland_jax.report.paper import DataFigures

        found = {}
        for name in self.asked.datasets:
            config = preset(name, "sasrec").data
            try:
                locate(config)
            except RelandError:
                if self.asked.finished_only:
                    continue
                raise
            figures = statistics(load_interactions(config))
            found[Path(name).name] = DataFigures(*(int(figures[one]) for one in DataFigures._fields))
        return found

    def pools(self) -> dict[str, GroupPool]:
        """Data set -> its pool."""
        return {group.dataset: group.pool for group in self.grid().groups}


def table1(results: Results) -> Part:
    """The data sets."""
    from experiments.analysis.datasets import datasets

    return datasets([Path(name).name for name in results.asked.datasets], results.counts())


def table2(results: Results) -> Part:
    """Backbones, variants and what the words are worth."""
    from experiments.analysis.quality import quality

    grid = results.grid()
    if not results.asked.finished_only:
        return quality(grid)
    return quality(grid, [
        f"The scores are those kept in {results.cells.name}, taken as they are: they may be of earlier "
        "settings and of an earlier version of the program; levels of activity need the data."
    ])  # fmt: skip


def table3(results: Results) -> Part:
    """KAR and SLIM as adaptors, with texts of one's own or shared."""
    from experiments.analysis.arms import TABLE_3

    title = "Table 3: texts of one's own or shared, and how they enter"
    return _arms(results, "table3", title, TABLE_3, results.asked.figure_backbones or OF_FIGURES[1:])


def figure5(results: Results) -> Part:
    """The paper's ablation."""
    from experiments.analysis.arms import FIGURE_5

    title = "Figure 5: without a part of the method"
    return _arms(results, "figure5", title, FIGURE_5, results.asked.figure_backbones or OF_FIGURES)


def _arms(results: Results, name: str, title: str, arms: Sequence[Arm], backbones: Sequence[str]) -> Part:
    """Trains the grids of the arms that the texts allow, and compares what is finished."""
    from experiments.analysis.arms import arms_part
    from experiments.analysis.kept import kept_groups

    asked, idle, found = results.asked, _idle(results.asked, arms), {}
    for grid in dict.fromkeys(arm.grid for arm in arms):
        if not asked.finished_only and grid not in idle:
            _train(asked, [arm for arm in arms if arm.grid == grid], backbones, asked.workdir / "arms")
        places = [asked.workdir, *([asked.curves] if asked.curves else [])]
        every = (kept_groups(place / "arms" / grid / "cells", asked.datasets) for place in places)
        found[grid] = next(filter(None, every), [])
    return arms_part(name, title, arms, found, idle)


def _idle(asked: Asked, arms: Sequence[Arm]) -> dict[str, str]:
    """Grids that the texts do not allow, with the reason."""
    from experiments.analysis.arms import OWN

    idle = {}
    for arm in arms:
        given = asked.pools or (asked.own_pools and any(text.startswith("pool.") for text in arm.of_pool))
        if arm.source == OWN and not asked.own_pools and not asked.finished_only:
            idle[arm.grid] = "there are no texts of all users (--own_pools)"
        elif arm.of_pool and given:
            idle[arm.grid] = (
                f"a file of texts has its own seed users and prompt, so {arm.of_pool[0]} is idle"
            )
    return idle


def _train(asked: Asked, arms: Sequence[Arm], backbones: Sequence[str], place: Path) -> None:
    """One grid, whose artefacts before training other grids with the same pool share.

    Where texts of all users are known and no pool is given, seed users have those of their own.
    """
    from experiments import table2
    from experiments.analysis.arms import OWN
    from experiments.analysis.texts import configs_of, paths_of, seed_pool

    work = place / "-".join(["work", arms[0].source, *(text.replace("=", "_") for text in arms[0].of_pool)])
    pools, own = paths_of(asked.pools), paths_of(asked.own_pools)
    configs: dict[tuple[str, str], Config] = {}
    for dataset in asked.datasets:
        text = own.get(dataset) if arms[0].source == OWN else pools.get(dataset) or own.get(dataset)
        if arms[0].source == OWN and text is None:
            continue
        made = configs_of(
            dataset, backbones, [arm.variant for arm in arms], asked.seeds, text,
            [*asked.changes, *arms[0].changes],
        )  # fmt: skip
        keep_programs_of(made.values(), asked.workdir)
        if arms[0].source != OWN and dataset not in pools and text:
            made = {
                key: seed_pool(config, table2.shared_folder(work, config)) for key, config in made.items()
            }
        configs |= made
    if configs:
        table2.run(configs, work, place / arms[0].grid / "cells")


def figure6(results: Results) -> Part:
    """How many seed users."""
    from experiments.analysis.seed_numbers import seed_numbers

    if not results.asked.finished_only:
        return seed_numbers([_seed_count(results.asked, *key) for key in _figure_keys(results.asked)], {})
    found, missing = [], {}
    for name in (Path(one).name for one in results.asked.datasets):
        curves = _kept_curves(results.asked, name)
        found += curves
        if not curves:
            missing[name] = f"no result of experiments.seed_count --validate for {name} is kept"
    return seed_numbers(found, missing)


def _figure_keys(asked: Asked) -> list[tuple[str, str]]:
    backbones = asked.figure_backbones or OF_FIGURES
    return [(dataset, backbone) for dataset in asked.datasets for backbone in backbones]


def _seed_count(asked: Asked, dataset: str, backbone: str) -> dict[str, Any]:
    from experiments import seed_count
    from experiments.seed_counts.options import Options

    config = asked.configs([backbone], list(BY_NAME))[dataset, backbone]
    options = Options(validate=True, test=True, seeds=asked.seeds)
    return seed_count.run(config, asked.workdir / "figure6" / f"{Path(dataset).name}-{backbone}", options)


def _kept_curves(asked: Asked, name: str) -> list[dict[str, Any]]:
    """Results of `experiments.seed_count` of a data set, with trainings."""
    paths = sorted(asked.workdir.glob(f"figure6/{name}-*/seed_count.json"))
    if asked.curves:
        paths += sorted(asked.curves.glob("seed_count_*.json"))
    found = [read_json(path) for path in paths]
    return [each for each in found if each["data"] == name and "validation" in each]


def figure7(results: Results) -> Part:
    """Validation by epoch."""
    from experiments.analysis.curves import as_plain, curves_part, trained_curves
    from experiments.analysis.quality import barred

    trained = {} if results.asked.finished_only else _trained_folders(results)
    for key, folder in trained.items():
        if found := trained_curves(folder / "train" / key[1]):
            name = Path(key[0]).name
            pool = results.pools().get(name)
            plain = as_plain(name, key[1], found, barred({pool.provider if pool else ""}))
            write_json(results.asked.workdir / "figure7" / f"{name}_{key[1]}.json", plain)
    kept, missing = _kept(results.asked, "figure7", "curves_*.json")
    kept += _best_epochs(results, {(plain["dataset"], plain["backbone"]) for plain in kept})
    had = {plain["dataset"] for plain in kept}
    return curves_part(kept, {name: why for name, why in missing.items() if name not in had})


def _best_epochs(results: Results, known: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """What kept cells tell of trainings whose curves are not kept."""
    from experiments.analysis.curves import as_plain, ends_of
    from experiments.analysis.kept import kept_groups
    from experiments.analysis.quality import barred

    asked = results.asked
    keys = {
        (Path(group.config.data.name).name, group.config.model.backbone): group
        for group in kept_groups(results.cells, asked.datasets)
    }
    chosen = asked.figure_backbones or OF_FIGURES
    return [
        as_plain(*key, ends_of(group.runs), barred({group.pool.provider}))
        for key, group in keys.items()
        if key not in known and key[1] in chosen
    ]


def figure8(results: Results) -> Part:
    """The paper's user, and users drawn by a rule."""
    from experiments.analysis.cases import cases_part
    from experiments.analysis.showing import trained_cases

    if not results.asked.finished_only:
        configs = results.asked.configs([OF_FIGURES[1]], list(VARIANTS))
        for (dataset, backbone), folder in _trained_folders(results, [OF_FIGURES[1]]).items():
            path = results.asked.workdir / "figure8" / f"{Path(dataset).name}_{backbone}.json"
            write_json(path, trained_cases(configs[dataset, backbone], folder))
    kept, missing = _kept(results.asked, "figure8", "cases_*.json")
    return cases_part(kept, missing)


def _trained_folders(results: Results, backbones: Sequence[str] = ()) -> dict[tuple[str, str], Path]:
    """(data set, backbone) -> the folder of Table 2's artefacts, where there is one."""
    from experiments.table2 import shared_folder

    asked = results.asked
    results.grid()
    chosen = backbones or asked.figure_backbones or OF_FIGURES
    keys = [(dataset, backbone) for dataset in asked.datasets for backbone in chosen]
    folders = {key: shared_folder(asked.workdir / "table2", preset(*key)) for key in keys}
    return {key: folder for key, folder in folders.items() if folder.is_dir()}


def _kept(asked: Asked, name: str, pattern: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What a figure has kept of the data sets, and why there is nothing of the others."""
    paths = sorted((asked.workdir / name).glob("*.json"))
    paths += sorted(asked.curves.glob(pattern)) if asked.curves else []
    names = [Path(one).name for one in asked.datasets]
    found = [plain for path in paths if (plain := read_json(path))["dataset"] in names]
    had = {plain["dataset"] for plain in found}
    return found, {each: "no training of it is kept" for each in names if each not in had}


def cost(results: Results) -> Part:
    """What an LLM is asked."""
    from experiments.analysis.asking import would_ask
    from experiments.analysis.cost import cost as ledger_of

    asked = results.asked
    if not asked.finished_only:
        for dataset in asked.datasets:
            path = asked.workdir / "cost" / f"{Path(dataset).name}.json"
            write_json(path, would_ask(preset(dataset, OF_FIGURES[1])))
    kept, _ = _kept(asked, "cost", "cost_*.json")
    names = [Path(name).name for name in asked.datasets]
    told = {plain["dataset"]: plain["asked"] for plain in kept}
    return ledger_of(names, results.counts(), results.pools(), asked.seconds, told)


PARTS: Mapping[str, Callable[[Results], Part]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "figure5": figure5,
    "figure6": figure6,
    "figure7": figure7,
    "figure8": figure8,
    "cost": cost,
}
"""The parts by name, in the order of the page."""


def run(asked: Asked, parts: Sequence[str] = tuple(PARTS)) -> dict[str, Any]:
    """Makes the parts and writes the page.

    Args:
        asked: what to compare.
        parts: names of `PARTS`.

    Returns:
        The content of paper.json.

    Raises:
        RelandError: an unknown part (the nearest is named), bad data or settings; with `finished_only` also
            where nothing is kept.
    """
    from experiments.analysis.view import write_view
    from experiments.harness.about import about
    from reland_jax.results import environment

    for name in parts:
        if name not in PARTS:
            raise RelandError(f"--parts: {name!r} is not known; {nearest_name(name, tuple(PARTS))}")
    check_own(asked.workdir, "paper.json", "paper.html")
    asked.workdir.mkdir(parents=True, exist_ok=True)
    results = Results(asked)
    made = [PARTS[name](results) for name in PARTS if name in parts]
    return write_view(asked.workdir, made, {**environment(), **about(asked.workdir)})


def define_flags() -> None:
    """Registers the flags; not at import, since other commands have some of the same names."""
    required_path("workdir", "Folder of artefacts and results.")
    flags.DEFINE_list("parts", list(PARTS), "Parts to make.")
    flags.DEFINE_list("datasets", list(DATASETS), "Data sets: known names or paths.")
    flags.DEFINE_list("backbones", list(COMPARED), "Backbones of Table 2.")
    flags.DEFINE_integer("seeds", 5, "Training seeds 0, 1, ... up to this many.", lower_bound=1)
    flags.DEFINE_list("pools", [], "DATASET=PATH: file of the rationales of a data set.")
    flags.DEFINE_list("own_pools", [], "DATASET=PATH: texts of all users, for KAR and SLIM.")
    flags.DEFINE_multi_string("set", [], "section.key=value, for every training; can be repeated.")
    define_path("cells", "", "Folder of the scores of finished cells; WORKDIR/cells if not given.")
    define_path("curves", "", "Folder of kept results: seed_count_*.json, curves_*.json, cost_*.json, arms.")
    flags.DEFINE_list("figure_backbones", [], "Backbones of Table 3 and Figures 5 to 7; the paper's if none.")
    flags.DEFINE_bool("finished_only", False, "Train nothing: the page of what is kept.")
    flags.DEFINE_float("seconds_per_inference", None, "Measured for an inference of the LLM.", lower_bound=0)


def main() -> None:
    """Runs the command."""
    given = flags.FLAGS
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax.mesh import join_processes

    join_processes(os.environ)
    asked = Asked(
        Path(given.workdir), given.datasets, given.backbones, given.seeds, given.pools, given.own_pools,
        given.set,
        Path(given.cells) if given.cells else None, Path(given.curves) if given.curves else None,
        given.finished_only, given.seconds_per_inference, given.figure_backbones,
    )  # fmt: skip
    run(asked, given.parts)


if __name__ == "__main__":
    command_line.run(main, define_flags)
