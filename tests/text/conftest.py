"""A tiny checkpoint folder, as a hub download would leave it, written for every test that wants one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.golden import tiny_bert

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{index}" for index in range(tiny_bert.CONFIG["vocab_size"] - len(SPECIAL))]


def write_tokenizer(path: Path) -> None:
    """A tokenizer of whole words that fixes a length and pads, as MiniLM's file does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.enable_truncation(max_length=6)
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(path))


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """Folder of the tiny BERT of tests/golden with a tokenizer of the words w0, w1, ..."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_bert.CONFIG), encoding="utf-8")
    save_file(tiny_bert.tensors(), folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder
