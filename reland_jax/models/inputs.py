"""What recommenders read: frozen tables, and batches of sequences or pairs."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeAlias, cast

import flax.linen as nn
import jax
import numpy as np

from reland_jax.device import layer_products
from reland_jax.models.beside import LateScores, LinearScores
from reland_jax.models.graph import Graph, Propagation
from reland_jax.types import Array


class Tables(NamedTuple, Generic[Array]):
    """Frozen arrays a recommender reads; None where its variant does not use them.

    Attributes:
        item_text: ``<float32>[I + 1, T]``, encoded item attributes, row 0 zero.
        rationale: ``<float32>[S, T]``, the encoded reasoning pool: S rows, never U.
        seed: ``<int32>[U, n]``, every user's nearest seed users as rows of `rationale`.
        cosine: ``<float32>[U, n]``, their cosines; None if a user gets one rationale.
        propagation: the training graph, for backbones that use one; a `Graph` for attention, and where
            training samples neighbours.
        profile: ``<float32>[U, T]``, for the text kernel of a backbone of sets: the sum of the unit texts of
            every user's training items.
        activity: ``<int32>[U]``, how many these are.
        linear: a linear model, whose scores are added.
        late: for rationales that are read as sets, items by their likeness to the phrases of each.
    """

    item_text: Array | None = None
    rationale: Array | None = None
    seed: Array | None = None
    cosine: Array | None = None
    propagation: Propagation | Graph | None = None
    profile: Array | None = None
    activity: Array | None = None
    linear: LinearScores[Array] | None = None
    late: LateScores[Array] | None = None


AnyTables: TypeAlias = Tables[np.ndarray] | Tables[jax.Array]
"""Tables of the host or on devices."""


class Views(NamedTuple):
    """What contrastive learning reads of a batch: some of its sequences, and others with the same target.

    Attributes:
        place: ``<int32>[N]``, token (of R * W) that represents each sequence.
        target: ``<int32>[N]``, its next item.
        weight: ``<float32>[N]``, 1, or 0 for an unused entry.
        items, position, segment: ``<int32>[R, W]``, another sequence with the same next item for each.
        last: ``<int32>[N]``, token (of R * W) that represents it.
    """

    place: jax.Array
    target: jax.Array
    weight: jax.Array
    items: jax.Array
    position: jax.Array
    segment: jax.Array
    last: jax.Array


class SequenceBatch(NamedTuple):
    """Packed sequences and the places whose hidden state predicts something.

    Attributes:
        items, position, segment: ``<int32>[R, W]``, see `reland_jax.data.packing.Packed`.
        place: ``<int32>[B]``, token (of R * W) that represents the user at this point.
        user: ``<int32>[B]``.
        target: ``<int32>[B]``, the next item; ignored where only vectors are wanted.
        weight: ``<float32>[B]``, 1, or 0 for an unused entry.
        views: for contrastive learning; None without.
    """

    items: jax.Array
    position: jax.Array
    segment: jax.Array
    place: jax.Array
    user: jax.Array
    target: jax.Array
    weight: jax.Array
    views: Views | None = None


class PairBatch(NamedTuple):
    """Observed pairs with sampled negatives.

    Attributes:
        user: ``<int32>[B]``.
        positive: ``<int32>[B]``.
        negative: what a pair is compared with: items of its own ``<int32>[B, n]`` (BPR), items that stand for
            the catalogue ``<int32>[n]``, or None for the whole catalogue (both softmax).
        weight: ``<float32>[B]``, 1, or 0 for an unused entry.
    """

    user: jax.Array
    positive: jax.Array
    negative: jax.Array | None
    weight: jax.Array


def applied(module: nn.Module, params: Any, *arguments: Any, **options: Any) -> jax.Array:
    """What `module.apply` returns.

    Flax declares a pair with changed variables too, which it returns where some are mutable: none are here.
    """
    with layer_products():
        return cast(jax.Array, module.apply(params, *arguments, **options))
