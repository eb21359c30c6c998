"""One table per kind of device: sizes, and forms of what is computed. Only `device` asks which one is in use.

Sizes change results by no more than the rounding of sums in another order. Of the forms, the random
bits and those of dropout change the numbers drawn, and the precision of products changes their last digits.

The column `cpu` was measured, on two cores and Amazon Beauty. The columns `gpu` and `tpu` are **not
measured**: an accelerator wants few and large steps, so they are as large as leaves most of 16 GiB free.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from reland_jax.types import RelandError


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much a kind of device is given at a time, and which form of a product it computes.

    Attributes:
        kmeans_bytes: of a tile of distances in K-means.
        pass_users: users of a tile of distances in K-means of very many users.
        pass_centres: centres of it.
        exact_queries: queries of a tile of cosines in the exact index.
        exact_keys: keys of it.
        cell_users: users of a tile of the inverted file, at most.
        text_tokens: `TextConfig.batch_size` counts texts of so many tokens.
        encoded_sequences: sequences encoded at a time, where nothing is learned from them.
        encoded_by_attention: the same for a backbone that compares every two positions.
        loss_targets: most targets of a tile of the cross-entropy over the catalogue.
        score_bytes: of a tile of scores and its masked copy in the full ranking.
        edges: edges whose messages exist at a time.
        factor_entries: entries of a tile of rows in iALS, each of which takes a factor.
        sparse_bytes: of a tile of items whose weights are solved for in the sparse form of EASE.
        compressed_rows: whether sums over all edges are products with a matrix in compressed sparse rows,
            and not sorted segment sums.
        gru_inputs_first: whether a GRU multiplies the inputs of all positions before its first step, and not
            those of each position within its step.
        attention: "written out", or a fused kernel where it can be taken: "xla" or "cudnn".
        random_bits: the generator of random numbers, by JAX's name.
        dropout_by_bytes: whether an element of a dropout mask takes 8 random bits where they suffice, and
            not 32.
        float32_products: the precision of float32 products in a recommender's layers, by JAX's name.
        pair_bytes: of NeuMF's first layer for pairs, where its tower is too large to be unrolled.
        ranks_in_known_turns: whether the loops of the full ranking turn a number of times that is fixed when
            they are compiled, and not as often as these users need.
        best_kept_in: the memory that holds the best parameters of a training, by JAX's name: that of the
            device, or "pinned_host", which a step does without.
    """

    kmeans_bytes: int
    pass_users: int
    pass_centres: int
    exact_queries: int
    exact_keys: int
    cell_users: int
    text_tokens: int
    encoded_sequences: int
    encoded_by_attention: int
    loss_targets: int
    score_bytes: int
    edges: int
    factor_entries: int
    sparse_bytes: int
    compressed_rows: bool
    gru_inputs_first: bool
    attention: str
    random_bits: str
    dropout_by_bytes: bool
    float32_products: str
    pair_bytes: int
    ranks_in_known_turns: bool
    best_kept_in: str


SIZES = {
    "cpu": Sizes(
        # Four megabytes stay in the cache.
        kmeans_bytes=4 << 20,
        # Half a megabyte stays in the cache of a core, and so does one.
        pass_users=256,
        pass_centres=512,
        exact_queries=512,
        exact_keys=512,
        cell_users=512,
        # With a batch size of 64 these are 2,048 tokens, whose activations stay in the cache; four times
        # as many were a quarter slower.
        text_tokens=32,
        # Few and wide steps are best, but the attention of many rows leaves the cache: it took 0.51 s for
        # Beauty's users by 1,024 and 0.33 s by 256.
        encoded_sequences=2048,
        encoded_by_attention=256,
        # With 12,101 items, 128 were slower, since every tile reads and writes the items' gradient, and
        # 1,152 too, since logits fell out of the cache.
        loss_targets=384,
        score_bytes=16 << 20,
        edges=1 << 16,
        factor_entries=1 << 13,
        sparse_bytes=32 << 20,
        # XLA adds up a scatter edge by edge: 45 ms a hop of Beauty (298k directed edges, 64 columns), where
        # the kernel for compressed rows takes 3.5.
        compressed_rows=True,
        # Gates cut from a large product in the loop that computes sigmoid and tanh keep that loop from being
        # vectorised: 6 times slower.
        gru_inputs_first=False,
        attention="written out",
        random_bits="threefry2x32",
        # Random bits take longer than the layers around them: 32 of them took 15 of 100 ms in a training step
        # of NGCF for each layer.
        dropout_by_bytes=True,
        # A CPU multiplies float32 in full anyway.
        float32_products="default",
        # One user at a time.
        pair_bytes=0,
        # Turns for users who are settled would cost what the first look saves.
        ranks_in_known_turns=False,
        best_kept_in="device",
    ),
    "gpu": Sizes(
        kmeans_bytes=256 << 20,
        pass_users=4096,
        pass_centres=8192,
        exact_queries=4096,
        exact_keys=8192,
        cell_users=1024,
        text_tokens=512,
        encoded_sequences=2048,
        encoded_by_attention=2048,
        # With 100,000 items a tile of logits has 0.8 GB.
        loss_targets=2048,
        score_bytes=512 << 20,
        # Messages of 64 columns have 0.3 GB, where the compiler does not form them within the sum.
        edges=1 << 20,
        factor_entries=1 << 21,
        sparse_bytes=2 << 30,
        compressed_rows=False,
        gru_inputs_first=True,
        attention="cudnn",
        # Not `rbg`, which an accelerator draws faster: where several seeds are trained at once, it draws the
        # numbers of all from the key of the first, and they would not be those of one after the other.
        random_bits="threefry2x32",
        dropout_by_bytes=True,
        # Otherwise TF32 or bfloat16, with 11 or 8 bits, would be taken without being asked for. Who wants
        # them sets config.model.activations=bfloat16 or JAX_DEFAULT_MATMUL_PRECISION.
        float32_products="highest",
        pair_bytes=512 << 20,
        # To end a loop by a number that it computes, a GPU asks the host at each turn.
        ranks_in_known_turns=True,
        best_kept_in="pinned_host",
    ),
}
SIZES["tpu"] = dataclasses.replace(
    SIZES["gpu"],
    attention="written out",
    # The bytes of a word lie in the last axis, which a TPU fills up from 4 to 128.
    dropout_by_bytes=False,
)
"""By the name that `jax.default_backend` has for the kind of device."""

_in_use: Sizes | None = None


def sizes_of(backend: str) -> Sizes:
    """The sizes for a kind of device.

    Args:
        backend: "cpu", "gpu" or "tpu".

    Raises:
        RelandError: another one.
    """
    if backend not in SIZES:
        raise RelandError(f"no sizes are known for the device {backend!r}; known are {', '.join(SIZES)}")
    return SIZES[backend]


def sizes() -> Sizes:
    """The sizes to work with: those of `use_sizes`, else those for the device that JAX has chosen.

    A kind of device without a column of its own is taken for a GPU.
    """
    if _in_use is not None:
        return _in_use
    import jax

    return SIZES.get(jax.default_backend(), SIZES["gpu"])


@contextlib.contextmanager
def use_sizes(chosen: Sizes) -> Iterator[None]:
    """Everything inside works with these sizes, whatever the device: an accelerator's program on a CPU, say.

    For all threads of the process. JAX forgets at both ends which functions it has traced, since the sizes
    are not arguments of theirs.
    """
    global _in_use
    before, others = _in_use, chosen != sizes()
    _in_use = chosen
    try:
        _forget(others)
        yield
    finally:
        _in_use = before
        _forget(others)


def _forget(traced_with_others: bool) -> None:
    import jax

    if traced_with_others:
        jax.clear_caches()
