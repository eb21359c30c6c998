"""Which recommender for this data: the cheap ones first, then deep ones while there is time.

    python -m experiments.choose --dataset=demo --workdir=workdir-choice [--task=sets] [--seconds=900]

Popularity and item-kNN are tried first, then the linear models, which are solved for, all of them, and then
the deep backbones in the order of their cost, until the seconds are used up; a training that they interrupt
counts with its best validation so far. All have item texts where the data have any, the settings of
`reland_jax.presets`, and training seed 0, and are judged by the validation part alone: the test part is taken
away before. Nothing is asked of an LLM.

Prints a table and recommends the fastest model whose validation NDCG@10 is within 1% of the best. Its
settings go to WORKDIR/choice.json, which other commands read:

    python -m experiments.run --config=experiments/configs/reland.py:workdir-choice/choice.json --workdir=DIR
"""

from __future__ import annotations

import dataclasses
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path
from experiments.harness.written import check_own
from reland_jax import flow
from reland_jax.config import LINEAR, Config
from reland_jax.data import item_texts
from reland_jax.eval import Vectors, mean_metrics, per_user_metrics, plan_ranking, rank_targets
from reland_jax.files import write_json
from reland_jax.flow import Flow, Made
from reland_jax.models import Tables
from reland_jax.models.ease import Ease
from reland_jax.models.neighbours import nearest_items
from reland_jax.models.sparse_ease import sparse_score
from reland_jax.overview import popularity_metrics
from reland_jax.presets import preset
from reland_jax.records import to_plain
from reland_jax.stages import FLOW, ITEMS, LOAD, SPLIT, training
from reland_jax.storage import Metrics
from reland_jax.train.closed_form import lists_of, numbers_of_items, who_had_what
from reland_jax.types import NDCG, RelandError, Splits
from reland_jax.variants import F_ITEM, ID

TASKS = ("sequences", "sets")
EXACT = {"ease.form": "exact", "ease.precision": "float64", "ease.text_weight": 300.0}
NEIGHBOURS = 100
CLOSE = 0.99
"""Share of the best validation NDCG@10 that is as good."""

MODELS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "sets": {
        "ease": ("ease", {}), "ials": ("ials", {}), "ease, exact": ("ease", EXACT),
        "lightgcn": ("lightgcn", {}), "neumf": ("neumf", {}), "ngcf": ("ngcf", {}),
    },
    "sequences": {
        "ease_recency": ("ease_recency", {}), "ease_recency, exact": ("ease_recency", EXACT),
        "gru4rec": ("gru4rec", {}), "sasrec": ("sasrec", {}), "duorec": ("duorec", {}),
    },
}  # fmt: skip
"""What is tried by task, in this order, by name: backbone and changes of its preset."""

_log = logging.getLogger("reland_jax.choose")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one model showed.

    Attributes:
        model: its name.
        variant: "id" or "f_item"; "" for popularity and item-kNN.
        ndcg: validation NDCG@10; None where it was not tried.
        seconds: until then.
        peak_gb: largest resident memory of the process so far.
        note: why it was not tried, or stopped; "" for neither.
    """

    model: str
    variant: str
    ndcg: float | None
    seconds: float
    peak_gb: float
    note: str = ""


class _OutOfTime(Exception):
    """Stops a training."""


def choose(dataset: str, task: str, seconds: float, workdir: Path) -> tuple[list[Row], Config]:
    """Tries the models, and writes choice.json.

    Args:
        dataset: name or path, see `DataConfig.name`.
        task: of `TASKS`.
        seconds: after which no deep backbone is trained.
        workdir: for the artefacts of all models, and choice.json.

    Returns:
        The table and the settings of the recommended model.

    Raises:
        RelandError: bad data, or no model could be trained.
    """
    check_own(workdir, "choice.json")
    begin, configs = time.perf_counter(), {}
    rows: list[Row] = []
    for name, (backbone, changes) in MODELS[task].items():
        config = preset(dataset, backbone, changes)
        made, variant = _prepared(config, workdir)
        if not rows:
            rows = list(_baselines(made, config))
        left = math.inf if backbone in LINEAR else seconds - (time.perf_counter() - begin)
        rows.append(_tried(made, name, variant, left))
        configs[name] = dataclasses.replace(config, variants=(variant,))
        _log.info("%s", line(rows[-1]))
    best = recommended(rows)
    chosen = configs[best.model]
    content = {"recommended": best.model, "table": to_plain(rows), "config": chosen.to_dict()}
    write_json(workdir / "choice.json", content)
    return rows, chosen


def _prepared(config: Config, workdir: Path) -> tuple[Made, str]:
    """The stages that a model reads, without the test part, and the variant that the data allow."""
    made = flow.run(Flow((LOAD, SPLIT), FLOW.after), config, workdir)
    variant = F_ITEM.name if any(item_texts(made[LOAD], config.data.text_fields)) else ID.name
    if variant == F_ITEM.name:
        made = flow.run(Flow((LOAD, SPLIT, ITEMS), FLOW.after), config, workdir, known=made)
    return made.instead(SPLIT, made[SPLIT]._replace(test=made[SPLIT].valid)), variant


def _baselines(made: Made, config: Config) -> Iterator[Row]:
    splits = made[SPLIT]
    none = splits.valid._replace(indptr=0 * splits.valid.indptr, items=splits.valid.items[:0])
    alone = splits._replace(valid=none)
    measures: Mapping[str, Callable[[], Metrics]] = {
        "popularity": lambda: popularity_metrics(alone, config.eval),
        "item-kNN": lambda: neighbour_metrics(splits, config),
    }
    for name, measure in measures.items():
        begin = time.perf_counter()
        yield Row(name, "", measure()[NDCG], time.perf_counter() - begin, _peak_gb())


def neighbour_metrics(splits: Splits, config: Config) -> Metrics:
    """Validation metrics of item-kNN, by the cosines of the users of two items."""
    recency = config.model.backbone == "ease_recency"
    model = Ease(config.ease, splits.num_items, texts=False, rationales=0, recency=recency)
    lists = lists_of(model, Tables(), splits.train, config.data.max_length)
    found = nearest_items(who_had_what(splits.train, splits.num_items), NEIGHBOURS)
    tables = {"nearest": jax.numpy.asarray(found[0]), "weight": jax.numpy.asarray(found[1])}
    score = jax.tree_util.Partial(sparse_score, lists.weight, None, tables)
    vectors = Vectors(lists.users, numbers_of_items(splits.num_items), score)
    masked = splits.train if config.eval.mask_history else None
    plan = plan_ranking(splits.valid, masked, splits.num_items, config.eval.tile_bytes, splits.train)
    ranks = rank_targets(plan, vectors, max(config.eval.cutoffs))
    return mean_metrics(per_user_metrics(ranks, config.eval.cutoffs))


def _tried(made: Made, name: str, variant: str, left: float) -> Row:
    """One model, trained for at most so many seconds."""
    begin, best = time.perf_counter(), -1.0

    def report(entry: dict[str, float]) -> None:
        nonlocal best
        best = max(best, entry.get(NDCG, -1.0))
        if time.perf_counter() - begin > left:
            raise _OutOfTime

    note = ""
    if left <= 0:
        return Row(name, variant, None, 0.0, _peak_gb(), "not tried: the seconds were used up")
    try:
        made.compute(training(made, variant, 0, parts=("valid",), on_epoch=report))
    except _OutOfTime:
        note = "stopped: the seconds were used up"
    except RelandError as error:
        note = f"not possible: {error}"
    return Row(name, variant, best if best >= 0 else None, time.perf_counter() - begin, _peak_gb(), note)


def _peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def recommended(rows: list[Row]) -> Row:
    """The fastest trained model that is about as good as the best.

    Raises:
        RelandError: none was trained.
    """
    trained = [row for row in rows if row.variant and row.ndcg is not None]
    if not trained:
        raise RelandError("no model could be trained: " + "; ".join(f"{r.model}: {r.note}" for r in rows[2:]))
    best = max(row.ndcg or 0.0 for row in trained)
    return min((row for row in trained if (row.ndcg or 0.0) >= CLOSE * best), key=lambda row: row.seconds)


def line(row: Row) -> str:
    """A row of the table; no model here asks an LLM."""
    ndcg = "-" if row.ndcg is None else f"{row.ndcg:.4f}"
    figures = f"{row.model:<22}{row.variant:<8}{ndcg:>14}{row.seconds:>9.1f}{row.peak_gb:>9.2f}{0:>9}"
    return f"{figures}  {row.note}".rstrip()


def table(rows: list[Row]) -> str:
    """All rows with a heading."""
    head = f"{'model':<22}{'variant':<8}{'valid NDCG@10':>14}{'seconds':>9}{'peak GB':>9}{'LLM bill':>9}"
    return "\n".join([head, *map(line, rows)])


def main() -> None:
    """Tries the models, prints the table and recommends one."""
    logging.getLogger("reland_jax").setLevel(logging.INFO)
    given = flags.FLAGS
    rows, chosen = choose(given.dataset, given.task, given.seconds, Path(given.workdir))
    print(table(rows))
    best = recommended(rows)
    print(f"\nrecommended: {best.model} ({chosen.variants[0]}), the fastest within 1% of the best validation")
    path = Path(given.workdir) / "choice.json"
    print(f"python -m experiments.run --config=experiments/configs/reland.py:{path} --workdir=DIR")


def define_flags() -> None:
    """The flags; not at module level, because other jobs have flags of the same names."""
    flags.DEFINE_string("dataset", None, "Name of a data set, or a path.", required=True)
    flags.DEFINE_enum("task", "sequences", TASKS, "sequences: leave-one-out; sets: 80/10/10 per user.")
    flags.DEFINE_float(
        "seconds", 900.0, "After so many seconds no deep backbone is trained.", lower_bound=0.0
    )
    required_path("workdir", "Folder of the artefacts and of choice.json.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
