"""What an LLM says to the user, out of all that it writes: no thoughts, no other turns, no control tokens.

Marks are recognised by their family and by what their names say, not by a list of models:

- control tokens, ``<|name|>`` with its variants, among them channels (``<|channel|>analysis``);
- tags, ``<name ...>`` and ``</name>``, in any angle brackets, also escaped as in HTML;
- names in square brackets, and fences with a name (three backticks and "thinking");
- lines that only say who speaks ("User:", "### Response:"), what is left of control tokens where they are
  not shown ("analysis...assistantfinal..."), and headings of thoughts ("Thinking Process:");
- lines of our own prompts.

Whatever has another name is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from reland_jax.pool.reading.worth import repeats_prompt

_THOUGHT = re.compile(
    r"think(?:ing)?|thoughts?|reason(?:ing|s)?|analy(?:sis|[sz]e|[sz]ing)|refle(?:ct|ct?x?ions?|cting)|cot"
    r"|ponder(?:ing)?|deliberat(?:e|ing|ion)|contemplat(?:e|ing|ion|or)|introspection|ruminat(?:e|ing|ion)"
    r"|brainstorm(?:ing)?|scratch(?:pad|work)?|monolog(?:ue)?|cogitation|commentary|drafts?|plan(?:ning)?"
    r"|思考\w*|思维\w*|推理\w*|分析\w*",
    re.IGNORECASE,
)
_ANSWER = frozenset("answer response solution output final result reply".split())
_OURS = frozenset("assistant model bot chatbot gpt ai".split())
_THEIRS = frozenset(
    """user human system developer tool function ipython observation inst instruction instructions question
    history titles""".split()
)
_ENDS = frozenset("end eos eot eom eod return stop done endoftext call".split())
_EMPTY = frozenset("s bos pad unk mask special unused reserved extra".split())
_FILLER = frozenset(
    """my the a of inner internal self private deep step steps begin start end content block process section
    turn utterance sequence sentence text token id im class name type""".split()
)
_HEADERS = frozenset("channel start turn im_start start_header_id start_of_turn".split())

_MARK = re.compile(
    r"""
      <[|｜](?P<control>[^<>|｜\n]{1,60})[|｜]?>
    | <(?P<control_end>[A-Za-z_]{1,40})[|｜]>
    | \[\|(?P<control_bar>[^\[\]|\n]{1,40})\|\]
    | (?:<|＜|◁|&lt;)[ ]?(?P<tag>/?[ ]?[^\W\d][\w:▁.-]{0,40}(?:[ ][^<>＞▷\n]{0,200}?)?/?)[ ]?(?:>|＞|▷|&gt;)
    | [\[【{](?P<bracket>/?[^\W\d][\w ]{0,30})[\]】}]
    | ^[ \t]*(?:```|~~~)[ \t]*(?P<fence>[\w-]*)[^\n<]{0,60}$
    | (?P<torn><[|｜][^<>\n]{0,40})(?=<|\n|\Z)
    """,
    re.VERBOSE | re.MULTILINE,
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\da-zA-Z_▁]+")
_WHO = re.compile(r"[ \t]*([A-Za-z_]{1,20})")

_ROLE = re.compile(
    r"""^[ \t]*(?:\#{1,6}[ \t]*)?[*_\[(]{0,3}
          (?P<named>user|human|customer|system|instruction|question|assistant|ai|chatbot|bot
                    |(?:final[ ])?(?:answer|response|output))
          [*_\])]{0,3}[ \t]?[:：][*_]{0,3}
      | ^\#{1,6}[ \t]*(?P<headed>user|human|instructions?|input|question|assistant
                    |(?:final[ ])?(?:answer|response))[ \t]*:?[ \t]*$
      | ^[ \t]*(?P<bare>(?-i:user|human|assistant|model))[ \t]*$
      | (?P<glued>(?-i:(?<=\S)assistant|(?<=[.!?;:)"'’`\]…])user))
          (?=[ \t]*(?:\n|\Z)|(?-i:Step|analysis|final))""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_CHANNEL = re.compile(r"\s*(?:assistant)?(?:analysis|commentary|thought|thinking)(?=[ ]?[A-Z]|[ ]*\n|\s*\Z)")
_FINAL_CHANNEL = re.compile(
    r"""assistant\s?(?:channel)?\s?final|(?:^|(?<=[.!?"')\s]))final(?=[A-Z\n*#]|[ ]?[:：])""", re.MULTILINE
)
_HEADING = r"^[\W_]{0,12}(?:(?:here(?:['’]s|\s+is|\s+are)\s+)?(?:my|the|a)\s+)?"
_THOUGHT_HEADING = re.compile(
    rf"{_HEADING}(?:(?P<sure>think(?:ing)?(?:\s+process)?|thought\s+process|thoughts?|chain[\s-]of[\s-]thoughts?"
    r"|reasoning\s+(?:process|steps)|(?:inner|internal)\s+monologue|scratchpad|(?:first\s+|rough\s+)?drafts?)"
    r"|reasoning|analysis)(?:[*_ \t]*(?:[:：]|\.{3}|…)|[^\w\n]{0,12}$)",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_HEADING = re.compile(
    rf"{_HEADING}(?:final\s+)?(?:answer|response|output|final)(?:[*_ \t]*[:：]|[^\w\n]{{0,12}}$)"
    r"|done thinking\b[.…]*",
    re.IGNORECASE | re.MULTILINE,
)
_LONGEST_INTRODUCTION = 200
_WORDS_TO_BE_SURE = 12
"""Words of a line that cannot be those of a prompt by chance."""


class Turn(NamedTuple):
    """One text that is said to the user.

    Attributes:
        text: without thoughts and marks.
        ended: whether a mark shows where it ends, whatever else was written behind it.
    """

    text: str
    ended: bool


def spoken(text: str) -> tuple[list[Turn], bool]:
    """The turns of the assistant in a raw answer, without thoughts and marks; never raises.

    Thoughts that are not closed reach to the end; a closing mark alone closes thoughts from the beginning
    on, since some chat templates write the opening one into the prompt. Once something was said, what
    somebody else's turn brings, and all behind it, is left out: the LLM made it up.

    Returns:
        The turns that say something, and whether there are thoughts and nothing is said after them.
    """
    scan = _Scan(_with_prompt_marked(text))
    turns, thoughts = list[Turn](), scan.thoughts
    for turn in scan.turns:
        said = _after_headed_thoughts(turn.text)
        thoughts = thoughts or said is None
        turns += _dialogue(said, turn.ended) if said and said.strip() else []
    return turns, thoughts and not turns


def _with_prompt_marked(text: str) -> str:
    """The text with lines of our prompts as what they are: the user's turn."""
    lines = text.split("\n")
    sure = {row for row, line in enumerate(lines) if repeats_prompt(line, _WORDS_TO_BE_SURE)}
    beside = {row + step for row in sure for step in (-1, 1)}
    ours = sure | {row for row in beside & set(range(len(lines))) if repeats_prompt(lines[row])}
    return "\n".join("<|user|><|assistant|>" if row in ours else line for row, line in enumerate(lines))


def opened_thoughts(prompt: str) -> str:
    """The mark with which a prompt ends in thoughts, "" if it does not: the answer begins inside them."""
    opened = ""
    for mark in _MARK.finditer(prompt):
        act, _, end = _meaning(mark, "")
        if act not in (None, _Scan.drop):
            opened = prompt[mark.start() : end] if act == _Scan.open else ""
    return opened


def is_thought(name: str) -> bool:
    """Whether the name of a mark, a field or a part says that thoughts are in it ("reasoning_content")."""
    return any(map(_THOUGHT.fullmatch, (name, *_WORD.findall(name))))


class _Scan:
    """One pass over the marks of a text.

    Attributes:
        turns: what the assistant says; turns that say nothing are left out.
        thoughts: whether there are thoughts.
    """

    def __init__(self, text: str) -> None:
        self.thoughts = False
        self._text, self._from, self._parts = text, 0, [list[str]()]
        self._inside = ""
        self._theirs = self._over = False
        for mark in _MARK.finditer(text):
            if mark.start() >= self._from and not self._over:
                act, name, end = _meaning(mark, self._inside)
                if act:
                    self._take(mark.start())
                    self._from = end
                    act(self, name)
        self._take(len(text))
        texts = ["".join(parts) for parts in self._parts]
        last = len(texts) - 1
        self.turns = [Turn(said, row < last or self._over) for row, said in enumerate(texts) if said.strip()]

    def _take(self, end: int) -> None:
        """Keeps the text up to here, if the assistant says it."""
        if not (self._inside or self._theirs or self._over):
            self._parts[-1].append(self._text[self._from : end])

    def drop(self, name: str) -> None:
        """A mark that says nothing."""

    def open(self, name: str) -> None:
        """Thoughts begin."""
        self.thoughts = True
        if not self._theirs:
            self._parts[-1].append("\n")
            self._inside = self._inside or name

    def close(self, name: str) -> None:
        """Thoughts end; without a beginning, all before were thoughts."""
        if not (self._inside or self._theirs):
            self._parts = [[]]
        self.thoughts, self._inside = True, ""

    def answer(self, name: str) -> None:
        """The answer proper begins: what was said before in this turn is none."""
        if self._inside in ("", "channel"):
            self._inside, self._parts[-1] = "", []

    def end(self, name: str) -> None:
        """A turn ends, or the next one of the assistant begins."""
        self._inside, self._theirs = "", False
        self._parts.append([])

    def others(self, name: str) -> None:
        """Somebody else's turn begins; after an answer, it is made up."""
        self._inside, self._theirs = "", True
        self._over = any("".join(parts).strip() for parts in self._parts)


_Act = Callable[[_Scan, str], None]


def _meaning(mark: re.Match[str], inside: str) -> tuple[_Act | None, str, int]:
    """What to do at a mark (None: it is text), the name that opens thoughts, and where the mark ends."""
    kind, end = str(mark.lastgroup), mark.end()
    name = mark[kind]
    if kind == "torn":
        return _Scan.drop, name, end
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
    """The beginning of a turn or a channel, with the word behind it that says whose, or which, it is."""
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
    """What a mark does that has nothing to do with thoughts."""
    control = kind.startswith("control")
    known = words and words <= _ANSWER | _OURS | _THEIRS | _ENDS | _EMPTY | _FILLER
    if not (control or known) or (kind == "bracket" and not name.isupper()):
        return None
    if words & _ANSWER:
        return _Scan.end if shuts else _Scan.answer
    if words & _THEIRS:
        return _Scan.end if shuts else _Scan.others
    if "header" not in words and (words & (_OURS | _ENDS) or (shuts and words == {"s"})):
        return _Scan.end
    return _Scan.drop if control or words <= _EMPTY else None


def _after_headed_thoughts(turn: str) -> str | None:
    """The turn without thoughts that begin it under a heading; None if it never comes out of them."""
    if channel := _CHANNEL.match(turn):
        final = _FINAL_CHANNEL.search(turn, channel.end())
        return turn[final.end() :].lstrip(":： ") if final else None
    turn = turn.lstrip()
    heading = _THOUGHT_HEADING.search(turn, 0, 2 * _LONGEST_INTRODUCTION)
    if heading is None or heading.start() > (_LONGEST_INTRODUCTION if heading["sure"] else 0):
        return turn
    answer = _ANSWER_HEADING.search(turn, heading.end())
    if answer is None:
        return None if heading["sure"] else turn
    return turn[answer.end() :]


def _dialogue(turn: str, ended: bool) -> list[Turn]:
    """What may be the answer in a turn that has lines which say who speaks."""
    marks = list(_ROLE.finditer(turn))
    if not marks:
        return [Turn(turn, ended)]
    whose, stops = [_whose(mark) for mark in marks], [*(mark.start() for mark in marks[1:]), len(turn)]
    said = [("ours", turn[: marks[0].start()])]
    said += [(who, turn[mark.end() : stop]) for who, mark, stop in zip(whose, marks, stops, strict=True)]
    found: list[Turn] = []
    for row, (who, text) in enumerate(said):
        if who == "theirs" and found:
            # Nobody answers: it may be a line of the answer, if there is no answer before it.
            return found if "ours" in whose[row - 1 :] else [*found, Turn(turn, ended)]
        if who == "answer" and text.strip():
            found = []
        if who != "theirs" and text.strip():
            found.append(Turn(text, ended or row < len(whose)))
    return found or [Turn(turn, ended)]


def _whose(mark: re.Match[str]) -> str:
    word = str(mark[str(mark.lastgroup)]).lower().split()[-1]
    return "answer" if word in _ANSWER else "ours" if word in _OURS else "theirs"
