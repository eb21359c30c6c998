"""Vectors of texts by a language model on this machine: its hidden state after the last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.types import RelandError

_AT_A_TIME = 16
_ROOM = 2048
"""Tokens of a text at the most."""
_ERRORS_ONLY = 1
_AS_IT_IS = -1
"""For llama.cpp: vectors are not scaled."""


def hidden_states(texts: Sequence[str], model: Path) -> np.ndarray:
    """The hidden state of the last layer after the last token of each text.

    Args:
        texts: of knowledge.
        model: a language model in the format GGUF.

    Returns:
        ``<float32>[n, T]``, T the model's width; zero for a text that is "".

    Raises:
        RelandError: llama.cpp is not installed, there is no such file, or it cannot read a text with it.
    """
    said = [place for place, text in enumerate(texts) if text]
    if not said:
        raise RelandError("there is no text whose hidden state could be taken")
    server, found = _server(model), []
    for begin in range(0, len(said), _AT_A_TIME):
        part = [texts[place] for place in said[begin : begin + _AT_A_TIME]]
        answer = server.handle_embeddings({"input": part})
        if not isinstance(answer, dict) or len(answer.get("data", ())) != len(part):
            raise RelandError(f"{model}: gives no hidden state of {part[0][:60]!r}: {str(answer)[:200]}")
        found += [each["embedding"] for each in sorted(answer["data"], key=lambda each: each["index"])]
    vectors = np.asarray(found, np.float32)
    whole = np.zeros((len(texts), vectors.shape[1]), np.float32)
    whole[said] = vectors
    return whole


def _server(model: Path) -> Any:
    """llama.cpp with the model, in this process."""
    if not model.is_file():
        raise RelandError(
            f"config.knowledge.model={str(model)!r}: there is no such file; name a model in the format GGUF"
        )
    try:
        import xllamacpp
    except ImportError as error:
        raise RelandError(
            "config.knowledge.model: llama.cpp is not installed: "
            "pip install --no-deps -r requirements-local.txt"
        ) from error
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.verbosity = str(model), _ERRORS_ONLY
    settings.embedding, settings.embd_normalize = True, _AS_IT_IS
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    settings.n_parallel, settings.n_ctx, settings.n_batch, settings.n_ubatch = 1, _ROOM, _ROOM, _ROOM
    try:
        return xllamacpp.Server(settings)
    except (RuntimeError, ValueError, OSError) as error:
        raise RelandError(f"{model}: cannot be loaded by llama.cpp: {error}") from error
