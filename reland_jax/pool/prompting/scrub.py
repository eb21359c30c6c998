"""Removes personal data from item texts before they are shown to an LLM: e-mail, telephone, names.

Titles have many other numbers: sizes, quantities, model and part numbers, ISBNs, years. A telephone number is
recognised only by its form: an international prefix, an area code in North American grouping, the grouping of
a national number with its leading zero, or a word such as "Tel" before it. Ten digits in one piece are kept,
and so is a text that consists of a toll-free number, which is not personal and may be the name of a song.
User ids are never put into a prompt; one that occurs in a title as a word is blanked too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from reland_jax.config import nearest_name
from reland_jax.types import RelandError

EMAIL, PHONE, NAME, USER = "[email]", "[phone]", "[name]", "[user]"
"""The marks that replace what was removed."""

KINDS = ("email", "phone", "names")
"""Names that `config.pool.scrub` may hold."""

SHORTEST_USER_ID = 8
"""User ids with fewer characters, or without both letters and digits, may be common words and numbers, so
titles are not searched for them."""

_EMAIL = re.compile(
    r"[\w.+%'\u200c\u200d-]{1,64}\s?[@＠]\s?(?:[\w\u200c\u200d-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"
    r"|[\w.+%-]{1,64}\s?[(\[{]\s?at\s?[)\]}]\s?[\w-]{1,63}(?:(?:\s?[(\[{]\s?dot\s?[)\]}]\s?|\.)[\w-]{2,63}){1,8}",
    re.IGNORECASE,
)
_GAP = r"[ .\-–/\u00a0]"
_CALL = (
    r"\b(?:tel(?:ephone)?|phone|fax|whats\s?app|hotline|toll[ -]free|contact|call)"
    r"(?:\s+(?:us|me|now|today|at|on|no|number|nr))*(?:[.:#]|\s){1,3}"
)
_PHONE = re.compile(
    # +49 151 23456789, 0049 (0)30 123456: a country code, then groups of two digits or more.
    rf"(?P<international>(?<![\w+.,/-])(?:\+[1-9]\d{{0,2}}{_GAP}?|00[1-9]\d{{0,2}}{_GAP})(?:\(0?\d{{0,4}}\){_GAP}?)?\d{{2,12}}"
    rf"(?:{_GAP}?\d{{2,12}}){{1,5}}(?![\w%]|[.,]\d))"
    # (212) 555-0147 and 1-800-555-0147: area code and exchange never begin with 0 or 1.
    rf"|(?<![\w+.,/(-])(?:1{_GAP})?\([2-9]\d\d\) ?[2-9]\d\d{_GAP}\d{{4}}(?![\w%-]|[.,/]\d)"
    r"|(?<![\w+.,/-])(?:1(?P<sign>[-.]))?[2-9]\d\d(?P<same>[-.])[2-9]\d\d(?P=same)\d{4}(?![\w%-]|[.,/]\d)"
    # 020 7946 0958, 0151/23456789, 01 23 45 67 89: a leading zero, and groups.
    rf"|(?<![\w+.,/-])0[1-9]\d{{1,3}}(?:{_GAP}\d{{6,8}}|{_GAP}\d{{3,4}}{_GAP}\d{{3,4}})(?![\w%-]|[.,/]\d)"
    rf"|(?<![\w+.,/-])0[1-9](?:{_GAP}\d\d){{4}}(?![\w%-]|[.,/]\d)"
    # Tel: 5550147, call 555 0147.
    rf"|(?P<word>{_CALL})(?:\+?\(?\d{{2,5}}\)?{_GAP}?){{1,4}}\d{{3,12}}(?![\w%-]|[.,/]\d)",
    re.IGNORECASE,
)
_TOLL_FREE = re.compile(r"(?:1[-. ])?8(?:00|33|44|55|66|77|88)[-. ]\d{3}[-. ]\d{4}")
_SHORTEST, _SHORTEST_INTERNATIONAL, _LONGEST = 7, 10, 15
_MARK = re.compile(rf"({'|'.join(map(re.escape, (EMAIL, PHONE, NAME, USER)))})")
_WORD = re.compile(r"[^\W_]+")
_TOKEN = re.compile(r"[\w\u200c\u200d-]+")


class Scrubber(NamedTuple):
    """Removes personal data from texts; made by `scrubber`.

    Attributes:
        kinds: of `KINDS`.
        names: the words of all names by their first word, longest first; casefolded.
        user_ids: external ids to remove.
    """

    kinds: frozenset[str]
    names: Mapping[str, Sequence[tuple[str, ...]]]
    user_ids: frozenset[str]

    def __call__(self, text: str, *, name: bool = False) -> str:
        """The text with a mark in place of everything found; a second pass changes nothing.

        Args:
            text: of one item.
            name: whether it is the name of a work, which is not searched for telephone numbers.
        """
        if "email" in self.kinds:
            text = _EMAIL.sub(EMAIL, text)
        if "phone" in self.kinds and not name and not _TOLL_FREE.fullmatch(text.strip()):
            text = _PHONE.sub(_phone, text)
        if self.names:
            text = "".join(_without_names(part, self.names) for part in _MARK.split(text))
        return _TOKEN.sub(self._token, text) if self.user_ids else text

    def _token(self, token: re.Match[str]) -> str:
        return USER if token[0] in self.user_ids else token[0]


def scrubber(kinds: Sequence[str], names: Sequence[str] = (), user_ids: Iterable[str] = ()) -> Scrubber:
    """The scrubber for these settings.

    Args:
        kinds: `config.pool.scrub`.
        names: `config.pool.names`: names, found as whole words in any case, and paths of text files with
            one name per line. An entry with a slash, or one that ends in ".txt", is a path.
        user_ids: external ids of users.

    Raises:
        RelandError: an unknown kind; names without the kind "names", or the reverse; a file that cannot be
            read; an entry without a letter or digit.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise RelandError(f"config.pool.scrub={kind!r} is not known; {nearest_name(kind, KINDS)}")
    if ("names" in kinds) != bool(names):
        missing = "config.pool.names is empty" if not names else "config.pool.scrub does not have 'names'"
        raise RelandError(f"{missing}; give both to have names blanked out of titles, or none")
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for name in _listed(names):
        words = _words(name)
        by_first.setdefault(words[0], []).append(words)
    longest_first = {first: sorted(set(found), key=len, reverse=True) for first, found in by_first.items()}
    return Scrubber(frozenset(kinds), longest_first, frozenset(filter(_distinctive, user_ids)))


def _phone(found: re.Match[str]) -> str:
    """The mark, after the word that announced the number, if there are enough digits for a telephone."""
    word = found["word"] or ""
    digits = sum(character.isdigit() for character in found[0])
    shortest = _SHORTEST_INTERNATIONAL if found["international"] else _SHORTEST
    return f"{word}{PHONE}" if shortest <= digits <= _LONGEST else found[0]


def _without_names(text: str, names: Mapping[str, Sequence[tuple[str, ...]]]) -> str:
    """The text with a mark for each name; the longest of several matches at one place is used."""
    if _MARK.fullmatch(text):
        return text
    spans = [word.span() for word in _WORD.finditer(text)]
    words = [_folded(text[start:end]) for start, end in spans]
    pieces, position, index = [], 0, 0
    while index < len(words):
        known = names.get(words[index], ())
        found = next((name for name in known if tuple(words[index : index + len(name)]) == name), ())
        if found:
            pieces += [text[position : spans[index][0]], NAME]
            position = spans[index + len(found) - 1][1]
        index += max(len(found), 1)
    return "".join([*pieces, text[position:]])


def name_files(names: Sequence[str]) -> list[str]:
    """The entries of `config.pool.names` that are paths of files: with a slash, or ending in ".txt"."""
    return [entry for entry in names if "/" in entry or entry.endswith(".txt")]


def _listed(names: Sequence[str]) -> list[str]:
    """All names, those in files included."""
    listed: list[str] = []
    files = name_files(names)
    for entry in names:
        lines = _lines(Path(entry)) if entry in files else [entry]
        listed += [line for line in lines if line.strip()]
        if not all(_words(line) for line in listed):
            raise RelandError(f"config.pool.names: {entry!r} has a name without any letter or digit")
    return listed


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RelandError(
            f"config.pool.names: the file {path} cannot be read ({type(error).__name__}); it should have one "
            "name per line, in UTF-8"
        ) from error


def _words(name: str) -> tuple[str, ...]:
    return tuple(_folded(word) for word in _WORD.findall(name))


def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


def _distinctive(user_id: str) -> bool:
    """Whether an id differs from ordinary words and numbers, and is one token of a title."""
    mixed = any(c.isdigit() for c in user_id) and any(c.isalpha() for c in user_id)
    return len(user_id) >= SHORTEST_USER_ID and mixed and _TOKEN.fullmatch(user_id) is not None
