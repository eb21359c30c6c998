"""Extracts the text for the user from a raw answer: without thoughts, other turns and control tokens.

Marks are recognised by their form and by words in their names, not by a list of models:

- control tokens, ``<|name|>`` with its variants, among them channels (``<|channel|>analysis``);
- tags, ``<name ...>`` and ``</name>``, in any angle brackets, also escaped as in HTML;
- names in square brackets, and fences with a name (three backticks and "thinking");
- lines that only name the speaker ("User:", "### Response:"), remains of hidden control tokens
  ("analysis...assistantfinal..."), and headings of thoughts ("Thinking Process:");
- lines of our prompts.

Marks with other names are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from reland_jax.pool.reading.headed import without_headed_thoughts
from reland_jax.pool.reading.worth import repeats_prompt

_THOUGHT = re.compile(
    r"think(?:ing)?|thoughts?|reason(?:ing|s)?|analy(?:sis|[sz]e|[sz]ing)|refle(?:ct|ct?x?ions?|cting)|cot"
    r"|ponder(?:ing)?|deliberat(?:e|ing|ion)|contemplat(?:e|ing|ion|or)|introspection|ruminat(?:e|ing|ion)"
    r"|brainstorm(?:ing)?|scratch(?:pad|work)?|monolog(?:ue)?|cogitation|commentary|drafts?|plan(?:ning)?"
    r"|思考\w*|思维\w*|推理\w*|分析\w*",
    re.IGNORECASE,
)
_ANSWER = frozenset("answer response solution output final result reply".split())
_OURS = frozenset("assistant model bot chatbot gpt ai assistante assistent asistente 助手".split())
_THEIRS = frozenset(
    """user human system developer tool function ipython observation inst instruction instructions question
    input history titles""".split()
)
_ENDS = frozenset("end eos eot eom eod return stop done endoftext call calls".split())
_EMPTY = frozenset("s bos pad unk mask special unused reserved extra".split())
_FILLER = frozenset(
    """my the a of inner internal self private deep step steps begin start end content block process section
    turn utterance sequence sentence text token id im class name type""".split()
)
_HEADERS = frozenset(
    "channel start begin turn im_start start_header_id header_start start_of_turn start_of_role".split()
)

_MARK = re.compile(
    r"""
      <[|｜](?P<control>[^<>|｜\n]{1,60})[|｜]?>
    | <(?P<control_end>[A-Za-z_]{1,40})[|｜]>
    | \[\|(?P<control_bar>[^\[\]|\n]{1,40})\|\]
    | (?:<|＜|◁|&lt;)[ ]?(?P<tag>/?[ ]?[^\W\d][\w:▁.-]{0,40}(?:[ ][^<>＞▷\n]{0,200}?)?/?)[ ]?(?:>|＞|▷|&gt;)
    | [\[【{](?P<bracket>/?[^\W\d][\w ]{0,30})[\]】}]
    | ^[ \t]*(?:```|~~~)[ \t]*(?P<fence>[\w-]*)[^\n<]{0,60}$
    | (?P<odd>\[e~\[|\]~!?b[\[\]])
    | (?P<torn><[|｜][^<>\n]{0,40})(?=<|\n|\Z)
    """,
    re.VERBOSE | re.MULTILINE,
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\da-zA-Z_▁]+")
_WHO = re.compile(r"[ \t]*([A-Za-z_]{1,20})")
_DETAILS = re.compile(
    r"<details[^<>\n]{0,80}>\s{0,8}<summary[^<>\n]{0,80}>(?P<summary>[^\n]{0,80}?)</summary>", re.IGNORECASE
)

_ROLE = re.compile(
    r"""^[ \t]*(?:\#{1,6}[ \t]*)?(?:[^\w\s"'“‘«<>|;:.,•·–—+-]{1,4}[ ]?){0,2}
          (?P<named>user|human|customer|system|instruction|input|question|assistante?|ai|chatbot|bot
                    |benutzer|nutzer|assistent|utilisateur|usuario|asistente|usuário|utente|用户|助手
                    |(?:final[ ])?(?:answer|response|output)|(?P<letter>(?-i:[HQUA])))
          [*_\])]{0,3}[ \t]?[:：][*_]{0,3}
      | ^\#{1,6}[ \t]*(?P<headed>user|human|instructions?|input|question|assistant
                    |(?:final[ ])?(?:answer|response))[ \t]*:?[ \t]*$
      | ^[ \t]*(?P<bare>(?-i:user|human|assistant|model))[ \t]*$
      | ^[ \t]*[\[(](?P<bracketed>user|human|assistant|model|system)[\])][ \t]*$
      | (?P<glued>(?-i:(?<=\S)assistant|(?<=[.!?;:)"'’`\]…])user))
          (?=[ \t]*(?:\n|\Z)|(?-i:Step|analysis|final))""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_WORDS_TO_BE_SURE = 12
"""Fewest words of a line that identify it as a line of the prompt."""


class Turn(NamedTuple):
    """One text for the user.

    Attributes:
        text: without thoughts and marks.
        ended: whether a mark shows its end.
    """

    text: str
    ended: bool


def spoken(text: str) -> tuple[list[Turn], bool]:
    """The turns of the assistant in a raw answer, without thoughts and marks; never raises an error.

    Thoughts without a closing mark reach to the end; those without an opening mark start at the beginning,
    since some chat templates write that mark into the prompt. After a turn of the assistant, the turn of
    another speaker and everything after it are dropped, since the LLM invented them.

    Returns:
        The non-empty turns, and whether there are thoughts without a text after them.
    """
    scan = _Scan(_with_prompt_marked(_DETAILS.sub(_details, text)))
    turns, thoughts = list[Turn](), scan.thoughts
    for turn in scan.turns:
        said, thought = without_headed_thoughts(turn.text)
        thoughts = thoughts or thought
        turns += _dialogue(said, turn.ended) if said.strip() else []
    return turns, thoughts and not turns


def _details(opening: re.Match[str]) -> str:
    """A folded part (<details>), by the kind of its summary."""
    thought = any(is_thought(word) for word in _WORD.findall(opening["summary"]))
    return '<details type="thoughts">' if thought else opening[0]


def _with_prompt_marked(text: str) -> str:
    """The text with lines of our prompts marked as the user's turn."""
    lines = text.split("\n")
    sure = {row for row, line in enumerate(lines) if repeats_prompt(line, _WORDS_TO_BE_SURE)}
    beside = {row + step for row in sure for step in (-1, 1)}
    ours = sure | {row for row in beside & set(range(len(lines))) if repeats_prompt(lines[row])}
    return "\n".join("<|user|><|assistant|>" if row in ours else line for row, line in enumerate(lines))


def is_thought(name: str) -> bool:
    """Whether the name of a mark, field or part stands for thoughts, such as "reasoning_content"."""
    return any(map(_THOUGHT.fullmatch, (name, *_WORD.findall(name))))


class _Scan:
    """One pass over the marks of a text.

    Attributes:
        turns: non-empty turns of the assistant.
        thoughts: whether there are thoughts.
    """

    def __init__(self, text: str) -> None:
        self.thoughts = False
        self._text, self._from, self._parts = text, 0, [list[str]()]
        self._inside = ""
        self._theirs = self._over = False
        self._said_before = self._said_now = False
        for mark in _MARK.finditer(text):
            if mark.start() >= self._from and not self._over:
                act, name, end = _meaning(mark, self._inside)
                if act:
                    self._keep_text(mark.start())
                    self._from = end
                    act(self, name)
        self._keep_text(len(text))
        texts = ["".join(parts) for parts in self._parts]
        last = len(texts) - 1
        self.turns = [Turn(said, row < last or self._over) for row, said in enumerate(texts) if said.strip()]

    def _keep_text(self, end: int) -> None:
        """Keeps the text up to here if it belongs to a turn of the assistant."""
        if not (self._inside or self._theirs or self._over):
            text = self._text[self._from : end]
            self._parts[-1].append(text)
            self._said_now = self._said_now or bool(text.strip())

    def drop(self, name: str) -> None:
        """A mark without a meaning."""

    def open(self, name: str) -> None:
        """Thoughts begin."""
        self.thoughts = True
        if not self._theirs:
            self._parts[-1].append("\n")
            self._inside = self._inside or name

    def close(self, name: str) -> None:
        """Thoughts end; without an opening mark, all text before were thoughts."""
        if not (self._inside or self._theirs):
            self._parts = [[]]
            self._said_before = self._said_now = False
        self.thoughts, self._inside = True, ""

    def answer(self, name: str) -> None:
        """The final answer starts: the text before it in this turn is dropped."""
        if self._inside in ("", "channel"):
            self._inside, self._parts[-1], self._said_now = "", [], False

    def end(self, name: str) -> None:
        """A turn ends, or the next one of the assistant begins."""
        self._inside, self._theirs = "", False
        self._said_before, self._said_now = self._said_before or self._said_now, False
        self._parts.append([])

    def call(self, name: str) -> None:
        """A tool call: it holds the answer if there is no text so far."""
        if self._said_before or self._said_now:
            self.others(name)

    def others(self, name: str) -> None:
        """The turn of another speaker starts; after an answer, the LLM invented it."""
        self._inside, self._theirs = "", True
        self._over = self._said_before or self._said_now


_Act = Callable[[_Scan, str], None]


def _meaning(mark: re.Match[str], inside: str) -> tuple[_Act | None, str, int]:
    """The action at a mark (None: it is text), the name that opens thoughts, and where the mark ends."""
    kind, end = str(mark.lastgroup), mark.end()
    name = mark[kind]
    if kind == "torn":
        return _Scan.drop, name, end
    if kind == "odd":
        return _header(mark, name, shuts=name == "[e~[")
    if kind == "fence":
        closes = inside == "fence" and not name
        return (_Scan.close if closes else _Scan.open if is_thought(name) else None), kind, end
    if name.endswith("/"):
        return (_Scan.drop if is_thought(name) else None), name, end
    bare, _, rest = name.strip("/ ").partition("\n" if kind == "bracket" else " ")
    words = [word.lower() for word in _WORD.findall(bare.rpartition(":")[2])]  # "seed:eos"
    shuts = name[0] == "/" or kind == "control_end" or "end" in (*words[:1], *words[-1:])
    if bare.lower() in _HEADERS and kind in ("control", "control_end", "tag"):
        return _header(mark, bare, shuts)
    if is_thought(bare) or (kind == "tag" and (bare == inside if shuts else is_thought(rest))):
        sentence = kind == "bracket" or (rest and "=" not in rest)
        if sentence and not all(is_thought(word) or word.lower() in _FILLER for word in _WORD.findall(name)):
            return None, name, end
        return (_Scan.close if shuts else _Scan.open), bare, end
    return _turn_mark(kind, name, {*words}, shuts), name, end


def _header(mark: re.Match[str], bare: str, shuts: bool) -> tuple[_Act | None, str, int]:
    """The header of a turn or channel, with the role or name after it."""
    if shuts:
        return (_Scan.close if bare.lower() == "channel" else _Scan.end), "", mark.end()
    who = _WHO.match(mark.string, mark.end())
    word = who[1].lower() if who else ""
    if who is None or not (is_thought(word) or word in _ANSWER | _THEIRS | _OURS):
        return _Scan.end, "", mark.end()
    if is_thought(word):
        return _Scan.open, "channel", who.end()
    act = _Scan.answer if word in _ANSWER else _Scan.others if word in _THEIRS else _Scan.end
    return act, "", who.end()


def _turn_mark(kind: str, name: str, words: set[str], shuts: bool) -> _Act | None:
    """The action at a mark that is not about thoughts."""
    control = kind.startswith("control")
    known = words and words <= _ANSWER | _OURS | _THEIRS | _ENDS | _EMPTY | _FILLER
    if not (control or known) or (kind == "bracket" and not name.isupper()):
        return None
    if words & _ANSWER:
        return _Scan.end if shuts else _Scan.answer
    if words & {"call", "calls"} and words & {"tool", "function"}:
        return _Scan.drop if shuts else _Scan.call
    if words & _THEIRS:
        return _Scan.end if shuts else _Scan.others
    if "header" not in words and (words & (_OURS | _ENDS) or (shuts and words == {"s"})):
        return _Scan.end
    return _Scan.drop if control or words <= _EMPTY else None


def _dialogue(turn: str, ended: bool) -> list[Turn]:
    """The possible answer in a turn with lines that name the speaker."""
    marks = _role_marks(turn)
    if not marks:
        return [Turn(turn, ended)]
    whose, stops = [_whose(mark) for mark in marks], [*(mark.start() for mark in marks[1:]), len(turn)]
    said = [("ours", turn[: marks[0].start()])]
    said += [(who, turn[mark.end() : stop]) for who, mark, stop in zip(whose, marks, stops, strict=True)]
    found: list[Turn] = []
    for row, (who, text) in enumerate(said):
        if who == "theirs" and found:
            # Without a line of the assistant it may be a line of the answer, if no answer precedes it.
            return found if "ours" in whose[row - 1 :] else [*found, Turn(turn, ended)]
        if who == "answer" and text.strip():
            found = []
        if who != "theirs" and text.strip():
            found.append(Turn(text, ended or row < len(whose)))
    return found or [Turn(turn, ended)]


def _role_marks(turn: str) -> list[re.Match[str]]:
    """Lines that name the speaker; single letters count only if "A:" follows "H:", "Q:" or "U:"."""
    marks = list(_ROLE.finditer(turn))
    letters = [row for row, mark in enumerate(marks) if mark["letter"]]
    asked = next((row for row in letters if marks[row]["letter"] != "A"), len(marks))
    paired = any(marks[row]["letter"] == "A" for row in letters if row > asked)
    return [mark for row, mark in enumerate(marks) if not mark["letter"] or (paired and row >= asked)]


def _whose(mark: re.Match[str]) -> str:
    word = str(mark[str(mark.lastgroup)]).lower().split()[-1]
    return "answer" if word in _ANSWER else "ours" if word in _OURS or word == "a" else "theirs"
