"""A trained recommender as one folder that can be shipped: the bundle.

It holds what a recommendation needs and nothing else: settings, parameters, ids, histories, texts and titles
of items, the pool and its vectors. It reads neither the raw data nor the workdir that it was made in. The
manifest is sealed with a checksum of its own and has size and SHA-256 of every other file; all are compared
before anything is used. A bundle replaces one that is there as a whole, or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from reland_jax.artefacts import load_arrays, save_arrays
from reland_jax.config import PROTOCOLS, Config, DataConfig, LLMConfig, MeshConfig
from reland_jax.files import first_damage, inventory, read_sealed, write_sealed, written_aside
from reland_jax.pool import load_pool, save_pool
from reland_jax.retrieval import Matching
from reland_jax.storage import (
    Trained,
    load_array,
    load_assignment,
    load_interactions,
    load_sparse,
    load_splits,
    load_trained,
    load_trained_params,
    save_array,
    save_assignment,
    save_interactions,
    save_sparse,
    save_splits,
    save_trained,
)
from reland_jax.types import Assignment, Interactions, ReasoningPool, RelandError, Splits

FORMAT = "reland-bundle"
FORMAT_VERSION = 2
"""Raised by every change after which a bundle cannot be read as before."""

_MAKE = "Reland.save or `experiments.export bundle` makes one"
_ANEW = "make it anew (Reland.save, or `experiments.export bundle`)"
MANIFEST_FILE = "manifest.json"
BY_HISTORIES = "valid, users by histories"
"""Key of metrics, see `Bundle`."""

_FILES_OF_DATA = ("root", "item_table", "user_table")
"""Settings that are paths of the machine where the bundle was made, and of no use elsewhere."""


class Bundle(NamedTuple):
    """A trained recommender with all that it reads.

    Attributes:
        config: its settings.
        variant: name of the variant.
        seed: training seed.
        interactions: with external ids and features of items and users.
        splits: what it was trained on, and what was held out.
        items: ``<float32>[I + 1, T]``, vectors of item texts; None where the variant reads none.
        rationales: ``<float32>[S, T]``, vectors of rationales; None likewise.
        pool: the reasoning pool; None likewise.
        assignment: every user's seed users; None likewise.
        matching: how a new user is matched to seed users; None likewise.
        trained: parameters and figures. Read back it has no parameters: `read_params` has them.
        metrics: by part, "valid" and "test", of the measured model: this one, or the one whose epochs a
            refitted one was trained for. `BY_HISTORIES` is the validation of a collaborative backbone whose
            users are read as new ones.
        origin: a hash of the settings and data it was made from, the same on every machine.
        licence: under which it may be used, in words.
        provenance: further remarks on where it comes from.
        refitted: whether it was trained on everything, and so is not the model that was measured.
        by_histories: whether a collaborative backbone reads users by what they had, as new ones, and not by
            the vectors that it has trained.
        linear: ``<float32>[I + 1, I + 1]``, the weights of the linear model that a backbone stands upon, of
            each item that was had (row) for each other one; None without such a model.
    """

    config: Config
    variant: str
    seed: int
    interactions: Interactions
    splits: Splits
    items: np.ndarray | None
    rationales: np.ndarray | None
    pool: ReasoningPool | None
    assignment: Assignment | None
    matching: Matching | None
    trained: Trained
    metrics: Mapping[str, Mapping[str, float]] = {}
    origin: str = ""
    licence: str = ""
    provenance: Mapping[str, str] = {}
    refitted: bool = False
    by_histories: bool = False
    linear: sparse.csr_array | None = None

    @property
    def as_split(self) -> bool:
        """Whether its histories are still parted as they were when the metrics were measured."""
        return self.splits.protocol in PROTOCOLS


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle, replacing one that is there as a whole; only its owner may read it.

    Args:
        bundle: with parameters.
        folder: the folder to create; it is filled under another name beside it, then renamed.

    Raises:
        RelandError: the folder exists and holds something else than a bundle.
    """
    with written_aside(folder, private=True, ours=is_bundle) as aside:
        aside.mkdir(mode=0o700)
        parts = dict(_savers(bundle))
        for part, save in parts.items():
            (aside / part).mkdir()
            save(aside / part)
        write_sealed(aside / MANIFEST_FILE, _manifest(bundle, list(parts)) | {"files": inventory(aside)})


def read_bundle(folder: Path) -> Bundle:
    """Reads a bundle, after checking that every file of it is as it was written.

    Raises:
        RelandError: there is no bundle, it is damaged, or another version of this program made it.
    """
    manifest = read_manifest(folder)
    try:
        damage = first_damage(folder, manifest["files"])
        if not damage:
            return _loaded(manifest, folder)
    except OSError as error:
        raise RelandError(f"{folder}: this bundle cannot be read ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # All files are as they were written, so what is in them was written by other rules.
        told = f"no {error} in it" if isinstance(error, KeyError) else error
        raise RelandError(
            f"{folder}: another version of this program made this bundle, and this one cannot use it "
            f"({told}); {_ANEW}"
        ) from error
    raise RelandError(
        f"{folder}: this bundle is damaged ({damage}); copy it again from where it was made, or save it again"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, after checking its seal, format and version.

    Raises:
        RelandError: there is none, it was changed, or another version of this program made it.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = read_sealed(path)
    except OSError as error:
        raise RelandError(f"{path}: there is no bundle here ({error.strerror or error}); {_MAKE}") from error
    except ValueError as error:
        raise RelandError(
            f"{path}: damaged ({error}); copy the bundle again from where it was made, or save it again"
        ) from error
    if manifest.get("format") != FORMAT:
        raise RelandError(f"{path}: not the manifest of a bundle")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise RelandError(
            f"{path}: format version {version!r}, and this program reads {FORMAT_VERSION}: another version "
            f"of it made this bundle; {'update this program, or ' if newer else ''}{_ANEW}"
        )
    return manifest


def read_params(folder: Path, like: Any) -> Any:
    """The parameters of a bundle; `like` is a tree of shapes with their structure (`train.param_shapes`)."""
    return load_trained_params(like, folder / "trained")


def is_bundle(folder: Path) -> bool:
    """Whether a folder was made by `write_bundle`, sound or not."""
    try:
        return f'"{FORMAT}"' in (folder / MANIFEST_FILE).read_text("utf-8", "replace")
    except OSError:
        return False


def _savers(bundle: Bundle) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The folders of a bundle, and what writes each of them."""
    yield "interactions", partial(save_interactions, bundle.interactions)
    yield "splits", partial(save_splits, bundle.splits)
    yield "trained", partial(save_trained, bundle.trained)
    if bundle.items is not None:
        yield "items", partial(save_array, bundle.items)
    if bundle.rationales is not None:
        yield "rationales", partial(save_array, bundle.rationales)
    if bundle.pool is not None:
        told = {"provider": bundle.config.pool.provider, "domain": bundle.config.data.domain}
        yield "pool", partial(save_pool, bundle.pool, bundle.interactions.ids.users, provenance=told)
    if bundle.linear is not None:
        yield "linear", partial(save_sparse, bundle.linear)
    if bundle.assignment is not None:
        yield "assignment", partial(save_assignment, bundle.assignment)
    if bundle.matching is not None:
        yield (
            "matching",
            partial(save_arrays, {k: v for k, v in bundle.matching._asdict().items() if v is not None}),
        )


def _loaded(manifest: Mapping[str, Any], folder: Path) -> Bundle:
    interactions, splits = load_interactions(folder / "interactions"), load_splits(folder / "splits")
    parts = set(manifest["parts"])

    def part(name: str, load: Callable[[Path], Any]) -> Any:
        return load(folder / name) if name in parts else None

    pool = part("pool", lambda place: load_pool(place, interactions.ids))
    seeds = 0 if pool is None else len(pool.rationales)
    assignment = part("assignment", partial(load_assignment, splits.num_users, seeds))
    matching = part("matching", load_arrays)
    linear = part("linear", partial(load_sparse, splits.num_items + 1))
    if splits.num_users != interactions.num_users or splits.num_items != interactions.num_items:
        raise ValueError("its interactions and their split are of different users or items")
    return Bundle(
        Config.from_dict(manifest["settings"]), manifest["variant"], manifest["seed"], interactions, splits,
        part("items", load_array), part("rationales", load_array), pool, assignment,
        None if matching is None else Matching(**matching), load_trained(folder / "trained"),
        manifest["metrics"], manifest["origin"], manifest["licence"], manifest["provenance"],
        manifest["model"] == "refitted", bool(manifest.get("by_histories", False)), linear,
    )  # fmt: skip


def _manifest(bundle: Bundle, parts: list[str]) -> dict[str, Any]:
    of_split = f"the training part of the protocol {bundle.config.data.protocol}"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "variant": bundle.variant,
        "backbone": bundle.config.model.backbone,
        "seed": bundle.seed,
        "users": bundle.interactions.num_users,
        "items": bundle.interactions.num_items,
        "interactions": len(bundle.interactions.item),
        "model": "refitted" if bundle.refitted else "measured",
        "trained_on": "all interactions" if bundle.refitted else of_split,
        "histories": bundle.splits.protocol,
        "by_histories": bundle.by_histories,
        "metrics": {part: dict(found) for part, found in bundle.metrics.items()},
        "metrics_of": "the measured model" + (", not of this one" if bundle.refitted else ""),
        "licence": bundle.licence or "not stated",
        "personal_data": "ids and histories of all users, and what an LLM wrote about seed users",
        "origin": bundle.origin,
        "provenance": dict(bundle.provenance),
        "settings": shipped(bundle.config).to_dict(),
        "parts": parts,
    }


def shipped(config: Config) -> Config:
    """The settings without devices, paths, names to blank out, users to show, and how an LLM was asked."""
    usual = DataConfig()
    data = dataclasses.replace(config.data, name=Path(config.data.name).name or usual.name)
    data = dataclasses.replace(data, **{name: getattr(usual, name) for name in _FILES_OF_DATA})
    pool = dataclasses.replace(config.pool, path=None, names=())
    return dataclasses.replace(
        config, data=data, pool=pool, llm=LLMConfig(), mesh=MeshConfig(), report_users=()
    )
