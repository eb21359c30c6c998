"""Users as a trained recommender sees them: as they were measured, as they are today, and new ones.

The three families differ in what they need of a user who was not trained. A sequential backbone encodes any
sequence, and a linear model adds up rows of its items: both read a history exactly as they read that of a
trained user. A collaborative backbone has a trained embedding for every user; that of a new one is predicted
by its items (`retrieval.inductive`), and the layers upon it are those of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.bundle import Bundle
from reland_jax.config import nearest_name
from reland_jax.eval import ColdUserWeights, Vectors, impute_cold_users
from reland_jax.flow import Made
from reland_jax.models import Ials, LinearScores, Recommender, SequentialRecommender, Tables, applied
from reland_jax.models.scores import dot_product
from reland_jax.retrieval import (
    FoldIn,
    fold_in_all,
    learn_fold_in,
    most_voted,
    profile_weights,
    profiles,
)
from reland_jax.retrieval.cold import ProfileWeights
from reland_jax.serve.listing import nothing, power_of_two
from reland_jax.serve.predicting import Predictor
from reland_jax.serve.programs import Form, Known, scored, seed_keys
from reland_jax.stages import SPLIT, rationales_of, recommender_of
from reland_jax.stages.assign import given
from reland_jax.strings import as_strings
from reland_jax.train import ClosedForm, Score, Task, history_encoder, with_lists_of
from reland_jax.train.closed_form import unit_rows
from reland_jax.train.pairs import with_profiles
from reland_jax.train.placement import distribute
from reland_jax.types import Assignment, Ragged, RelandError, Splits
from reland_jax.variants import find_variant


class Reader:
    """A trained recommender that reads histories.

    Attributes:
        task: the recommender with its data.
        params: its parameters.
    """

    def __init__(self, bundle: Bundle, made: Made, task: Task | ClosedForm, params: Any) -> None:
        """Takes a bundle, `fitting.made_of` it, its recommender and its parameters."""
        self._bundle, self._made, self.task = bundle, made, task
        self.params = jax.tree.map(jnp.asarray, params)  # not sent to the device with every batch

    def measured(self) -> Vectors:
        """All users as the test part of the split was ranked, and all items."""
        return self._measured

    def today(self) -> Vectors:
        """All users with all their interactions, held-out ones too, as far as that needs no training.

        A collaborative backbone reads them as those of new users if the bundle says so (`by_histories`), and
        else keeps the vectors that it has trained.
        """
        model, history = self.task.model, everything(self._bundle.splits)
        if isinstance(self.task, ClosedForm):
            return self._solved_after(history)
        if isinstance(model, SequentialRecommender):
            return self._encoded_after(model, history)
        return self.folded(history) if self._bundle.by_histories else self.measured()

    def folded(self, histories: Ragged) -> Vectors:
        """All users of a collaborative backbone as new ones are read, by their histories.

        Users without any keep the vectors of `measured`.

        Args:
            histories: items of every user.
        """
        assert isinstance(self.task, Task)
        vectors, tables = self.measured(), self.task.tables
        if self.task.model.reads_kernel:
            tables = distribute(with_profiles(tables, histories))
        if tables.linear is not None:
            rows = jax.tree.map(np.asarray, _rows_of(tables.linear))
            tables = tables._replace(
                linear=distribute(with_lists_of(rows, histories, self.task.model.beside))
            )
        found = _users(self.task.model, self.params, tables, *fold_in_all(self._folding, histories))
        known = jnp.asarray(histories.lengths() > 0)[:, None]
        return vectors._replace(users=jnp.where(known, found, vectors.users[: len(found)]))

    def predictor(self, today: Vectors) -> Predictor:
        """What answers batches of users and histories.

        Args:
            today: see `today`.
        """
        bundle, model = self._bundle, self.task.model
        neighbours = 0 if bundle.assignment is None else given(bundle.assignment, bundle.config).seed.shape[1]
        form = Form(model, bundle.splits.num_items, neighbours)
        length = bundle.config.data.max_length
        reads_newest = self._is_sequential or getattr(model, "recency", False)
        known = self._known(today)
        return Predictor(form, known, today, everything(bundle.splits), length if reads_newest else None)

    def _known(self, today: Vectors) -> Known:
        """What new users are read with, on the device."""
        bundle, rationales = self._bundle, self._rationales
        if isinstance(self.task.model, Ials) and rationales is not None:
            rationales = unit_rows(rationales)
        folding = self._folding if self.is_set else None
        texts = self.task.tables.item_text if getattr(self.task.model, "reads_kernel", False) else None  # type: ignore[union-attr]
        tables = None if isinstance(self.task, ClosedForm) else self.task.tables
        linear = None if tables is None or tables.linear is None else _rows_of(tables.linear)
        keys = seed_keys(bundle)
        arrays = rationales, texts, today.items, today.score, bundle.matching, *keys, folding, linear
        return Known(self.params, *jax.tree.map(jnp.asarray, arrays))

    def by_profile(self, profile: Mapping[str, str], today: Vectors) -> tuple[Vectors, Assignment | None]:
        """One new user of whom a profile alone is known, and its seed users, by the rule for cold users.

        Users vote by the likeness of profiles (`retrieval.cold`): for their seed users where the variant
        reads rationales, else for themselves.

        Args:
            profile: field of the users -> value.
            today: vectors of all users.

        Raises:
            RelandError: a field that the data lack, or a linear model of items, alone or under a backbone,
                which has no vectors.
        """
        check_vectors(self)
        bundle = self._bundle
        weights = self._profile_weights(profile)
        pool, matched, warm = bundle.pool, self._given(), weights.warm
        source, found = warm, None
        if pool is not None and matched is not None:
            nearest, (_, k) = matched.seed[warm, 0], matched.seed.shape
            source, found = pool.seeds.user[nearest], most_voted(weights, nearest, len(pool.rationales), k)
            found = Assignment(found.seed[-1:], found.cosine[-1:])
        arrays = (weights.cold, weights.cold_profile, weights.weight, source, weights.warm_profile)
        users = jnp.pad(today.users[: bundle.splits.num_users], ((0, 1), (0, 0)))
        whole = impute_cold_users(today._replace(users=users), ColdUserWeights(*map(jnp.asarray, arrays)))
        return whole._replace(users=whole.users[-1:]), found

    def _profile_weights(self, profile: Mapping[str, str]) -> ProfileWeights:
        """The votes of all users for the new one, who is the last of those without training items."""
        bundle, known = self._bundle, self._bundle.interactions.user_features
        for name in profile or ("",):
            if name not in known:
                hint = nearest_name(name, list(known)) if known else "the data describe no users"
                raise RelandError(f"profile: {name!r} is not a field of the users; {hint}")
        columns = {
            name: as_strings([*column.tolist(), str(profile.get(name, ""))]) for name, column in known.items()
        }
        activity = np.append(bundle.splits.train.lengths(), 0)
        profile_of = profiles(columns, len(activity))
        return profile_weights(profile_of, activity, bundle.config.retrieval.cold_mismatch)

    @cached_property
    def _measured(self) -> Vectors:
        return self.task.vectors(self.params, "test")

    @property
    def is_set(self) -> bool:
        """Whether the backbone is a collaborative one, which has trained a vector for every user."""
        return not (isinstance(self.task, ClosedForm) or self._is_sequential)

    @property
    def _is_sequential(self) -> bool:
        return isinstance(self.task.model, SequentialRecommender)

    def _given(self) -> Assignment | None:
        found = self._bundle.assignment
        return None if found is None else given(found, self._bundle.config)

    def _encoded_after(self, model: SequentialRecommender, history: Ragged) -> Vectors:
        assert isinstance(self.task, Task)
        encode = history_encoder(model, history, self._bundle.config.data.max_length)
        users, items = encode(self.params, self.task.tables)
        if model.multiplies:
            return Vectors(users, items, jax.tree_util.Partial(dot_product))
        return Vectors(users, items, jax.tree_util.Partial(Score(model), self.params))

    def _solved_after(self, history: Ragged) -> Vectors:
        none, splits = nothing(history.num_rows), self._bundle.splits
        made = self._made.instead(SPLIT, Splits(history, none, none, splits.num_items, splits.protocol))
        return recommender_of(made, self._bundle.variant).vectors(self.params, "test")

    @cached_property
    def _folding(self) -> FoldIn:
        """How a user's embedding is made of items."""
        assert isinstance(self.task, Task)
        splits = self._bundle.splits
        own, items = _parts(self.task.model, self.params, self.task.tables)
        kept = np.asarray(own)[: splits.num_users], np.asarray(items)[: splits.num_items + 1]
        return learn_fold_in(kept[0], splits.train, kept[1])

    @property
    def _rationales(self) -> np.ndarray | None:
        """The vectors of the rationales as the variant reads them, ``<float32>[S, T]``."""
        variant = find_variant(self._bundle.variant)
        return rationales_of(self._made, variant) if variant.reads_rationales else None


def everything(splits: Splits) -> Ragged:
    """All items of every user, oldest first."""
    return splits.train.joined(splits.valid).joined(splits.test)


def likeness(reader: Reader, vectors: Vectors, items: np.ndarray) -> np.ndarray:
    """How like other items are to some, ``<float32>[n, I + 1]``; larger is more alike.

    By the cosine of the items' vectors; for a linear model of items, what an item adds to the score of each
    other one.

    Args:
        reader: the recommender.
        vectors: of `reader`.
        items: ``<int>[n]``, in 1 .. I.
    """
    if vectors.items.shape[1] > 1:
        rows = np.asarray(vectors.items, np.float32)
        rows = rows if getattr(reader.task.model, "multiplies", True) else rows[:, 1:]  # without numbers
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return unit[items] @ unit.T
    alone = np.zeros((power_of_two(len(items)), vectors.users.shape[1]), np.float32)
    alone[: len(items), getattr(reader.task.model, "rationales", 0)] = items  # the newest place of a history
    return np.asarray(scored(vectors.score, alone, vectors.items))[: len(items)]


@partial(jax.jit, static_argnums=0)
def _parts(model: Recommender, params: Any, tables: Tables[jax.Array]) -> Any:
    return applied(model, params, tables, method="parts")


@partial(jax.jit, static_argnums=0)
def _users(model: Recommender, params: Any, tables: Tables[jax.Array], own: Any, around: Any) -> jax.Array:
    return applied(model, params, tables, own, around, method="users_after")


def check_vectors(reader: Reader) -> None:
    """Raises `RelandError` where a score is no product of two vectors: linear models of items, also added."""
    if isinstance(reader.task, ClosedForm) and not hasattr(reader.task.model, "dim"):
        raise RelandError(
            "a linear model of items (ease) has weights between items, and no vectors of users and items; "
            "choose another backbone, such as ials"
        )
    if not getattr(reader.task.model, "multiplies", True):
        raise RelandError(
            "a backbone with the scores of a linear model (config.score.linear) has a score that is no "
            "product of a vector of the user and one of the item; train it without for vectors and profiles"
        )


def _rows_of(linear: LinearScores[Any]) -> LinearScores[Any]:
    """What the items of a history say, without what belongs to single users."""
    return LinearScores(linear.item, linear.value)
