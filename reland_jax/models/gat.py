"""GAT: graph attention networks (Velickovic et al., ICLR 2018) on users, items and the items' entities."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from reland_jax.config import ModelConfig
from reland_jax.models.dropout import Dropout
from reland_jax.models.entity_graph import SELF, count_relations, edges_of
from reland_jax.models.graph import Graph
from reland_jax.models.sampling import Hop, Tree, split_depths
from reland_jax.models.scores import DotProduct, Layers
from reland_jax.models.segments import Edges, add, over_tiles, raise_to


class GAT(DotProduct):
    """Layers of attention over neighbours; what is scored is the mean over the embeddings and all layers.

    The mean over the layers, and no nonlinearity between them, are LightGCN's. The transformations start
    as the identity and the attention nearly even, so that at the start this is LightGCN with means over
    neighbours in place of its sums.

    Attributes:
        config: width, layers, heads, fields of entities, and dropout of the attention.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the parts."""
        self.entities = Entities(self.config.dim)
        self.attention = Attention(self.config)

    def __call__(
        self, users: jax.Array, items: jax.Array, propagation: Graph, train: bool
    ) -> tuple[Layers, Layers]:
        """Final representations, from all neighbours of every node.

        Args:
            users: ``<float32>[U, D]``.
            items: ``<float32>[I + 1, D]``.
            propagation: the training graph.
            train: whether dropout is on (needs the rng "dropout"). Without it the edges are walked through
                tile by tile, and nothing as long as the edges is built.

        Returns:
            Users ``<float32>[U, D]`` and items ``<float32>[I + 1, D]``.
        """
        attend = self.attention.whole if train else self.attention.in_tiles
        known = len(users) + len(items)
        sides = [users, items]
        if count := len(propagation.nodes["degree"]) - known:
            sides.append(self.entities(count))
        nodes = total = jnp.concatenate(sides)
        for depth in range(self.config.layers):
            nodes = attend(depth, nodes, propagation)
            total += nodes
        users, items, _ = jnp.split(total / (self.config.layers + 1), [len(users), known])
        return (users,), (items,)

    def sampled(self, rows: jax.Array, tree: Tree, graph: Graph, known: int, train: bool) -> Layers:
        """The same for the nodes of a batch, from sampled neighbours.

        Args:
            rows: ``<float32>[N, D]``, embeddings of the users and items of a tree; zeros for entities.
            tree: with a hop for each layer.
            graph: the training graph.
            known: nodes that are users or items.
            train: whether dropout is on.

        Returns:
            ``<float32>[B, D]``.
        """
        if count := len(graph.nodes["degree"]) - known:
            entity = jnp.where(tree.node < known, count, tree.node - known)
            rows += self.entities(count).at[entity].get(mode="fill", fill_value=0.0)
        batch = len(tree.hops[0].node)
        total = rows[:batch]
        for depth in range(self.config.layers):
            rows = self.attention.sampled(depth, rows, tree.hops[: self.config.layers - depth], train)
            total += rows[:batch]
        return (total / (self.config.layers + 1),)


class Entities(nn.Module):
    """The embeddings of brands, categories and the like.

    Attributes:
        dim: D.
    """

    dim: int

    @nn.compact
    def __call__(self, count: int) -> jax.Array:
        """All of them, ``<float32>[count, D]``."""
        return self.param("embedding", nn.initializers.normal(0.1), (count, self.dim))


class Attention(nn.Module):
    """Attention over the neighbours of a node and itself (Eq. 1 to 5), with all its weights.

    A head h of a layer gives neighbour j of node i the logit LeakyReLU(s_h . W h_j + r_h . W h_i + t_h),
    where t_h is learned for each kind of edge: the two directions between users and items, those between
    items and each field of entities, and the node itself.

    Attributes:
        config: as of `GAT`.
    """

    config: ModelConfig

    def setup(self) -> None:
        """Declares the weights of all layers."""
        layers, heads, dim = self.config.layers, self.config.heads, self.config.dim
        small, zeros = nn.initializers.normal(0.02), nn.initializers.zeros
        relations = count_relations(len(self.config.entities))
        self.kernel = self.param("kernel", _identities, (layers, dim, dim))
        self.send = self.param("send", small, (layers, heads, dim // heads))
        self.receive = self.param("receive", small, (layers, heads, dim // heads))
        self.relation = self.param("relation", zeros, (layers, relations, heads))
        self.dropout = Dropout(self.config.dropout)

    def whole(self, depth: int, nodes: jax.Array, graph: Graph) -> jax.Array:
        """A layer in training, over all edges at once: ``<float32>[nodes, D]`` both."""
        values, send, receive = self._project(depth, nodes)
        own = jnp.arange(len(nodes), dtype=jnp.int32)
        sender, receiver = jnp.concatenate([graph.senders, own]), jnp.concatenate([graph.receivers, own])
        relation = jnp.pad(graph.edges["relation"], (0, len(nodes)), constant_values=SELF)
        logits = self._logits(depth, send[sender], receive[receiver], relation)
        shares = self.dropout(jraph.segment_softmax(logits, receiver, len(nodes)), False)
        messages = shares[..., None] * values[sender]
        return jraph.segment_sum(messages, receiver, len(nodes)).reshape(nodes.shape)

    def in_tiles(self, depth: int, nodes: jax.Array, graph: Graph) -> jax.Array:
        """The same without dropout, tile by tile: the highest logits first, then the weighted sums."""
        values, send, receive = self._project(depth, nodes)
        own = self._logits(depth, send, receive, SELF)

        def logits(edges: Edges) -> jax.Array:
            assert edges.relation is not None
            return self._logits(depth, send[edges.sender], receive[edges.receiver], edges.relation)

        def find_top(top: jax.Array, edges: Edges) -> jax.Array:
            return raise_to(top, edges, logits(edges))

        def sum_up(sums: tuple[jax.Array, jax.Array], edges: Edges) -> tuple[jax.Array, jax.Array]:
            mass = jnp.exp(logits(edges) - top[edges.receiver])
            new = mass, mass[..., None] * values[edges.sender]
            return add(sums[0], edges, new[0]), add(sums[1], edges, new[1])

        edges = edges_of(graph)
        top = over_tiles(edges, find_top, own)
        mass = jnp.exp(own - top)
        mass, total = over_tiles(edges, sum_up, (mass, mass[..., None] * values))
        return (total / mass[..., None]).reshape(nodes.shape)

    def sampled(self, depth: int, rows: jax.Array, hops: tuple[Hop, ...], train: bool) -> jax.Array:
        """A layer over sampled neighbours.

        A neighbour that stands for c neighbours has c times its weight in the softmax, which converges to the
        attention over all neighbours as more of them are sampled.

        Args:
            depth: number of the layer.
            rows: ``<float32>[N, D]``, of a tree with these hops.
            hops: at least one.
            train: whether dropout is on.

        Returns:
            ``<float32>[N', D]``, of the nodes of the same tree without its last depth.
        """
        values, send, receive = (split_depths(part, hops) for part in self._project(depth, rows))
        attended = []
        for near, hop in enumerate(hops):
            shape = hop.node.shape
            logits = self._logits(
                depth, send[near + 1].reshape(*shape, -1), receive[near][:, None], hop.relation
            )
            own = self._logits(depth, send[near], receive[near], SELF)[:, None]
            logits = jnp.concatenate([own, logits + jnp.log(hop.copies)[..., None]], 1)
            shares = self.dropout(jax.nn.softmax(logits, 1), not train)
            around = values[near + 1].reshape(*shape, *values[near].shape[1:])
            mixed = jnp.einsum("nfh,nfhd->nhd", shares[:, 1:], around)
            attended.append(shares[:, 0, :, None] * values[near] + mixed)
        return jnp.concatenate(attended).reshape(-1, rows.shape[1])

    def _project(self, depth: int, nodes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """W h by head, ``<float32>[n, heads, D / heads]``, and its products with s and r ``[n, heads]``."""
        dtype = self.config.activations
        values = jnp.dot(
            nodes.astype(dtype), self.kernel[depth].astype(dtype), preferred_element_type=jnp.float32
        ).reshape(len(nodes), self.config.heads, -1)
        send, receive = ((values * weight[depth]).sum(-1) for weight in (self.send, self.receive))
        return values, send, receive

    def _logits(
        self, depth: int, send: jax.Array, receive: jax.Array, relation: np.ndarray | jax.Array | int
    ) -> jax.Array:
        # A product, because the gradient of a lookup would be a scatter of all edges into a few rows.
        kind = jax.nn.one_hot(relation, self.relation.shape[1]) @ self.relation[depth]
        return nn.leaky_relu(send + receive + kind, 0.2)


def _identities(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    del key
    return jnp.broadcast_to(jnp.eye(shape[-1]), shape)
