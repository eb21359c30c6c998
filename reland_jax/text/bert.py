"""BERT in linen: token ids in, one vector per token out.

Post-LayerNorm Transformer encoder of Devlin et al. (2019), with learned positions and token types. It
is frozen here, so there is no dropout. All arithmetic is float32 at the highest matmul precision:
vectors are cached and compared across devices, so TF32 or bfloat16 products must not creep in.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
}
"""`hidden_act` of a config.json -> the function; "gelu" is the exact one, with erf."""

SUPPORTED_MODEL_TYPE = "bert"

MOST_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT, under the names they have in a Hugging Face config.json.

    Attributes:
        vocab_size: number of token ids.
        hidden_size: width of a token vector (T).
        num_hidden_layers: Transformer layers.
        num_attention_heads: heads per layer; divides `hidden_size`.
        intermediate_size: width inside the feed-forward block.
        max_position_embeddings: longest sequence that has positions, in tokens.
        type_vocab_size: number of token types; only type 0 is used.
        hidden_act: key of `ACTIVATIONS`.
        layer_norm_eps: added to the variance in every LayerNorm.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_file(cls, path: Path) -> BertConfig:
        """Reads a Hugging Face config.json.

        Raises:
            RelandError: the file is missing or no JSON object, or it describes a model other than a BERT
                with absolute positions.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RelandError(f"{path}: cannot read the model's config: {error}") from error
        if not isinstance(values, dict):
            raise RelandError(f"{path}: expected a JSON object with the sizes of a BERT")
        return cls.from_values(values, str(path))

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str) -> BertConfig:
        """Builds the config from the entries of a config.json; `where` names the file in errors."""
        _require_bert(values, where)
        fields = dataclasses.fields(cls)
        missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise RelandError(f"{where}: no entry {', '.join(missing)}; is this the config of a BERT?")
        _require_sizes(values, where)
        config = cls(**{field.name: values[field.name] for field in fields if field.name in values})
        if not isinstance(config.hidden_act, str) or config.hidden_act not in ACTIVATIONS:
            hint = nearest_name(str(config.hidden_act), list(ACTIVATIONS))
            raise RelandError(f"{where}: hidden_act={config.hidden_act!r} is not supported; {hint}")
        if config.hidden_size % config.num_attention_heads:
            raise RelandError(
                f"{where}: hidden_size={config.hidden_size} is not a multiple of "
                f"num_attention_heads={config.num_attention_heads}"
            )
        return config


def _require_bert(values: dict[str, Any], where: str) -> None:
    allowed = {
        "model_type": SUPPORTED_MODEL_TYPE,
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    for key, value in allowed.items():
        found = values.get(key, "" if key == "model_type" else value)
        if found != value:
            raise RelandError(
                f"{where}: {key}={found!r} is not supported, only {key}={value!r} is; "
                "choose another text.encoder, such as 'minilm'"
            )


def _require_sizes(values: dict[str, Any], where: str) -> None:
    """Raises `RelandError` for a size that no BERT has, whatever the file says."""
    for field in dataclasses.fields(BertConfig):
        value = values.get(field.name, 1)
        if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise RelandError(f"{where}: {field.name}={value!r} must be a whole number of at least 1")
    if (layers := values["num_hidden_layers"]) > MOST_LAYERS:
        raise RelandError(f"{where}: num_hidden_layers={layers} is more than {MOST_LAYERS}; it is damaged")
    epsilon = values.get("layer_norm_eps", 1e-12)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise RelandError(f"{where}: layer_norm_eps={epsilon!r} must be a number of at least 0 and below 1")


def _dense(width: int, name: str) -> nn.Dense:
    return nn.Dense(width, precision=jax.lax.Precision.HIGHEST, name=name)


def _norm(config: BertConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, name=name)


class Embeddings(nn.Module):
    """Sum of token, position and type-0 embeddings, normalised."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """``<int32>[B, L]`` token ids -> ``<float32>[B, L, T]``."""
        config = self.config
        word = nn.Embed(config.vocab_size, config.hidden_size, name="word")
        position = nn.Embed(config.max_position_embeddings, config.hidden_size, name="position")
        token_type = nn.Embed(config.type_vocab_size, config.hidden_size, name="token_type")
        total = word(ids) + position(jnp.arange(ids.shape[1])) + token_type(jnp.zeros(1, jnp.int32))
        return _norm(config, "norm")(total)


class SelfAttention(nn.Module):
    """Multi-head attention of every token to the tokens that are not padding."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """``<float32>[B, L, T]``, ``<bool>[B, L]`` true at tokens -> ``<float32>[B, L, T]``."""
        config = self.config
        heads = (*hidden.shape[:2], config.num_attention_heads, -1)
        query, key, value = (
            _dense(config.hidden_size, name)(hidden).reshape(heads) for name in ("query", "key", "value")
        )
        # A finite bias: a row of padding only then gets uniform weights instead of NaN.
        bias = jnp.where(mask[:, None, None, :], 0.0, jnp.finfo(jnp.float32).min)
        mixed = nn.dot_product_attention(query, key, value, bias=bias, precision=jax.lax.Precision.HIGHEST)
        return _dense(config.hidden_size, "output")(mixed.reshape(hidden.shape))


class Layer(nn.Module):
    """Attention and feed-forward, each followed by its residual sum and LayerNorm."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """``<float32>[B, L, T]``, ``<bool>[B, L]`` true at tokens -> ``<float32>[B, L, T]``."""
        config = self.config
        attended = SelfAttention(config, name="attention")(hidden, mask)
        hidden = _norm(config, "attention_norm")(hidden + attended)
        expanded = ACTIVATIONS[config.hidden_act](_dense(config.intermediate_size, "expand")(hidden))
        contracted = _dense(config.hidden_size, "contract")(expanded)
        return _norm(config, "output_norm")(hidden + contracted)


class Bert(nn.Module):
    """The encoder stack, without pooler and heads."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Encodes a batch of padded texts.

        Args:
            ids: ``<int32>[B, L]`` token ids in ``0 .. vocab_size-1``.
            mask: ``<bool>[B, L]``, true at tokens and false at padding.

        Returns:
            ``<float32>[B, L, T]``, the last hidden state; rows at padding mean nothing.
        """
        hidden = Embeddings(self.config, name="embeddings")(ids)
        for index in range(self.config.num_hidden_layers):
            hidden = Layer(self.config, name=f"layer_{index}")(hidden, mask)
        return hidden
