"""What the figures of a run are read beside: data, popularity, activity of users, lists, an expected bill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from reland_jax.config import Config, EvalConfig
from reland_jax.eval import Vectors, mean_metrics, per_user_metrics, plan_ranking, rank_targets
from reland_jax.mesh import device_put_rows
from reland_jax.plain import text_columns
from reland_jax.pool import expected_cost
from reland_jax.records import stored
from reland_jax.storage import Inputs, Lists, Metrics
from reland_jax.types import NDCG, PADDING_ITEM, Ragged, Splits
from reland_jax.variants import EXPECTED, RELAND

LEVELS = ("L1", "L2", "L3", "L4")
FEWEST_LISTS = 100
"""Of fewer users, unless they are all, coverage and novelty are not told."""

Figures = Mapping[str, float | None]
"""Metric, variant or pair -> figure; None where there is none."""


@dataclasses.dataclass(frozen=True)
class DataSize:
    """The data that is left after filtering.

    Attributes:
        users: how many.
        items: how many.
        interactions: all of them.
        training: those of the training part.
    """

    users: int
    items: int
    interactions: int
    training: int


@dataclasses.dataclass(frozen=True)
class Level:
    """Users of one level of activity.

    Attributes:
        level: of `LEVELS`.
        users: how many.
        interactions: the fewest and the most of them; None where nobody is on the level.
        ndcg: variant -> mean test NDCG@10.
        gains: pair -> relative gain.
    """

    level: str
    users: int
    interactions: tuple[int, int] | None
    ndcg: Figures = dataclasses.field(metadata=stored(NDCG))
    gains: Figures


@dataclasses.dataclass(frozen=True)
class ListFigures:
    """The lists of the first ten of some test users, drawn at random.

    Attributes:
        users: how many have a list.
        coverage: share of the items that are in a list, in [0, 1].
        novelty: mean self-information of the listed items, in bits: 0 of an item that all users have had in
            training, log2 U of one that a single user has had, or nobody.
    """

    users: int
    coverage: float
    novelty: float


@dataclasses.dataclass(frozen=True)
class ExpectedBill:
    """What asking an LLM about the seed users would take.

    Attributes:
        model: that of the settings.
        prompts: distinct prompts.
        prompt_tokens: of them.
        response_tokens: at most.
        price: at most; None without a price for the model.
        currency: of the price.
    """

    model: str
    prompts: int
    prompt_tokens: int
    response_tokens: int
    price: float | None
    currency: str


@dataclasses.dataclass(frozen=True)
class Overview:
    """All of it.

    Attributes:
        size: of the data.
        popularity: test metrics of the list of the most frequent training items, the same for everybody.
        levels: test users by activity.
        lists: variant -> figures of its lists, of the first training seed; without variants whose lists were
            kept of a few users only.
        expected: None where an LLM wrote the rationales.
    """

    size: DataSize
    popularity: Metrics
    levels: Sequence[Level]
    lists: Mapping[str, ListFigures]
    expected: ExpectedBill | None


def overview(
    config: Config, inputs: Inputs, lists: Mapping[str, Lists], per_user: Mapping[str, np.ndarray]
) -> Overview:
    """Computes it.

    Args:
        config: all settings.
        inputs: artefacts of the stages before training.
        lists: by variant.
        per_user: variant -> ``<float64>[users with a test target]``, NDCG@10, in the order of the users.
    """
    splits = inputs.splits
    parts = [len(part.items) for part in (splits.train, splits.valid, splits.test)]
    activity = splits.train.lengths()[np.flatnonzero(splits.test.lengths())]
    enough = min(FEWEST_LISTS, len(activity))
    return Overview(
        DataSize(splits.num_users, splits.num_items, sum(parts), parts[0]),
        popularity_metrics(splits, config.eval),
        levels_of(activity, per_user),
        {
            name: list_figures(each.item, splits.train, splits.num_items)
            for name, each in lists.items()
            if len(each.user) >= enough
        },
        _expected(config, inputs),
    )


def popularity_metrics(splits: Splits, config: EvalConfig) -> Metrics:
    """Test metrics where everybody gets the items with the most training interactions.

    Of equally frequent items the one with the smaller dense id comes first.
    """
    count = np.bincount(splits.train.items, minlength=splits.num_items + 1)
    order = np.argsort(-count[1:], kind="stable")
    score = np.zeros((splits.num_items + 1, 1), np.float32)
    score[1 + order, 0] = splits.num_items - np.arange(splits.num_items)
    users = np.ones((splits.num_users, 1), np.float32)
    vectors = Vectors(device_put_rows(users), device_put_rows(score), jax.tree_util.Partial(_product))
    masked = splits.train.joined(splits.valid) if config.mask_history else None
    plan = plan_ranking(splits.test, masked, splits.num_items, config.tile_bytes, splits.train)
    return mean_metrics(per_user_metrics(rank_targets(plan, vectors, max(config.cutoffs)), config.cutoffs))


def _product(users: jax.Array, items: jax.Array) -> jax.Array:
    return (users[:, None] * items).sum(-1)


def list_figures(lists: np.ndarray, train: Ragged, num_items: int) -> ListFigures:
    """Coverage and novelty.

    Args:
        lists: ``<int32>[n, K]``, `PADDING_ITEM` where a list has fewer.
        train: training items.
        num_items: I.
    """
    listed = lists[lists != PADDING_ITEM]
    count = np.bincount(train.items, minlength=num_items + 1)
    novelty = -np.log2(np.clip(count[listed] / max(train.num_rows, 1), 1 / max(train.num_rows, 1), 1))
    coverage = len(np.unique(listed)) / max(num_items, 1)
    return ListFigures(len(lists), coverage, float(novelty.mean()) if len(listed) else 0.0)


def activity_levels(activity: np.ndarray) -> np.ndarray:
    """The quartile of each user by number of interactions (paper, Table 5).

    A user's level is the number of quartiles (the smallest numbers that 25%, 50% and 75% of the users
    do not exceed) that its number exceeds. Users with the same number are on the same level, so levels
    differ in size and one may be empty.

    Args:
        activity: ``<int64>[n]``, number of interactions of every user; may be empty.

    Returns:
        ``<int64>[n]`` from 0, the least active, to 3.
    """
    if not len(activity):
        return np.zeros(0, np.int64)
    quartiles = np.quantile(activity, [0.25, 0.5, 0.75], method="inverted_cdf")
    return np.searchsorted(quartiles, activity, side="left")


def levels_of(activity: np.ndarray, per_user: Mapping[str, np.ndarray]) -> list[Level]:
    """NDCG@10 of variants, and the gains of `reland`, by level of activity.

    Args:
        activity: ``<int64>[n]``, number of training interactions of every user.
        per_user: variant -> ``<float64>[n]``, NDCG@10 of the same users.
    """
    level = activity_levels(activity)
    return [
        _level(name, activity[level == place], {v: found[level == place] for v, found in per_user.items()})
        for place, name in enumerate(LEVELS)
    ]


def _level(name: str, activity: np.ndarray, per_user: Mapping[str, np.ndarray]) -> Level:
    means = {variant: mean_or_none(values) for variant, values in per_user.items()}
    pairs = [pair for pair in EXPECTED if pair.ours == RELAND.name and means.keys() >= {*pair}]
    gains = {pair.name: relative(means[pair.ours], means[pair.base]) for pair in pairs}
    span = (int(activity.min()), int(activity.max())) if len(activity) else None
    return Level(name, len(activity), span, means, gains)


def mean_or_none(values: Sequence[float] | np.ndarray) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def relative(value: float | None, base: float | None) -> float | None:
    """The relative gain over `base`; None where it cannot be said."""
    return None if value is None or not base else value / base - 1


def _expected(config: Config, inputs: Inputs) -> ExpectedBill | None:
    described = text_columns(inputs.interactions.item_features, config.data.text_fields)
    if config.pool.provider != "heuristic" or not described:
        return None
    seeds, train = inputs.built.pool.seeds, inputs.splits.train
    found = expected_cost(seeds, train, inputs.interactions, config.pool, config.data, config.llm)
    tokens = (found.prompts, found.prompt_tokens, found.response_tokens)
    return ExpectedBill(config.pool.model, *tokens, found.price, config.llm.currency)
