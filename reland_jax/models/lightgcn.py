"""LightGCN: simplified graph convolution for recommendation (He et al., SIGIR 2020)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.models.entity_graph import propagate_in_tiles
from reland_jax.models.graph import Graph, Propagation, propagate
from reland_jax.models.sampling import Tree, propagate_sampled
from reland_jax.models.scores import DotProduct, Layers


class LightGCN(DotProduct):
    """Averages the embeddings of 0 to `config.layers` hops (Eq. 4), without weights in between."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Propagation | Graph, train: bool
    ) -> tuple[Layers, Layers]:
        """Final representations.

        Args:
            users: ``<float32>[U, D]``.
            items: ``<float32>[I + 1, D]``.
            propagation: the training graph; a `Graph` where training samples neighbours.
            train: unused; LightGCN has no dropout.

        Returns:
            The mean over the hops, of users ``<float32>[U, D]`` and of items ``<float32>[I + 1, D]``.
        """
        hop = (users, items)
        for _ in range(self.config.layers):
            hop = _propagate(propagation, *hop)
            users, items = users + hop[0], items + hop[1]
        return (users / (self.config.layers + 1),), (items / (self.config.layers + 1),)

    def parts(
        self, users: jax.Array, items: jax.Array, propagation: Propagation | Graph
    ) -> tuple[jax.Array, jax.Array]:
        """The embeddings of users, and items after 0 to ``layers - 1`` hops side by side."""
        hop, hops = (users, items), [items]
        for _ in range(self.config.layers - 1):
            hop = _propagate(propagation, *hop)
            hops.append(hop[1])
        return users, jnp.concatenate(hops, axis=-1)

    def user_layers(self, own: jax.Array, around: jax.Array) -> Layers:
        """The mean of ``<float32>[n, D]`` and of each hop of ``<float32>[n, layers * D]``."""
        if not self.config.layers:
            return (own,)
        hops = around.reshape(*own.shape[:-1], self.config.layers, own.shape[-1])
        return ((own + hops.sum(axis=-2)) / (self.config.layers + 1),)

    def sampled(self, rows: jax.Array, tree: Tree, graph: Graph, known: int, train: bool) -> Layers:
        """The same for the nodes of a batch, estimated from sampled neighbours without bias.

        Args:
            rows: ``<float32>[N, D]``, embeddings of the nodes of a tree.
            tree: with a hop for each layer.
            graph: the training graph.
            known: unused; all nodes are users or items.
            train: unused.

        Returns:
            ``<float32>[B, D]``.
        """
        return (propagate_sampled(graph, tree, rows) / (self.config.layers + 1),)


def _propagate(
    propagation: Propagation | Graph, users: jax.Array, items: jax.Array
) -> tuple[jax.Array, jax.Array]:
    if isinstance(propagation, Propagation):
        return propagate(propagation, users, items)
    nodes = propagate_in_tiles(propagation, jnp.concatenate([users, items]))
    return nodes[: len(users)], nodes[len(users) :]
