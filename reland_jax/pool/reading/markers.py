"""Finds the marks that divide an answer into steps: words in many languages, or bare numbers."""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = (
    r"(?:step|schritt|paso|[ée]tape|passo|passaggio|stap|steg|trinn|trin|krok|adım|adim|шаг|крок|bước|langkah"
    r"|vaihe|lépés|pasul|βήμα|ステップ|步骤|步驟|手順|단계|الخطوة|خطوة|चरण)"
)
_PART = r"(?:parts?|teil|parte|partie|deel|del|część|часть)"
_NUMBER = r"(?:\d{1,2}|zero|one|two|three|iii|ii|i|[〇零一二三])"
_FORM = (
    rf"(?:{_WORD}[ \t\-_#.]{{0,3}}(?:no\.?|n°|nr\.?)?[ \t]?(?P<a>{_NUMBER})(?![A-Za-z0-9]|\.\d)"
    rf"|第\s?(?P<b>{_NUMBER})\s?(?:步骤|步驟|步|ステップ|단계)"
    rf"|(?P<c>\d{{1,2}})[ \t]?[.º°ª]?[ \t]?(?:Schritt|adım|단계|шаг|lépés|etapa|vaihe)(?!\w))"
)
_FIRST = (
    r"(?:first|1(?:st|er|re|ère|º|ª)|erste[rs]?|premi(?:ère|er)|primer[ao]?|prim[ao]|primeir[ao]|eerste"
    r"|första|første)"
)
_SECOND = (
    r"(?:second|2(?:nd|do|da|e|ème|º|ª)|zweite[rs]?|deuxième|seconde?|segund[ao]|second[ao]|tweede"
    r"|andra|ande[nt])"
)
_OTHER_FORM = re.compile(
    rf"""^(?P<before>[ \t>\#*_\[(|-]{{0,12}})
      (?: (?P<one>{_FIRST})[ ](?:{_WORD}|{_PART}) | {_SECOND}[ ](?:{_WORD}|{_PART})
        | (?:{_WORD}[ ]?\(|{_PART}[ ]?)(?P<number>[12]|one|two|ii?|[ab])\)?
        | {_WORD}[ ](?P<word>eins|zwei|une?|deux|uno|dos|due|um|dois|a|b))
      (?=[*_\])]{{0,4}}[ ]?(?:[:：|.)—–-]|[*_]{{0,3}}$))""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""Marks with other names or numbers in words: "First step:", "Part 2:", "Step (1)"."""
_TAIL = (
    r"(?P<tail>[\])}】」»~]?(?:[ \t]{0,3}[（(][^()（）\n]{0,80}[)）])?[ \t*_]{0,6}"
    r"(?P<sign>[:：.)、．|]|[-–—]{1,2}(?=[ \t*_])|(?=\n|$))?[ \t*_]{0,6})"
)
_MARK = re.compile(
    r"(?:(?P<start>^[ \t>]{0,12}(?:[-+•*][ \t]+|\d[.)][ \t]+)?[#*_\[({【「«|~ \t]{0,12})"
    r"|(?<!\w)[*_\[(【]{0,4})"
    rf"{_FORM}{_TAIL}",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED = re.compile(
    r"^(?:\*\*|#{1,6}[ \t]+)?\(?(?P<number>\d{1,2})(?P<style>[.)．）:：、])(?:\*\*)?[ \t]*", re.MULTILINE
)
_RECOMMENDED_WORDS = r"(?:my |top |final |personali[sz]ed )?recommend(?:ed|ation|ations)\b"
_PREFERENCES_WORDS = (
    r"(?:the )?(?:(?:user|customer|shopper|viewer|listener)(?:'s|’s)? )?"
    r"(?:preferences?|summary|profile|taste)\b"
)


def _heading(words: str) -> re.Pattern[str]:
    """Pattern of a heading that starts with these words, marked by "#", bold type or a colon."""
    return re.compile(
        rf"^#{{1,6}}[ \t]+\*{{0,3}}{words}[^:\n]{{0,60}}(?::|$)"
        rf"|^[ \t>*_]{{0,8}}(?:[-+•][ \t]+)?\*{{0,3}}{words}[^:*\n]{{0,60}}(?:\*{{0,3}}:|\*{{2,3}}[ \t]*$)",
        re.IGNORECASE | re.MULTILINE,
    )


_RECOMMENDED, _PREFERENCES = _heading(_RECOMMENDED_WORDS), _heading(_PREFERENCES_WORDS)
_WORDS_OF_NUMBERS = ("zero 〇 零", "one i 一 a eins un une uno um", "two ii 二", "three iii 三")
_VALUES = {word: value for value, words in enumerate(_WORDS_OF_NUMBERS) for word in words.split()}
_TITLE_WORDS = frozenset(
    """brief briefly short summary summarize summarise summarizing summarising user users user's customer
    customer's shopper shopper's viewer viewer's listener listener's preference preferences of the in one
    sentence recommend recommended recommendation recommendations recommending category categories item items
    product products movie movies artist artists genre genres music and for to based on profile history this a
    overview analysis analyze analyse your their taste tastes interests next""".split()
)


class Part(NamedTuple):
    """One numbered part of an answer.

    Attributes:
        number: 0, 1, 2, or more for parts that the prompt does not ask for.
        text: raw text up to the next mark.
    """

    number: int
    text: str


def step_parts(answer: str) -> tuple[list[Part], list[str]]:
    """Parts after marks such as "Step 1:", and a remark if step 2 was found by its heading only."""
    marks = _marks(answer)
    if not marks and {1, 2} <= {_number_of(form) for form in _OTHER_FORM.finditer(answer)}:
        answer = _OTHER_FORM.sub(lambda form: f"{form['before']}Step {_number_of(form)}", answer)
        marks = _marks(answer)
    starts = [mark.start() for mark in marks] + [len(answer)]
    parts = [_part(mark, answer[mark.end() : end]) for mark, end in zip(marks, starts[1:], strict=True)]
    if parts and not any(part.number == 2 for part in parts):
        return _split_last(parts)
    return parts, []


def numbered_parts(answer: str) -> tuple[list[Part], list[str]]:
    """Parts of an answer without step marks, by "1)" and "2)" at the start of lines, or by headings."""
    for style in dict.fromkeys(mark["style"] for mark in _NUMBERED.finditer(answer)):
        marks = [mark for mark in _NUMBERED.finditer(answer) if mark["style"] == style]
        numbers = [int(mark["number"]) for mark in marks]
        skip = 1 if numbers[0] == 0 else 0
        # Exactly 1 and 2, or a list that restarts at 1 inside step 2; 1, 2, 3 is an ordinary list.
        if numbers[skip : skip + 2] == [1, 2] and numbers[skip + 2 : skip + 3] in ([], [1]):
            first, second = marks[skip], marks[skip + 1]
            texts = answer[first.end() : second.start()], answer[second.end() :]
            parts = [_titled(1, first[0], "", texts[0]), _titled(2, second[0], "", texts[1])]
            return parts, ["the steps are numbered but not named"]
    return _headed_parts(answer)


def recommended_part(answer: str) -> str:
    """The answer from its first heading such as "Recommended items:" on, "" without one."""
    heading = _RECOMMENDED.search(answer)
    return answer[heading.start() :] if heading else ""


def _headed_parts(answer: str) -> tuple[list[Part], list[str]]:
    second = _RECOMMENDED.search(answer)
    if not second:
        return [], []
    first = _PREFERENCES.search(answer, 0, second.start())
    parts = [Part(1, answer[first.end() : second.start()].lstrip("* "))] if first else []
    return [*parts, Part(2, answer[second.start() :])], ["the steps were recognised by their headings only"]


def _marks(answer: str) -> list[re.Match[str]]:
    return [mark for mark in _MARK.finditer(answer) if _is_mark(mark, answer)]


def _number_of(form: re.Match[str]) -> int:
    word = (form["number"] or form["word"] or ("1" if form["one"] else "2")).lower()
    return 1 if _VALUES.get(word, word) in (1, "1") else 2


def _is_mark(mark: re.Match[str], answer: str) -> bool:
    """Whether it divides the answer, and is not the mention of a step in a sentence."""
    following = answer[mark.end() : mark.end() + 1]
    if mark["start"] is not None:
        return following not in (",", "'", "’", ";") or mark["sign"] is not None
    dash = mark["sign"] in ("-", "–", "—", "--") and answer[mark.end("sign") : mark.end("sign") + 1] == " "
    return mark["sign"] in (":", "：") or dash or "**" in mark["tail"]


def _part(mark: re.Match[str], text: str) -> Part:
    word = (mark["a"] or mark["b"] or mark["c"]).lower()
    number = _VALUES[word] if word in _VALUES else int(word)
    opening = mark[0][: mark.start("tail") - mark.start()]
    if "|" in opening:  # a row of a table
        text = re.sub(r"[ \t]*\|[ \t]*$", "", text, flags=re.MULTILINE).replace(" | ", "\n")
    return _titled(number, opening, mark["tail"], text)


def _titled(number: int, opening: str, tail: str, text: str) -> Part:
    """The part after a mark, without bold type that the mark opens and its title closes."""
    bold_is_open = opening.count("**") == 1 and "**" not in tail
    return Part(number, _without_title(number, text, bold_is_open, "#" in opening))


def _without_title(number: int, text: str, bold_is_open: bool, heading: bool) -> str:
    """The part without the title of its step, such as "Summarize preferences"."""
    line, _, below = text.partition("\n")
    if bold_is_open and "**" in line:
        title, _, rest = line.partition("**")
        rest = rest.lstrip(" :：-–—")
        if number == 2 and title.rstrip().endswith((":", "：")):
            return f"{title.strip()} {rest}\n{below}"
        drop = (rest or below.strip()) and len(title) <= 80
        return f"{rest}\n{below}" if drop else f"{title}{rest}\n{below}"
    if below.strip() and (heading and not line.rstrip().endswith((":", "：")) or _is_title(line)):
        keep = number == 2 and line.rstrip(" *").endswith((":", "："))
        return text if keep else below
    title, colon, rest = line.partition(":")
    if number == 1 and colon and rest.strip() and _is_title(title):
        return f"{rest.lstrip(' *')}\n{below}"
    return text


def _is_title(line: str) -> bool:
    """Whether a line consists of words of a title, with an optional colon at its end."""
    line = line.rstrip(" *:：").replace("’", "'").lower()
    words = re.findall(r"[^\W\d_]+(?:'s)?", line)
    if ":" in line:
        return False
    return bool(words) and len(line) <= 80 and all(word in _TITLE_WORDS for word in words)


def _split_last(parts: list[Part]) -> tuple[list[Part], list[str]]:
    """Divides the last step 1 where a heading such as "Recommended categories:" begins."""
    for index in range(len(parts) - 1, -1, -1):
        second = _RECOMMENDED.search(parts[index].text)
        if parts[index].number == 1 and second and second.start() > 0:
            text = parts[index].text
            split = [Part(1, text[: second.start()]), Part(2, text[second.start() :])]
            return parts[:index] + split, ["step 2 was recognised by its heading only"]
    return parts, []
