"""What a client is told when it gets no answer: a status, what is wrong, where, and what to do."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):
    """A request that is not answered as it was asked.

    Nothing of it may come from another user's data, from a path or from a traceback.

    Attributes:
        status: of HTTP; 4xx where the client can do something about it, 503 where it can only wait.
        what: what is wrong.
        where: field of the request, such as "items[3]"; "" for the request as a whole.
        do: what to do about it.
        wait: seconds after which to try again; 0 where that would not help.
    """

    def __init__(self, status: int, what: str, where: str, do: str, wait: int = 0) -> None:
        """Takes the attributes."""
        super().__init__(what)
        self.status, self.what, self.where, self.do, self.wait = status, what, where, do, wait

    def body(self) -> bytes:
        """The answer, as JSON."""
        return encoded({"error": {"what": self.what, "where": self.where, "do": self.do}})

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        found = {"Retry-After": str(self.wait)} if self.wait else {}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def encoded(value: Any) -> bytes:
    """JSON in UTF-8. Characters that are none, as a broken title may have, become question marks."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def overloaded(what: str, wait: int) -> Refusal:
    """The server has more to do than it can."""
    return Refusal(503, what, "", f"try again after {wait} s, and ask for fewer things at once", wait)
