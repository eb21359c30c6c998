"""The cost of coverage: seed sets of growing size and their prompts, without asking an LLM."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reland_jax import flow
from reland_jax.artefacts import fingerprint, load_arrays, make, save_arrays
from reland_jax.config import Config, RetrievalConfig, SeedsConfig
from reland_jax.plain import text_columns
from reland_jax.pool import build_prompt, clean_title, prompt_hash, read_pool_file
from reland_jax.pool.asking.money import Price, price_of
from reland_jax.pool.prompting.prompts import item_text
from reland_jax.pool.prompting.tokens import TokenCounter, chat_tokens, token_counter
from reland_jax.retrieval import assign
from reland_jax.seeds import choose_seeds, sample_seeds
from reland_jax.seeds.coverage import Curve, coverage, share_above
from reland_jax.stages import ENCODE_USERS, FLOW, LOAD, SPLIT
from reland_jax.types import Interactions, RelandError, Splits

ENCODED = (LOAD.name, SPLIT.name, ENCODE_USERS.name)
"""The stages that a curve needs."""

VALID = 1
"""Value of `Interactions.fixed_split` for validation."""

THRESHOLDS = (0.3, 0.5, 0.7)
"""Cosines above which users are counted."""

ASSUMED_ANSWER = 172
"""Tokens of an answer where no pool is at hand: the mean of both pools of docs/pool.md, by characters."""


class Encoded(NamedTuple):
    """A data set up to its behaviour vectors.

    Attributes:
        interactions: all of them.
        splits: training, validation and test.
        behaviour: ``<float32>[U, D]``.
        stamp: what `behaviour` was made from.
    """

    interactions: Interactions
    splits: Splits
    behaviour: np.ndarray
    stamp: str


class Prompts(NamedTuple):
    """The prompt about each user, with its tokens.

    Attributes:
        number: ``<int64>[U]``, equal for users with the same prompt, who share one inference; -1 for a
            user without any item text, about whom nothing can be asked.
        tokens: ``<int64>[U]`` of the prompt.
        answer: tokens expected of an answer.
        price: None without a price for the model.
        exact: whether `tokens` were counted with the model's own tokenizer.
    """

    number: np.ndarray
    tokens: np.ndarray
    answer: float
    price: Price | None
    exact: bool


class Sampled(NamedTuple):
    """One seed set.

    Attributes:
        user: ``<int32>[S]``.
        cosine: ``<float32>[U]``, of every user to its nearest seed user.
    """

    user: np.ndarray
    cosine: np.ndarray


def encode(config: Config, workdir: Path) -> Encoded:
    """Runs the stages up to `encode_users`, as far as they are not up to date."""
    made = flow.run(FLOW, config, workdir, until=ENCODE_USERS.name)
    stamp = made.artefacts[ENCODE_USERS.name].fingerprint
    return Encoded(made[LOAD], made[SPLIT], made[ENCODE_USERS], stamp)


def prompts(encoded: Encoded, config: Config, workdir: Path, answer: float) -> Prompts:
    """The prompts of all users, counted once and kept in the workdir.

    Args:
        encoded: the data.
        config: wording, model, tokenizer and prices.
        workdir: folder of artefacts.
        answer: tokens expected of an answer; 0 measures those of the pool file (`pool.path`), and without
            one takes `ASSUMED_ANSWER`, or `pool.max_tokens` if that is less.
    """
    counter = token_counter(config.pool)
    pool = dataclasses.replace(config.pool, provider="heuristic", path="", held_out=0)
    stamp = fingerprint(encoded.stamp, pool, config.data, counter.name, counter.exact)
    counted = make(
        workdir / "prompt_tokens", stamp,
        compute=lambda: _count(encoded, config, counter), save=save_arrays, load=load_arrays,
    ).value  # fmt: skip
    price = price_of(config.pool.model, config.llm.prices)
    expected = answer or _measured_answer(config, counter)
    return Prompts(counted["number"], counted["tokens"], expected, price, counter.exact)


def _count(encoded: Encoded, config: Config, counter: TokenCounter) -> dict[str, np.ndarray]:
    pool, data, train = config.pool, config.data, encoded.splits.train
    fields = text_columns(encoded.interactions.item_features, data.text_fields)
    texts = [
        item_text({name: clean_title(values[item], data.domain) for name, values in fields.items()})
        for item in range(len(encoded.interactions.ids.items))
    ]
    numbers: dict[str, int] = {}
    number, tokens = np.full(train.num_rows, -1), np.zeros(train.num_rows, np.int64)
    for user in range(train.num_rows):
        shown = [texts[item] for item in train.row(user)[-pool.history :].tolist()]
        if not any(shown):
            continue
        prompt = build_prompt(shown, data.domain, pool.history, kind=pool.prompt)
        number[user] = numbers.setdefault(prompt_hash(prompt), len(numbers))
        tokens[user] = chat_tokens(counter, [{"role": "user", "content": prompt}])
    # A bound leaves out whole items, so a prompt that it shortens has at most so many.
    return {"number": number, "tokens": np.minimum(tokens, pool.prompt_tokens or tokens)}


def _measured_answer(config: Config, counter: TokenCounter) -> float:
    if config.pool.provider != "file":
        return float(min(ASSUMED_ANSWER, config.pool.max_tokens))
    entries = read_pool_file(config.pool.path_to_read())
    read = [entry.rationale.response for entry in entries if entry.rationale]
    return float(np.mean([counter.count(text) for text in read])) if read else float(ASSUMED_ANSWER)


def sampled(
    encoded: Encoded,
    config: Config,
    workdir: Path,
    fraction: float,
    repeat: int,
    available: np.ndarray | None = None,
) -> Sampled:
    """The seed set of one size, made once and kept in the workdir.

    Args:
        encoded: the data.
        config: sampling and engine of retrieval.
        workdir: folder of artefacts.
        fraction: seed users as a share of all users.
        repeat: added to the seed of the sampling.
        available: ``<int32>[A]``, the only users that may be chosen (all where None).
    """
    seeds = dataclasses.replace(config.seeds, fraction=fraction, seed=config.seeds.seed + repeat)
    retrieval = dataclasses.replace(config.retrieval, neighbours=1)
    kind = "coverage" if available is None else "restricted"
    made_from = [encoded.stamp, seeds, retrieval, *([] if available is None else [available])]
    return make(
        workdir / kind / f"{100 * fraction:.4g}-{repeat}", fingerprint(*made_from),
        compute=lambda: _sample(encoded, seeds, retrieval, available),
        save=lambda found, folder: save_arrays(found._asdict(), folder),
        load=lambda folder: Sampled(**load_arrays(folder)),
    ).value  # fmt: skip


def _sample(
    encoded: Encoded, seeds: SeedsConfig, retrieval: RetrievalConfig, available: np.ndarray | None
) -> Sampled:
    behaviour, activity = encoded.behaviour, encoded.splits.train.lengths()
    wanted, everyone = max(1, round(seeds.fraction * len(behaviour))), np.arange(len(behaviour))
    among = everyone if available is None else available
    if wanted >= len(among):
        user = among.astype(np.int32)  # clusters would decide nothing, and they cost the most here
    else:
        chosen, clustering = choose_seeds(behaviour, activity, seeds)
        if available is not None:
            chosen = sample_seeds(
                clustering.cluster[among], clustering.distance[among], activity[among], wanted,
                rounds=seeds.rounds, seed=seeds.seed,
            )  # fmt: skip
        user = among[chosen.user].astype(np.int32)
    if len(user) == len(behaviour):
        return Sampled(user, np.ones(len(behaviour), np.float32))
    return Sampled(user, assign(behaviour, user, retrieval).cosine[:, 0])


def point(
    encoded: Encoded, asked: Prompts, found: Sampled, weight: np.ndarray | None = None
) -> dict[str, Any]:
    """Coverage and cost of one seed set, as plain values; "others" is None where there are none."""
    here = coverage(found.cosine, found.user, weight)
    _, first = np.unique(asked.number[found.user], return_index=True)
    read = found.user[first]
    read = read[asked.number[read] >= 0]
    prompt, answer = int(asked.tokens[read].sum()), round(asked.answer * len(read))
    return {
        "seeds": len(found.user),
        "prompts": len(read),
        "prompt_tokens": prompt,
        "response_tokens": answer,
        "tokens": prompt + answer,
        "price": None if asked.price is None else asked.price.of(prompt, answer),
        **here._asdict(),
        "others": None if np.isnan(here.others) else here.others,
        "above": dict(zip(map(str, THRESHOLDS), share_above(found.cosine, THRESHOLDS), strict=True)),
        "activity": float(encoded.splits.train.lengths()[found.user].mean()),
    }


def curve(points: Sequence[dict[str, Any]]) -> Curve:
    """The points of one repetition, in ascending order, as the arrays that rules read.

    Raises:
        RelandError: prompts could be built for none of the seed users.
    """
    if not points[0]["tokens"]:
        raise RelandError("no seed user has an item with a text, so there is nothing to ask")
    columns = ("seeds", "tokens", "covered", "bought")
    return Curve(*(np.array([one[name] for one in points], np.float64) for name in columns))
