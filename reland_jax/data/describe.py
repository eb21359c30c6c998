"""Item texts, statistics and a fingerprint of loaded interactions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reland_jax.plain import find_column, plain_column, text_columns
from reland_jax.types import Interactions

_SEPARATORS = re.compile("[\x1c-\x1e]")


def item_texts(interactions: Interactions, fields: Sequence[str]) -> list[str]:
    """One readable line per item, such as "Gentle Rose Day Cream. Quellin. Face Care > Moisturisers".

    Args:
        interactions: with item features.
        fields: columns in the order in which they are read out; ones the data lack are passed over.

    Returns:
        ``I + 1`` strings; "" for the padding item and for items nothing is known about.
    """
    columns = text_columns(interactions.item_features, fields)
    if not columns:
        return [""] * (interactions.num_items + 1)
    return [_sentence(values) for values in zip(*columns.values(), strict=True)]


def _sentence(values: Sequence[str]) -> str:
    """Nonempty values, each ended by one full stop except the last."""
    parts = [" ".join(value.split()) for value in values]
    return ". ".join(part.rstrip(".") for part in parts if part)


class TextCoverage(NamedTuple):
    """Counts of items with texts.

    Attributes:
        items: I.
        described: items with any text.
        by_field: name as it was asked for -> items with a text in that column.
        missing: names that no column has.
        marks: values that only say that there is none, such as "nan"; no texts.
        written_out: lists and mappings that were written out as text, and are read as what they hold.
    """

    items: int
    described: int
    by_field: Mapping[str, int]
    missing: tuple[str, ...]
    marks: int
    written_out: int

    @property
    def share(self) -> float:
        """Items with any text, in [0, 1]."""
        return self.described / max(self.items, 1)


def text_coverage(interactions: Interactions, fields: Sequence[str]) -> TextCoverage:
    """How many items have a text, in any of some columns and in each."""
    features = interactions.item_features
    filled = {
        name: np.array([bool(text.strip()) for text in texts[1:].tolist()], bool)
        for name, texts in text_columns(features, fields).items()
    }
    taken = [features[column] for name in filled if (column := find_column(features, name))]
    plain = [plain_column(column) for column in taken]
    return TextCoverage(
        items=interactions.num_items,
        described=int(np.any([*filled.values(), np.zeros(interactions.num_items, bool)], axis=0).sum()),
        by_field={name: int(has.sum()) for name, has in filled.items()},
        missing=tuple(name for name in fields if name not in filled),
        marks=sum(column.marks for column in plain),
        written_out=sum(column.written_out for column in plain),
    )


def statistics(interactions: Interactions) -> dict[str, float]:
    """The figures of the paper's Table 1.

    Returns:
        ``users``, ``items`` and ``interactions`` (counts), ``per_user`` (mean interactions of a user)
        and ``sparsity`` (share of the user-item matrix without an interaction, in [0, 1]).
    """
    users, items, total = interactions.num_users, interactions.num_items, len(interactions.user)
    return {
        "users": users,
        "items": items,
        "interactions": total,
        "per_user": total / users,
        "sparsity": 1.0 - (total - repeats(interactions)) / (users * items),
    }


def repeats(interactions: Interactions) -> int:
    """Interactions of a user with an item that an earlier one was with."""
    pair = interactions.user.astype(np.int64) * (interactions.num_items + 1) + interactions.item
    pair.sort()
    return int((pair[1:] == pair[:-1]).sum())


def data_fingerprint(interactions: Interactions) -> str:
    """Hexadecimal SHA-256 over everything in `interactions`; equal data, equal fingerprint."""
    digest = hashlib.sha256()
    arrays = (interactions.user, interactions.item, interactions.time, interactions.fixed_split)
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).view(np.uint8).data)
    digest.update(_column_bytes("users", interactions.ids.users))
    digest.update(_column_bytes("items", interactions.ids.items))
    for kind, features in (("item", interactions.item_features), ("user", interactions.user_features)):
        for name in sorted(features):
            digest.update(_column_bytes(f"{kind} {name}", features[name]))
    return digest.hexdigest()


def _column_bytes(name: str, values: np.ndarray) -> bytes:
    """A named column of texts, so that no other columns have the same bytes."""
    texts = values.tolist()
    joined = "\x1f".join(texts)
    if joined.count("\x1f") == max(len(texts) - 1, 0) and not _SEPARATORS.search(name + joined):
        text = f"\x1d{name}\x1d{len(texts)}\x1d" + joined
    else:
        # A text holds what separates texts: then it is their lengths that keep them apart.
        lengths = ",".join(str(len(text)) for text in (name, *texts))
        text = f"\x1d\x1c{lengths}\x1c{name}" + "".join(texts)
    return text.encode("utf-8", "surrogatepass")
