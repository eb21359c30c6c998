"""Answers inside of wrappings and markup, and under other names of the steps: what they say comes out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reland_jax.pool.reading.answers import readable_steps
from reland_jax.pool.reading.dress import undressed, unpacked

TASTE = "Likes mild care for dry skin."
LISTED = ["Rose Soap", "Mint Oil", "Oat Balm"]
CARE = "Recommended categories: Soap; Oil. Recommended items: Rose Soap; Mint Oil; Oat Balm."
GOOD = f"Step 1: {TASTE}\nStep 2: {CARE}"
DRAFT = "Step 1: DRAFT cars.\nStep 2: Recommended categories: DRAFT tyres. Recommended items: DRAFT wheel."

EVENTS = "".join(
    "data: " + json.dumps({"choices": [{"delta": {"content": part}}]}) + "\n\n"
    for part in (GOOD[:9], GOOD[9:])
)
STEPS = {"step1": TASTE, "step2": CARE}
SHOWN = f"ThinkingBlock(thinking={DRAFT!r}), TextBlock(text={GOOD!r}, type='text')"
WRAPPED = {
    "a string of JSON": json.dumps(GOOD),
    "line ends written out": GOOD.replace("\n", "\\n"),
    "a stream": f"{EVENTS}data: [DONE]\n",
    "a message as Python shows it": f"ChatCompletionMessage(content={GOOD!r}, role='assistant')",
    "a block as Python shows it": f"[{SHOWN}]",
    "parts as Python shows them": repr(
        [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": GOOD}]
    ),
    "parts, the thoughts behind": json.dumps(
        [{"type": "text", "text": GOOD}, {"type": "reasoning", "text": DRAFT}]
    ),
    "arguments of a call": f"<tool_call>\n{json.dumps({'name': 'x', 'arguments': STEPS})}\n</tool_call>",
    "arguments as a string": json.dumps({"arguments": json.dumps(STEPS)}),
    "a list of steps": json.dumps({"steps": [{"step": 1, "text": TASTE}, {"step": 2, "text": CARE}]}),
    "a list of named steps": json.dumps(
        [{"step": f"Step {n}", "content": t} for n, t in ((1, TASTE), (2, CARE))]
    ),
    "keys in words": json.dumps({"stepOne": TASTE, "stepTwo": CARE}),
}
MARKED_UP = {
    "HTML": f"<p><strong>Step 1:</strong> {TASTE}</p>\n<p><strong>Step 2:</strong> {CARE}</p>",
    "HTML in a line": f"<b>Step 1:</b> {TASTE}<br><b>Step 2:</b> {CARE}<br/>",
    "an HTML list": f"<h3>Step 1</h3><p>{TASTE}</p><h3>Step 2</h3><p>Recommended categories: Soap; Oil.</p>"
    f"<p>Recommended items:</p><ul>{''.join(f'<li>{name}</li>' for name in LISTED)}</ul>",
    "a tag around": f"<recommendation>\n{GOOD}\n</recommendation>",
    "tags of steps": f"<step_1>{TASTE}</step_1>\n<step_2>{CARE}</step_2>",
    "numbers as attributes": f'<step number="1">{TASTE}</step>\n<step number="2">{CARE}</step>',
    "tags of parts": f"<preferences>{TASTE}</preferences>\n<recommendations>{CARE}</recommendations>",
    "tags of items": f"<step1>{TASTE}</step1><step2><recommended_categories><category>Soap</category>"
    "<category>Oil</category></recommended_categories><recommended_items>"
    f"{''.join(f'<item>{name}</item>' for name in LISTED)}</recommended_items></step2>",
    "LaTeX": f"\\textbf{{Step 1:}} {TASTE}\n\n\\textbf{{Step 2:}} {CARE}",
    "a box": f"Step 1: {TASTE}\nStep 2: \\boxed{{{CARE}}}",
    "YAML": f"Step 1: >\n  {TASTE}\nStep 2: |\n  {CARE}",
    "rows": f"| Step | Content |\n|---|---|\n| Step 1 | {TASTE} |\n| Step 2 | {CARE} |",
    "columns": f"| Step 1 | Step 2 |\n|---|---|\n| {TASTE} | {CARE} |",
    "signs around": f"«Step 1»: {TASTE}\n«Step 2»: {CARE}",
    "curly brackets": f"{{Step 1}} {TASTE}\n{{Step 2}} {CARE}",
}
NUMBERED = {
    "keycaps": f"1️⃣ {TASTE}\n2️⃣ {CARE}",
    "circles": f"① {TASTE}\n② {CARE}",
    "brackets": f"(1) {TASTE}\n(2) {CARE}",
}
NAMED = [
    ("First step", "Second step"),
    ("Part 1", "Part 2"),
    ("**Part One", "**Part Two"),
    ("Step (1)", "Step (2)"),
    ("Step A", "Step B"),
    ("Erster Schritt", "Zweiter Schritt"),
    ("Schritt eins", "Schritt zwei"),
    ("Teil 1", "Teil 2"),
    ("Première étape", "Deuxième étape"),
    ("Partie 1", "Partie 2"),
    ("Primer paso", "Segundo paso"),
    ("1er paso", "2do paso"),
    ("Primeiro passo", "Segundo passo"),
    ("Ｓｔｅｐ １", "Ｓｔｅｐ ２"),
    ("𝗦𝘁𝗲𝗽 𝟭", "𝗦𝘁𝗲𝗽 𝟮"),
    ("Step\u00ad 1", "Step\u00ad 2"),
]


@pytest.mark.parametrize("name", [*WRAPPED, *MARKED_UP])
def test_what_is_inside_comes_out(name: str) -> None:
    assert readable_steps((WRAPPED | MARKED_UP)[name]) == (TASTE, CARE, ())


@pytest.mark.parametrize("name", NUMBERED)
def test_numbers_in_other_dress(name: str) -> None:
    assert readable_steps(NUMBERED[name]) == (TASTE, CARE, ("the steps are numbered but not named",))


@pytest.mark.parametrize(("first", "second"), NAMED)
@pytest.mark.parametrize("sign", [": ", " - ", ":\n"])
def test_other_names_of_the_steps(first: str, second: str, sign: str) -> None:
    sign = f":**{sign[1:]}" if first.startswith("**") else sign
    assert readable_steps(f"{first}{sign}{TASTE}\n\n{second}{sign}{CARE}") == (TASTE, CARE, ())


@pytest.mark.parametrize("wrapped", [*WRAPPED.values(), *MARKED_UP.values()])
def test_thoughts_around_a_wrapping_are_left_out(wrapped: str) -> None:
    for text in (f"<think>{DRAFT}</think>\n{wrapped}", f"[THINK]{wrapped}[/THINK]"):
        parsed = readable_steps(text)
        assert "DRAFT" not in parsed.step1 + parsed.step2
    assert readable_steps(f"[THINK]\n{wrapped}\n[/THINK]").step2 == ""


@pytest.mark.parametrize(
    "said",
    [
        "<Live> at the Apollo; C < D; D > E",
        "R&B; <3",
        "AT&T; Q&A",
        r"AC\DC; 50\% off",
        "Part 2: The Return; Part 1: X",
    ],
)
def test_names_stay(said: str) -> None:
    step2 = f"Recommended categories: Things. Recommended items: {said}; Rose Soap."
    assert readable_steps(f"Step 1: {TASTE}\nStep 2: {step2}") == (TASTE, step2, ())


def test_entities_are_resolved() -> None:
    assert (
        readable_steps(f"Step 1: {TASTE}\nStep 2: Soap &amp; Oil; Men&#39;s Balm").step2
        == "Soap & Oil; Men's Balm"
    )


@given(st.text())
def test_any_text(text: str) -> None:
    assert isinstance(undressed(unpacked(text)), str)


@given(st.lists(st.sampled_from(["Rose Soap", "mild; dry", "50 ml.", "a < b", "C&D"]), max_size=6))
def test_plain_words_stay_as_they_are(words: list[str]) -> None:
    text = "\n".join(words)
    assert undressed(unpacked(text)) == text
