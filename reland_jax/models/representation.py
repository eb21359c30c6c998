"""The one mechanism by which every backbone becomes `id`, `f_item` or `reland`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import FusionConfig
from reland_jax.mesh import pad_to_axis
from reland_jax.models.dropout import Dropout

LEAST_COSINE = 1e-3
"""What a seed user counts whose vector points away from the user's."""

_OUTSIDE: dict[str, Any] = {"mode": "fill", "fill_value": 0.0}
"""How a table is read with row numbers that may lie above its last row."""


def identity(scale: float = 1.0) -> nn.initializers.Initializer:
    """A kernel ``[n, m]`` that is `scale` times the identity on the first ``min(n, m)`` inputs."""

    def init(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        del key
        return scale * jnp.eye(*shape, dtype=dtype)

    return init


def filled_up(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser of a table, padded with rows of zeros on a mesh so that its shards are equal."""

    def filled(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        return jnp.pad(init(key, shape), ((0, pad_to_axis(shape[0]) - shape[0]), (0, 0)))

    return filled


class ItemRepresentation(nn.Module):
    """Items as the backbone sees them: the id embedding, or Linear([id embedding ; text]) (+f_item).

    Attributes:
        num_items: I.
        dim: D.
        with_text: whether the frozen text embedding takes part.
        init_scale: standard deviation of the id embeddings at the start.
        text_init: initialiser of the text projection.
        adaptor: what makes vectors of texts before the projection, see `reland_jax.models.adaptors`; None for
            nothing.
    """

    num_items: int
    dim: int
    with_text: bool
    init_scale: float
    text_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    adaptor: Any = None

    def setup(self) -> None:
        """Declares the parameters."""
        init = filled_up(nn.initializers.normal(self.init_scale))
        self.ids = self.param("id_embedding", init, (self.num_items + 1, self.dim))
        if self.with_text:
            # Linear([a ; b]) is Linear(a) + Linear(b): the wide concatenation need not be built. The
            # id embedding starts as it is in the plain backbone.
            self.from_id = nn.Dense(self.dim, kernel_init=identity())
            self.from_text = nn.Dense(self.dim, use_bias=False, kernel_init=self.text_init)

    def __call__(self, text: jax.Array | None) -> jax.Array:
        """Args: text ``<float32>[I + 1, T]``, or None. Returns ``<float32>[I + 1, D]``, row 0 zero."""
        return self.represent(self.ids, text).at[0].set(0.0)

    def represent(self, ids: jax.Array, text: jax.Array | None) -> jax.Array:
        """Items by what is known of them: ``<float32>[..., D]`` ids, ``[..., T]`` texts -> ``[..., D]``."""
        if not self.with_text:
            return ids
        assert text is not None
        return self.from_id(ids) + self.project(text)

    def rows(self, text: jax.Array | None, index: jax.Array) -> jax.Array:
        """Some items as the backbone sees them; computes only these if they are fewer than all items.

        Args:
            text: ``<float32>[I + 1, T]``, or None.
            index: ``<int32>[n]``; 0, and numbers above the last row, give zeros.

        Returns:
            ``<float32>[n, D]``.
        """
        index = jnp.where(index > 0, index, len(self.ids))
        rows = self.looked_up(text, index, self.ids.at[index].get(**_OUTSIDE))
        return jnp.where((index < len(self.ids))[:, None], rows, 0.0) if self.with_text else rows

    def looked_up(self, text: jax.Array | None, index: jax.Array, ids: jax.Array) -> jax.Array:
        """Items ``<int32>[...]`` whose id embeddings are at hand, ``<float32>[..., D]``.

        With texts, and if `index` is longer than the catalogue, all items are computed and then looked up.
        """
        if not self.with_text:
            return ids
        assert text is not None
        if index.size > len(self.ids):
            return self(text).at[index].get(**_OUTSIDE)
        return self.represent(ids, text.at[index].get(**_OUTSIDE))

    def project(self, text: jax.Array) -> jax.Array:
        """Any text as it enters an item: ``<float32>[..., T]`` -> ``<float32>[..., D]``."""
        return self.from_text(text if self.adaptor is None else self.adaptor.items(text))


def given_or_learned(fusion: nn.Module, rationales: jax.Array, learned: bool) -> jax.Array:
    """The rationales ``<float32>[S, ...]`` that a fusion reads: those given, or parameters that start so."""
    return fusion.param("rationale", lambda key: rationales) if learned else rationales


def once_for_all(rationales: jax.Array, seed: jax.Array, train: bool) -> bool:
    """Whether every rationale is projected once, rather than once for each of its users.

    So it is without dropout, where users outnumber rationales. In a function that is exported for any number
    of users that number is symbolic, and not known to be greater.

    Args:
        rationales: ``<float32>[S, ...]``.
        seed: ``<int32>[B, k]``, rows of it.
        train: whether dropout is on.
    """
    return not train and isinstance(seed.size, int) and seed.size > len(rationales)


class RationaleFusion(nn.Module):
    """Attention between a user's representation and its rationales (paper, Eq. 5).

    Several rationales per user are first combined by an attention with the same vector w, each weighted by
    its cosine; the result replaces the one rationale of Eq. 5.

    The Linear of Eq. 5 is either a projection of its own, or ("shared") the projection that item texts
    go through, times one gain. The shared one reads the rationale in the space of the items, where their
    product measures the similarity of the texts; one number cannot memorise which users share a rationale. (A
    gain per dimension could: it soon changed signs, and the similarity was lost.) The gain is learned or
    given: BPR learns what distinguishes a target from items drawn uniformly, and texts do that better than
    they rank items of the same kind.

    Two choices make a learned fusion start as the plain backbone: the learned part of the Linear starts at
    zero, and the result is multiplied by two, the number of its parts, so that equal attention leaves the
    user's representation unchanged. A common factor does not change any ranking.

    Attributes:
        config: settings.
        learned: whether the vectors in the place of rationales are parameters, which start as those given.
    """

    config: FusionConfig
    learned: bool = False

    @nn.compact
    def __call__(
        self,
        user: jax.Array,
        rationales: jax.Array,
        seed: jax.Array,
        cosine: jax.Array,
        train: bool,
        project_text: Callable[[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Fused representations e'_u.

        Args:
            user: ``<float32>[B, D]``, e_u.
            rationales: ``<float32>[S, T]``, the encoded reasoning pool.
            seed: ``<int32>[B, k]``, each user's seed users, as rows of it.
            cosine: ``<float32>[B, k]`` in [-1, 1], of the user with each of them (Eq. 3).
            train: whether dropout is on (needs the rng "dropout").
            project_text: `ItemRepresentation.project`, for a shared projection.

        Returns:
            ``<float32>[B, D]``.
        """
        dim = user.shape[-1]
        dropout = Dropout(self.config.dropout)
        rationales = given_or_learned(self, rationales, self.learned)
        project_first = once_for_all(rationales, seed, train)
        if not project_first:
            rationales = dropout(rationales[seed], not train)
        projected = self._projected(rationales, dim, project_text)
        projected = projected[seed] if project_first else dropout(projected, not train)
        attention = self.param("attention", nn.initializers.normal(0.02), (dim,))
        shares = jax.nn.softmax(projected @ attention + _weighed(cosine))
        rationale = jnp.einsum("bk,bkd->bd", shares, projected)
        return _beside(user, rationale, attention)

    def _projected(
        self, rationales: jax.Array, dim: int, project_text: Callable[[jax.Array], jax.Array] | None
    ) -> jax.Array:
        """The Linear of Eq. 5: ``<float32>[..., T]`` -> ``[..., D]``."""
        if self.config.projection != "shared":
            return nn.Dense(dim, kernel_init=nn.initializers.zeros, name="project")(rationales)
        assert project_text is not None
        given = self.config.gain
        gain = self.param("gain", nn.initializers.zeros, ()) if given is None else given
        projected = gain * project_text(rationales)
        # If a backbone appends layers to the embeddings (NGCF), texts are added to the embeddings.
        leading = ((0, 0),) * (projected.ndim - 1)
        return jnp.pad(projected, (*leading, (0, dim - projected.shape[-1])))


def _weighed(cosine: jax.Array) -> jax.Array:
    """What is added to a logit, so that its exponential is multiplied by the cosine."""
    return jnp.log(jnp.maximum(cosine, LEAST_COSINE))


def _beside(user: jax.Array, rationale: jax.Array, attention: jax.Array) -> jax.Array:
    """Both sides of Eq. 5, weighted by their attention."""
    weights = jax.nn.softmax(jnp.stack([user @ attention, rationale @ attention], -1))
    return 2.0 * (weights[..., :1] * user + weights[..., 1:] * rationale)


class SetFusion(RationaleFusion):
    """Eq. 5 with rationales that are sets of phrases, of which a user reads those that matter to it.

    The phrases of all seed users of a user are one set. Each is weighed by its product with the user's
    representation, times the cosine of its seed user, and their mean takes the place of the rationale.
    """

    @nn.compact
    def __call__(
        self,
        user: jax.Array,
        rationales: jax.Array,
        seed: jax.Array,
        cosine: jax.Array,
        train: bool,
        project_text: Callable[[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Fused representations; arguments as of `RationaleFusion`.

        Rationales are ``<float32>[S, P, T]``, zero where one has fewer phrases.
        """
        dim, dropout = user.shape[-1], Dropout(self.config.dropout)
        there = rationales.any(-1)[seed].reshape(user.shape[0], -1)
        rationales = given_or_learned(self, rationales, self.learned)
        phrases, project_first = rationales.shape[1], once_for_all(rationales, seed, train)
        if not project_first:
            rationales = dropout(rationales[seed], not train)
        projected = self._projected(rationales, dim, project_text)
        projected = projected[seed] if project_first else dropout(projected, not train)
        projected = projected.reshape(user.shape[0], -1, dim)
        logits = jnp.einsum("bd,bqd->bq", user, projected) / dim**0.5
        logits += jnp.repeat(_weighed(cosine), phrases, 1)
        shares = jax.nn.softmax(jnp.where(there, logits, -1e30)) * there
        attention = self.param("attention", nn.initializers.normal(0.02), (dim,))
        return _beside(user, jnp.einsum("bq,bqd->bd", shares, projected), attention)
