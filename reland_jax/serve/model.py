"""What a trained recommender is asked for: lists, explanations, similar items, metrics and vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reland_jax.bundle import Bundle, read_params
from reland_jax.data import item_texts
from reland_jax.eval import Vectors
from reland_jax.report.cases import Labels
from reland_jax.serve.choosing import Numbers, allowed_items, listed_histories, table_of
from reland_jax.serve.contributions import Contributions, contributions
from reland_jax.serve.explaining import (
    Contribution,
    Explanation,
    ItemEvidence,
    MatchedSeed,
    nearest_in,
    sentence,
    shared_words,
)
from reland_jax.serve.fitting import made_of
from reland_jax.serve.listing import Ranked, nothing
from reland_jax.serve.predicting import Predictor
from reland_jax.serve.readers import Reader, check_vectors, everything, likeness
from reland_jax.stages import recommender_of
from reland_jax.train import param_shapes
from reland_jax.types import PADDING_ITEM, Assignment, Ragged, Rationale, ReasoningPool, RelandError
from reland_jax.variants import find_variant

if TYPE_CHECKING:
    import pyarrow


class ModelVectors(NamedTuple):
    """Vectors whose scores are the model's, for a ranker of one's own.

    Attributes:
        user_ids: ``<str>[U]``.
        users: ``<float32>[U, E]``, as of today.
        item_ids: ``<str>[I]``.
        items: ``<float32>[I, E]``.
        seed_ids: ``<str>[S]``, seed users from whose history the rationales were written; None, as the two
            below, for a variant without rationales.
        rationales: ``<float32>[S, T]``, vectors of their texts.
        nearest: ``<int32>[U]``, the row of every user's nearest rationale.
    """

    user_ids: np.ndarray
    users: np.ndarray
    item_ids: np.ndarray
    items: np.ndarray
    seed_ids: np.ndarray | None = None
    rationales: np.ndarray | None = None
    nearest: np.ndarray | None = None


class Model:
    """Lists, explanations and vectors of a bundle that is held.

    Lists are made from the newest history: all interactions of the data, held-out ones too. A collaborative
    backbone takes the vectors that it has trained where the validation is better with them.
    """

    _bundle: Bundle | None = None

    def recommend(
        self,
        users: str | Iterable[str] | None = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        items: Iterable[str] | None = None,
        filter: Mapping[str, str | Sequence[str]] | None = None,
        as_measured: bool = False,
    ) -> pyarrow.Table:
        """The best items of users.

        Args:
            users: external ids; None takes all.
            k: length of a list; shorter where fewer items are left.
            exclude_seen: leave out what a user had: everything, or with `as_measured` what it had before the
                test part.
            items: ids of the items that lists are made of; None takes all.
            filter: field of the items -> value or values, one of which an item must have.
            as_measured: users as the test part was ranked, before their test items, to compare with
                the metrics.

        Returns:
            Columns user, rank (from 1), item, score, title, explanation (of `reland`: what the rationale of
            the nearest seed user says, see `sentence`). Of equal scores the item whose id is first in sorted
            order comes first. `to_pandas()` makes a data frame of it.

        Raises:
            RelandError: an unknown id or field, nothing left to recommend, or k below 1.
        """
        bundle, rows = self._fitted(), self._numbers.users(users)
        splits = bundle.splits
        if as_measured and not bundle.as_split:
            raise RelandError(
                f"as_measured: this model was not measured as it is ({bundle.splits.protocol}), and its "
                "lists have no metrics; fit(refit=False) has those of the measured one"
            )
        seen = splits.train.joined(splits.valid) if as_measured else self._everything
        vectors = self._reader.measured() if as_measured else self._today
        masked = seen.take(rows) if exclude_seen else nothing(len(rows))
        ranked = self.predictor.ranked(vectors, rows, masked, k, self.allowed(items, filter))
        names = bundle.interactions.ids.users[rows].tolist()
        nearest = None if self.nearest is None else self.nearest[rows]
        return table_of(names, ranked, self._labels, self.sentences(nearest, rows.tolist()))

    def recommend_from_history(
        self,
        history: Iterable[str] | Mapping[str, Iterable[str]] = (),
        k: int = 10,
        *,
        profile: Mapping[str, str] | None = None,
        exclude_seen: bool = True,
        items: Iterable[str] | None = None,
        filter: Mapping[str, str | Sequence[str]] | None = None,
    ) -> pyarrow.Table:
        """The best items of new users, by what they had; nothing is trained.

        A new user is matched to seed users by an inductive behaviour vector, and is given their rationales.

        Args:
            history: item ids, oldest first; or a name of one's own for each user -> item ids. Unknown items
                are told and passed over.
            profile: field of the users -> value, of one user without any history; otherwise not looked at.
            k: see `recommend`, as the others.
            exclude_seen: leave the history out of the lists.
            items: see `recommend`.
            filter: see `recommend`.

        Raises:
            RelandError: no item of a history is known, or see `recommend`.
        """
        self._fitted()
        given = listed_histories(history)
        names = list(given)
        allowed = self.allowed(items, filter)
        if profile is not None and not any(given.values()):
            names = names[:1] or [""]
            vectors, matched = self._reader.by_profile(profile, self._today)
            ranked = self.predictor.ranked(vectors, np.zeros(1, np.int64), nothing(1), k, allowed)
        else:
            read = self._numbers.histories(given)
            ranked, matched = self.predictor.histories(read, k, exclude_seen=exclude_seen, allowed=allowed)
        nearest = None if matched is None else matched.seed[:, 0]
        return table_of(names, ranked, self._labels, self.sentences(nearest, [None] * len(names)))

    def similar_items(self, items: str | Iterable[str], k: int = 10) -> pyarrow.Table:
        """The items most like others to the model: columns item, rank (from 1), similar, score, title.

        Args:
            items: external ids.
            k: how many of each, without itself.

        Raises:
            RelandError: an unknown id, or k below 1.
        """
        self._fitted()
        numbers = self._numbers.items(items)
        alike = np.array(likeness(self._reader, self._today, numbers)[:, : len(self._labels.ids)])
        alike[np.arange(len(numbers)), numbers] = alike[:, PADDING_ITEM] = -np.inf
        order = np.argsort(-alike, axis=1, kind="stable")[:, : _checked(k)]
        score = np.take_along_axis(alike, order, axis=1)
        ranked = Ranked(np.where(np.isneginf(score), PADDING_ITEM, order), score)
        names = self._labels.ids[numbers].tolist()
        table = table_of(names, ranked, self._labels, [""] * len(names)).drop_columns("explanation")
        return table.rename_columns({"user": "item", "item": "similar"})

    def explain(self, user: str, k: int = 10) -> Explanation:
        """What a user's recommendations rest on.

        Args:
            user: external id.
            k: how many recommendations, of what the user has not had.

        Raises:
            RelandError: an unknown user, or k below 1.
        """
        found, rows = self._fitted().assignment, self._numbers.users(user)
        history, matched = self._everything.take(rows), None
        if found is not None:
            given = self._fitted().config.retrieval.neighbours
            matched = Assignment(found.seed[rows, :given], found.cosine[rows, :given])
        return self._explained(str(user), int(rows[0]), history, self.predictor.users(rows, k), matched)

    def explain_history(self, history: Iterable[str], k: int = 10) -> Explanation:
        """The same for a new user, by what it had.

        Args:
            history: item ids, oldest first; unknown ones are told and passed over.
            k: how many recommendations, of what is not in the history.

        Raises:
            RelandError: no item of the history is known, or k below 1.
        """
        self._fitted()
        read = self._numbers.histories(listed_histories(history))
        ranked, matched = self.predictor.histories(read, k)
        return self._explained("", None, read, ranked, matched)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics of the measured model, by part ("valid", "test"): full ranking of every held-out item.

        Of a collaborative backbone also the validation part for users who are read by their histories
        (`bundle.BY_HISTORIES`). A refitted model has none of its own: nothing was held out of its training.
        """
        return {part: dict(found) for part, found in self._fitted().metrics.items()}

    def vectors(self) -> ModelVectors:
        """The vectors of all users, as of today, of items and of rationales.

        Raises:
            RelandError: the backbone has none, as the linear models of items.
        """
        bundle, ids = self._fitted(), self._fitted().interactions.ids
        check_vectors(self._reader)
        users, items = np.asarray(self._today.users), np.asarray(self._today.items)
        found = ModelVectors(ids.users, users[: len(ids.users)], ids.items[1:], items[1 : len(ids.items)])
        if self._pool is None:
            return found
        seeds = ids.users[self._pool.seeds.user]
        return found._replace(seed_ids=seeds, rationales=bundle.rationales, nearest=self.nearest)

    @property
    def user_ids(self) -> list[str]:
        """External ids of all users, in the order of the rows."""
        return self._fitted().interactions.ids.users.tolist()

    @property
    def item_ids(self) -> list[str]:
        """External ids of the items; item n of a `Predictor` is at n - 1."""
        return self._labels_of_fitted().ids[1:].tolist()

    @property
    def item_titles(self) -> list[str]:
        """Titles of the items in the same order, "" where there is none."""
        return self._labels_of_fitted().titles[1:].tolist()

    @property
    def nearest(self) -> np.ndarray | None:
        """``<int32>[U]``, the row of every user's nearest rationale; None without rationales."""
        found = self._fitted().assignment
        return None if found is None else found.seed[:, 0]

    @property
    def origin(self) -> str:
        """A hash of the settings and data that the recommender was made from."""
        return self._fitted().origin

    def _hold(self, bundle: Bundle, folder: Path | None = None) -> None:
        """Makes ready what the lists are made from; parameters come from the bundle or its folder."""
        made = made_of(bundle)
        task, params = recommender_of(made, bundle.variant), bundle.trained.params
        if folder is not None:
            params = read_params(folder, param_shapes(task, bundle.config.train))
        for name in ("predictor", "_today", "_everything"):
            self.__dict__.pop(name, None)
        self._bundle, self._reader = bundle, Reader(bundle, made, task, params)
        self._numbers, self._labels = Numbers(bundle.interactions), Labels(bundle.interactions)
        self._texts = item_texts(bundle.interactions, bundle.config.data.text_fields)

    def _labels_of_fitted(self) -> Labels:
        self._fitted()
        return self._labels

    def _fitted(self) -> Bundle:
        if self._bundle is None:
            raise RelandError("nothing is fitted yet: call fit() first, or Reland.load(folder)")
        return self._bundle

    @property
    def _pool(self) -> ReasoningPool | None:
        """The pool, where the model reads it and it explains something; cold users may need it besides."""
        bundle = self._fitted()
        return bundle.pool if find_variant(bundle.variant).reads_rationales else None

    @cached_property
    def predictor(self) -> Predictor:
        """The same lists as numbers, for a server or a command that asks for batches (`serve.predicting`).

        It is made at first use; `predictor.warm()` compiles its programs.

        Raises:
            RelandError: nothing is fitted.
        """
        self._fitted()
        return self._reader.predictor(self._today)

    @cached_property
    def _today(self) -> Vectors:
        return self._reader.today()

    @cached_property
    def _everything(self) -> Ragged:
        return everything(self._fitted().splits)

    def allowed(
        self,
        items: Iterable[str] | None = None,
        filter: Mapping[str, str | Sequence[str]] | None = None,
    ) -> np.ndarray | None:
        """The items that lists are made of, as `Predictor` takes them: ``<bool>[I + 1]``; None for all.

        Args:
            items: see `recommend`.
            filter: see `recommend`.

        Raises:
            RelandError: an unknown id or field, or no item is left.
        """
        chosen = None if items is None else self._numbers.items(items)
        return allowed_items(self._fitted().interactions, chosen, filter)

    def sentences(self, nearest: np.ndarray | None, users: Sequence[int | None]) -> list[str]:
        """What the nearest rationales of n users say, as far as it may be shown to them (`sentence`).

        Args:
            nearest: ``<int>[n]``, rows of rationales; None without any.
            users: n rows of users, None for a new one.

        Returns:
            n texts, "" where there are no rationales.
        """
        if nearest is None or self._pool is None:
            return [""] * len(users)
        found = zip(self.rationales(nearest), users, strict=True)
        return [sentence(said, seed == user) for (seed, said), user in found]

    def rationales(self, rows: np.ndarray) -> list[tuple[int, Rationale]]:
        """Rationales of the pool, each with the row of the user from whose history it was written.

        Args:
            rows: ``<int>[n]``, of the pool.
        """
        assert self._pool is not None
        users, said = self._pool.seeds.user, self._pool.rationales
        return [(int(users[row]), said[row]) for row in rows.tolist()]

    def _explained(
        self, name: str, user: int | None, history: Ragged, ranked: Ranked, matched: Assignment | None
    ) -> Explanation:
        """Of one user: `user` is its row, None for a new one."""
        seeds = self._seeds(user, matched)
        evidence = self._evidence(history, ranked, matched)
        return Explanation(name, tuple(self._labels.all(history.items)), seeds, evidence)

    def _seeds(self, user: int | None, matched: Assignment | None) -> tuple[MatchedSeed, ...]:
        pool, ids = self._pool, self._fitted().interactions.ids.users
        if pool is None or matched is None:
            return ()
        matches = zip(self.rationales(matched.seed[0]), matched.cosine[0].tolist(), strict=True)
        return tuple(
            MatchedSeed(str(ids[seed]), weight, seed == user, said.step1, said.step2, said.model)
            for (seed, said), weight in matches
        )

    def _evidence(
        self, history: Ragged, ranked: Ranked, matched: Assignment | None
    ) -> tuple[ItemEvidence, ...]:
        rows = [] if matched is None else matched.seed[0].tolist()
        said = [] if self._pool is None else [self._pool.rationales[row] for row in rows]
        had, form, known = np.unique(history.items), *self.predictor.parts()[:2]
        alike, terms = likeness(self._reader, self._today, had), contributions(form, known, history, matched)
        found = []
        for item, score in zip(ranked.item[0].tolist(), ranked.score[0].tolist(), strict=True):
            if item != PADDING_ITEM:
                near = tuple(self._labels.all(nearest_in(had, alike, item)))
                words = shared_words(self._texts[item], said)
                parts, rest = self._terms_of(item, terms)
                found.append(ItemEvidence(self._labels.all([item])[0], score, words, near, parts, rest))
        return tuple(found)

    def _terms_of(self, item: int, terms: Contributions | None) -> tuple[tuple[Contribution, ...], float]:
        """What each history item adds to the score of an item, the most first; and what rationales add."""
        if terms is None:
            return (), 0.0
        order = np.argsort(-terms.items[:, item], kind="stable")
        labels = self._labels.all(terms.history[order])
        added = terms.items[order, item].tolist()
        parts = tuple(Contribution(label, score) for label, score in zip(labels, added, strict=True))
        return parts, float(terms.rationales[item])


def _checked(k: int) -> int:
    if k < 1:
        raise RelandError(f"k={k}: a list has at least one item")
    return k
