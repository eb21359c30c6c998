"""GRU4Rec: recurrent networks over sessions (Hidasi et al., ICLR 2016; with CE, Tan et al., DLRS 2016)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import ModelConfig
from reland_jax.device import sizes
from reland_jax.models.dropout import Dropout


class Affine(nn.Module):
    """The parameters of `nn.Dense`, for a product that is computed elsewhere.

    Attributes:
        width: of the output.
    """

    width: int

    @nn.compact
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel ``<float32>[inputs, width]`` and bias ``<float32>[width]``."""
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (inputs, self.width))
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,))


class GRU(nn.Module):
    """A gated recurrent unit over packed rows; the state starts anew with every segment.

    Attributes:
        width: H, of the state.
        dtype: "float32" or "bfloat16", of what is multiplied; the state and its gates are float32.
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, start: jax.Array) -> jax.Array:
        """States h_t = (1 - z) n + z h_{t-1}, n = tanh(x W_n + r (h_{t-1} U_n + c)).

        Args:
            x: ``[R, W, E]`` of `dtype`.
            start: ``<bool>[R, W]``, True where a segment begins.

        Returns:
            ``[R, W, H]`` of `dtype`.
        """
        weights = jax.tree.map(
            lambda a: a.astype(self.dtype), Affine(3 * self.width, name="input")(x.shape[-1])
        )
        kernel = self.param("state", nn.initializers.orthogonal(), (self.width, 3 * self.width))
        kernel = kernel.astype(self.dtype)
        bias = self.param("candidate_bias", nn.initializers.zeros, (self.width,))

        ahead = sizes().gru_inputs_first

        def of_inputs(x: jax.Array) -> jax.Array:
            return x @ weights[0] + weights[1]

        def step(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gates, begins = inputs if ahead else (of_inputs(inputs[0]), inputs[1])
            state = jnp.where(begins[:, None], 0.0, state)
            update, reset, candidate = jnp.split(gates, 3, axis=-1)
            product = jnp.dot(state.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
            from_update, from_reset, from_candidate = jnp.split(product, 3, axis=-1)
            update, reset = nn.sigmoid(update + from_update), nn.sigmoid(reset + from_reset)
            candidate = jnp.tanh(candidate + reset * (from_candidate + bias))
            state = (1.0 - update) * candidate + update * state
            return state, state.astype(self.dtype)

        first = jnp.zeros((x.shape[0], self.width), jnp.float32)
        x = of_inputs(x) if ahead else x
        _, states = jax.lax.scan(step, first, (x.swapaxes(0, 1), start.T))
        return states.swapaxes(0, 1)


class GRU4Rec(nn.Module):
    """Encodes every position of packed sequences by the items up to it.

    Attributes:
        config: layers, state width (`hidden`) and dropout of the item embeddings.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, embedded: jax.Array, position: jax.Array, segment: jax.Array, train: bool
    ) -> jax.Array:
        """Hidden states, projected to the width of the items.

        Args:
            embedded: ``<float32>[R, W, D]`` item representations.
            position: ``<int32>[R, W]``, place within the sequence; 0 begins a new one.
            segment: unused; a segment begins where the position is 0.
            train: whether dropout is on (needs the rng "dropout").

        Returns:
            ``[R, W, D]`` of `config.activations`.
        """
        dtype, xavier = self.config.activations, nn.initializers.xavier_uniform()
        hidden = Dropout(self.config.dropout)(embedded.astype(dtype), not train)
        for layer in range(self.config.layers):
            hidden = GRU(self.config.hidden, dtype, name=f"gru_{layer}")(hidden, position == 0)
        return nn.Dense(self.config.dim, dtype=dtype, kernel_init=xavier, name="output")(hidden)
