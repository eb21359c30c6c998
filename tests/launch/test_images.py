"""The Dockerfiles and the requirements per device."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def dockerfile(device: str) -> str:
    """The text of a Dockerfile."""
    return (REPOSITORY / "launch" / "docker" / f"{device}.Dockerfile").read_text()


@pytest.mark.parametrize("name", ["cpu", "cuda", "tpu", "serve"])
def test_images_are_pinned_and_copy_only_what_is_there(name: str) -> None:
    text = dockerfile(name)
    (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()]
    assert all((REPOSITORY / each).exists() for each in copied)
    assert {"reland_jax", "experiments"} < set(copied) and "." not in copied
    installed = re.findall(r"-r (\S+)", text)
    assert set(installed) == {each for each in copied if each.endswith(".txt")}
    (module,) = re.findall(r'^ENTRYPOINT \["python", "-m", "([\w.]+)"', text, re.MULTILINE)
    assert module == ("experiments.serve" if name == "serve" else "launch.worker")
    assert module.partition(".")[0] in copied


def test_the_device_is_the_only_difference_of_requirements() -> None:
    core = {"requirements.txt", "requirements-llm.txt", "requirements-minilm.txt"}
    for device in ("cpu", "cuda", "tpu"):
        found = re.findall(r"-r (\S+)", dockerfile(device))
        assert sorted(found) == sorted(core | {f"requirements-{device}.txt"})


@pytest.mark.parametrize("device", ["cpu", "cuda", "tpu"])
def test_devices_have_the_bounds_of_the_core_set(device: str) -> None:
    core = re.search(r"^jax(\S+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    given = re.findall(r"^[^#\s].*$", (REPOSITORY / f"requirements-{device}.txt").read_text(), re.MULTILINE)
    assert core and len(given) == 1
    assert re.fullmatch(r"jax(?:\[\w+\])?([<>=].+)", given[0])[1] == core[1]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = project["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert extras[device] == {"file": [f"requirements-{device}.txt"]}
