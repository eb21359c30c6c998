"""Rejects useless texts of a step: placeholders, echoes of the prompt, loops, refusals."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache

from reland_jax.pool.templates import DOMAINS, PROMPTS, filled

_REFUSAL = re.compile(
    r"""\W*(?:
        (?:(?:i'?m|i\s+am)\s+)?(?:so\s+|very\s+|really\s+|truly\s+)?sorry\b(?=[\s,.!]*(?:$|[,.]|but|i\b|for\s+the))
      | (?:i\s+)?apologi[sz]e | my\s+apologies
      | (?:unfortunately,?\s+)?i\s*(?:can'?t|can\s?not|could\s+not|couldn'?t|won'?t|will\s+not|do\s+not|don'?t
            |'?m\s+(?:not\s+able|unable)|\s*am\s+(?:not\s+able|unable))\s+(?:to\s+)?(?:be\s+able\s+to\s+)?
            (?:help|assist|provide|recommend|comply|fulfil|do|determine|answer|make|create|generate|see|access
            |continue|summari[sz]e|infer|identify|have\s+(?:access|enough)|feel\s+comfortable)
      | i(?:'m|\s+am)\s+not\s+comfortable
      | (?:(?:there(?:'s|\s+is|\s+are|\s+was)|i\s+have|we\s+have|the\s+history\s+has|with|given|due\s+to)\s+)?
            (?:not\s+enough|insufficient|too\s+little|no\s+sufficient)\s+(?:\w+\s+){0,2}
            (?:information|data|history|context|items|purchases|evidence)
      | (?:could|can|would)\s+you\s+(?:please\s+)?(?:provide|share|give|tell|send|clarify)
      | shall\s+i\s+(?:go\s+on|continue|proceed)
      | please\s+(?:provide|share|send|give|clarify|specify|paste)
      | i(?:'d|\s+would)?\s+need\s+(?:some\s+)?more\s+(?:information|data|details|context)
      | as\s+an?\s+(?:ai|artificial|large\s+language|language)\b
      | (?:es\s+)?tut\s+mir\s+leid | leider\s+(?:kann|darf)\s+ich
      | ich\s+(?:kann|darf)\s+(?:\w+\s+){0,3}nicht\b
      | lo\s+siento | (?:je\s+suis\s+)?désolée? | je\s+ne\s+(?:peux|suis)\s+pas | (?:me\s+)?desculpe
      | sinto\s+muito | mi\s+dispiace | no\s+puedo\s+(?:ayudar|proporcionar|recomendar)
      | não\s+posso\s+(?:ajudar|fornecer|recomendar) | non\s+posso\s+(?:aiutar|fornire|consigliare)
      | (?:很)?抱歉 | 对不起 | 對不起 | 我无法 | 我無法 | 申し訳 | 죄송합니다
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_NOTHING = re.compile(
    r"""\W*(?:n\s*/\s*a|none|null|nil|undefined|nan|tbd|to\s?do|unknown|nothing|empty|blank|pending|redacted
        |yes|no|ok(?:ay)?|summary|recommendations?|(?:to\s+be\s+)?continued(?:\s+(?:in|on|below)\b[^.;]{0,30})?
        |(?:none|not)\s+(?:applicable|available|specified|provided|given|found|known|sure)
        |(?:no|none)\s+(?:\w+\s+){0,2}(?:recommendations?|suggestions?|items?|products?|categor(?:y|ies)
                |data|information|history)
            (?:\s+(?:available|possible|provided|found|given|yet|can\s+be\s+(?:made|given)))?
        |(?:type:\s*)?(?:string|str|text|placeholder)
        |to\s+be\s+(?:determined|decided|defined|announced|added|filled(?:\s+in)?|completed|provided)
        |(?:(?:same|as|see|like|shown|listed|described|stated|given|the)\s+){1,3}(?:above|before|below|step\s+(?:1|one))
    )?\W*""",
    re.IGNORECASE | re.VERBOSE,
)
_SELF_TALK = re.compile(
    r"""(?:^|(?<=[.!?…])\s|\n)[ \t]*(?:[*_\#>("']{1,6}(?=\w)|\#{1,6}[ ])?(?:
        hmm+\b|(?:(?:but|oh|no)[,\s]\s?)?wait[,.!…—-]|(?:but|oh)\swait\b|hold\son\b|actually,|scratch\sthat
        |on\ssecond\sthought|(?:actually,?|no,)\s(?:that|this|these|it|the|i)\b|ok(?:ay)?,?\s(?:so|let)\b
        |(?:now,?\s)?(?:let(?:'s|\sme|\sus))\s(?:check|re-?|verify|count|double|see\b|think|refine|draft|make\ssure|write
            |produce|output|finali[sz]e|craft|format|answer|compose|respond)
        |(?:but|so|now),?\s(?:i|we|let)\b
        |(?:i|we)\s(?:need|should|must|have)\s(?:to\s)?(?:(?:double.)?check|make|verify|ensure|include|follow
            |write|output|provide|answer|produce|give|draft)
        |i(?:'ll|\swill)\s(?:now\s)?(?:write|produce|answer|output|finali[sz]e|provide|give|draft|format|respond)
        |i\s(?:made\sa\smistake|misread|misunderstood|was\swrong)|(?:my\s)?apologies,
        |need\s(?:more\s|\d|three\s|five\s|to\s(?:check|make|list|give|include|be\b|have\b))
        |(?:does|do|is|are)\s(?:this|that|these|it)\s(?:meet|match|satisfy|comply|fit|follow|look|ok|okay|correct)\b
        |that(?:'s|\sis|\smakes)\s(?:\w+\s){0,2}(?:items|products|movies|artists|wrong|incorrect|enough)\b
        |now\s(?:check|verify|count|i\b|we\b)
        |(?:correction|(?:rough|first|second|next|new|another|final)?\s?draft(?:\s\d)?|(?:revised|corrected|updated)\b[^\n:]{0,20})
            [*_]{0,3}:
        |(?:so\s|but\s)?the\s(?:user|prompt|question|instructions?)\s(?:wants?|asks?|asked|says?|said|requires?)
        |moment,|warte,|halt,|attends,|espera,|等等|等一下|不对|不對)""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = re.compile(
    r"""(?:(?:recommend(?:ed)?|suggested|next|top|key)\s+)?(?:categor(?:y|ies)|items?|products?|movies?|genres?
        |artists?(?:\s+or\s+tracks?)?|tracks?|brands?|themes?|moods?|words|recommendations?|suggestions?)
        (?:\s+and\s+\w+)?\s*[:：]""",
    re.IGNORECASE | re.VERBOSE,
)
_TORN_LABEL = re.compile(
    r"(?:^|[.;:,\n])\s*(?:and\s+)?recommended?(?:\s+(?P<noun>[a-z]{0,10}))?\s*$", re.IGNORECASE
)
_LABEL_NOUNS = ("categories", "items", "products", "movies", "genres", "artists", "tracks")
_ENTRIES = re.compile(r"[;,\n|；，、]|[.。]\s|\s[-–—]\s")
_TEMPLATE_WORD = re.compile(
    r"item|product|categor(?:y|ies)|genre|theme|mood|movie|film|artist|track|song|album|brand|title|name|sentence"
    r"|summary|preferences?|placeholder|description|text|recommendations?|list|answer|response|string|value",
    re.IGNORECASE,
)
_TEMPLATE_FILLER = re.compile(
    r"insert|your|the|example|sample|of|an?|some|first|second|third|fourth|fifth|another|more|other|next|specific"
    r"|recommended|relevant|one|two|three|here|etc|and|so|on|s|or|to|in|that|summari[sz]\w+|describ\w+|user|shopper"
    r"|viewer|listener|goes|go|by|this|[a-z]|i{1,3}|iv|v|\d{1,3}",
    re.IGNORECASE,
)
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_a-zA-Z]+")
_VARIABLE = re.compile(r"%[a-z]\.?|\$\w+")
_BARE_NUMBER = re.compile(r"\d{1,2}\W*")
_NO_NAME = re.compile(r"[xX]{2,}|(?i:lorem|ipsum|foo|bar|baz|qux)")
_REMEMBERED = 16
"""Size of the cache of listings: each text is checked several times, and finding labels is slow."""
_UNIT = re.compile(r"[^\W\d_]+|\d+")
_LETTERS_AGAIN = re.compile(r"(?=\S{0,12}\w)(\S{1,12}?)\1{14}")
_SAME_ENTRIES, _LONGEST_PERIOD, _REPEATS, _COUNTED_REPEATS, _FEWEST_AGAIN = 6, 12, 4, 12, 12


def is_refusal(text: str) -> bool:
    """Whether a text begins with an apology or a refusal, in English or a few other languages."""
    return bool(_REFUSAL.match(text[:400].replace("’", "'")))


def says_nothing(text: str) -> bool:
    """Whether a text is empty, or a placeholder such as "N/A"."""
    return bool(_NOTHING.fullmatch(text[:200]))


def why_worthless(text: str) -> str:
    """Why the text of a step cannot be used, "" if it can.

    A listing after a label ("Recommended items:") is checked separately.
    """
    listings = _listings(text)
    torn = _TORN_LABEL.search(text[-60:])
    if torn and any(noun.startswith((torn["noun"] or "").lower()) for noun in _LABEL_NOUNS):
        return f"stops at a label: {text[-60:]!r}"
    if all(map(says_nothing, listings)):
        return "is missing"
    if says_nothing(listings[-1]):
        return f"stops at a label: {text[-60:]!r}"
    # With semicolons it is a list of names, such as "I Can't Help Myself; Sorry".
    if is_refusal(text) or any(is_refusal(listing) for listing in listings if ";" not in listing):
        return f"is a refusal: {text[:80]!r}"
    if is_template(text):
        return f"has only words of a template or of the prompt: {text[:80]!r}"
    if loop := _loop(text):
        return f"repeats itself: {loop!r}"
    return ""


def self_talk(text: str) -> str:
    """Says that an LLM goes on thinking aloud ("Hmm, wait, the user wants ..."), "" if it does not.

    Args:
        text: with its lines; what is thought stands at the beginning of a line or sentence.
    """
    talk = _SELF_TALK.search(text)
    return f"has thoughts in it: {text[talk.start() :][:80].strip()!r}" if talk else ""


@lru_cache(_REMEMBERED)
def is_template(text: str) -> bool:
    """Whether a text repeats our prompt, or has words such as "[item 1]" where names are expected."""
    return repeats_prompt(text) or any(
        repeats_prompt(part, 5) or _is_template(part) for part in _listings(text)
    )


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin, labels apart; also true of a text without letters."""
    letters = [character for character in "".join(_listings(text)) if character.isalpha()]
    foreign = [c for c in letters if not c.isascii() and "LATIN" not in unicodedata.name(c, "")]
    return 2 * len(foreign) <= len(letters)


def repeats_prompt(text: str, fewest: int = 6) -> bool:
    """Whether most of a text stands in our own prompts, outside of their data lines.

    Args:
        text: one line, or the text of a step.
        fewest: words below which nothing is said about a text.
    """
    words = _UNIT.findall(text.lower())
    if len(words) < fewest:
        return False
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return sum(run in _prompt_runs() for run in runs) >= 0.7 * len(runs)


@cache
def _prompt_runs() -> frozenset[tuple[str, ...]]:
    """Every four words in a row of our prompts."""
    runs: set[tuple[str, ...]] = set()
    for template in PROMPTS:
        for domain in DOMAINS:
            words = _UNIT.findall(filled(template, domain, "").lower())
            runs |= set(zip(words, words[1:], words[2:], words[3:], strict=False))
    return frozenset(runs)


@lru_cache(_REMEMBERED)
def _listings(text: str) -> tuple[str, ...]:
    """What stands behind the labels of a text; the whole text where it has none."""
    first, *behind = _LABEL.split(text)
    return (*([first] if not says_nothing(first) or not behind else []), *behind)


def _is_template(listing: str) -> bool:
    """Whether half of the entries stand for a name ("[item 1]", "Category B", "..."), or all are numbers."""
    entries = [entry.strip() for entry in _ENTRIES.split(listing) if entry.strip(" .")]
    if len(entries) > 1 and all(map(_BARE_NUMBER.fullmatch, entries)):
        return True
    return 2 * sum(map(_stands_for_a_name, entries)) > len(entries)


def _stands_for_a_name(entry: str) -> bool:
    words = _NAME_WORD.findall(entry)
    if not words or _VARIABLE.fullmatch(entry):
        return "%" in entry or "." in entry or "…" in entry or "_" in entry
    if all(map(_NO_NAME.fullmatch, words)):
        return True
    nouns = [word for word in words if _TEMPLATE_WORD.fullmatch(word.rstrip("s"))]
    if not nouns:
        return False
    others = [word for word in words if not _TEMPLATE_WORD.fullmatch(word.rstrip("s"))]
    bracketed = entry[0] in "[<{(" and entry.rstrip(".")[-1:] in tuple("]>})")
    # "Movies" alone is a category.
    stands_for = bracketed or bool(others or nouns[1:]) or entry.endswith(("...", "…"))
    return stands_for and all(map(_TEMPLATE_FILLER.fullmatch, others))


def _loop(text: str) -> str:
    """What a text says over and over, "" if nothing."""
    entries = [entry.strip().lower() for entry in _ENTRIES.split(text) if entry.strip()]
    most, times = Counter(entries).most_common(1)[0] if entries else ("", 0)
    if times >= max(_SAME_ENTRIES, 0.5 * len(entries)):
        return most[:60]
    if found := _LETTERS_AGAIN.search(text):
        return found[1]
    words = _UNIT.findall(text.lower())
    counted = ["#" if word.isdigit() else word for word in words]
    return _repeated_phrase(words, _REPEATS) or _repeated_phrase(counted, _COUNTED_REPEATS)


def _repeated_phrase(words: list[str], repeats: int) -> str:
    """The first words that come `repeats` times or more in a row, "" if none do."""
    for period in range(1, _LONGEST_PERIOD + 1):
        run, least = 0, max(repeats * period, _FEWEST_AGAIN)
        for place in range(period, len(words)):
            run = run + 1 if words[place] == words[place - period] else 0
            if run >= least:
                return " ".join(words[place - period + 1 : place + 1])
    return ""
