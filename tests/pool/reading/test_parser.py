"""The parser against answers in the shapes that language models give them, and against any text at all."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reland_jax.pool.reading.parser import MAX_CHARACTERS, first_sentence, parse_response, plain_text
from reland_jax.pool.reading.readable import readable
from reland_jax.pool.reading.worth import why_worthless

TASTE = "Likes gentle care for dry hair."
CARE = "Recommended categories: Masks; Oils. Recommended items: Argan Mask; Jojoba Oil."

CLEAN: dict[str, tuple[str, str, str]] = {
    "as asked": (f"Step 1: {TASTE}\nStep 2: {CARE}", TASTE, CARE),
    "carriage returns": (f"Step 1: {TASTE}\r\nStep 2: {CARE}\r\n", TASTE, CARE),
    "old line ends": (f"Step 1: {TASTE}\rStep 2: {CARE}", TASTE, CARE),
    "one line": (f"Step 1: {TASTE} Step 2: {CARE}", TASTE, CARE),
    "bold with colon inside": (f"**Step 1:** {TASTE}\n\n**Step 2:** {CARE}", TASTE, CARE),
    "bold with colon outside": (f"**Step 1**: {TASTE}\n\n**Step 2**: {CARE}", TASTE, CARE),
    "bold in one line": (f"**Step 1.** {TASTE} **Step 2.** {CARE}", TASTE, CARE),
    "bold title, text below": (
        f"**Step 1: Summarize User Preferences**\n{TASTE}\n\n"
        f"**Step 2: Recommend Categories and Items**\n{CARE}",
        TASTE,
        CARE,
    ),
    "bold title, text behind": (
        f"**Step 1 - Summary:** {TASTE}\n**Step 2 - Next:** {CARE}",
        TASTE,
        f"Next: {CARE}",
    ),
    "everything bold": (f"**Step 1: {TASTE}**\n**Step 2: {CARE}**", TASTE, CARE),
    "headers": (f"### Step 1\n{TASTE}\n\n### Step 2 - Recommendations\n{CARE}", TASTE, CARE),
    "headers with colon": (f"## Step 1: Preferences\n\n{TASTE}\n\n## Step 2:\n\n{CARE}", TASTE, CARE),
    "full stop": (f"Step 1. {TASTE}\nStep 2. {CARE}", TASTE, CARE),
    "bracket": (f"Step 1) {TASTE}\nStep 2) {CARE}", TASTE, CARE),
    "square brackets": (f"[Step 1] {TASTE}\n[Step 2] {CARE}", TASTE, CARE),
    "dash": (f"Step 1 - {TASTE}\nStep 2 – {CARE}", TASTE, CARE),
    "capitals": (f"STEP 1: {TASTE}\nSTEP 2: {CARE}", TASTE, CARE),
    "no blank": (f"Step1:{TASTE}\nStep2:{CARE}", TASTE, CARE),
    "hash and words": (f"Step #1: {TASTE}\nStep two: {CARE}", TASTE, CARE),
    "as bullets": (f"- Step 1: {TASTE}\n- Step 2: {CARE}", TASTE, CARE),
    "quoted": (f"> Step 1: {TASTE}\n> Step 2: {CARE}", TASTE, CARE),
    "title in round brackets": (f"Step 1 (Summary): {TASTE}\nStep 2 (What next): {CARE}", TASTE, CARE),
    "plain title": (f"Step 1: Summarize the user's preferences\n{TASTE}\nStep 2:\n{CARE}", TASTE, CARE),
    "title before a colon": (f"Step 1: User preferences: {TASTE}\nStep 2: {CARE}", TASTE, CARE),
    "prose around": (
        f"Sure! Here is what I found in the history.\n\nStep 1: {TASTE}\n\nStep 2: {CARE}\n\n"
        "Let me know if you would like more ideas!",
        TASTE,
        CARE,
    ),
    "two closing paragraphs": (
        f"Step 1: {TASTE}\nStep 2: {CARE}\n\n---\n\nI hope this helps!\n\nFeel free to ask for more.",
        TASTE,
        CARE,
    ),
    "step 0 first": (f"Step 0: [Argan Mask, Oil]\nStep 1: {TASTE}\nStep 2: {CARE}", TASTE, CARE),
    "a third step": (f"Step 1: {TASTE}\nStep 2: {CARE}\nStep 3: Buy it all.", TASTE, CARE),
    "hard-wrapped": (
        "Step 1: Likes gentle care\nfor dry hair.\nStep 2: Recommended categories: Masks; Oils.\n"
        "Recommended items: Argan Mask;\nJojoba Oil.",
        TASTE,
        CARE,
    ),
    "bullets under labels": (
        f"Step 1: {TASTE}\nStep 2:\nRecommended categories:\n- Masks\n- **Oils**\n\n"
        "Recommended items:\n* Argan Mask\n* Jojoba Oil",
        TASTE,
        CARE,
    ),
    "numbers under bold labels": (
        f"Step 1: {TASTE}\nStep 2:\n**Recommended categories**\n1. Masks\n2. Oils\n\n"
        "**Recommended items:**\n1) Argan Mask;\n2) Jojoba Oil.",
        TASTE,
        CARE,
    ),
    "labels as bullets": (
        f"Step 1: {TASTE}\nStep 2:\n- **Recommended categories:** Masks; Oils\n"
        "- **Recommended items:** Argan Mask; Jojoba Oil",
        TASTE,
        CARE,
    ),
    "bullet over two lines": (
        f"Step 1: {TASTE}\nStep 2:\n- Argan Mask\n  for dry hair\n- Jojoba Oil",
        TASTE,
        "Argan Mask for dry hair; Jojoba Oil.",
    ),
    "prose below bullets": (
        f"Step 1: {TASTE}\nStep 2:\n- Argan Mask\n- Jojoba Oil\nAll of it mild.",
        TASTE,
        "Argan Mask; Jojoba Oil. All of it mild.",
    ),
    "a table": (
        f"Step 1: {TASTE}\nStep 2:\n| Category | Items |\n|---|---|\n"
        "| Masks | Argan Mask; Clay |\n| Oils | Jojoba |",
        TASTE,
        "Category: Items. Masks: Argan Mask; Clay. Oils: Jojoba.",
    ),
    "two paragraphs": (
        f"Step 1: {TASTE}\nStep 2: Recommended categories: Masks; Oils.\n\n"
        "Recommended items: Argan Mask; Jojoba Oil.\n\nThese recommendations are only a start.",
        TASTE,
        CARE,
    ),
    "underlined headings": (f"STEP 1\n------\n{TASTE}\n\nSTEP 2\n------\n{CARE}", TASTE, CARE),
    "a size is no number": (f"Step 1: {TASTE}\nStep 2:\n1.5 oz of oil", TASTE, "1.5 oz of oil"),
    "thoughts": (f"<think>Step 1: hm. Step 2: hm, no.</think>\nStep 1: {TASTE}\nStep 2: {CARE}", TASTE, CARE),
    "thoughts without start": (f"Step 2: not yet.\n</think>\n\nStep 1: {TASTE}\nStep 2: {CARE}", TASTE, CARE),
    "thoughts between": (
        f"<think>a</think>Step 1: {TASTE}\n<think>Step 2: b</think>Step 2: {CARE}",
        TASTE,
        CARE,
    ),
    "code fence": (f"```text\nStep 1: {TASTE}\nStep 2: {CARE}\n```", TASTE, CARE),
    "tags": (f"<step1>{TASTE}</step1><step2>{CARE}</step2>", TASTE, CARE),
    "twice, the last counts": (
        f"Step 1: a draft.\nStep 2: another draft.\n\nFinal answer:\nStep 1: {TASTE}\nStep 2: {CARE}",
        TASTE,
        CARE,
    ),
    "twice, the last unfinished": (f"Step 1: {TASTE}\nStep 2: {CARE}\nStep 1: Likes", TASTE, CARE),
    "mentions of a step": (
        f"Step 1: {TASTE}\nStep 2: {CARE} This follows from step 1, see above.",
        TASTE,
        f"{CARE} This follows from step 1, see above.",
    ),
    "JSON": (json.dumps({"step1": TASTE, "step2": CARE}), TASTE, CARE),
    "JSON in a fence with prose": (
        f"Here you are:\n```json\n{json.dumps({'Step 1': TASTE, 'Step 2': CARE}, indent=2)}\n```\nEnjoy!",
        TASTE,
        CARE,
    ),
    "JSON with lists": (
        json.dumps(
            {
                "step_1": TASTE,
                "recommended_categories": ["Masks", "Oils"],
                "recommended_items": ["Argan Mask"],
            }
        ),
        TASTE,
        "Recommended categories: Masks; Oils. Recommended items: Argan Mask.",
    ),
    "JSON inside JSON": (
        json.dumps(
            {"answer": {"step1": TASTE, "step2": {"categories": ["Masks", "Oils"], "items": ["Mask"]}}}
        ),
        TASTE,
        "Categories: Masks; Oils. Items: Mask.",
    ),
    "JSON without its end": (
        f'{{"step1": "{TASTE}", "step2": "Masks, \\"rich\\" ones"',
        TASTE,
        'Masks, "rich" ones',
    ),
    "a dict of Python": (
        f"{{'step1': '{TASTE}', 'step2': {{'items': ['Mask', \"Men's Oil\"]}}}}",
        TASTE,
        "Items: Mask; Men's Oil.",
    ),
    "German": ("Schritt 1: Mag milde Pflege.\nSchritt 2: Masken; Öle.", "Mag milde Pflege.", "Masken; Öle."),
    "German, number first": ("1. Schritt: Mag Pflege.\n2. Schritt: Masken.", "Mag Pflege.", "Masken."),
    "Spanish": (
        "**Paso 1:** Prefiere aceites.\n**Paso 2:** Mascarillas.",
        "Prefiere aceites.",
        "Mascarillas.",
    ),
    "French": ("Étape 1 : Aime les huiles.\nÉtape 2 : Masques.", "Aime les huiles.", "Masques."),
    "Chinese": ("步骤1：喜欢护发。\n步骤2：发膜；精油。", "喜欢护发。", "发膜；精油。"),
    "Chinese in one line": ("步骤1：喜欢护发。步骤2：发膜；精油。", "喜欢护发。", "发膜；精油。"),
    "Chinese, counted": ("第一步：喜欢护发。\n第二步：发膜；精油。", "喜欢护发。", "发膜；精油。"),
    "Japanese": ("ステップ１：髪のケアが好き。\nステップ２：マスク。", "髪のケアが好き。", "マスク。"),
    "full-width digits": (f"Step １：{TASTE}\nStep ２：{CARE}", TASTE, CARE),
    "Russian": ("Шаг 1: Любит масла.\nШаг 2: Маски.", "Любит масла.", "Маски."),
}

REMARKED: dict[str, tuple[str, str, str, str]] = {
    "no step 1": (f"Step 2: {CARE}", "", CARE, "step 1 is missing"),
    "empty step 1": (f"Step 1:\nStep 2: {CARE}", "", CARE, "step 1 is missing"),
    "step 1 refused": (
        f"Step 1: I'm sorry, I can't tell.\nStep 2: {CARE}", "", CARE, "step 1 is a refusal"
    ),
    "step 2 by its heading": (
        f"Step 1: {TASTE}\n\n{CARE}", TASTE, CARE, "step 2 was recognised by its heading only"
    ),
    "headings only": (
        f"**User preferences:** {TASTE}\n\n{CARE}",
        TASTE, CARE, "the steps were recognised by their headings only",
    ),
    "bold headings only": (
        f"Sure.\n\n**Preferences**\n{TASTE}\n\n**Recommendations**\n- Argan Mask\n- Jojoba Oil",
        TASTE,
        "Recommendations: Argan Mask; Jojoba Oil.",
        "the steps were recognised by their headings only",
    ),
    "numbers with brackets": (f"1) {TASTE}\n2) {CARE}", TASTE, CARE, "the steps are numbered but not named"),
    "numbers with a list inside": (
        f"1. {TASTE}\n2. Recommended items:\n1. Argan Mask\n2. Jojoba Oil",
        TASTE,
        "Recommended items: Argan Mask; Jojoba Oil.",
        "the steps are numbered but not named",
    ),
    "too long": (
        f"Step 1: {TASTE}\nStep 2: {CARE}\nStep 3: " + "x" * MAX_CHARACTERS,
        TASTE, CARE, "only the first 50000 of",
    ),
}  # fmt: skip

UNREADABLE: dict[str, tuple[str, str]] = {
    "empty": ("", "the answer is empty"),
    "blank": (" \r\n\t\u200b", "the answer is empty"),
    "prose": ("This shopper seems nice.", "step 2 is missing: 'This shopper seems nice.'"),
    "no step 2": (f"Step 1: {TASTE}", "step 2 is missing"),
    "empty step 2": (f"Step 1: {TASTE}\nStep 2:", "step 2 is missing"),
    "step 2 says nothing": (f"Step 1: {TASTE}\nStep 2: N/A", "step 2 is missing"),
    "step 2 is dots": (f"Step 1: {TASTE}\nStep 2: ...", "step 2 is missing"),
    "just a list": ("1. Argan Mask\n2. Jojoba Oil\n3. Shampoo", "step 2 is missing"),
    "refusal": ("I'm sorry, but I cannot help with that.", "the answer is a refusal"),
    "refusal, typographic": ("I’m unable to provide recommendations.", "the answer is a refusal"),
    "refusal in step 2": (
        f"Step 1: {TASTE}\nStep 2: I cannot recommend anything.",
        "the answer is a refusal",
    ),
    "refusal as an AI": ("As an AI language model, I have no taste.", "the answer is a refusal"),
    "refusal in Chinese": ("抱歉，我无法提供帮助。", "the answer is a refusal"),
    "refusal in German": ("Es tut mir leid, das geht nicht.", "the answer is a refusal"),
    "unfinished thoughts": (f"<think>Step 1: {TASTE} Step 2: {CARE}", "the answer stops inside its thoughts"),
    "JSON cut off": (f'{{"step1": "{TASTE}", "step2": "Masks, \\"rich\\" on', "step 2 is missing"),
    "other JSON": ('{"error": {"code": 7}}', "step 2 is missing"),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_answers(name: str) -> None:
    text, step1, step2 = CLEAN[name]
    assert parse_response(text) == (step1, step2, ())


@pytest.mark.parametrize("name", REMARKED)
def test_answers_read_with_a_remark(name: str) -> None:
    text, step1, step2, remark = REMARKED[name]
    parsed = parse_response(text)
    assert (parsed.step1, parsed.step2) == (step1, step2)
    assert len(parsed.problems) == 1 and parsed.problems[0].startswith(remark)


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_answers(name: str) -> None:
    text, why = UNREADABLE[name]
    parsed = parse_response(text)
    assert parsed.step2 == ""
    assert any(problem.startswith(why) for problem in parsed.problems), parsed.problems


def test_an_apology_before_good_steps_is_no_refusal() -> None:
    parsed = parse_response(f"I'm sorry for the delay.\nStep 1: {TASTE}\nStep 2: {CARE}")
    assert parsed == (TASTE, CARE, ())


MESS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [
                "Step 1:",
                "Step 2",
                "**",
                "\n",
                "\r\n",
                "```",
                "{",
                '"step2": "',
                "<think>",
                "</think>",
                "1.",
                "- ",
                "：",
            ]
        ),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=300)
@given(st.one_of(st.text(st.characters(), max_size=200), MESS))
@example("\ud800 Step 2: \udfff a")
@example("Step 1: a\x00\nStep 2: b\x85c\u2028d")
@example('{"step2": ' + "[" * 5000)
@example('{"step2": {"a": ' * 50)
@example('{"step2": ' + "9" * 5000 + "}")
def test_never_raises_and_is_storable(text: str) -> None:
    parsed = parse_response(text)
    for part in (*parsed[:2], *parsed.problems):
        part.encode("utf-8")
        assert "\n" not in part and "\r" not in part
    assert parsed.step2 or parsed.problems
    assert not parsed.step2 or any(character.isalnum() for character in parsed.step2)


def test_deep_json_does_not_exhaust_the_stack() -> None:
    """Outside of hypothesis, which allows deeper recursion than a program has."""
    assert parse_response('{"a": ' * 600 + '{"step2": "x"}' + "}" * 600).step2 == "x"


@given(
    st.text("abc de,.;'", min_size=1).map(str.strip).filter(lambda s: any(map(str.isalpha, s))),
    st.text("fgh ij,.;'", min_size=1).map(str.strip).filter(lambda s: any(map(str.isalpha, s))),
)
def test_plain_steps_come_back_unchanged(step1: str, step2: str) -> None:
    assume(not why_worthless(step1) and not why_worthless(step2))
    parsed = parse_response(f"Step 1: {step1}\nStep 2: {step2}")
    assert parsed == (" ".join(step1.split()), " ".join(step2.split()), ())


@pytest.mark.parametrize(
    "part", ["Step 1: ", "**", "{", "<think>", " " * 30, "(", "1. ", "- ", "sorry ", "\n", "[a]("]
)
def test_time_is_bounded_for_any_repetition(part: str) -> None:
    started = time.process_time()
    parse_response(part * (MAX_CHARACTERS // len(part)))
    assert time.process_time() - started < 3.0


def test_plain_text_is_utf8_and_has_unix_line_ends() -> None:
    assert plain_text("a\r\nb\rc\u2028d\x00\ufeff\ud83d\ude00\ud800") == "a\nb\nc\nd😀\ufffd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Likes pop. Also rock.", "Likes pop."),
        (
            "Likes R&B by Mary J. Blige and St. Vincent. Also soul.",
            "Likes R&B by Mary J. Blige and St. Vincent.",
        ),
        ("No end here", "No end here"),
        ("喜欢流行。也喜欢摇滚。", "喜欢流行。"),
        ("Loves 2.5 oz! More.", "Loves 2.5 oz!"),
    ],
)
def test_first_sentence(text: str, expected: str) -> None:
    assert first_sentence(text) == expected


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("a [link](https://x.org/a) and `code` and *this*", "a link and code and this"),
        ("Prose one.\n\nProse two", "Prose one. Prose two"),
        ("Prose\n- a\n- b", "Prose. a; b."),
        ("Label:\nprose behind it", "Label: prose behind it"),
        ("- **Hair:** oils\n- **Skin:** creams", "Hair: oils. Skin: creams."),
        ("***\n---\n", ""),
    ],
)
def test_readable(markdown: str, expected: str) -> None:
    assert readable(markdown) == expected
