"""What can be said about loaded interactions: item texts, statistics and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from reland_jax.types import Interactions


def item_texts(interactions: Interactions, fields: Sequence[str]) -> list[str]:
    """One readable line per item, such as "Gentle Rose Day Cream. Quellin. Face Care > Moisturisers".

    Args:
        interactions: with item features.
        fields: columns in the order in which they are read out; ones the data lack are passed over.

    Returns:
        ``I + 1`` strings; "" for the padding item and for items nothing is known about.
    """
    columns = [interactions.item_features[name] for name in fields if name in interactions.item_features]
    if not columns:
        return [""] * (interactions.num_items + 1)
    return [_sentence(values) for values in zip(*columns, strict=True)]


def _sentence(values: Sequence[str]) -> str:
    """Nonempty values, each ended by one full stop except the last."""
    parts = [" ".join(value.split()) for value in values]
    return ". ".join(part.rstrip(".") for part in parts if part)


def statistics(interactions: Interactions) -> dict[str, float]:
    """The figures of the paper's Table 1.

    Returns:
        ``users``, ``items`` and ``interactions`` (counts), ``per_user`` (mean interactions of a user)
        and ``sparsity`` (share of the user-item matrix without an interaction, in [0, 1]).
    """
    users, items, total = interactions.num_users, interactions.num_items, len(interactions.user)
    pair = interactions.user.astype(np.int64) * (items + 1) + interactions.item
    return {
        "users": users,
        "items": items,
        "interactions": total,
        "per_user": total / users,
        "sparsity": 1.0 - len(np.unique(pair)) / (users * items),
    }


def data_fingerprint(interactions: Interactions) -> str:
    """Hexadecimal SHA-256 over everything in `interactions`; equal data, equal fingerprint."""
    digest = hashlib.sha256()
    arrays = (interactions.user, interactions.item, interactions.time, interactions.fixed_split)
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).view(np.uint8))
    digest.update(_column_bytes("users", interactions.ids.users))
    digest.update(_column_bytes("items", interactions.ids.items))
    for kind, features in (("item", interactions.item_features), ("user", interactions.user_features)):
        for name in sorted(features):
            digest.update(_column_bytes(f"{kind} {name}", features[name]))
    return digest.hexdigest()


def _column_bytes(name: str, values: np.ndarray) -> bytes:
    """A named column of strings; separators that no text holds keep neighbours apart."""
    text = f"\x1d{name}\x1d{len(values)}\x1d" + "\x1f".join(values.tolist())
    return text.encode("utf-8", "surrogatepass")
