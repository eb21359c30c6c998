"""A bundle is read back as it was written, or refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from reland_jax.bundle import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Bundle,
    is_bundle,
    read_bundle,
    read_manifest,
    read_params,
    shipped,
    write_bundle,
)
from reland_jax.config import Config, DataConfig
from reland_jax.files import read_sealed, write_sealed
from reland_jax.types import RelandError
from tests.serve.toys import toy_bundle
from tests.test_storage import assert_same


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A linear model, which is solved in a moment."""
    made = toy_bundle(tmp_path_factory.mktemp("work"), "ease")
    return made._replace(licence="for tests", provenance={"shop": "made up"})


@pytest.fixture(scope="module")
def written(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of it."""
    folder = tmp_path_factory.mktemp("bundles") / "shop"
    write_bundle(bundle, folder)
    return folder


def test_it_comes_back_as_it_was(bundle: Bundle, written: Path) -> None:
    found = read_bundle(written)
    assert found.config == shipped(bundle.config)
    assert_same(found.trained._replace(params=None), bundle.trained._replace(params=None))
    for name in set(Bundle._fields) - {"config", "trained"}:
        assert_same(getattr(found, name), getattr(bundle, name))
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), bundle.trained.params)
    assert_same(
        *(jax.tree.map(np.asarray, each) for each in (read_params(written, shapes), bundle.trained.params))
    )


def test_what_a_variant_does_not_read_is_not_in_it(tmp_path: Path) -> None:
    plain = toy_bundle(tmp_path / "work", "ease", "id")
    write_bundle(plain, tmp_path / "plain")
    assert read_manifest(tmp_path / "plain")["parts"] == ["interactions", "splits", "trained"]
    found = read_bundle(tmp_path / "plain")
    assert found.pool is found.items is found.rationales is found.assignment is found.matching is None


def test_the_manifest_says_what_it_is_and_what_of(written: Path) -> None:
    told = read_manifest(written)
    expected = {"variant": "reland", "backbone": "ease", "users": 4, "items": 6, "licence": "for tests"}
    assert {name: told[name] for name in expected} == expected
    assert told["provenance"] == {"shop": "made up"} and 0 <= told["metrics"]["test"]["ndcg@10"] <= 1
    present = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert present == {*told["files"], MANIFEST_FILE}


def test_only_its_owner_reads_it(written: Path) -> None:
    """It holds histories of people."""
    for path in [written, *written.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_no_path_of_the_machine_is_in_it() -> None:
    data = DataConfig(name="/srv/shop/purchases.csv", root="/srv", item_table="/srv/shop/items.csv")
    config = dataclasses.replace(Config(), data=data, report_users=("anna",))
    config = dataclasses.replace(
        config, pool=dataclasses.replace(config.pool, path="/srv/pool", names=("Anna",))
    )
    text = json.dumps(shipped(config).to_dict())
    assert "/srv" not in text and "nna" not in text and '"purchases.csv"' in text


def damaged_files(folder: Path) -> list[Path]:
    """All files of a bundle, but empty ones, which cannot be cut."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def flip(path: Path) -> None:
    """Changes one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leaves out the second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_every_damaged_file_is_refused(damage: Any, written: Path, tmp_path: Path) -> None:
    for number, path in enumerate(damaged_files(written)):
        copy = tmp_path / str(number)
        shutil.copytree(written, copy)
        if path.stat().st_size:
            damage(copy / path.relative_to(written))
            with pytest.raises(RelandError, match="damaged|no bundle here"):
                read_bundle(copy)


def test_a_newer_bundle_is_refused_and_not_guessed_at(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "newer"
    shutil.copytree(written, copy)
    told = read_sealed(copy / MANIFEST_FILE)
    write_sealed(copy / MANIFEST_FILE, told | {"format_version": FORMAT_VERSION + 1})
    with pytest.raises(
        RelandError, match=f"version {FORMAT_VERSION + 1}.* reads {FORMAT_VERSION}.*update.* make it anew"
    ):
        read_bundle(copy)
    write_sealed(copy / MANIFEST_FILE, told | {"format_version": FORMAT_VERSION - 1})
    with pytest.raises(RelandError, match="another version of it made this bundle; make it anew"):
        read_bundle(copy)
    write_sealed(copy / MANIFEST_FILE, told | {"format": "something else"})
    with pytest.raises(RelandError, match="not the manifest of a bundle"):
        read_bundle(copy)


@pytest.mark.parametrize("field", ["settings", "origin", "parts"])
def test_sound_files_by_other_rules_are_not_called_damaged(written: Path, tmp_path: Path, field: str) -> None:
    copy = tmp_path / "other"
    shutil.copytree(written, copy)
    told = read_sealed(copy / MANIFEST_FILE)
    del told[field]
    write_sealed(copy / MANIFEST_FILE, told)
    with pytest.raises(RelandError, match=f"another version .*no '{field}' in it.*make it anew"):
        read_bundle(copy)


def test_where_there_is_none_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="there is no bundle here .*export bundle. makes one"):
        read_bundle(tmp_path)


def test_it_replaces_a_bundle_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    """A failure on the way leaves the old one as it was."""
    other = tmp_path / "mine"
    other.mkdir()
    (other / "letter.txt").write_text("keep this")
    with pytest.raises(RelandError, match="not made by this program"):
        write_bundle(bundle, other)
    assert (other / "letter.txt").read_text() == "keep this" and not is_bundle(other)
    place = tmp_path / "bundle"
    write_bundle(bundle, place)
    write_bundle(bundle._replace(licence="another"), place)
    assert read_bundle(place).licence == "another"
    with pytest.raises(TypeError):
        write_bundle(bundle._replace(licence="a third", provenance={"shop": object()}), place)  # type: ignore[dict-item]
    assert read_bundle(place).licence == "another"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["bundle", "mine"]
