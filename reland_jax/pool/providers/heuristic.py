"""The offline provider: a rationale from counts over the user's own history, without an LLM.

Texts are composed for a text encoder: the names of the categories, brands and genres that dominate the
history, frequent words of its titles, and the last titles. They are marked "heuristic" everywhere, and count
as zero LLM inferences.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from reland_jax.pool.contract import HEURISTIC, Problem, ProviderResult, RationaleRequest
from reland_jax.types import Rationale

_TITLES = ("title", "name")
_MAKERS = ("brand", "artist", "author", "director")
_KINDS = ("categories", "category", "genres", "genre", "tags")
_TEXTS = ("title", "name", "description")

_NUM_CATEGORIES, _NUM_MAKERS, _NUM_WORDS, _NUM_RECENT = 5, 4, 8, 5
_TITLE_WORDS = 9

# Weight of the newest item relative to the oldest one shown.
_RECENCY = 2.0

_STOP_WORDS = frozenset(
    """a about after all also an and any are as at be been best both but by can color each for from get
    had has have her his how in inch into is it its just like likely made many ml more most new no
    not of off on one only or other ounce our out over oz pack pcs per piece set size so some such
    than that the their them these they this those through to two up use used using was way well
    were what which while who will with without you your
    album appeal appreciate artist artists band band's band’s blend blending broad captivating
    characterized creating described elements enjoy fans features featuring find follow genre genres
    influences known labels listeners mix music musical offering often particularly pioneering
    reflecting share similar sound sounds style stylistic tagged tags work
    """.split()
)
_NO_VALUES = frozenset(("unknown", "generic", "unbranded", "none", "n/a", "na", "not applicable", "other"))
_UNCLOSED = re.compile(r"\s*[(\[{][^)\]}]*$")
_WORD = re.compile(r"[^\W\d_][^\W_]*(?:['’-][^\W_]+)*")


class HeuristicProvider:
    """Writes every rationale from the history in the request alone; deterministic."""

    answers = None

    def rationales(self, requests: Sequence[RationaleRequest]) -> ProviderResult:
        """One rationale per request; None, with a problem, for a history without any text."""
        rationales = [_written(request.history) for request in requests]
        problems = [
            Problem(request.user_id, "no item of the history has a text")
            for request, rationale in zip(requests, rationales, strict=True)
            if rationale is None
        ]
        return ProviderResult(rationales, problems)


def _written(items: Sequence[Mapping[str, str]]) -> Rationale | None:
    """The rationale of one history, oldest item first; None without any text."""
    kinds = _dominating((_kinds(fields) for fields in items), _NUM_CATEGORIES)
    makers = _dominating((_values(fields, _MAKERS) for fields in items), _NUM_MAKERS)
    words = _recurring(items)
    recent = _recent_titles(items)
    step2 = " ".join(
        f"{label}: {'; '.join(found)}."
        for label, found in (
            ("Recommended categories", kinds),
            ("Recommended brands", makers),
            ("Recommended items like", recent),
            ("Key words", words),
        )
        if found
    )
    if not step2:
        return None
    step1 = _sentence(kinds, makers, words, recent)
    return Rationale(step1, step2, f"Step 1: {step1}\nStep 2: {step2}", model=HEURISTIC)


def _sentence(kinds: list[str], makers: list[str], words: list[str], recent: list[str]) -> str:
    """Step 1, in one sentence."""
    clauses = [
        f"mostly chooses {_enumerated(kinds[:3])}" if kinds else "",
        f"comes back to {_enumerated(makers[:2])}" if makers else "",
        f"often meets the words {_enumerated(words[:4])}" if words else "",
        f"lately chose {_enumerated(recent[:2])}" if recent else "",
    ]
    said = [clause for clause in clauses if clause]
    return f"By counts over the history, this user {_enumerated(said)}."


def _enumerated(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _dominating(values_per_item: Iterable[Sequence[str]], count: int) -> list[str]:
    """The values with the largest weight; weights of items rise from 1 (oldest) to `_RECENCY` (newest).

    Ties are broken by recency, then alphabetically, so the order never depends on hashing.
    """
    listed = list(values_per_item)
    weights: defaultdict[str, float] = defaultdict(float)
    last: dict[str, int] = {}
    for position, values in enumerate(listed):
        share = position / max(len(listed) - 1, 1)
        for value in dict.fromkeys(values):
            weights[value] += 1 + (_RECENCY - 1) * share
            last[value] = position
    return sorted(weights, key=lambda value: (-weights[value], -last[value], value))[:count]


def _kinds(fields: Mapping[str, str]) -> list[str]:
    """Categories of an item, from the last two levels of a path; or genres, one by one."""
    kinds = []
    for name, value in fields.items():
        if name not in _KINDS or not value:
            continue
        parts = [part.strip() for part in _parts(value) if part.strip()]
        if len(parts) == 1 and ">" not in value and name.startswith("genre"):
            # RecBole separates genres by blanks; categories of shops may contain blanks.
            parts = value.split()
        kinds += [_deepest(part) for part in parts]
    return kinds


def _parts(value: str) -> list[str]:
    """The parts of a list, split at its strongest separator; a path is one part."""
    for sign in "|;":
        if sign in value:
            return value.split(sign)
    return [value] if ">" in value else value.split(",")


def _deepest(path: str) -> str:
    levels = [level.strip() for level in path.split(">") if level.strip()]
    return " > ".join(levels[-2:])


def _values(fields: Mapping[str, str], names: Sequence[str]) -> list[str]:
    found = (fields.get(name, "") for name in names)
    return [value for value in found if value and value.lower() not in _NO_VALUES]


def _recurring(items: Sequence[Mapping[str, str]]) -> list[str]:
    """Words that occur in at least two items, most frequent first."""
    per_item = [_words(" ".join(_values(fields, _TEXTS))) for fields in items]
    frequency = Counter(word for words in per_item for word in set(words))
    return _dominating(([word for word in words if frequency[word] > 1] for words in per_item), _NUM_WORDS)


def _words(text: str) -> list[str]:
    found = (word.lower() for word in _WORD.findall(text))
    return [word for word in found if len(word) > 2 and word not in _STOP_WORDS]


def _recent_titles(items: Sequence[Mapping[str, str]]) -> list[str]:
    """Shortened titles of the last items, newest first, each once."""
    titles = [title for fields in reversed(items) for title in _values(fields, _TITLES)[:1]]
    return list(dict.fromkeys(map(_shortened, titles)))[:_NUM_RECENT]


def _shortened(title: str) -> str:
    """The first words of a long title, without an open bracket or a separator at its end."""
    words = title.split()
    if len(words) <= _TITLE_WORDS:
        return title
    short = " ".join(words[:_TITLE_WORDS])
    return _UNCLOSED.sub("", short).rstrip(" ,;:.-") or short
