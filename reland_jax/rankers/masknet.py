"""MaskNet: hidden layers masked by what the row says (Wang, She and Zhang, DLP-KDD 2021).

The paper leaves some things open. Here each field has an affine of its own in the layer norm of the
embeddings, which all blocks share; the hidden layer of a block has no bias, since that of its layer norm is
one; and dropout follows its ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.models.dropout import Dropout
from reland_jax.rankers.layers import EPSILON, MLP, flat


class FieldNorm(nn.Module):
    """Layer norm of every field on its own, with an affine of its own.

    The gain of text fields starts at zero. Their projections do too, and a layer norm would blow up the
    first small step away from there to full size.

    Attributes:
        text_fields: how many of the last fields are texts.
    """

    text_fields: int = 0

    @nn.compact
    def __call__(self, fields: jax.Array) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, f, k]``."""

        def gains(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
            del key
            is_text = jnp.arange(shape[0]) >= shape[0] - self.text_fields
            return jnp.broadcast_to(jnp.where(is_text, 0.0, 1.0)[:, None], shape).astype(dtype)

        gain = self.param("gain", gains, fields.shape[1:])
        bias = self.param("bias", nn.initializers.zeros, fields.shape[1:])
        return gain * _standardised(fields) + bias


def _standardised(x: jax.Array) -> jax.Array:
    """Mean 0 and variance 1 along the last axis."""
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + EPSILON)


class MaskBlock(nn.Module):
    """``ReLU(LN(W (M o x)))`` with the instance-guided mask ``M = W_2 ReLU(W_1 V + b_1) + b_2``.

    Attributes:
        width: hidden units.
        mask_width: units of the mask's hidden layer.
        dropout: share of units dropped in training.
    """

    width: int
    mask_width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, masked: jax.Array, fields: jax.Array, train: bool = False) -> jax.Array:
        """The block's output.

        Args:
            masked: ``<float32>[B, z]``, normalised fields or the output of a block.
            fields: ``<float32>[B, f k]``, V: the embedded fields as they are.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``<float32>[B, width]``.
        """
        inner = nn.relu(nn.Dense(self.mask_width, name="mask_inner")(fields))
        mask = nn.Dense(masked.shape[-1], name="mask_outer")(inner)
        hidden = nn.Dense(self.width, use_bias=False, name="hidden")(mask * masked)
        hidden = nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name="norm")(hidden)
        return Dropout(self.dropout)(nn.relu(hidden), not train)


class SerialMaskNet(nn.Module):
    """A block on the embeddings, and blocks on blocks, every mask made from the embeddings.

    Attributes:
        blocks: number of blocks.
        width: hidden units of a block.
        reduction: r, units of a mask's hidden layer per masked number. Text fields are not counted, so that
            they change no width within the network.
        text_fields: how many of the last fields are texts.
        dropout: share of units dropped in training.
    """

    blocks: int
    width: int
    reduction: float
    text_fields: int = 0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, width]``."""
        embedded, hidden = flat(fields), flat(FieldNorm(self.text_fields, name="field_norm")(fields))
        masked = _declared_width(fields, self.text_fields)
        for number in range(self.blocks):
            units = max(int(self.reduction * masked), 1)
            block = MaskBlock(self.width, units, self.dropout, name=f"block_{number}")
            hidden, masked = block(hidden, embedded, train), self.width
        return hidden


class ParallelMaskNet(nn.Module):
    """Blocks on the embeddings side by side, and hidden layers on all of them.

    Attributes:
        blocks: number of blocks.
        width: hidden units of a block.
        reduction: see `SerialMaskNet`.
        layers: units of the hidden layers above.
        text_fields: how many of the last fields are texts.
        dropout: share of units dropped in training.
    """

    blocks: int
    width: int
    reduction: float
    layers: Sequence[int]
    text_fields: int = 0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, fields: jax.Array, train: bool = False) -> jax.Array:
        """``<float32>[B, f, k]`` -> ``<float32>[B, H]``."""
        embedded, normal = flat(fields), flat(FieldNorm(self.text_fields, name="field_norm")(fields))
        units = max(int(self.reduction * _declared_width(fields, self.text_fields)), 1)
        side_by_side = [
            MaskBlock(self.width, units, self.dropout, name=f"block_{number}")(normal, embedded, train)
            for number in range(self.blocks)
        ]
        return MLP(self.layers, self.dropout, name="layers")(jnp.concatenate(side_by_side, -1), train)


def _declared_width(fields: jax.Array, text_fields: int) -> int:
    """Numbers of the fields that are not texts."""
    return (fields.shape[1] - text_fields) * fields.shape[2]
