"""Text: a frozen BERT in linen, its weights from safetensors, vectors of texts with a cache, whitening."""

from reland_jax.text.ablations import ablated
from reland_jax.text.checkpoint import encoder_state, find_checkpoint
from reland_jax.text.encode import TextEncoder, check_texts, encode_texts, load_encoder
from reland_jax.text.whiten import whiten

__all__ = [
    "TextEncoder",
    "check_texts",
    "ablated",
    "encode_texts",
    "encoder_state",
    "find_checkpoint",
    "load_encoder",
    "whiten",
]
