"""Secrets are found in whatever form a service sends them back, and nothing else is."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.asking.secrets import SURELY_SECRET, without_secrets

KEY = "sk-proj/A1+b2_C3=d4.E5-f6-g7"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:pass-word@host.example/v1")


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04X}" for letter in text)


@pytest.mark.parametrize(
    "form",
    [
        KEY, KEY.upper(), escaped(KEY), json.dumps(escaped(KEY)), json.dumps(json.dumps(escaped(KEY))),
        KEY.replace("/", "\\/"), quote(KEY, safe=""), "".join(f"&#{ord(c)};" for c in KEY),
        "".join(f"&#x{ord(c):X};" for c in KEY), "\u200b".join(KEY), "\\u200b".join(KEY),
        "".join(chr(ord(c) + 0xFEE0) for c in KEY), KEY[:9] + escaped(KEY[9:15]) + KEY[15:], "pass-word",
        escaped("me:pass-word"),
    ],
)  # fmt: skip
def test_every_form_is_found(form: str) -> None:
    found = without_secrets(f"before {form} after")
    if form == "pass-word":  # alone it is a word
        return
    assert "***" in found and found.startswith("before ") and found.endswith(" after")
    assert form not in found and form[2:-2] not in found


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_base64(before: str) -> None:
    """Of a text that has it, such as a header of Basic authentication; its ends may be of neighbours."""
    form = base64.b64encode(f"{before}{KEY}".encode()).decode()
    found = without_secrets(f"Basic {form}!")
    assert "***" in found and len(found) < 22


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_other_texts_stay(text: str) -> None:
    assert without_secrets(text) == text or "me:pass-word" in text


def test_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "Soap")
    assert without_secrets("Oat Soap", SURELY_SECRET) == "Oat Soap" and without_secrets("Soap") == "***"
