r"""Which recommender for this data: the cheap ones first, then deep ones while there is time.

    python -m experiments.choose --dataset=demo --workdir=workdir-choice [--task=sets] [--seconds=900] \
        [--set=data.user_field=customer ...]

Popularity and item-kNN are tried first, then the linear models, which are solved for, all of them, and then
the deep backbones in the order of their cost, until the seconds are used up; a training that they interrupt
counts with its best validation so far. All have item texts where the data have any, the settings of
`reland_jax.presets`, and training seed 0, and are judged by the validation part alone: the test part is taken
away before. Each is tried in a process of its own, so its peak of memory, data included, is its own, and one
that does not fit costs only itself. Nothing is asked of an LLM; what `reland` would ask of one is estimated.

Prints a table and recommends the fastest model whose validation NDCG@10 is within 1% of the best. Its
settings go to WORKDIR/choice.json, which other commands read:

    python -m experiments.run --config=experiments/configs/reland.py:workdir-choice/choice.json --workdir=DIR
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from absl import flags

from experiments.harness import command_line
from experiments.harness.command_line import required_path
from experiments.harness.settings import parse_setting, with_settings
from experiments.harness.written import check_own
from experiments.scaling.measuring import peak_bytes
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
from reland_jax.pool import expected_cost
from reland_jax.presets import preset
from reland_jax.records import to_plain
from reland_jax.stages import FLOW, ITEMS, LOAD, SPLIT, training
from reland_jax.storage import Metrics
from reland_jax.train.closed_form import lists_of, numbers_of_items, who_had_what
from reland_jax.types import NDCG, RelandError, SeedSet, Splits
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

T = TypeVar("T")

_log = logging.getLogger("reland_jax.choose")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one model showed.

    Attributes:
        model: its name.
        variant: "id" or "f_item"; "" for popularity and item-kNN.
        ndcg: validation NDCG@10; None where it was not tried.
        seconds: until then.
        peak_gb: largest resident memory of its process, the data included; None where it was not tried.
        note: why it was not tried, or stopped; "" for neither.
    """

    model: str
    variant: str
    ndcg: float | None
    seconds: float
    peak_gb: float | None
    note: str = ""


class _OutOfTime(Exception):
    """Stops a training."""


@dataclasses.dataclass(frozen=True)
class Bill:
    """What `reland` would ask of an LLM, once for all users, whatever the backbone.

    Attributes:
        prompts: one for each seed user.
        prompt_tokens: of all prompts, estimated.
        response_tokens: of all answers, at most.
        model: that would be asked, `PoolConfig.model`.
        price: of all, at most; None where `LLMConfig.prices` has none for the model.
        currency: of the price.
    """

    prompts: int
    prompt_tokens: int
    response_tokens: int
    model: str
    price: float | None
    currency: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was tried, and what came of it.

    Attributes:
        rows: the table.
        config: settings of the recommended model.
        bill: of `reland`; None for data without item texts.
    """

    rows: Sequence[Row]
    config: Config
    bill: Bill | None


def choose(dataset: str, task: str, seconds: float, workdir: Path, changes: Sequence[str] = ()) -> Choice:
    """Tries the models, and writes choice.json.

    Args:
        dataset: name or path, see `DataConfig.name`.
        task: of `TASKS`.
        seconds: after which no deep backbone is trained.
        workdir: for the artefacts of all models, and choice.json.
        changes: "section.key=value", for every model.

    Raises:
        RelandError: bad data or settings, or no model could be trained.
    """
    check_own(workdir, "choice.json")
    begin = time.perf_counter()
    configs = {name: _config(dataset, *model, changes) for name, model in MODELS[task].items()}
    rows, bill = apart(_cheapest, next(iter(configs.values())), workdir)
    for name, config in configs.items():
        left = math.inf if config.model.backbone in LINEAR else seconds - (time.perf_counter() - begin)
        rows.append(_row(config, workdir, name, left))
        _log.info("%s", line(rows[-1]))
    best = recommended(rows)
    chosen = dataclasses.replace(configs[best.model], variants=(best.variant,))
    content = {"recommended": best.model, "table": to_plain(rows), "bill": to_plain(bill)}
    write_json(workdir / "choice.json", content | {"config": chosen.to_dict()})
    return Choice(rows, chosen, bill)


def _config(dataset: str, backbone: str, own: Mapping[str, Any], changes: Sequence[str]) -> Config:
    config = preset(dataset, backbone, own)
    return with_settings(config, dict(parse_setting(text, config) for text in changes))


def apart(work: Callable[..., T], *given: object) -> T:
    """The result of a function, called in a process of its own.

    Raises:
        RelandError: of the function, or the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(work, *given).result()
        except BrokenProcessPool as error:
            raise RelandError("its process was killed, perhaps for lack of memory") from error


def _row(config: Config, workdir: Path, name: str, left: float) -> Row:
    """One model, trained for at most so many seconds."""
    if left <= 0:
        return Row(name, "", None, 0.0, None, "not tried: the seconds were used up")
    try:
        return apart(_tried, config, workdir, name, left)
    except RelandError as error:
        return Row(name, "", None, 0.0, None, f"not possible: {error}")


def _prepared(config: Config, workdir: Path) -> tuple[Made, str]:
    """The stages that a model reads, without the test part, and the variant that the data allow."""
    made = flow.run(Flow((LOAD, SPLIT), FLOW.after), config, workdir)
    variant = F_ITEM.name if any(item_texts(made[LOAD], config.data.text_fields)) else ID.name
    if variant == F_ITEM.name:
        made = flow.run(Flow((LOAD, SPLIT, ITEMS), FLOW.after), config, workdir, known=made)
    return made.instead(SPLIT, made[SPLIT]._replace(test=made[SPLIT].valid)), variant


def _cheapest(config: Config, workdir: Path) -> tuple[list[Row], Bill | None]:
    """Popularity and item-kNN, and what `reland` would cost."""
    made, variant = _prepared(config, workdir)
    splits, rows = made[SPLIT], []
    none = splits.valid._replace(indptr=0 * splits.valid.indptr, items=splits.valid.items[:0])
    alone = splits._replace(valid=none)
    measures: Mapping[str, Callable[[], Metrics]] = {
        "popularity": lambda: popularity_metrics(alone, config.eval),
        "item-kNN": lambda: neighbour_metrics(splits, config),
    }
    for name, measure in measures.items():
        begin = time.perf_counter()
        rows.append(Row(name, "", measure()[NDCG], time.perf_counter() - begin, peak_bytes() / 1e9))
    return rows, _bill(made) if variant == F_ITEM.name else None


def _bill(made: Made) -> Bill:
    """The cost of asking about as many users as there would be seed users, spread evenly over all."""
    config, train = made.config, made[SPLIT].train
    warm = np.flatnonzero(train.lengths())
    step = max(round(1 / config.seeds.fraction), 1)
    users = warm[::step].astype(np.int32)
    seeds = SeedSet(users, np.zeros_like(users), np.zeros(len(users), np.int8))
    found = expected_cost(seeds, train, made[LOAD], config.pool, config.data, config.llm)
    tokens = found.prompt_tokens, found.response_tokens
    return Bill(found.prompts, *tokens, config.pool.model, found.price, config.llm.currency)


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


def _tried(config: Config, workdir: Path, name: str, left: float) -> Row:
    """The same in this process."""
    made, variant = _prepared(config, workdir)
    begin, best, note = time.perf_counter(), -1.0, ""

    def report(entry: dict[str, float]) -> None:
        nonlocal best
        best = max(best, entry.get(NDCG, -1.0))
        if time.perf_counter() - begin > left:
            raise _OutOfTime

    try:
        made.compute(training(made, variant, 0, parts=("valid",), on_epoch=report))
    except _OutOfTime:
        note = "stopped: the seconds were used up"
    ndcg, seconds = best if best >= 0 else None, time.perf_counter() - begin
    return Row(name, variant, ndcg, seconds, peak_bytes() / 1e9, note)


def recommended(rows: Sequence[Row]) -> Row:
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
    peak = "-" if row.peak_gb is None else f"{row.peak_gb:.2f}"
    figures = f"{row.model:<22}{row.variant:<8}{ndcg:>14}{row.seconds:>9.1f}{peak:>9}{0:>9}"
    return f"{figures}  {row.note}".rstrip()


def bill_words(bill: Bill | None) -> str:
    """What `reland` would cost beside these."""
    if bill is None:
        return "reland: these data have no item texts, so there is nothing to ask an LLM about"
    price = f"no price for {bill.model} in config.llm.prices"
    if bill.price is not None:
        price = f"at most {bill.price:.2f} {bill.currency} with {bill.model}"
    return (
        f"reland, of any of them, would ask an LLM about {bill.prompts:,} seed users, once (expected): "
        f"{bill.prompt_tokens:,} tokens of prompts, at most {bill.response_tokens:,} of answers; {price}"
    )


def table(rows: Sequence[Row]) -> str:
    """All rows with a heading."""
    head = f"{'model':<22}{'variant':<8}{'valid NDCG@10':>14}{'seconds':>9}{'peak GB':>9}{'LLM bill':>9}"
    return "\n".join([head, *map(line, rows)])


def main() -> None:
    """Tries the models, prints the table and recommends one."""
    logging.getLogger("reland_jax").setLevel(logging.INFO)
    given = flags.FLAGS
    choice = choose(given.dataset, given.task, given.seconds, Path(given.workdir), given.set)
    print(f"{table(choice.rows)}\n{bill_words(choice.bill)}")
    best = recommended(choice.rows)
    print(f"\nrecommended: {best.model} ({best.variant}), the fastest within 1% of the best validation")
    path = Path(given.workdir) / "choice.json"
    print(f"python -m experiments.run --config=experiments/configs/reland.py:{path} --workdir=DIR")


def define_flags() -> None:
    """The flags; not at module level, because other jobs have flags of the same names."""
    flags.DEFINE_string("dataset", None, "Name of a data set, or a path.", required=True)
    flags.DEFINE_enum("task", "sequences", TASKS, "sequences: leave-one-out; sets: 80/10/10 per user.")
    flags.DEFINE_float(
        "seconds", 900.0, "After so many seconds no deep backbone is trained.", lower_bound=0.0
    )
    flags.DEFINE_multi_string("set", [], "section.key=value, for every model; can be repeated.")
    required_path("workdir", "Folder of the artefacts and of choice.json.")


if __name__ == "__main__":
    command_line.run(main, define_flags)
