"""A bundle after its training: without users and texts that were removed, with newer histories and new items.

Nothing here trains. Parameters and other users' vectors have learned from a removed user, and keep that until
the next training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from reland_jax.bundle import Bundle
from reland_jax.config import LINEAR
from reland_jax.data import REFRESHED, unsplit
from reland_jax.models import MODELS
from reland_jax.pool_store import PoolStore, allowed, read_log, read_patterns, read_removals
from reland_jax.retrieval import Matching
from reland_jax.serve.listing import batches, in_rows, power_of_two
from reland_jax.serve.programs import Known, match, seed_keys
from reland_jax.storage import Lists, Trained
from reland_jax.strings import as_strings
from reland_jax.types import Assignment, Interactions, Ragged, RelandError, Splits, TargetRanks
from reland_jax.variants import find_variant

_USERS, _ITEM_IDS = ("params", "user_embedding"), ("params", "items", "id_embedding")
"""Where parameters have a row for each user, or item."""

_log = logging.getLogger(__name__)


def screened(bundle: Bundle, store: Path) -> Bundle:
    """The bundle without the users that a pool store removed, and without the texts that it blocks.

    Users who lose a seed user are matched anew, by their items.

    Raises:
        RelandError: the store cannot be read, or nobody or no rationale would be left.
    """
    folder = PoolStore(store).folder
    if not read_log(folder).entries:  # or a mistyped path would remove nobody
        raise RelandError(f"{folder}: there is no pool store here")
    removals, patterns = read_removals(folder), read_patterns(folder)
    gone = removals.left(bundle.interactions.ids.users.tolist())
    if gone.any():
        bundle = keep_users(bundle, ~gone)
    pool = bundle.pool
    if pool is None:
        return bundle
    seeds = bundle.interactions.ids.users[pool.seeds.user].tolist()
    fine = allowed(pool.rationales, seeds, removals, patterns)
    return bundle if fine.all() else keep_rationales(bundle, fine)


def keep_users(bundle: Bundle, stays: np.ndarray) -> Bundle:
    """The bundle without the ids, histories, rationales, figures and parameters of the other users.

    Args:
        bundle: with parameters.
        stays: ``<bool>[U]``.

    Raises:
        RelandError: nobody, or no rationale, would be left.
    """
    rows = np.flatnonzero(stays)
    if not len(rows):
        raise RelandError("the removal leaves no user in the bundle; make another one from other data")
    number = (np.cumsum(stays) - 1).astype(np.int32)
    if bundle.pool is not None:
        bundle = keep_rationales(bundle, stays[bundle.pool.seeds.user])
        assert bundle.pool is not None and bundle.assignment is not None
        seeds = bundle.pool.seeds._replace(user=number[bundle.pool.seeds.user])
        bundle = bundle._replace(
            pool=bundle.pool._replace(seeds=seeds),
            assignment=Assignment(*(each[rows] for each in bundle.assignment)),
        )
    splits = bundle.splits
    train, valid, test = (each.take(rows) for each in (splits.train, splits.valid, splits.test))
    return bundle._replace(
        interactions=_of_users(bundle.interactions, stays, number),
        splits=Splits(train, valid, test, splits.num_items, splits.protocol),
        trained=_trained_of_users(bundle.trained, stays, number),
    )


def keep_rationales(bundle: Bundle, stays: np.ndarray) -> Bundle:
    """The bundle without the other rationales; users who lose a seed user are matched anew, by their items.

    Args:
        bundle: with a pool.
        stays: ``<bool>[S]``.

    Raises:
        RelandError: no rationale would be left.
    """
    pool, found, rows = bundle.pool, bundle.assignment, np.flatnonzero(stays)
    assert pool is not None and found is not None and bundle.rationales is not None
    if not len(rows):
        raise RelandError(
            "the removal leaves no rationale in the bundle; build another pool, and train again"
        )
    number = np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32)
    pool = pool._replace(
        seeds=pool.seeds.rows(rows),
        behaviour=pool.behaviour[rows],
        rationales=[pool.rationales[row] for row in rows.tolist()],
    )
    bundle = bundle._replace(pool=pool, rationales=bundle.rationales[rows])
    seed, cosine = number[found.seed][:, : len(rows)], found.cosine[:, : len(rows)].copy()
    lost = np.flatnonzero((number[found.seed] < 0).any(axis=1))
    if len(lost):
        again = matched(bundle, _everything(bundle.splits).take(lost), seed.shape[1], lost)
        seed[lost], cosine[lost] = again
    return bundle._replace(assignment=Assignment(seed, cosine))


def matched(bundle: Bundle, histories: Ragged, count: int, users: np.ndarray) -> Assignment:
    """The seed users of users by their items; of a seed user the first is itself.

    Args:
        bundle: with a pool.
        histories: of n users.
        count: seed users of each, k.
        users: ``<int>[n]``, their numbers.
    """
    assert bundle.pool is not None
    seeds, rows = seed_keys(bundle)
    known = jax.tree.map(jnp.asarray, Known(matching=bundle.matching, seeds=seeds, seed_row=rows))
    width = power_of_two(int(histories.lengths().max(initial=1)))
    find = jax.jit(partial(match, count=min(count, len(known.seeds))))
    found = [find(known, in_rows(histories, batch, width)) for batch in batches(len(users), 512)]
    parts = zip(batches(len(users), 512), found, strict=True)
    used = [[np.asarray(array)[: batch.used] for array in each] for batch, each in parts]
    seed, cosine = (np.concatenate(each) for each in zip(*used, strict=True))
    return _own_first(Assignment(seed, cosine), bundle.pool.seeds.user, users)


def _own_first(found: Assignment, seeds: np.ndarray, users: np.ndarray) -> Assignment:
    """Every seed user with itself in the first place, in which its cosine is 1."""
    own = np.full(max(int(users.max(initial=0)), int(seeds.max(initial=0))) + 1, -1, np.int32)
    own[seeds] = np.arange(len(seeds))
    own = own[users]
    # The place that the own row takes: where it stands, else the last one, which it pushes out.
    stands = found.seed == own[:, None]
    place = np.where(stands.any(axis=1), stands.argmax(axis=1), found.seed.shape[1] - 1)
    rows = np.flatnonzero(own >= 0)
    seed, cosine = found.seed.copy(), found.cosine.copy()
    column = np.arange(seed.shape[1])
    shifted = np.where(column <= place[rows, None], np.maximum(column - 1, 0), column)
    seed[rows] = np.take_along_axis(found.seed[rows], shifted, axis=1)
    cosine[rows] = np.take_along_axis(found.cosine[rows], shifted, axis=1)
    seed[rows, 0], cosine[rows, 0] = own[rows], 1.0
    return Assignment(seed, cosine)


def refreshed(bundle: Bundle, now: Interactions) -> Bundle:
    """The bundle with the histories of today: pool and model stay, users are matched anew.

    Items that the model does not know are told and passed over. A collaborative backbone keeps the users
    that it was trained on. If it reads users by their histories, new ones are added; else it has a vector
    for trained users alone, and others are told and left out, to be given by their histories. Other backbones
    take the users as they are now; seed users stay in any case.

    Args:
        bundle: with parameters.
        now: all interactions as of today, not filtered.

    Raises:
        RelandError: nobody has an item that the model knows.
    """
    item = _numbers(now.ids.items, bundle.interactions.ids.items)[now.item]
    known = item > 0
    if not known.any():
        raise RelandError("refresh: none of the interactions is with an item that the model knows")
    if dropped := int((~known).sum()):
        _log.warning("refresh: %d of %d interactions are with unknown items, passed over", dropped, len(item))
    now = now._replace(user=now.user[known], item=item[known], time=now.time[known])
    grow = _with_later if _has_user_rows(bundle) else _with_users_of
    return _matched_anew(grow(bundle, now))


def _matched_anew(bundle: Bundle) -> Bundle:
    if bundle.assignment is None:
        return bundle
    count, users = bundle.assignment.seed.shape[1], np.arange(bundle.splits.num_users)
    return bundle._replace(assignment=matched(bundle, _everything(bundle.splits), count, users))


def _with_later(bundle: Bundle, now: Interactions) -> Bundle:
    """What users had since, in the place of the test part; the training part stays what it was."""
    user = _numbers(now.ids.users, bundle.interactions.ids.users)[now.user]
    if new := len(unknown := np.unique(now.user[user < 0])):
        if bundle.by_histories:
            bundle = _with_new_users(bundle, now, unknown)
            user = _numbers(now.ids.users, bundle.interactions.ids.users)[now.user]
        else:
            _log.warning("refresh: %d users were not trained, and are left out; give them by histories", new)
    old, splits = bundle.interactions, bundle.splits
    width, train = splits.num_items + 1, splits.train
    had = np.repeat(np.arange(splits.num_users), train.lengths()) * width + train.items
    later = (user >= 0) & ~np.isin(user.astype(np.int64) * width + now.item, had)
    order = np.flatnonzero(later)[np.argsort(user[later], kind="stable")]
    lengths = np.bincount(user[order], minlength=splits.num_users)
    after = Ragged(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), now.item[order])
    none = Ragged(np.zeros(splits.num_users + 1, np.int64), np.zeros(0, np.int32))
    whole = Splits(train, none, after, splits.num_items, REFRESHED)
    return bundle._replace(interactions=_as_of(old, whole.train.joined(after)), splits=whole)


def _with_new_users(bundle: Bundle, now: Interactions, which: np.ndarray) -> Bundle:
    """Further users after all others: without training items, a trained vector and, so far, seed users."""
    old, splits, count = bundle.interactions, bundle.splits, len(which)
    users = as_strings([*old.ids.users.tolist(), *now.ids.users[which].tolist()])
    features = {
        name: _column(users, (now.ids.users, now.user_features.get(name)), (old.ids.users, column))
        for name, column in old.user_features.items()
    }
    train, valid, test = (
        part._replace(indptr=np.pad(part.indptr, (0, count), mode="edge"))
        for part in (splits.train, splits.valid, splits.test)
    )
    trained, found = bundle.trained, bundle.assignment
    return bundle._replace(
        interactions=old._replace(ids=old.ids._replace(users=users), user_features=features),
        splits=Splits(train, valid, test, splits.num_items, splits.protocol),
        trained=_with_param(trained, _USERS, lambda rows: np.pad(rows, ((0, count), (0, 0)))),
        assignment=None if found is None else Assignment(*(np.pad(x, ((0, count), (0, 0))) for x in found)),
    )


def _with_users_of(bundle: Bundle, now: Interactions) -> Bundle:
    """The users as they are now, and seed users who are not among them with what they had."""
    old = bundle.interactions
    seeds = np.zeros(0, np.int64) if bundle.pool is None else bundle.pool.seeds.user.astype(np.int64)
    present = now.ids.users[np.unique(now.user)]
    absent = seeds[~np.isin(old.ids.users[seeds], present)]
    users = as_strings(sorted({*present.tolist(), *old.ids.users[absent].tolist()}))
    kept = np.isin(old.user, absent)
    before = _numbers(old.ids.users, users)
    user = np.concatenate([_numbers(now.ids.users, users)[now.user], before[old.user[kept]]])
    item = np.concatenate([now.item, old.item[kept]])
    time = np.concatenate([now.time, old.time[kept]])
    order = np.argsort(user, kind="stable")
    features = {
        name: _column(users, (old.ids.users, column), (now.ids.users, now.user_features.get(name)))
        for name, column in old.user_features.items()
    }
    whole = old._replace(
        user=user[order], item=item[order], time=time[order], ids=old.ids._replace(users=users),
        user_features=features, fixed_split=None, report=None,
    )  # fmt: skip
    pool = bundle.pool
    if pool is not None:
        pool = pool._replace(seeds=pool.seeds._replace(user=before[pool.seeds.user]))
    splits = unsplit(whole)._replace(protocol=REFRESHED)
    trained = bundle.trained._replace(ranks={}, lists=Lists())  # whose users are others now
    return bundle._replace(interactions=whole, splits=splits, pool=pool, trained=trained)


def with_described(old: Interactions, ids: list[str], features: Mapping[str, list[str]]) -> Interactions:
    """The interactions with further items that nobody has had.

    Args:
        old: all interactions.
        ids: n external ids, all new.
        features: field of the items -> n values; fields that are missing here are empty.
    """
    columns = {
        name: as_strings([*column.tolist(), *features.get(name, [""] * len(ids))])
        for name, column in old.item_features.items()
    }
    names = old.ids._replace(items=as_strings([*old.ids.items.tolist(), *ids]))
    return old._replace(ids=names, item_features=columns)


def with_items(bundle: Bundle, described: Interactions, vectors: np.ndarray) -> Bundle:
    """The bundle with further items, known by their texts alone; nothing is trained.

    They are represented without an id of their own: its embedding is zero, as if nobody had had them.

    Args:
        bundle: with parameters; see `check_appendable`.
        described: see `with_described`.
        vectors: ``<float32>[n, T]``, of the texts of the new items.
    """
    count, splits = len(vectors), bundle.splits
    assert bundle.items is not None
    return bundle._replace(
        interactions=described,
        splits=splits._replace(num_items=splits.num_items + count),
        items=np.concatenate([bundle.items, vectors.astype(bundle.items.dtype)]),
        matching=None if bundle.matching is None else _unknown_rows(bundle.matching, count),
        linear=None if bundle.linear is None else _silent_items(bundle.linear, count),
        trained=_with_param(bundle.trained, _ITEM_IDS, lambda rows: np.pad(rows, ((0, count), (0, 0)))),
    )


def check_appendable(bundle: Bundle) -> None:
    """Raises `RelandError` for a model that cannot recommend an item by its text."""
    if not find_variant(bundle.variant).reads_texts:
        raise RelandError(
            f"append_items: the variant {bundle.variant!r} knows items by their numbers alone, and an item "
            "that it was not trained on has none; train f_item or reland, or fit again with the item"
        )
    backbone = bundle.config.model.backbone
    if backbone in LINEAR:
        raise RelandError(
            f"append_items: {backbone} is solved for all items at once, and has no weights for another one; "
            "fit again with the item, which a linear model does in seconds, or choose another backbone"
        )


def _everything(splits: Splits) -> Ragged:
    return splits.train.joined(splits.valid).joined(splits.test)


def _has_user_rows(bundle: Bundle) -> bool:
    backbone = MODELS[bundle.config.model.backbone]
    return backbone.build is not None and not backbone.sequential


def _numbers(names: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Places of names in other names, ``<int32>[n]``, -1 where there is no such name."""
    place = {name: number for number, name in enumerate(among.tolist())}
    return np.array([place.get(name, -1) for name in names.tolist()], np.int32)


def _column(users: np.ndarray, *sources: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
    """Values of users, of later sources before earlier ones; "" where none has any."""
    values: dict[str, str] = {}
    for names, column in sources:
        if column is not None:
            values |= dict(zip(names.tolist(), column.tolist(), strict=True))
    return as_strings([values.get(user, "") for user in users.tolist()])


def _of_users(old: Interactions, stays: np.ndarray, number: np.ndarray) -> Interactions:
    kept = stays[old.user]
    features = {name: column[stays] for name, column in old.user_features.items()}
    return old._replace(
        user=number[old.user[kept]], item=old.item[kept], time=old.time[kept],
        ids=old.ids._replace(users=old.ids.users[stays]), user_features=features,
        fixed_split=None if old.fixed_split is None else old.fixed_split[kept],
    )  # fmt: skip


def _as_of(old: Interactions, histories: Ragged) -> Interactions:
    """The interactions of these histories, whose times are places in them."""
    user = np.repeat(np.arange(histories.num_rows, dtype=np.int32), histories.lengths())
    time = (np.arange(len(user)) - np.repeat(histories.indptr[:-1], histories.lengths())).astype(np.float64)
    return old._replace(user=user, item=histories.items, time=time, fixed_split=None, report=None)


def _trained_of_users(trained: Trained, stays: np.ndarray, number: np.ndarray) -> Trained:
    ranks = {part: _ranks_of(found, stays, number) for part, found in trained.ranks.items()}
    shown = stays[trained.lists.user]
    lists = Lists(number[trained.lists.user[shown]].astype(np.int64), trained.lists.item[shown])
    return _with_param(trained, _USERS, lambda rows: rows[: len(stays)][stays])._replace(
        ranks=ranks, lists=lists
    )


def _ranks_of(found: TargetRanks, stays: np.ndarray, number: np.ndarray) -> TargetRanks:
    kept = stays[found.user]
    had = None if found.had_before is None else found.had_before[kept]
    return TargetRanks(number[found.user[kept]], found.item[kept], found.rank[kept], had)


def _with_param(trained: Trained, path: tuple[str, ...], change: Any) -> Trained:
    """With one changed table among the parameters, where there is one at this path."""

    def changed(tree: Any, keys: tuple[str, ...]) -> Any:
        if not isinstance(tree, dict) or keys[0] not in tree:
            return tree
        inner = tree[keys[0]]
        return tree | {keys[0]: changed(inner, keys[1:]) if len(keys) > 1 else change(np.asarray(inner))}

    return trained._replace(params=changed(trained.params, path))


def _silent_items(weights: sparse.csr_array, count: int) -> sparse.csr_array:
    """Weights with further items, of which a linear model says nothing."""
    length = weights.shape[0] + count
    starts = np.pad(weights.indptr, (0, count), mode="edge")
    return sparse.csr_array((weights.data, weights.indices, starts), shape=(length, length))


def _unknown_rows(matching: Matching, count: int) -> Matching:
    more = matching._replace(
        items=np.pad(matching.items, ((0, count), (0, 0))), scale=np.pad(matching.scale, (0, count))
    )
    return more if more.texts is None else more._replace(texts=np.pad(more.texts, ((0, count), (0, 0))))
