"""A recommender as StableHLO: functions that JAX alone can call, without Flax and without this package.

The folder has two functions, "users" and "histories", each for any number of users (a symbolic batch) and
for CPU, CUDA and TPU; the arrays that they read; the ids; and what every user had. docs/recommend.md has the
lines that load and call it. `read_exported` does the same, and refuses a folder that is damaged.

The functions give the lists of `Predictor` to the rounding of another program. What reads them needs jax,
NumPy and flatbuffers, with which JAX reads what it has exported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from reland_jax.bundle import Bundle
from reland_jax.device import sizes, use_sizes
from reland_jax.eval import Vectors
from reland_jax.eval.lists import best
from reland_jax.files import first_damage, inventory, read_sealed, write_bytes, write_sealed, written_aside
from reland_jax.serve.listing import Ranked
from reland_jax.serve.programs import Form, Known, answer
from reland_jax.types import Ragged, RelandError

FORMAT, FORMAT_VERSION = "reland-stablehlo", 1
MANIFEST_FILE = "manifest.json"
ARRAYS_FILE, IDS_FILE = "arrays.npz", "ids.npz"
FUNCTIONS = ("users", "histories")
PLATFORMS = ("cpu", "cuda", "tpu")


class Parts(NamedTuple):
    """What is exported of a recommender; fields as of `Predictor`."""

    form: Form
    known: Known
    today: Vectors
    seen: Ragged
    history: int


def export_functions(parts: Parts, bundle: Bundle, folder: Path, count: int) -> None:
    """Writes the folder, replacing one that is there as a whole; only its owner may read it.

    Args:
        parts: of the recommender.
        bundle: for ids, and for what the manifest says.
        folder: the folder to create.
        count: length of the lists, K.

    Raises:
        RelandError: the folder exists and holds something else, or flatbuffers is missing.
    """
    count = min(count, parts.form.num_items)
    with _exact_everywhere():
        made = {name: _exported(*FUNCTION[name](parts, count)) for name in FUNCTIONS}
    ids = {"users": bundle.interactions.ids.users, "items": bundle.interactions.ids.items}
    with written_aside(folder, private=True, ours=is_exported) as aside:
        aside.mkdir(mode=0o700)
        for name, (content, _) in made.items():
            write_bytes(aside / f"{name}.stablehlo", content, private=True)
        arrays = {array: value for _, found in made.values() for array, value in found.items()}
        seen = {"seen_indptr": parts.seen.indptr, "seen_items": parts.seen.items}
        np.savez(aside / ARRAYS_FILE, allow_pickle=False, **arrays)
        texts = {name: np.array(each.tolist(), np.str_) for name, each in ids.items()}
        np.savez(aside / IDS_FILE, allow_pickle=False, **texts, **seen)
        told = _manifest(parts, bundle, count, made)
        write_sealed(aside / MANIFEST_FILE, told | {"files": inventory(aside)})


def _manifest(parts: Parts, bundle: Bundle, count: int, made: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "variant": bundle.variant,
        "backbone": bundle.config.model.backbone,
        "model": "refitted" if bundle.refitted else "measured",
        "licence": bundle.licence or "not stated",
        "personal_data": "ids and histories of all users",
        "origin": bundle.origin,
        "k": count,
        "history": parts.history,
        "arrays": {name: list(arrays) for name, (_, arrays) in made.items()},
    }


@contextmanager
def _exact_everywhere() -> Iterator[None]:
    """What is traced inside multiplies float32 in full on every platform, by operations that all have."""
    with use_sizes(dataclasses.replace(sizes(), attention="written out", float32_products="highest")):
        yield


def _of_users(parts: Parts, count: int) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """The function, the tree of its arrays, and the shapes of its arguments."""
    batch, masked = export.symbolic_shape("b, m")
    shapes = (batch,), (batch, masked)
    items = parts.form.num_items

    def users(vectors: Vectors, rows: jax.Array, masked: jax.Array, allowed: jax.Array) -> Any:
        return best(vectors, rows, masked, allowed, count, items)

    return users, parts.today, _arguments(shapes, items)


def _of_histories(parts: Parts, count: int) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    batch, masked = export.symbolic_shape("b, m")
    shapes = (batch, parts.history), (batch, masked)

    def histories(known: Known, history: jax.Array, masked: jax.Array, allowed: jax.Array) -> Any:
        found = answer(parts.form, known, history, masked, allowed, count)
        return found.item, found.score, *(found.matched or ())

    return histories, parts.known, _arguments(shapes, parts.form.num_items)


FUNCTION = {"users": _of_users, "histories": _of_histories}
"""By name: (what is exported, K) -> what `_exported` takes."""


def _arguments(shapes: tuple[tuple[Any, ...], ...], num_items: int) -> tuple[Any, ...]:
    numbers = tuple(jax.ShapeDtypeStruct(shape, np.int32) for shape in shapes)
    return (*numbers, jax.ShapeDtypeStruct((num_items + 1,), np.bool_))


def _exported(
    function: Callable[..., Any], tree: Any, arguments: tuple[Any, ...]
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A function with the arrays that it reads, by name; its first argument is a list of them."""
    leaves, structure = jax.tree.flatten(tree)
    named = {_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    assert len(named) == len(leaves)
    read = _read_by(function, leaves, structure, arguments)

    def called(arrays: list[jax.Array], *rest: jax.Array) -> Any:
        given = iter(arrays)
        filled = [
            next(given) if used else jnp.zeros(leaf.shape, leaf.dtype)
            for leaf, used in zip(leaves, read, strict=True)
        ]
        return function(jax.tree.unflatten(structure, filled), *rest)

    used = {name: array for (name, array), each in zip(named.items(), read, strict=True) if each}
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in used.values()]
    found = export.export(jax.jit(called), platforms=PLATFORMS)(shapes, *arguments)
    try:
        return bytes(found.serialize()), used
    except ImportError as error:
        raise RelandError("export needs flatbuffers: pip install flatbuffers") from error


def _read_by(
    function: Callable[..., Any], leaves: list[Any], structure: Any, arguments: tuple[Any, ...]
) -> list[bool]:
    """Which arrays a function reads at all."""
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

    def called(arrays: list[jax.Array], *rest: jax.Array) -> Any:
        return function(jax.tree.unflatten(structure, arrays), *rest)

    kept = set(export.export(jax.jit(called))(shapes, *arguments).module_kept_var_idx)
    return [number in kept for number in range(len(leaves))]


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


class Exported(NamedTuple):
    """An exported recommender, ready to be called.

    Attributes:
        manifest: what it is.
        users: ids ``<str>[U]``.
        items: ids ``<str>[I + 1]``.
        seen: all items of every user.
        functions: by name: (numbers, masked ``<int32>[n, M]``, allowed ``<bool>[I + 1]``) -> items, scores.
    """

    manifest: Mapping[str, Any]
    users: np.ndarray
    items: np.ndarray
    seen: Ragged
    functions: Mapping[str, Callable[..., tuple[Any, ...]]]

    def ranked(self, name: str, numbers: np.ndarray, masked: np.ndarray) -> Ranked:
        """Lists of all items but the masked ones.

        Args:
            name: "users" or "histories".
            numbers: ``<int32>[n]`` rows of users, or ``<int32>[n, W]`` histories, oldest first, 0 where
                unused, W as the manifest says.
            masked: ``<int32>[n, M]``, items to leave out, 0 where unused.
        """
        found = self.functions[name](numbers, masked, np.arange(len(self.items)) > 0)
        return Ranked(np.asarray(found[0]), np.asarray(found[1]))


def read_exported(folder: Path) -> Exported:
    """Reads an exported recommender, after checking that every file is as it was written.

    Raises:
        RelandError: there is none, it is damaged, or a newer program wrote it.
    """
    try:
        manifest = read_sealed(folder / MANIFEST_FILE)
        if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"its format is {manifest.get('format')} {manifest.get('format_version')}")
        if damage := first_damage(folder, manifest["files"]):
            raise ValueError(damage)
        return _loaded(manifest, folder)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RelandError(
            f"{folder}: not an exported recommender, or damaged ({error}); export it again"
        ) from error


def is_exported(folder: Path) -> bool:
    """Whether a folder was made by `export_functions`, sound or not."""
    try:
        return f'"{FORMAT}"' in (folder / MANIFEST_FILE).read_text("utf-8", "replace")
    except OSError:
        return False


def _loaded(manifest: Mapping[str, Any], folder: Path) -> Exported:
    functions = {}
    with np.load(folder / ARRAYS_FILE) as arrays, np.load(folder / IDS_FILE) as ids:
        for name in FUNCTIONS:
            content = bytearray((folder / f"{name}.stablehlo").read_bytes())
            given = [jnp.asarray(arrays[array]) for array in manifest["arrays"][name]]
            functions[name] = partial(jax.jit(export.deserialize(content).call), given)
        seen = Ragged(ids["seen_indptr"], ids["seen_items"])
        return Exported(manifest, ids["users"], ids["items"], seen, functions)
