"""The bounds of a server: what it takes of one request, and of all of them."""

from __future__ import annotations

import dataclasses

from reland_jax.types import RelandError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds.

    Attributes:
        body: bytes of a request's body.
        k: items of a list.
        history: items that a new user may have had.
        fields: fields of a filter.
        values: values of a field of a filter.
        queue: requests that may wait for the device.
        batch: requests that are answered together.
        seconds: until a request that waits is given up.
        body_seconds: until a body that does not arrive is given up.
    """

    body: int = 1 << 16
    k: int = 100
    history: int = 200
    fields: int = 8
    values: int = 50
    queue: int = 1024
    batch: int = 64
    seconds: float = 5.0
    body_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Raises `RelandError` for a bound that lets nothing through."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise RelandError(f"{field.name}={getattr(self, field.name)}: a limit is above 0")
