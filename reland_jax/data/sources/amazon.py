"""Amazon reviews 2014: ``reviews_NAME_5.json.gz`` and ``meta_NAME.json.gz``.

A review is one line of strict JSON (``reviewerID``, ``asin``, ``overall``, ``unixReviewTime``). A product
is one line that is a Python literal rather than JSON (``asin``, ``title``, ``brand``, ``categories``, the
last a list of paths from the root). The metadata file is optional; without it items have no text.
"""

from __future__ import annotations

import ast
import html
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from reland_jax.config import DataConfig
from reland_jax.data.sources import opened, table
from reland_jax.data.sources.assemble import assemble
from reland_jax.data.sources.columns import Frame, Usual
from reland_jax.data.sources.raw import RawTable
from reland_jax.types import RelandError

_USUAL = Usual(user=("reviewerID",), item=("asin",), time=("unixReviewTime",), rating=("overall",))
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)['"]""")
_PRODUCT = ("asin", "title", "brand", "categories")
_BLOCK = 1 << 24


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` (the reviews) and the metadata of the same name next to it.

    Raises:
        RelandError: a truncated or damaged file, a line that cannot be parsed, or one without a user,
            a product or a time; with file and line.
    """
    path = Path(place)
    meta, wanted = _meta(path), set[str]()
    products, users = table.described(config, path.parent, meta.name)
    items: Frame | None
    if products == meta:
        items = _products(meta, wanted)
    else:
        items = table.of_file(products, config) if products else None
    of_users = table.of_file(users, config) if users else None
    return assemble(_reviews(path, wanted), config, _USUAL, items, of_users)


def files(place: str, config: DataConfig) -> list[Path]:
    """Every file that `read` reads."""
    path = Path(place)
    return [path, *filter(None, table.described(config, path.parent, _meta(path).name))]


def _meta(path: Path) -> Path:
    """The metadata file that belongs to a file of reviews."""
    name, packed = path.name.removeprefix("reviews_").removesuffix(".gz"), ".gz" * path.name.endswith(".gz")
    return path.with_name(f"meta_{name.removesuffix('.json').removesuffix('_5')}.json{packed}")


def _products(meta: Path, wanted: set[str]) -> Frame:
    """The metadata as a frame, of the products in `wanted` only."""
    return Frame(str(meta), _PRODUCT, lambda used: _read_products(meta, wanted).select(used), _line_of(meta))


def _reviews(path: Path, wanted: set[str]) -> Frame:
    """The reviews as a frame; reading it adds the products to `wanted`."""
    first = next(opened.lines(path), None)
    try:
        review = json.loads(first[1]) if first else {}
    except (ValueError, RecursionError) as error:
        raise RelandError(f"{path}:1: not a line of JSON ({error})") from None
    if not isinstance(review, dict):
        raise RelandError(f"{path}:1: not a JSON object")
    usual = [name for names in (_USUAL.user, _USUAL.item, _USUAL.time, _USUAL.rating) for name in names]

    def read(used: Sequence[str]) -> Any:
        table = _read_reviews(path, used, review)
        if "asin" in used:
            wanted.update(table["asin"].unique().to_pylist())
        return table

    # The usual columns are assumed to exist, so that the first review without one is reported with its line.
    return Frame(str(path), list(dict.fromkeys([*review, *usual])), read, _line_of(path))


def _line_of(path: Path) -> Callable[[int], str]:
    def place(row: int) -> str:
        number, _ = next(itertools.islice(opened.lines(path), row, None), (0, b""))
        return f"{path}:{number}"

    return place


def _read_reviews(path: Path, used: Sequence[str], example: Mapping[str, Any]) -> Any:
    """The columns in use, as a ``pyarrow.Table``; `example` is a review, which tells numbers from texts."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    numbers = {name for name in used if _is_number(example.get(name))} | {*_USUAL.time, *_USUAL.rating}
    schema = pa.schema([(name, pa.float64() if name in numbers else pa.string()) for name in used])
    try:
        with opened.Bounded(path) as stream:
            return arrow_json.read_json(
                pa.PythonFile(stream, mode="r"),
                read_options=arrow_json.ReadOptions(block_size=_BLOCK),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="ignore"
                ),
            ).select(list(used))
    except (pa.ArrowException, OSError, RelandError) as error:
        raise _first_fault(path, used, numbers, str(error)) from None


def _first_fault(path: Path, used: Sequence[str], numbers: Collection[str], otherwise: str) -> RelandError:
    """The error to raise: the first review that cannot be used, else the words in `otherwise`."""
    try:
        for number, line in opened.lines(path):
            fault = _review_fault(line, used, numbers)
            if fault:
                return RelandError(f"{path}:{number}: {fault}")
    except RelandError as error:
        return error
    return RelandError(f"{path}: cannot be read: {otherwise}")


def _review_fault(line: bytes, used: Sequence[str], numbers: Collection[str]) -> str:
    """What is wrong with one review, "" if nothing is."""
    try:
        review = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not a line of JSON ({error})"
    if not isinstance(review, dict):
        return "not a JSON object"
    for name in used:
        value = review.get(name)
        if name in numbers and value is not None and not _is_number(value):
            return f"{name!r} is {value!r}, which is not a finite number"
        if name not in numbers and value is not None and not isinstance(value, str):
            return f"{name!r} is {value!r}; a nonempty string is needed"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_products(path: Path, wanted: Collection[str]) -> Any:
    """Title, brand and category path of the products in `wanted`, as a ``pyarrow.Table``."""
    import pyarrow as pa

    columns: dict[str, list[str]] = {name: [] for name in _PRODUCT}
    for number, line in opened.lines(path):
        found = _ASIN.search(line)
        # Most products of a metadata file have no review left; parsing them all would take minutes.
        if wanted and found and found.group(1).decode("utf-8", "replace") not in wanted:
            continue
        product = _parse_product(line, f"{path}:{number}")
        columns["asin"].append(product["asin"])
        columns["title"].append(_clean(product.get("title")))
        columns["brand"].append(_clean(product.get("brand")))
        columns["categories"].append(_category_path(product.get("categories")))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _parse_product(line: bytes, where: str) -> dict[str, Any]:
    """One product, from JSON or a Python literal."""
    try:
        text = line.decode("utf-8")
        try:
            product = json.loads(text)
        except ValueError:
            product = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        why = str(error) or "nested too deeply"
        raise RelandError(f"{where}: neither JSON nor a Python literal ({why})") from None
    if not isinstance(product, dict) or not isinstance(product.get("asin"), str):
        raise RelandError(f"{where}: no product with an 'asin'")
    return product


def _clean(value: object) -> str:
    """Readable text: no HTML entities, no line breaks."""
    return " ".join(html.unescape(value).split()) if isinstance(value, str) else ""


def _category_path(paths: object) -> str:
    """The deepest path as "Makeup > Face", without the root, which every product shares."""
    if not isinstance(paths, list):
        return ""
    nested = [path for path in paths if isinstance(path, list)] or [paths]
    deepest = max(nested, key=len)
    names = [_clean(name) for name in deepest]
    return " > ".join(name for name in (names[1:] or names) if name)
