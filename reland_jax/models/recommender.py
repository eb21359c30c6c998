"""Recommenders: a backbone, the item representation and the fusion put together.

There are two families. A *collaborative* backbone refines user and item embeddings; a *sequential* backbone
encodes a user's most recent items. In both, `ItemRepresentation` feeds the backbone and `RationaleFusion`
works on its output, so a new backbone needs no code for `id`, `f_item` or `reland`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from reland_jax.config import FusionConfig, ScoreConfig
from reland_jax.mesh import DATA, MODEL, constrain
from reland_jax.models.adaptors import JoinedFusion, create_adaptor
from reland_jax.models.beside import (
    TextKernel,
    beside_numbers,
    entries_of_pairs,
    recent_items,
    rows_that_speak,
    scored_entries,
    unit_texts,
    with_entries,
)
from reland_jax.models.graph import Propagation
from reland_jax.models.inputs import PairBatch, SequenceBatch, Tables, Views
from reland_jax.models.losses import (
    bpr_loss,
    catalogue_cross_entropy,
    sampled_cross_entropy,
    scored_cross_entropy,
)
from reland_jax.models.representation import (
    LEAST_COSINE,
    ItemRepresentation,
    RationaleFusion,
    SetFusion,
    filled_up,
    identity,
)
from reland_jax.models.sampling import sample_tree
from reland_jax.models.scores import Layers, dot_product


class Recommender(nn.Module):
    """What both families share.

    Attributes:
        width: of the embeddings that the backbone reads.
        fusion: settings of the rationale fusion.
        backbone: the encoder module, see `reland_jax.models.MODELS`.
        num_users: U.
        num_items: I.
        texts: whether items are represented by their texts too.
        rationales: k, how many rationales a user is given; 0 where none are read.
        seed_ids: whether a learned vector of the seed user's number takes the place of its rationale.
        beside: what is added to the backbone's score.
    """

    width: int
    fusion: FusionConfig
    backbone: nn.Module
    num_users: int
    num_items: int
    texts: bool
    rationales: int
    seed_ids: bool = False
    beside: ScoreConfig = ScoreConfig()

    init_scale = 0.02

    def setup(self) -> None:
        """Declares the submodules."""
        scale = self.fusion.item_scale
        text_init = nn.linear.default_kernel_init if scale is None else identity(scale)
        adaptor = create_adaptor(self.fusion, self.width)
        if adaptor is not None:
            self.adaptor, text_init = adaptor, nn.initializers.zeros
            adaptor = self.adaptor
        self.items = ItemRepresentation(
            self.num_items, self.width, self.texts, self.init_scale, text_init, adaptor
        )
        self.fuse = self._fusion()
        if self.reads_sets:
            self.late_gain = self._factor("late_gain", self.fusion.late_gain)
        if self.reads_kernel:
            assert self.beside.text_kernel is not None
            self.kernel = TextKernel(self.beside.text_kernel)
        if (factor := self.beside.linear) is not None:
            learned = self.beside.added == "training"
            self.linear_scale = self._factor("linear_scale", factor) if learned else jnp.float32(factor)

    def _fusion(self) -> nn.Module:
        """How rationales enter the users."""
        if self.fusion.adaptor != "attention":
            return JoinedFusion(self.adaptor, self.seed_ids)
        if self.fusion.reading == "set":
            return SetFusion(self.fusion, self.seed_ids)
        # Without item texts there is no projection to share.
        own = self.fusion if self.texts else dataclasses.replace(self.fusion, projection="own")
        return RationaleFusion(own, self.seed_ids)

    def _factor(self, name: str, start: float) -> jax.Array:
        """A learned factor above 0; its logarithm is the parameter, so that it moves by shares of itself."""
        return start * jnp.exp(self.param(name, nn.initializers.zeros, ()))

    @property
    def trained(self) -> Self:
        """The recommender as it is trained: without the linear scores that rankings alone add."""
        if self.beside.added == "training":
            return self
        return self.clone(beside=dataclasses.replace(self.beside, linear=None, added="training"))

    @property
    def multiplies(self) -> bool:
        """Whether the score is the dot product of a user and an item."""
        return self.beside.linear is None and not self.reads_sets

    @property
    def reads_sets(self) -> bool:
        """Whether rationales are read as sets of phrases."""
        return self.rationales > 0 and self.fusion.reading == "set"

    def user_columns(self, of_items: int) -> int:
        """Columns of a user's vector, where those of an item's are given."""
        each = 0 if self.beside.linear is None else self.beside.recent * self.beside.votes
        each += self.rationales * self.fusion.late_items if self.reads_sets else 0
        return of_items if self.multiplies else of_items - 1 + 2 * each

    @property
    def reads_kernel(self) -> bool:
        """Whether a text kernel is added to the score."""
        return self.texts and self.beside.text_kernel is not None

    def with_texts(self, tables: Tables[jax.Array], items: jax.Array, index: jax.Array | None) -> jax.Array:
        """Vectors of items ``<float32>[..., E]``, after their numbers and what the text kernel multiplies.

        Args:
            tables: see `Tables`.
            items: of the backbone.
            index: ``<int32>[...]``, which items they are; None for all in order.
        """
        if self.reads_kernel:
            assert tables.item_text is not None
            texts = unit_texts(tables.item_text if index is None else tables.item_text[index])
            items = jnp.concatenate([texts, items], -1)
        return items if self.multiplies else beside_numbers(items, index)

    def fuse_rationales(
        self, tables: Tables[jax.Array], user: jax.Array, vectors: jax.Array, train: bool
    ) -> jax.Array:
        """Fuses the rationales of each user's seed users into its vector, where any are read.

        Args:
            tables: see `Tables`.
            user: ``<int32>[B]``.
            vectors: ``<float32>[B, D]``, e_u.
            train: in training the seed users are drawn among the user's n nearest, so that a projection
                cannot memorise the targets of the few users who share a rationale; and a share
                `fusion.withheld` of the rows gets no rationale, so that the backbone still learns without.

        Returns:
            ``<float32>[B, D]``, e'_u.
        """
        if not self.rationales:
            return vectors
        if not train or not self.fusion.withheld:
            return self._fused(tables, user, vectors, train)
        given = _evenly_spread(len(user), 1.0 - self.fusion.withheld)
        fused = self._fused(tables, user[given], vectors[given], train)
        return vectors.at[given].set(fused, unique_indices=True, indices_are_sorted=True)

    def _fused(
        self, tables: Tables[jax.Array], user: jax.Array, vectors: jax.Array, train: bool
    ) -> jax.Array:
        """`fuse_rationales` for users with rationales."""
        assert tables.rationale is not None
        seed, cosine = self._drawn(tables, user, train)
        return self.fuse(vectors, tables.rationale, seed, cosine, train, self.items.project)

    def late_entries(
        self, tables: Tables[jax.Array], user: jax.Array, train: bool
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Items ``<int32>[B, n]`` that are like what a user's seed users were told, and what that adds."""
        if not self.reads_sets:
            return []
        assert tables.late is not None
        seed, cosine = self._drawn(tables, user, train)
        share = jnp.maximum(cosine, LEAST_COSINE)
        share = self.late_gain * share / share.sum(1, keepdims=True)
        value = share[..., None] * tables.late.value[seed]
        return [(tables.late.item[seed].reshape(user.shape[0], -1), value.reshape(user.shape[0], -1))]

    def _drawn(self, tables: Tables[jax.Array], user: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """The k seed users ``<int32>[B, k]`` of users, and their cosines ``<float32>[B, k]``."""
        assert tables.seed is not None
        seeds, k = tables.seed[user], self.rationales
        column = jnp.broadcast_to(jnp.arange(k), (user.shape[0], k))
        if train and seeds.shape[1] > k:
            # One of every k-th part of them, so that the k are different.
            part = seeds.shape[1] // k
            column = column * part + jax.random.randint(self.make_rng("dropout"), column.shape, 0, part)
        seed = jnp.take_along_axis(seeds, column, 1)
        cosine = jnp.ones(seed.shape)
        if tables.cosine is not None:
            cosine = jnp.take_along_axis(tables.cosine[user], column, 1)
        return seed, cosine


def _evenly_spread(count: int, share: float) -> np.ndarray:
    """Rows ``<int64>[round(count * share)]`` of `count`, spread as evenly as possible.

    A batch is in random order, so the same rows are other targets in every batch. The other rows need not be
    computed, and devices that share a batch have equal work.
    """
    chosen = max(round(count * share), 1)
    return np.arange(chosen) * count // chosen


class SequentialRecommender(Recommender):
    """Recommends from a user's most recent items; trained with cross-entropy over all items.

    Attributes:
        contrastive: whether the backbone adds a loss over views of sequences.
        attention: whether the backbone compares every two positions of a row.
    """

    contrastive: bool = False
    attention: bool = False

    def user_vectors(self, tables: Tables[jax.Array], batch: SequenceBatch) -> jax.Array:
        """Users at the given places of their sequences, ``<float32>[B, E]``."""
        return self.users_after(self.items(tables.item_text), tables, batch)

    def users_after(self, items: jax.Array, tables: Tables[jax.Array], batch: SequenceBatch) -> jax.Array:
        """The same where the `item_vectors` are at hand."""
        hidden = self._hidden(items[:, -self.width :], batch, train=False)
        users = self.fuse_rationales(tables, batch.user, hidden[batch.place], train=False)
        return self._with_history(tables, batch, users, train=False)

    def item_vectors(self, tables: Tables[jax.Array]) -> jax.Array:
        """Items as they are scored, ``<float32>[I + 1, E]``."""
        return self.with_texts(tables, self.items(tables.item_text), None)

    def _with_history(
        self, tables: Tables[jax.Array], batch: SequenceBatch, users: jax.Array, train: bool
    ) -> jax.Array:
        """Users ``<float32>[B, D]``, after what is read of their newest items beside the backbone."""
        if self.multiplies and not self.reads_kernel:
            return users
        recent, weight = recent_items(
            batch.items, batch.position, batch.place, self.beside.half_life, self.beside.recent
        )
        if self.reads_kernel:
            assert tables.item_text is not None
            shares = weight / weight.sum(1, keepdims=True)
            mean = jnp.einsum("bn,bnt->bt", shares, unit_texts(tables.item_text[recent]))
            users = jnp.concatenate([self.kernel(mean), users], -1)
        entries = self.late_entries(tables, batch.user, train)
        if self.beside.linear is not None:
            assert tables.linear is not None
            speaks = rows_that_speak(tables.linear, batch.user, recent, train)
            item, value = tables.linear.item[speaks], tables.linear.value[speaks] * weight[..., None]
            item, value = (each.reshape(users.shape[0], -1) for each in (item, value))
            entries.append((item, self.linear_scale * value))
        return with_entries(entries, users)

    def score(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """Scores ``<float32>[B, n]`` of users ``[B, E]`` with items ``[n, E]`` or ``[B, n, E]``."""
        if self.multiplies:
            return dot_product(users, items)
        return scored_entries(dot_product, users, items, self.num_items)

    def loss(self, tables: Tables[jax.Array], batch: SequenceBatch) -> jax.Array:
        """Mean cross-entropy of the next item over the whole catalogue, a float32 scalar.

        A contrastive backbone adds its own loss to it.
        """
        items = self.items(tables.item_text)
        hidden = self._hidden(items, batch, train=True)
        users = self.fuse_rationales(tables, batch.user, hidden[batch.place], train=True)
        users = self._with_history(tables, batch, users, train=True)
        scored = self.with_texts(tables, items, None)
        dtype = self.backbone.config.activations
        rest = batch.target, batch.weight, self.num_items
        if self.multiplies:
            loss = catalogue_cross_entropy(users, scored, *rest, dtype)
        else:
            loss = scored_cross_entropy(self.score, users, scored, *rest)
        if self.contrastive:
            loss += self._contrast(items, hidden, batch)
        return loss

    def _hidden(self, items: jax.Array, batch: SequenceBatch | Views, train: bool) -> jax.Array:
        embedded = constrain(items[batch.items], DATA)
        hidden = self.backbone(embedded, batch.position, batch.segment, train)
        return hidden.reshape(-1, hidden.shape[-1]).astype(jnp.float32)

    def _contrast(self, items: jax.Array, hidden: jax.Array, batch: SequenceBatch) -> jax.Array:
        views = batch.views
        assert views is not None
        again = self._hidden(items, batch, train=True)[views.place]
        other = self._hidden(items, views, train=True)[views.last]
        return self.backbone.contrast(hidden[views.place], again, other, views.target, views.weight)


class CollaborativeRecommender(Recommender):
    """Recommends from the set of a user's items; trained with BPR, or with cross-entropy over all items."""

    embedding_l2: float = 0.0
    init_scale = 0.1

    def setup(self) -> None:
        """Declares the submodules."""
        super().setup()
        init = filled_up(nn.initializers.normal(self.init_scale))
        self.users = self.param("user_embedding", init, (self.num_users, self.width))

    def user_vectors(self, tables: Tables[jax.Array]) -> jax.Array:
        """All users as they are scored, ``<float32>[U, E]``."""
        users, _ = self._layers(tables, train=False)
        return self._finished(tables, constrain(jnp.arange(self.users.shape[0]), MODEL), users)

    def parts(self, tables: Tables[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """What users are made of, see `reland_jax.models.scores.DotProduct.parts`."""
        return self.backbone.parts(self.users, self.items(tables.item_text), tables.propagation)

    def users_after(self, tables: Tables[jax.Array], own: jax.Array, around: jax.Array) -> jax.Array:
        """Users as they are scored, ``<float32>[n, E]``, by their `parts`.

        Args:
            tables: what is known of n users.
            own: ``<float32>[n, F]``.
            around: ``<float32>[n, E']``.
        """
        return self._finished(tables, jnp.arange(own.shape[0]), self.backbone.user_layers(own, around))

    def _finished(self, tables: Tables[jax.Array], user: jax.Array, layers: Layers) -> jax.Array:
        """Users by all arrays of the backbone, with what is read beside it."""
        fused = self.fuse_rationales(tables, user, self.backbone.readout(layers), train=False)
        return self._with_history(tables, user, None, self.backbone.user_side(fused))

    def item_vectors(self, tables: Tables[jax.Array]) -> jax.Array:
        """Items as they are scored, ``<float32>[I + 1, E]``."""
        _, items = self._layers(tables, train=False)
        return self.with_texts(tables, self.backbone.item_side(self.backbone.readout(items)), None)

    def score(self, users: jax.Array, items: jax.Array, train: bool = False) -> jax.Array:
        """Scores ``<float32>[B, n]`` of users ``[B, E]`` with items ``[n, E]`` or ``[B, n, E]``."""
        own = partial(self._own_score, train=train)
        if self.multiplies:
            return own(users, items)
        return scored_entries(own, users, items, self.num_items)

    def _own_score(self, users: jax.Array, items: jax.Array, train: bool) -> jax.Array:
        """The score of the backbone and of the text kernel."""
        if not self.reads_kernel or self.backbone.multiplies:
            return self.backbone.score(users, items, train)
        width = self.backbone.scored_width
        texts = dot_product(users[..., :-width], items[..., :-width])
        return texts + self.backbone.score(users[..., -width:], items[..., -width:], train)

    def _with_history(
        self, tables: Tables[jax.Array], user: jax.Array, target: jax.Array | None, users: jax.Array
    ) -> jax.Array:
        """Vectors of users, after what is read of what they had beside the backbone.

        Args:
            tables: see `Tables`.
            user: ``<int32>[B]``.
            target: ``<int32>[B]``, an item of each that it is to be told from the others; None in a ranking.
            users: ``<float32>[B, E]``, of the backbone.
        """
        if self.reads_kernel:
            assert tables.profile is not None and tables.activity is not None and tables.item_text is not None
            total, count = tables.profile[user], tables.activity[user]
            if target is not None:
                total, count = total - unit_texts(tables.item_text[target]), count - 1
            users = jnp.concatenate([self.kernel(total / jnp.maximum(count, 1)[:, None]), users], -1)
        entries = self.late_entries(tables, user, target is not None)
        if self.beside.linear is not None:
            assert tables.linear is not None
            entries.append(entries_of_pairs(tables.linear, user, target, self.linear_scale))
        return with_entries(entries, users)

    def loss(self, tables: Tables[jax.Array], batch: PairBatch) -> jax.Array:
        """BPR or cross-entropy, plus an L2 penalty on the embeddings of the batch, a float32 scalar."""
        if batch.negative is None or batch.negative.ndim == 1:
            return self._cross_entropy(tables, batch)
        chosen = jnp.concatenate([batch.positive[:, None], batch.negative], 1)
        ids = self.users[batch.user], self.items.ids[chosen]
        users, items = self._batch_rows(tables, batch.user, chosen, ids)
        users = self.fuse_rationales(tables, batch.user, users, train=True)
        users = self._with_history(tables, batch.user, batch.positive, self.backbone.user_side(users))
        items = self.with_texts(tables, self.backbone.item_side(items), chosen)
        scores = self.score(users, items, train=True)
        return bpr_loss(scores[:, :1], scores[:, 1:], batch.weight) + self._penalty(ids, batch.weight)

    def _cross_entropy(self, tables: Tables[jax.Array], batch: PairBatch) -> jax.Array:
        """The loss over the catalogue, or over the items that stand for it."""
        of_users, of_items = self._layers(tables, train=True)
        users = self.fuse_rationales(tables, batch.user, self._rows(of_users, batch.user), train=True)
        users = self._with_history(tables, batch.user, batch.positive, self.backbone.user_side(users))
        items = self.backbone.item_side(self.backbone.readout(of_items, train=True))
        items = self.with_texts(tables, items, None)
        rest = batch.positive, batch.weight, self.num_items
        if batch.negative is not None:
            positive = self.score(users, items[batch.positive][:, None])
            scores = self.score(users, items[batch.negative], train=True)
            loss = sampled_cross_entropy(positive, scores, rest[0], batch.negative, *rest[1:])
        elif self.multiplies and self.backbone.multiplies:
            loss = catalogue_cross_entropy(users, items, *rest, self.backbone.config.activations)
        else:
            loss = scored_cross_entropy(partial(self.score, train=True), users, items, *rest)
        ids = self.users[batch.user], self.items.ids[batch.positive][:, None]
        return loss + self._penalty(ids, batch.weight)

    def _penalty(self, ids: tuple[jax.Array, jax.Array], weight: jax.Array) -> jax.Array:
        # Of the id embeddings, not of what enters the backbone: that penalty would make the embeddings
        # cancel the texts.
        squares = jnp.square(ids[0]).sum(-1) + jnp.square(ids[1]).sum((1, 2))
        return 0.5 * self.embedding_l2 * (weight @ squares) / weight.sum()

    def _batch_rows(
        self, tables: Tables[jax.Array], user: jax.Array, item: jax.Array, ids: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Representations of users ``<int32>[B]`` and items ``[B, n]``, whose id embeddings are `ids`."""
        if self.backbone.config.fanout:
            return self._sampled(tables, user, item)
        if tables.propagation is None:
            # Nothing is propagated, so these rows are enough. A table is then looked up once, for the
            # score and for the penalty: each lookup costs a gradient as large as the table.
            known = ids[0], self.items.looked_up(tables.item_text, item, ids[1])
            users, items = self.backbone(*(constrain(rows, DATA) for rows in known), None, train=True)
            return self.backbone.readout(users, train=True), self.backbone.readout(items, train=True)
        users, items = self._layers(tables, train=True)
        return self._rows(users, user), self._rows(items, item)

    def _layers(self, tables: Tables[jax.Array], train: bool) -> tuple[Layers, Layers]:
        return self.backbone(self.users, self.items(tables.item_text), tables.propagation, train)

    def _rows(self, layers: Layers, index: jax.Array) -> jax.Array:
        return self.backbone.readout([constrain(layer[index], DATA) for layer in layers], train=True)

    def _sampled(
        self, tables: Tables[jax.Array], users: jax.Array, items: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Representations of users ``<int32>[B]`` and items ``[B, n]``, from sampled neighbours."""
        graph, first_item = tables.propagation, len(self.users)
        assert graph is not None and not isinstance(graph, Propagation)
        known = first_item + len(self.items.ids)
        # Pair by pair, so that entries that fill up a batch change nothing of what is drawn for the others.
        nodes = jnp.concatenate([users[:, None], first_item + items], 1)
        tree = sample_tree(graph, nodes.reshape(-1), self.backbone.config.fanout, self.make_rng("dropout"))
        # One lookup for all depths, so that a table has one gradient, and not the sum of several.
        item = jnp.where(tree.node < first_item, 0, tree.node - first_item)
        rows = self.users.at[tree.node].get(mode="fill", fill_value=0.0)
        rows = constrain(rows + self.items.rows(tables.item_text, item), DATA)
        layers = self.backbone.sampled(rows, tree, graph, known, train=True)
        rows = self.backbone.readout(layers, train=True).reshape(*nodes.shape, -1)
        return rows[:, 0], rows[:, 1:]
