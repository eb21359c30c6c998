"""A tiny BERT whose weights come from a seed, so that no weights are stored; needs numpy only.

`make_bert_golden.py` gives these weights to PyTorch and stores what comes out; the tests give them to
`reland_jax.text`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
"""Entries of the config.json."""

LENGTHS = (11, 4, 1)
"""Tokens of the three texts of `inputs`."""


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under the names of a checkpoint.

    They are far larger than at a usual initialisation: attention is then far from uniform and a
    mistake in any part of the network moves the output.
    """
    rng = np.random.default_rng(seed)
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], width),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], width),
        "embeddings.LayerNorm": (width,),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        square = ("self.query", "self.key", "self.value", "output.dense")
        shapes |= {f"{name}.attention.{part}": (width, width) for part in square}
        shapes |= {f"{name}.intermediate.dense": (inner, width), f"{name}.output.dense": (width, inner)}
        shapes |= {f"{name}.attention.output.LayerNorm": (width,), f"{name}.output.LayerNorm": (width,)}
    result = {}
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            result[name] = rng.normal(0.0, 1.0, shape).astype(np.float32)
            continue
        centre, spread = (1.0, 0.3) if name.endswith("LayerNorm") else (0.0, 0.3)
        result[f"{name}.weight"] = rng.normal(centre, spread, shape).astype(np.float32)
        result[f"{name}.bias"] = rng.normal(0.0, 0.3, shape[0]).astype(np.float32)
    return result


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Token ids ``<int32>[3, 11]`` and mask ``<int32>[3, 11]`` of texts of `LENGTHS` tokens."""
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = np.random.default_rng(1).integers(1, CONFIG["vocab_size"], mask.shape)
    return (ids * mask).astype(np.int32), mask
