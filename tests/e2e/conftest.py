"""The demo data at a size that trains in seconds, with a tiny random text encoder made on the spot."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.numpy import save_file

from experiments.configs.reland import get_config
from experiments.run import run
from reland_jax.config import Config
from tests.golden import tiny_bert
from tests.toys import quick_programs

SIZES: dict[str, dict[str, Any]] = {
    "data": {"demo_users": 60, "demo_items": 48, "max_length": 8},
    "seeds": {"fraction": 0.2, "iterations": 5},
    "model": {"dim": 8, "layers": 1, "heads": 2, "inner": 8, "hidden": 8, "tower": (8, 4)},
    "train": {
        "max_epochs": 3, "batch_size": 128, "patience": 100, "learning_rate": 0.01, "checkpoint_seconds": 0.0,
    },
    "encoder": {
        "model": {"dim": 8, "layers": 1},
        "train": {"max_epochs": 2, "eval_every": 2, "batch_size": 256, "checkpoint_seconds": 0.0},
    },
}  # fmt: skip
"""What the tests change in the settings of the demo."""


class Finished(NamedTuple):
    """A run of the main job.

    Attributes:
        config: its settings.
        workdir: its artefacts.
        results: what `experiments.run.run` returned.
    """

    config: Config
    workdir: Path
    results: dict[str, Any]


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with the entries of `changes` put in."""
    return values | {
        name: merged(values.get(name, {}), change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(programs: Path) -> Iterator[None]:
    """What one test has compiled the next ones find."""
    with quick_programs(programs):
        yield


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The BERT of tests/golden with a tokenizer that reads letter by letter, so that all texts differ."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text(json.dumps(tiny_bert.CONFIG), encoding="utf-8")
    save_file(tiny_bert.tensors(), folder / "model.safetensors")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase, *string.digits, *" ,.-"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def settings(encoder_folder: Path) -> Callable[..., dict[str, Any]]:
    """Makes the changes to the demo's settings: `SIZES`, the encoder, and those of the test."""
    # Of a rationale it has room for the first words alone, which are those of all.
    text = {"encoder": str(encoder_folder), "max_tokens": 24, "allow_alike": True}

    def make(**changes: Any) -> dict[str, Any]:
        return merged(SIZES | {"text": text}, changes)

    return make


@pytest.fixture(scope="session")
def finished(
    settings: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Finished]:
    """Runs the whole main job for a backbone, once per session."""
    runs: dict[str, Finished] = {}

    def get(backbone: str) -> Finished:
        if backbone not in runs:
            workdir = tmp_path_factory.mktemp(backbone)
            config = Config.from_dict(merged(get_config(f"demo,{backbone}").to_dict(), settings()))
            runs[backbone] = Finished(config, workdir, run(config, workdir))
        return runs[backbone]

    return get
