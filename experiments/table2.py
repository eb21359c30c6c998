r"""The grid of the paper's Table 2: data sets x backbones x variants x training seeds.

    python -m experiments.table2 --datasets=amazon-beauty,amazon-sports --backbones=neumf,lightgcn,sasrec \
        --variants=id,f_item,reland,permuted,noise --seeds=5 --workdir=DIR \
        [--pools=amazon-beauty=pool.jsonl] [--set=train.max_epochs=5 ...] [--finished_only] [--cells=FOLDER]

The settings are those of experiments/configs/reland.py per data set and backbone. Seed comes after seed,
so a stopped grid leaves whole tables of fewer seeds; started again, it reads back the cells that are
finished and continues with a killed one from its checkpoint. Writes DIR/table2.json, table2.md and
table2.html, again after every backbone of a seed; the artefacts lie in DIR/DATASET-PROTOCOL, which
backbones with the same split share. The scores of finished cells are small files in DIR/cells, or in the
folder of --cells; what is found there with the same settings and data is not trained again, wherever it
was trained.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from experiments.grid.plan import Cell, Key, Progress, cells, plan
from experiments.grid.score_cache import ScoreCache
from experiments.harness import command_line
from experiments.harness.command_line import define_path, required_path
from experiments.harness.programs import keep_programs_of
from experiments.harness.written import check_own
from reland_jax.artefacts import read_stamp
from reland_jax.config import BACKBONES, Config
from reland_jax.files import write_json
from reland_jax.types import NDCG, RelandError
from reland_jax.variants import VARIANTS

if TYPE_CHECKING:
    from experiments.grid.scores import Group, Scores
    from experiments.grid.summary import GridSummary, GroupSummary
    from reland_jax.flow import Made, Stage
    from reland_jax.storage import Trained


class Prepared(NamedTuple):
    """All that the trainings of one backbone on one data set share.

    Attributes:
        made: all that comes before training, with the settings of the backbone.
        group: the scores so far.
        kept: scores of cells that are finished here or elsewhere.
    """

    made: Made
    group: Group
    kept: ScoreCache

    def stage(self, cell: Cell) -> Stage[Trained]:
        """That trains a cell."""
        from reland_jax.stages import training

        return training(self.made, cell.variant, cell.seed, f"train/{cell.backbone}")

    def origin(self, cell: Cell) -> str:
        """Of the scores of a cell."""
        return self.made.origin(self.stage(cell))

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell was trained here, or its scores were kept with these settings."""
        if read_stamp(folder_of(self.made.workdir, cell)):
            return True
        try:
            return self.kept.find(cell, self.origin(cell)) is not None
        except RelandError:
            return True  # `train` reads it again, and tells what is wrong with it.


def define_flags() -> None:
    """Registers the flags; not at import, since the main job has some of the same names."""
    flags.DEFINE_list("datasets", ["amazon-beauty"], "Data sets: known names or paths.")
    flags.DEFINE_list("backbones", list(BACKBONES), "Backbones.")
    flags.DEFINE_list("variants", list(VARIANTS), "Variants, and ablations of reland.")
    flags.DEFINE_integer("seeds", 5, "Training seeds 0, 1, ... up to this many.", lower_bound=1)
    required_path("workdir", "Folder of artefacts and tables.")
    flags.DEFINE_list("pools", [], "DATASET=PATH: file of the rationales of a data set.")
    flags.DEFINE_multi_string("set", [], "section.key=value, for every cell; can be repeated.")
    define_path("cells", "", "Folder of the scores of finished cells; WORKDIR/cells if not given.")
    flags.DEFINE_bool("finished_only", False, "Train nothing; write the tables of the cells finished so far.")


def main() -> None:
    """Runs the grid; ends with an error status if a training failed."""
    given = flags.FLAGS
    names = (given.datasets, given.backbones, given.variants)
    configs = plan(*names, given.seeds, given.pools, given.set)
    # Imported here, so that a mistake in a flag is reported without waiting for jax.
    from reland_jax.mesh import join_processes

    join_processes(os.environ)
    keep_programs_of(configs.values(), Path(given.workdir))
    kept = Path(given.cells) if given.cells else None
    table = run(configs, Path(given.workdir), kept, finished_only=given.finished_only)
    failed = sum(len(cell.failed) for group in table.groups for cell in group.cells.values())
    if failed:
        raise RelandError(f"{failed} trainings failed; the tables say which and why")


def run(
    configs: Mapping[Key, Config],
    workdir: Path,
    cells_folder: Path | None = None,
    *,
    finished_only: bool = False,
) -> GridSummary:
    """Trains what is missing and writes the tables.

    Args:
        configs: see `experiments.grid.plan.plan`.
        workdir: folder of artefacts and tables.
        cells_folder: of the scores of finished cells; None for "cells" in `workdir`.
        finished_only: train nothing; what is not finished is left out.

    Returns:
        What the tables say. A training that fails is in it with the reason; the others go on.

    Raises:
        RelandError: bad data or pools; with `finished_only`, also where nothing is finished.
    """
    import jax

    check_own(workdir, "table2.json", "table2.md", "table2.html")
    order, kept = cells(configs), ScoreCache(cells_folder or workdir / "cells")
    finished = {
        cell for cell in order
        if cell in kept or read_stamp(folder_of(shared_folder(workdir, configs[cell.key]), cell))
    }  # fmt: skip
    if finished_only:
        order = [cell for cell in order if cell in finished]
        configs = {key: configs[key] for key in dict.fromkeys(cell.key for cell in order)}
        if not configs:
            raise RelandError(f"{workdir}: no training of this grid is finished; run without --finished_only")
    prepared = prepare(configs, workdir, kept, finished_only=finished_only)
    if finished_only:  # scores that were kept with other settings are not of this grid
        order = [cell for cell in order if prepared[cell.key].is_finished(cell)]
    tables = Tables(workdir, {key: each.group for key, each in prepared.items()})
    progress = Progress(order, finished, quiet=jax.process_index() > 0)
    news = False
    for cell, following in zip(order, [*order[1:], None], strict=True):
        news |= train(prepared[cell.key], cell, progress)
        if following is None or (following.key, following.seed) != (cell.key, cell.seed):
            tables.outdated.add(cell.key)
            # Comparisons take seconds, so what is only read back waits for the next table.
            if news and following is not None:
                tables.write()
            news = False
    return tables.write()


def shared_folder(workdir: Path, config: Config) -> Path:
    """Of the artefacts that backbones with the same data and split share."""
    return workdir / f"{Path(config.data.name).name}-{config.data.protocol}"


def folder_of(shared: Path, cell: Cell) -> Path:
    """Where a training is left, below its `shared_folder`."""
    return shared / "train" / cell.backbone / f"{cell.variant}-seed{cell.seed}"


def prepare(
    configs: Mapping[Key, Config], workdir: Path, kept: ScoreCache, *, finished_only: bool = False
) -> dict[Key, Prepared]:
    """The stages before training, once per data set and backbone."""
    from experiments.grid.scores import new_group
    from reland_jax import flow
    from reland_jax.mesh import use_mesh_alone
    from reland_jax.stages import FLOW, inputs_of

    prepared: dict[Key, Prepared] = {}
    known: dict[Path, Made] = {}
    for (dataset, backbone), config in configs.items():
        start = time.perf_counter()
        folder = shared_folder(workdir, config)
        # One pool for all backbones: what it lacks is asked about once.
        again = not finished_only and folder not in known
        # Backbones hold once what is the same for them.
        with use_mesh_alone(config.mesh):
            made = flow.run(FLOW, config, folder, known=known.get(folder), ask_again=again)
        known[folder] = made
        if finished_only:  # a stage that is not asked for is read back, or is an error
            made = dataclasses.replace(made, asked=("report",))
        prepared[dataset, backbone] = Prepared(made, new_group(config, inputs_of(made)), kept)
        print(f"prepared {dataset} {backbone}, {time.perf_counter() - start:.0f} s", flush=True)
    return prepared


def train(each: Prepared, cell: Cell, progress: Progress) -> bool:
    """Trains a cell or reads it back, and says whether there is news for the table."""
    folder = folder_of(each.made.workdir, cell)
    before, start = read_stamp(folder), time.perf_counter()
    try:
        scores = each.kept.find(cell, each.origin(cell)) or _train(each, cell)
    except RelandError as error:
        # A training that diverges must not cost the others.
        each.group.failed[cell.variant][cell.seed] = str(error)
        progress.tell(cell, f"failed: {error}")
        return True
    each.group.runs[cell.variant][cell.seed] = scores
    seconds = time.perf_counter() - start if read_stamp(folder) != before else None
    parts = (("test", scores.summary.test), ("valid", scores.summary.valid))
    found = [f"{part} NDCG@10 {figures[NDCG]:.4f}" for part, figures in parts]
    found.append("finished before" if seconds is None else f"{seconds:.0f} s")
    progress.tell(cell, ", ".join(found), seconds)
    return seconds is not None


def _train(each: Prepared, cell: Cell) -> Scores:
    import jax

    from experiments.grid.scores import score
    from reland_jax.mesh import use_mesh

    with use_mesh(each.made.config.mesh):
        scores = score(each.made.make(each.stage(cell)))
    if jax.process_index() == 0:
        each.kept.keep(cell, each.origin(cell), scores)
    return scores


class Tables:
    """The files of the grid.

    Attributes:
        outdated: groups with scores that are not in the tables yet.
    """

    def __init__(self, workdir: Path, groups: Mapping[Key, Group]) -> None:
        """All groups are outdated, so that a table has a row for each, trained or not."""
        self._workdir, self._groups = workdir, groups
        self._summaries: dict[Key, GroupSummary] = {}
        self.outdated = set(groups)

    def write(self) -> GridSummary:
        """Writes table2.json, table2.md and table2.html, and returns what they say.

        Of several processes only the first writes.
        """
        import jax

        from experiments.grid.pooled import pooled_tests
        from experiments.grid.summary import summarise_grid, summarise_group
        from experiments.grid.tables import write_grid
        from reland_jax.records import to_plain
        from reland_jax.results import environment

        self._summaries |= {key: summarise_group(self._groups[key]) for key in self.outdated}
        self.outdated.clear()
        config = next(iter(self._groups.values())).config
        summaries = [self._summaries[key] for key in self._groups]
        table = summarise_grid(summaries, config, environment(), pooled_tests(self._groups.values()))
        if jax.process_index() == 0:
            write_json(self._workdir / "table2.json", to_plain(table))
            write_grid(self._workdir, table)
        return table


if __name__ == "__main__":
    command_line.run(main, define_flags)
