"""Results as values of declared types, and as the plain values that their JSON files hold.

Results are frozen dataclasses and NamedTuples throughout; `to_plain` converts them when a file is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

_KEY = "key"


def stored(key: str) -> dict[str, str]:
    """Metadata of a field that files call `key`; with "" the entries of its mapping stand in its place."""
    return {_KEY: key}


def to_plain(value: Any) -> Any:
    """Nested records, mappings and lists as JSON has them.

    Args:
        value: its fields are named as they are declared, or by `stored`; keys of mappings become text. A
            number that is not finite becomes None: JSON has no such numbers.
    """
    if dataclasses.is_dataclass(value):
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            key, found = field.metadata.get(_KEY, field.name), to_plain(getattr(value, field.name))
            plain |= {key: found} if key else found
        return plain
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): to_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
