"""Text: a frozen BERT in linen, its weights from safetensors, vectors of texts with a cache, whitening."""

from reland_jax.text.controls import control_rationales
from reland_jax.text.encode import TextEncoder, encode_texts, load_encoder
from reland_jax.text.whiten import whiten

__all__ = ["TextEncoder", "control_rationales", "encode_texts", "load_encoder", "whiten"]
