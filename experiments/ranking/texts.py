"""What arms read of texts: seed users, rationales and who is given which, by the stages of the main job.

Everything is of behaviour before the training rows, or in them (`Parts.behaviour`). The stages are given
its clicks in the place of a data set: behaviour encoder, seed users, pool, vectors and assignment are the
house's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.ranking.logs import Log
from reland_jax import flow
from reland_jax.artefacts import fingerprint
from reland_jax.config import Config
from reland_jax.data.sources.raw import Tokens
from reland_jax.events import shop
from reland_jax.events.streamed import Clicks
from reland_jax.flow import Codec, Stage
from reland_jax.ranker_settings import RankerTextsConfig
from reland_jax.rankers import Texts
from reland_jax.retrieval import assign_with_cold, profiles
from reland_jax.seeds import add_texts
from reland_jax.stages import ASSIGN, ENCODE_USERS, FLOW, ITEMS, LOAD, RATIONALES, SAMPLE_SEEDS, SPLIT
from reland_jax.stages.encoding import encode_items, whitened
from reland_jax.storage import (
    load_array,
    load_interactions,
    load_splits,
    save_array,
    save_interactions,
    save_splits,
)
from reland_jax.strings import as_strings
from reland_jax.text import encode_texts
from reland_jax.types import Interactions, Ragged, RelandError, Splits


class LogTexts(NamedTuple):
    """Texts of a log.

    Attributes:
        texts: what `rankers.arm_texts` makes those of each arm from.
        own: ``<float32>[U, T]``, the text of every user, zero where it has none; None where there are none.
        writer: who wrote the rationales, in words.
        users: ``<int>[S]``, the seed users.
    """

    texts: Texts
    own: np.ndarray | None
    writer: str
    users: np.ndarray | None = None

    @property
    def seed_users(self) -> int:
        """S, 0 where there are none."""
        return 0 if self.texts.rationales is None else len(self.texts.rationales)


NONE = LogTexts(Texts(), None, "nobody")


def arms_of(texts: LogTexts) -> list[str]:
    """The arms that the texts allow, in the order of tables."""
    found = ["id"]
    if texts.texts.items is not None:
        found.append("f_item")
    if texts.texts.rationales is not None:
        found += ["reland", "seed_id", "permuted", "noise"]
    return found + (["own"] if texts.own is not None else [])


def make_texts(log: Log, config: RankerTextsConfig, workdir: Path) -> LogTexts:
    """Makes the texts of a log, or reads what an earlier call left in the workdir.

    Args:
        log: with its parts; nothing but its training rows and its descriptions is read.
        config: how.
        workdir: of the stages.

    Raises:
        RelandError: see the stages.
    """
    if log.shop is None and not log.item_texts:
        return NONE
    clicks = training_clicks(log)
    settings, replaced = settings_of(log, config), _replaced(log, clicks)
    until = "assign" if log.shop is None and log.profiles is None else "sample_seeds"
    made = flow.run(FLOW, settings, workdir, until=until, replace=replaced)
    if log.shop is not None:
        return _of_shop(log.shop, *_assigned(made, clicks))
    if log.profiles is not None:
        items, own = made.make(ITEMS), _own(log, made)
        seeds, user, cosine = _assigned(made, clicks)
        _check_written(own[seeds], log.profiles)
        return LogTexts(Texts(items, own[seeds], user, cosine), own, f"an LLM ({log.profiles.name})")
    seed, cosine = made[ASSIGN].seed[:, 0], made[ASSIGN].cosine[:, 0]
    return LogTexts(Texts(made[ITEMS], made[RATIONALES], seed, cosine), None, "the heuristic, no LLM")


class Matched(NamedTuple):
    """Seed users of a log.

    Attributes:
        seeds: ``<int>[S]``, users.
        row: ``<int32>[U]``, each user's seed user as a place among them.
        cosine: ``<float32>[U]``.
    """

    seeds: np.ndarray
    row: np.ndarray
    cosine: np.ndarray


def matched_users(
    log: Log, config: RankerTextsConfig, workdir: Path, seeds: np.ndarray | None = None
) -> Matched:
    """Chooses seed users by behaviour in training rows and matches every user with one; no texts.

    Args:
        log: with its parts.
        config: how.
        workdir: of the stages.
        seeds: ``<int>[S]``, users with training clicks, in the place of a choice.

    Raises:
        RelandError: see the stages and `assign_with_cold`.
    """
    clicks = training_clicks(log)
    settings, replaced = settings_of(log, config), _replaced(log, clicks)
    until = "sample_seeds" if seeds is None else ENCODE_USERS.name
    made = flow.run(FLOW, settings, workdir, until=until, replace=replaced)
    return Matched(*_assigned(made, clicks, seeds))


def _replaced(log: Log, clicks: Interactions) -> dict[str, Stage[Any]]:
    """The stages that hand on what is at hand."""
    splits = all_for_training(clicks)
    loaded = Codec(save_interactions, load_interactions)
    given = [
        given_stage(LOAD.name, clicks, loaded, clicks.user, clicks.item),
        given_stage(SPLIT.name, splits, Codec(save_splits, load_splits), "all"),
    ]
    if log.shop is not None:
        # What a user clicks is told well enough by the mean of its items, without an encoder to train.
        none = np.zeros((clicks.num_users, 1), np.float32)
        vectors = add_texts(none, splits.train, shop.item_vectors(log.shop.world), 1.0)
        given.append(given_stage(ENCODE_USERS.name, vectors, Codec(save_array, load_array), vectors))
    return {stage.name: stage for stage in given}


def training_clicks(log: Log) -> Interactions:
    """The rows of behaviour with a click, as the stages have interactions: by user, then time."""
    events = log.events
    found = _clicks_in_memory(log) if log.streamed is None else log.streamed.training.clicks
    user, item, time = (each[np.argsort(found.user, kind="stable")] for each in found)
    about = {
        each.name: _named(events.features[each.name])
        for each in events.schema.of_side("user")
        if each.kind == "categorical"
    }
    return Interactions(
        user, item, time.astype(np.float64), events.ids, dict(log.item_texts), about
    )


def _clicks_in_memory(log: Log) -> Clicks:
    events, rows = log.events, log.parts.behaviour
    rows = rows[events.labels[events.schema.labels[0].name][rows] == 1]
    return Clicks(events.user[rows], events.item[rows], events.time[rows])


def _named(values: Any) -> np.ndarray:
    """A categorical column as text, ``<str>[r]``."""
    assert isinstance(values, Tokens)
    return as_strings(values.name.tolist())[values.code]


def given_stage(name: str, value: Any, codec: Codec[Any], *identity: Any) -> Stage[Any]:
    """A stage that hands on what is in memory already."""
    return Stage(
        name,
        reads=() if name == LOAD.name else (LOAD,),
        settings=lambda config: ["given", fingerprint(*identity)],
        run=lambda job: value,
        codec=lambda job: codec,
    )


def all_for_training(clicks: Interactions) -> Splits:
    """All clicks for training; the last one of each user is ranked too, so that progress is seen."""
    lengths = np.bincount(clicks.user, minlength=clicks.num_users)
    train = Ragged(np.concatenate(([0], np.cumsum(lengths))), clicks.item)
    last = train.items[train.indptr[1:][lengths > 0] - 1]
    shown = Ragged(np.concatenate(([0], np.cumsum(lengths > 0))), last)
    return Splits(train, shown, shown, clicks.num_items, "fixed")


def settings_of(log: Log, config: RankerTextsConfig) -> Config:
    """The settings of the stages."""
    # The last epoch counts: there is nothing held out by which to stop earlier.
    train = {
        "max_epochs": config.encoder_epochs, "eval_every": config.encoder_epochs,
        "batch_size": config.encoder_batch,
    }  # fmt: skip
    text = {
        "encoder": config.text_encoder, "max_tokens": config.max_tokens,
        "whiten_items": config.directions, "whiten_rationales": config.directions, "allow_alike": True,
    }  # fmt: skip
    values = Config().to_dict()
    values["encoder"]["train"] |= train
    values["seeds"] |= {"fraction": config.fraction, "seed": config.seed}
    values["text"] |= text
    values["data"] |= {
        "text_fields": tuple(log.item_texts),
        "domain": "movies" if log.profiles else "products",
    }
    return Config.from_dict(values)


def _assigned(
    made: flow.Made, clicks: Interactions, seeds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seed users ``<int32>[S]``, each user's as a place among them ``<int32>[U]``, and the cosines."""
    seeds = made[SAMPLE_SEEDS]["user"] if seeds is None else seeds
    activity = np.bincount(clicks.user, minlength=clicks.num_users)
    profile = profiles(clicks.user_features, clicks.num_users)
    found = assign_with_cold(made[ENCODE_USERS], seeds, activity, profile, made.config.retrieval)
    return seeds, found.seed[:, 0], found.cosine[:, 0]


def _of_shop(world: shop.Shop, seeds: np.ndarray, user: np.ndarray, cosine: np.ndarray) -> LogTexts:
    own = shop.rationale_vectors(world.world)
    items = shop.item_vectors(world.world)
    return LogTexts(Texts(items, own[seeds], user, cosine), own, "the shop, truthfully", seeds)


def _own(log: Log, made: flow.Made) -> np.ndarray:
    """The vector of every user's text, ``<float32>[U, T]``; zero without a text."""
    assert log.profiles is not None
    said = read_profiles(log.profiles)
    texts = [said.get(user, "") for user in log.events.ids.users.tolist()]
    text, cache = made.config.text, made.folder(flow.TEXT_CACHE)
    vectors = encode_texts(texts, text, cache, "texts of users")
    items = encode_items(made[LOAD], made.config, cache)  # as they were read: directions are those of words
    there = np.array([bool(each) for each in texts])[:, None]
    return np.where(there, whitened(vectors, items, text.whiten_rationales), np.float32(0)).astype(np.float32)


def read_profiles(path: Path) -> dict[str, str]:
    """Texts of users from JSON lines with `user_id` and `profile`.

    Raises:
        RelandError: a line that is none.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            found[str(entry["user_id"])] = str(entry["profile"]).strip()
        except (ValueError, KeyError, TypeError) as error:
            raise RelandError(
                f"{path}:{number}: not a text of a user ({error!r}); a line is "
                '{"user_id": "1", "profile": "..."}'
            ) from None
    return found


def _check_written(rationales: Sequence[np.ndarray] | np.ndarray, path: Path) -> None:
    missing = int((~np.asarray(rationales).any(1)).sum())
    if missing:
        raise RelandError(f"{path}: {missing} of {len(rationales)} seed users have no text in it")
