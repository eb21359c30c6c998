"""Amazon reviews 2014: ``reviews_NAME_5.json.gz`` and ``meta_NAME.json.gz``.

A review is one line of strict JSON (``reviewerID``, ``asin``, ``overall``, ``unixReviewTime``). A product
is one line that is a Python literal rather than JSON (``asin``, ``title``, ``brand``, ``categories``, the
last a list of paths from the root). The metadata file is optional; without it items have no text.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reland_jax.config import DataConfig
from reland_jax.data.sources import delimited
from reland_jax.data.sources.raw import FeatureTable, RawTable, feature_table, tokens
from reland_jax.types import RelandError

_IDS = ("reviewerID", "asin")
_NUMBERS = ("overall", "unixReviewTime")
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)['"]""")
_BLOCK = 1 << 24


def read(place: str, config: DataConfig) -> RawTable:
    """Reads ``place`` (the reviews) and the metadata of the same name beside it.

    Raises:
        RelandError: a truncated or damaged file, a line that cannot be parsed, or one without a user,
            a product or a time; with file and line.
    """
    path = Path(place)
    reviews = _read_reviews(path)
    item = tokens(reviews["asin"])
    name = path.name.removeprefix("reviews_").removesuffix(".json.gz").removesuffix("_5")
    return RawTable(
        where=place,
        user=tokens(reviews["reviewerID"]),
        item=item,
        time=reviews["unixReviewTime"].to_numpy(),
        rating=reviews["overall"].to_numpy(),
        item_features=_read_products(path.with_name(f"meta_{name}.json.gz"), set(item.name)),
    )


def _read_reviews(path: Path) -> Any:
    """The four columns in use, as a ``pyarrow.Table``."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    fields = [(name, pa.string()) for name in _IDS] + [(name, pa.float64()) for name in _NUMBERS]
    try:
        with pa.input_stream(str(path), compression="gzip") as stream:
            table = arrow_json.read_json(
                stream,
                read_options=arrow_json.ReadOptions(block_size=_BLOCK),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise _first_fault(path, str(error)) from None
    kinds = {**dict.fromkeys(_IDS, delimited.ID), **dict.fromkeys(_NUMBERS, delimited.NUMBER)}
    if not all(delimited.fits(table[name], kind) for name, kind in kinds.items()):
        raise _first_fault(path, "a field is missing")
    return table


def _first_fault(path: Path, otherwise: str) -> RelandError:
    """The error to raise: the first review that cannot be used, else the words in `otherwise`."""
    try:
        for number, line in _lines(path):
            fault = _review_fault(line)
            if fault:
                return RelandError(f"{path}:{number}: {fault}")
    except RelandError as error:
        return error
    return RelandError(f"{path}: cannot be read: {otherwise}")


def _review_fault(line: bytes) -> str:
    """What is wrong with one review, "" if nothing is."""
    try:
        review = json.loads(line)
    except ValueError as error:
        return f"not a line of JSON ({error})"
    if not isinstance(review, dict):
        return "not a JSON object"
    for name in _IDS:
        if not isinstance(review.get(name), str) or not review[name]:
            return f"{name!r} is {review.get(name)!r}; a nonempty string is needed"
    for name in _NUMBERS:
        value = review.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name!r} is {value!r}, which is not a finite number"
    return ""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number and text of every nonempty line of a gzip file.

    Raises:
        RelandError: the file ends in the middle, or is no gzip file.
    """
    number = 0
    try:
        with gzip.open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except EOFError:
        raise RelandError(
            f"{path}:{number + 1}: the gzip file ends in the middle of its data; download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RelandError(
            f"{path}:{number + 1}: damaged, or not a gzip file ({error}); download it again"
        ) from None


def _read_products(path: Path, wanted: set[str]) -> FeatureTable | None:
    """Title, brand and category path of the products in `wanted`, None when there is no such file."""
    if not path.is_file():
        return None
    products, numbers = [], []
    for number, line in _lines(path):
        found = _ASIN.search(line)
        # Most products of a metadata file have no review left; parsing them all would take minutes.
        if found and found.group(1).decode("utf-8", "replace") not in wanted:
            continue
        products.append(_parse_product(line, f"{path}:{number}"))
        numbers.append(number)
    ids = np.array([product["asin"] for product in products], dtype=object)
    fields = {
        "title": [_clean(product.get("title")) for product in products],
        "brand": [_clean(product.get("brand")) for product in products],
        "categories": [_category_path(product.get("categories")) for product in products],
    }
    columns = {name: np.array(values, dtype=object) for name, values in fields.items()}
    return feature_table(ids, columns, str(path), lambda row: f"line {numbers[row]}")


def _parse_product(line: bytes, where: str) -> dict[str, Any]:
    """One product, from JSON or a Python literal."""
    try:
        text = line.decode("utf-8")
        try:
            product = json.loads(text)
        except ValueError:
            product = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError) as error:
        raise RelandError(f"{where}: neither JSON nor a Python literal ({error})") from None
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
