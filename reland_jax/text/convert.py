"""Weights of a BERT: safetensors file -> linen parameters.

The mapping is written out name by name. Nothing is loaded on trust: a tensor that is missing, is not
known, has another shape or holds a value that is not finite is an error that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from reland_jax.text.bert import Bert, BertConfig
from reland_jax.types import RelandError

PREFIX = "bert."
"""Put before every name of the encoder by checkpoints that also hold a pre-training head."""

UNUSED = ("pooler.", "cls.", "embeddings.position_ids")
"""Beginnings of names that are not part of the encoder stack: pooler, heads and a constant buffer."""

OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names that the first BERT checkpoints still carry."""

_EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "token_type": "token_type_embeddings",
}
_DENSE = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("expand",): "intermediate.dense",
    ("contract",): "output.dense",
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


class _Target(NamedTuple):
    """Where one tensor of the file goes: its path in the parameters, and whether it is transposed."""

    name: str
    path: tuple[str, ...]
    transpose: bool = False


def load_params(path: Path, config: BertConfig) -> dict[str, Any]:
    """Reads the parameters of `Bert(config)` from a safetensors file.

    Raises:
        RelandError: the file cannot be read, or see `convert_tensors`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
        raise RelandError(f"{path}: cannot read the weights: {error}") from error
    return convert_tensors(tensors, config, str(path))


def convert_tensors(tensors: Mapping[str, np.ndarray], config: BertConfig, where: str) -> dict[str, Any]:
    """Maps the tensors of a checkpoint to the parameters of `Bert(config)`.

    Args:
        tensors: tensors by their name in the checkpoint, with or without the prefix "bert.".
        config: the sizes that the tensors must have.
        where: the file, for errors.

    Returns:
        Nested dictionary of ``<float32>`` parameters.

    Raises:
        RelandError: a tensor is missing, unexpected, of a wrong shape or not finite.
    """
    found = {_plain_name(name): array for name, array in tensors.items()}
    found = {name: array for name, array in found.items() if not name.startswith(UNUSED)}
    targets = list(_targets(config))
    known = {target.name for target in targets}
    _refuse(where, "is missing", sorted(known - found.keys()))
    _refuse(where, "is not part of a BERT with this config.json", sorted(found.keys() - known))
    shapes = _parameter_shapes(config)
    flat = {t.path: _converted(found[t.name], t, shapes[t.path], where) for t in targets}
    return traverse_util.unflatten_dict(flat)


def _plain_name(name: str) -> str:
    name = name.removeprefix(PREFIX)
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _targets(config: BertConfig) -> Iterator[_Target]:
    for ours, theirs in _EMBEDDINGS.items():
        yield _Target(f"embeddings.{theirs}.weight", ("embeddings", ours, "embedding"))
    yield from _norm_targets("embeddings.LayerNorm", ("embeddings", "norm"))
    for index in range(config.num_hidden_layers):
        prefix, layer = f"encoder.layer.{index}", f"layer_{index}"
        for path, theirs in _DENSE.items():
            yield _Target(f"{prefix}.{theirs}.weight", (layer, *path, "kernel"), transpose=True)
            yield _Target(f"{prefix}.{theirs}.bias", (layer, *path, "bias"))
        for ours, theirs in _NORMS.items():
            yield from _norm_targets(f"{prefix}.{theirs}", (layer, ours))


def _norm_targets(name: str, path: tuple[str, ...]) -> Iterator[_Target]:
    yield _Target(f"{name}.weight", (*path, "scale"))
    yield _Target(f"{name}.bias", (*path, "bias"))


def _parameter_shapes(config: BertConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    ids, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    variables = jax.eval_shape(Bert(config).init, jax.random.key(0), ids, mask)
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables["params"]).items()}


def _converted(array: np.ndarray, target: _Target, shape: tuple[int, ...], where: str) -> np.ndarray:
    expected = shape[::-1] if target.transpose else shape
    if array.shape != expected:
        raise RelandError(
            f"{where}: tensor {target.name} has shape {list(array.shape)}, "
            f"config.json asks for {list(expected)}"
        )
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise RelandError(f"{where}: tensor {target.name} holds values that are not finite; fetch it again")
    # A copy in the final order: a transposed view would be copied again at every transfer.
    return np.ascontiguousarray(array.T if target.transpose else array)


def _refuse(where: str, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise RelandError(f"{where}: tensor {', '.join(names[:4])}{more} {what}")
