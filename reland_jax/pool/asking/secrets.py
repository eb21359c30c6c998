"""Removes the key of a service, and the password in its address, from everything stored or shown.

A service may return the key in an error message or in an answer, plain or encoded.
"""

from __future__ import annotations

import base64
import os
import re
from functools import lru_cache

BASE_URL, API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
SURELY_SECRET = 16
"""Shortest key that is removed from answers: local services use words such as "EMPTY" as keys."""

_UNSEEN = r"(?:[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]|\\+u(?:00ad|200[b-f]|206[0-4]|feff))*"
"""Invisible characters, which the parser of answers removes."""


_DISGUISED = re.compile(
    r"\\u(?:00[2-7]|00ad|200[b-f]|206[0-4]|feff|ff[0-5])|\\[-_./+=:@]|%[2-7][0-9a-f]|%[c-f][0-9a-f]%|&#"
    "|[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\uff01-\uff5e]",
    re.IGNORECASE,
)
"""Signs that a text may contain a secret in an encoding other than Base64."""


def without_secrets(text: str, shortest: int = 4) -> str:
    """The text without the key, and without the user and password in the address of the service.

    They are found also where characters are escaped as in JSON (however often), URLs or HTML, in Base64, in
    capitals, or with invisible characters between.

    Args:
        text: for people, or for the journal.
        shortest: shorter secrets are kept, since they may be ordinary words ("none", "test").
    """
    for secret in (os.environ.get(API_KEY, ""), _password(os.environ.get(BASE_URL, ""))):
        if len(secret) >= shortest and _may_have(text, secret):
            text = _pattern(secret).sub("***", text)
    return text


def _may_have(text: str, secret: str) -> bool:
    """Whether a text has to be searched for all encodings of a secret, which is slow."""
    if _DISGUISED.search(text):
        return True
    folded = text.casefold()
    return any(form.casefold() in folded for form in (secret, *_encoded(secret)))


@lru_cache(maxsize=8)
def _pattern(secret: str) -> re.Pattern[str]:
    """Finds a secret in any of its forms."""
    forms = [_UNSEEN.join(map(_written, secret))]
    forms += [re.escape(form) + r"[A-Za-z0-9+/]{0,4}={0,2}" for form in _encoded(secret)]
    return re.compile("|".join(forms), re.IGNORECASE)


@lru_cache(maxsize=8)
def _encoded(secret: str) -> tuple[str, ...]:
    """Base64 of the middle of a long secret, which does not depend on the text around it."""
    if len(secret) < SURELY_SECRET:
        return ()
    texts = (base64.b64encode(b"\0" * shift + secret.encode()).decode() for shift in range(3))
    return tuple(text[4 if shift else 0 : -4] for shift, text in enumerate(texts))


def _written(character: str) -> str:
    """Regular expression of one character, escaped or not."""
    code, octets = ord(character), character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass").hex()
    unicode = "".join(rf"\\+u{units[start : start + 4]}" for start in range(0, len(units), 4))
    percent = "".join(f"%{octet:02x}" for octet in octets)
    wide = rf"{chr(code + 0xFEE0)}|\\+u{code + 0xFEE0:04x}" if 0x21 <= code <= 0x7E else "(?!)"
    plain = re.escape(character)
    return rf"(?:\\*{plain}|{unicode}|{percent}|&#0*{code};|&#x0*{code:x};|{wide})"


def _password(address: str) -> str:
    """User and password of an address, "" without."""
    found = re.search(r"://([^/@]+)@", address)
    return found[1] if found else ""
