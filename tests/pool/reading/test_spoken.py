"""What is read in answers as real LLMs write them: always the answer, or a reason, and never the draft.

The corpus is built: a good answer, drafts, and what goes around them. Whatever is combined, the test knows
what has to come out.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reland_jax.pool.reading.answers import readable_steps
from reland_jax.pool.reading.parser import ends_by_itself, parse_given, parse_text
from reland_jax.pool.reading.spoken import is_thought
from reland_jax.pool.templates import DOMAINS, PROMPTS, filled

TASTE = "Likes mild care for dry skin."
CARE = (
    "Recommended categories: Soap; Oil; Balm. Recommended items: Rose Soap; Mint Oil; Oat Balm; Honey Mask."
)
GOOD = f"Step 1: {TASTE}\nStep 2: {CARE}"
DRAFT = (
    "Step 1: DRAFT, perhaps cars.\nStep 2: Recommended categories: DRAFT cars; tyres. "
    "Recommended items: DRAFT wheel; DRAFT engine."
)
MADE_UP = (
    "Step 1: DRAFT, fishing.\nStep 2: Recommended categories: DRAFT rods. Recommended items: DRAFT hook."
)


class Marks(NamedTuple):
    """How thoughts are opened and closed; what stands between them is none of the answer."""

    opening: str
    closing: str


THOUGHTS = [
    *(
        Marks(f"{left}{name}{right}", f"{left}/{name}{right}")
        for left, right in (
            ("<", ">"),
            ("◁", "▷"),
            ("<|", "|>"),
            ("&lt;", "&gt;"),
            ("＜", "＞"),
            ("< ", " >"),
        )
        for name in ("think", "thinking", "Thought", "reasoning", "analysis", "reflection", "scratchpad")
    ),
    *(Marks(f"[{name}]", f"[/{name}]") for name in ("THINK", "thinking", "Reasoning", "ANALYSIS")),
    *(
        Marks(f"<{name}>", f"</{name.split()[0]}>")
        for name in (
            "seed:think",
            "antThinking",
            "inner_monologue",
            "chain_of_thought",
            "reasoning_content",
            "internal_reasoning",
            'think type="deep" budget="3"',
            'details type="reasoning" done="false"',
            "思考",
            "cot",
            "deliberation",
        )
    ),
    Marks("<inner thoughts>", "</inner thoughts>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|cot_start|>", "<|cot_end|>"),
    Marks("<|channel>thought\n", "<channel|>"),
    Marks("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    Marks("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    Marks("<|channel|>commentary<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    Marks("【思考】", "【/思考】"),
    Marks("{think}", "{/think}"),
    Marks("```thinking\n", "\n```\n"),
    Marks("<details>\n<summary>Thinking</summary>\n", "\n</details>\n"),
    Marks("<details><summary>🧠 Reasoning process</summary>", "</details>"),
    Marks("<|think|>", "<|end|><|begin|>assistant<|content|>"),
]
BARE_THOUGHTS = [
    Marks("analysis", "assistantfinal"),
    Marks("analysisWe need two steps. ", "assistantfinal"),
    Marks("analysis\n", "\nfinal\n"),
    Marks("analysis We need to answer. ", " assistant final "),
    Marks("commentary\n", "\nassistantfinal\n"),
    Marks("thought\n", "\nfinal: "),
    Marks("Thinking Process:\n\n1. Read the request.\n", "\n\nFinal answer:\n"),
    Marks("**Thinking Process**\n\n", "\n\n**Answer:** "),
    Marks("Here is my thought process:\n", "\n\nHere is my response:\n"),
    Marks("Here's a thinking process:\n\n", "\n\n### Response:\n"),
    Marks("# Thoughts\n", "\n# Answer\n"),
    Marks("Thinking...\n", "\n...done thinking.\n\n"),
    Marks("--- THINKING ---\n", "\n--- ANSWER ---\n"),
    Marks("=== Internal monologue ===\n", "\n=== Final Answer ===\n"),
    Marks("First draft:\n", "\nFinal:\n"),
    Marks("Here is my thought process: ", " Here is my response: "),
    Marks("Gedankengang:\n", "\n\nAntwort:\n"),
    Marks("**Réflexion :**\n", "\n\n**Réponse finale :**\n"),
    Marks("Pensamiento: ", "\n\nRespuesta final: "),
    Marks("思考过程：\n", "\n\n最终答案：\n"),
]
"""Thoughts at the very beginning, without marks of their own."""

SHOWN = '1. "Rose Soap"\n2. "Brush"'
TURNS = [
    "<|im_end|>\n<|im_start|>user\nthanks<|im_end|>\n<|im_start|>assistant\n",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nthanks<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "</s><s>[INST] thanks [/INST] ",
    "<end_of_turn>\n<start_of_turn>user\nthanks<end_of_turn>\n<start_of_turn>model\n",
    "<|end|><|user|>thanks<|end|><|assistant|>",
    "<｜end▁of▁sentence｜><｜User｜>thanks<｜Assistant｜>",
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>thanks<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "[|endofturn|]\n[|user|]thanks\n[|assistant|]",
    "<turn|>\n<|turn>user\nthanks<turn|>\n<|turn>model\n",
    "\n\nUser: thanks!\nAssistant: ",
    "\nHuman: thanks\n\nAssistant: ",
    "\n\n### Human: thanks\n### Assistant: ",
    "\n\n### Instruction:\nthanks\n\n### Response:\n",
    "\n**User:** thanks\n\n**Assistant:** ",
    "\nUSER: thanks\nASSISTANT: ",
    "\nQuestion: and then?\nAnswer: ",
    "\nuser\nthanks!\nassistant\n",
    "\n\nInstruction: thanks\nResponse: ",
    "assistant\n\n",
    "\nassistant\n",
    "user\nthanks\nassistant\n",
    "[e~[\n]~b]user\nthanks[e~[\n]~b]ai\n",
    "<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>thanks<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    "\n\nH: thanks\n\nA: ",
    "\n\nQ: And then?\nA: ",
    "\n\nInput: another history\nOutput: ",
    "\n\n### Input:\nanother\n\n### Output:\n",
    "\n\n👤 User: thanks\n\n🤖 Assistant: ",
    "\n\n[User]\nthanks\n[Assistant]\n",
    "\n\nBenutzer: danke\nAssistent: ",
    '<tool_call>{"name": "search"}</tool_call>',
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search<｜tool▁calls▁end｜>",
    *(f"\n\n{filled(kind, domain, SHOWN)}\n" for kind in PROMPTS for domain in DOMAINS),
]
"""What an LLM that does not stop writes behind its answer, before it makes up another one."""

STOPS = [
    "",
    "</s>",
    "<|eot_id|><|im_end|></s>",
    "<|return|>",
    "<|endoftext|>",
    "<eos>",
    "<end_of_turn>",
    "[EOS]",
    "<pad><pad>",
    "<seed:eos>",
    "<SPECIAL_12>",
    "\n###\n",
    "\n[END]\n",
    "\nEND\n",
    "\n---\n",
    "\n\n",
    " <|end_of_text|>",
    "[e~[",
]
BEFORE = [
    "",
    "\n\n",
    "Sure! Here is the analysis you asked for:\n\n",
    "Certainly.\n",
    "<|im_start|>assistant\n",
    "Assistant: ",
    "### Response:\n",
    "<s>",
    "<|assistant|>\n",
]
AFTER = [
    "",
    "\n\nLet me know if you need anything else!",
    "\nI hope this helps!",
    " Feel free to ask for more.",
    "\n\nNote: by the history alone.",
    "\nStep 3: Ask the shopper.",
    "\n\n(Word count: 40)",
    "\n\n(67 tokens)",
    "\n\nBest regards,\nYour assistant",
    "\n\n**Reasoning:** by the last items.",
    "\n\nConfidence: 0.9",
    "\n\nSources:\n- none",
    "\n\nIn conclusion, mild care.",
    "\n\n---\n*Self-check: five items? Yes.*",
]
DRESS = [
    GOOD,
    f"**Step 1:** {TASTE}\n\n**Step 2:** {CARE}",
    f"### Step 1\n{TASTE}\n\n### Step 2\n{CARE}",
    f"```text\n{GOOD}\n```",
    f"<answer>\n{GOOD}\n</answer>",
    f"<|START_RESPONSE|>{GOOD}<|END_RESPONSE|>",
    f"<|begin_of_solution|>\n{GOOD}\n<|end_of_solution|>",
    f"[BEGIN FINAL RESPONSE]\n{GOOD}\n[END FINAL RESPONSE]",
]
MUSING = ["", "Okay, so the user wants two steps.\n", "Let me see.\n\n", "Hmm. "]


@settings(max_examples=400)
@given(
    st.sampled_from([None, *THOUGHTS, *BARE_THOUGHTS]),
    st.sampled_from(MUSING),
    st.sampled_from(BEFORE),
    st.sampled_from(DRESS),
    st.sampled_from(AFTER),
    st.sampled_from(STOPS),
    st.sampled_from(["", *TURNS]),
)
def test_the_answer_comes_out_of_whatever_goes_around_it(
    marks: Marks | None, musing: str, before: str, dress: str, after: str, stop: str, turn: str
) -> None:
    thoughts = f"{marks.opening}{musing}{DRAFT}{marks.closing}" if marks else ""
    text = (
        thoughts + ("\n" if before else "") + before + dress + after + stop + (turn + MADE_UP if turn else "")
    )
    assert readable_steps(text) == (TASTE, CARE, ()), text


@settings(max_examples=300)
@given(
    st.sampled_from(THOUGHTS),
    st.sampled_from(MUSING),
    st.sampled_from(["", "\nHmm, but wait", "\n\nWait, the user wants five items.", " Now check whether"]),
    st.integers(0, len(GOOD)),
)
def test_unclosed_thoughts_are_never_an_answer(marks: Marks, musing: str, end: str, cut: int) -> None:
    for opening in (marks.opening, f"Sure.\n{marks.opening}"):
        for text in (f"{opening}{musing}{DRAFT}{end}", f"{opening}{DRAFT}{end}\n{GOOD[:cut]}"):
            parsed = readable_steps(text)
            assert parsed.step2 == "" and parsed.problems, text
            assert parse_text(text).step2 in ("", "Sure.") and parse_given("", text).step2 in ("", "Sure.")


@pytest.mark.parametrize("marks", BARE_THOUGHTS)
@pytest.mark.parametrize("end", ["", "\nHmm, but wait", "\n\nStep 1: Lik"])
def test_unclosed_thoughts_without_marks(marks: Marks, end: str) -> None:
    assert readable_steps(marks.opening + DRAFT + end).problems[0] == "the answer stops inside its thoughts"


@given(st.sampled_from(THOUGHTS[:50]), st.sampled_from(STOPS), st.sampled_from(["", "Okay.\n"]))
def test_a_closing_mark_alone_ends_thoughts_that_the_prompt_began(
    marks: Marks, stop: str, musing: str
) -> None:
    if marks.closing.strip("` \n"):
        assert readable_steps(f"{musing}{DRAFT}\n{marks.closing}\n{GOOD}{stop}") == (TASTE, CARE, ())
        assert readable_steps(f"{DRAFT}\n{marks.closing}").step2 == ""


@settings(max_examples=200)
@given(st.sampled_from(THOUGHTS), st.integers(1, len(GOOD) - 1))
def test_an_answer_cut_anywhere_never_gives_the_draft(marks: Marks, cut: int) -> None:
    text = f"{marks.opening}{DRAFT}{marks.closing}{GOOD}"
    for parsed in (readable_steps(text[:-cut]), readable_steps(text[: len(text) - len(GOOD) - cut])):
        assert "DRAFT" not in parsed.step1 + parsed.step2
        assert parsed.step2 or parsed.problems


SET_APART = [
    "> **Thinking**\n> {}\n\n",
    "> 💭 Thought for 12 seconds\n> {}\n\n",
    "(Thinking: {})\n\n",
    "*Thinking: {}*\n\n",
    "[Reasoning: {}]\n\n",
    "<!-- {} -->\n",
    "<!-- thinking: {} -->",
]


@pytest.mark.parametrize("form", SET_APART)
def test_thoughts_that_are_set_apart(form: str) -> None:
    thoughts = form.format(DRAFT.replace("\n", " "))
    assert readable_steps(thoughts + GOOD) == (TASTE, CARE, ())
    assert readable_steps(f"{GOOD}\n\n{thoughts}") == (TASTE, CARE, ())
    for text in (thoughts, thoughts.rstrip(" \n)*]->"), f"{thoughts}Step 1: {TASTE}"):
        assert readable_steps(text).step2 == ""


def test_a_quotation_may_be_the_answer() -> None:
    assert readable_steps("> " + GOOD.replace("\n", "\n> ")) == (TASTE, CARE, ())


@pytest.mark.parametrize("torn", ["<|im_e", "<|", "<｜end▁of", "<|eot_id", "</s", "[/INS"])
def test_a_mark_that_is_cut_off_itself(torn: str) -> None:
    parsed = readable_steps(GOOD + torn)
    assert (
        parsed.step1 == TASTE and parsed.step2 == CARE
        if torn[1:2] in "|｜"
        else parsed.step2.startswith(CARE)
    )


@pytest.mark.parametrize("turn", TURNS)
def test_what_follows_another_turn_is_made_up(turn: str) -> None:
    assert ends_by_itself(f"{GOOD}{turn}{MADE_UP}") and not ends_by_itself(GOOD)
    for said in ("I'm sorry, I cannot help with that.", f"Step 1: {TASTE}."):
        if "ser" in turn or "uman" in turn:
            assert readable_steps(f"{said}{turn}{MADE_UP}").step2 == "", turn


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_echo_of_the_prompt(domain: str) -> None:
    prompt = filled("steps", domain, SHOWN)
    assert readable_steps(prompt).step2 == ""
    assert readable_steps(f"{prompt}\n{GOOD}") == (TASTE, CARE, ())
    assert readable_steps(f"<|user|>\n{prompt}<|assistant|>\n{GOOD}") == (TASTE, CARE, ())
    assert readable_steps(prompt[prompt.index("Step 1:") :]).step2 == ""
    asked = "From that summary, what to recommend next"
    assert readable_steps(f"Step 1: {TASTE}\nStep 2: {asked}: {CARE}").step2.endswith(CARE)


TEMPLATES = [
    "Recommended categories: [category 1]; [category 2]. Recommended items: [item 1]; [item 2].",
    "Recommended categories: Category A; Category B. Recommended items: Item 1; Item 2; Item 3.",
    "Recommended categories: <category>; <category>. Recommended items: <item name>; <item name>.",
    "Recommended categories: {category1}, {category2}. Recommended items: {item1}, {item2}",
    "Recommended categories: Soap; Oil. Recommended items: [Product 1]; [Product 2]; [Product 3]",
    "Recommended categories: Soap; Oil. Recommended items: Item ...; Item ...; Item ...",
    "Recommended categories: xxx; xxx. Recommended items: xxx; xxx",
    "Recommended categories: [insert categories here]. Recommended items: [insert items here].",
    "Recommended categories: Example Category; Another Category. Recommended items: Example Product",
    "Recommended categories: [list of genres]. Recommended items: [list of movies].",
    "Recommended categories: $category_1; $category_2. Recommended items: $item_1",
    "Recommended categories: Foo; Bar. Recommended items: foo; bar; baz.",
    "Recommended categories: [Your answer here]. Recommended items: [Your answer here].",
    "Recommended categories: %s; %s. Recommended items: %s; %s.",
]
EMPTY = [
    "Recommended categories: To do. Recommended items: to be determined.",
    "Recommended cat",
    "Recommended categories: Soap; Oil. Recommended",
    "Recommended categories: Soap; Oil. Recommended items",
    "See above.",
    "same as above",
    "Not applicable.",
    "No recommendations available.",
    "[REDACTED]",
    "Recommendations",
    "(continued in next message)",
    "string",
    "Recommended categories: . Recommended items: .",
    "Recommended categories: N/A; Recommended items: None",
    "Recommended categories: Soap; Oil. Recommended items:",
    "Recommended categories:",
    "Recommended categories: ; ; . Recommended items: ; ;",
]
LOOPS = [
    "Recommended categories: " + "Soap; " * 30,
    "Recommended categories: Soap. Recommended items: " + "Rose Soap; Mint Oil; " * 12,
    "Recommended items: Rose Soap. " + "They would like it since it is mild. " * 8,
    "Recommended items: Rose Soap, which is " + "very " * 40,
    "Recommended items: Rose Soap" + "p" * 60,
    "Recommended items: " + "; ".join(f"Rose Soap {number}" for number in range(40)),
    "\n".join(f"{number}. Rose Soap" for number in range(1, 40)),
    "Recommended categories: " + "护肤" * 40 + " soap",
]
RETRACTIONS = [
    "Wait, actually, these are soaps.",
    "Oh wait, I misread the history.",
    "No, that's not right.",
    "Actually that's wrong.",
    "On second thought, soap is better.",
    "Scratch that.",
    "Correction: the shopper likes soap.",
    "I made a mistake above.",
    "Apologies, that was the wrong user.",
    "Does this meet the requirements?",
    "That's only 2 items.",
    "Draft 2:",
    "**Revised answer:**",
    "I will write the answer now.",
    "Moment, das stimmt nicht.",
    "等等，这不对。",
]


@pytest.mark.parametrize(
    ("step2", "why"),
    [
        *((text, "step 2 has only words of a template") for text in TEMPLATES),
        *((text, "step 2 ") for text in EMPTY),
        *((text, "step 2 repeats itself") for text in LOOPS),
        (CARE + "\nHmm, but wait", "step 2 has thoughts in it"),
        (CARE + " But we need eight items. So", "step 2 has thoughts in it"),
        (CARE + "\n\nI should double-check the format.", "step 2 has thoughts in it"),
        *((f"{CARE}\n\n{talk}", "step 2 has thoughts in it") for talk in RETRACTIONS),
        ("I'm sorry, but I can't recommend items.", "the answer is a refusal"),
        ("There is not enough information to recommend anything.", "the answer is a refusal"),
        ("Please provide more about the shopper.", "the answer is a refusal"),
        ("Shall I continue?", "the answer is a refusal"),
        ("Ich kann dabei leider nicht helfen.", "the answer is a refusal"),
        (
            "Recommended categories: Soap; Oil. Recommended items: I cannot recommend any.",
            "the answer is a refusal",
        ),
    ],
)
def test_what_says_nothing_is_not_used(step2: str, why: str) -> None:
    parsed = readable_steps(f"Step 1: {TASTE}\nStep 2: {step2}")
    assert parsed.step2 == "" and any(problem.startswith(why) for problem in parsed.problems), parsed


@pytest.mark.parametrize("last", [GOOD, TEMPLATES[0]])
def test_words_of_a_template_are_no_attempt(last: str) -> None:
    template = f"Step 1: [one sentence]\nStep 2: {TEMPLATES[0]}"
    text = f"{template}\n\n{GOOD}" if last == GOOD else f"{GOOD}\n\n{template}"
    assert readable_steps(text) == (TASTE, CARE, ())


def test_another_attempt_is_told_unless_a_mark_says_which_one_counts() -> None:
    assert readable_steps(f"{DRAFT}\n\n{GOOD}") == (
        TASTE,
        CARE,
        ("it has several answers; the last one is used",),
    )
    for mark in ("Final answer:\n", "**Final Answer**:\n", "Output:\n", "<answer>"):
        assert readable_steps(f"{DRAFT}\n\n{mark}{GOOD}") == (TASTE, CARE, ())
        assert readable_steps(f"{DRAFT}\n\n{mark}Step 1: Likes").step2 == ""
    assert readable_steps(f"{GOOD}\n\n{GOOD}\n\n{GOOD}") == (TASTE, CARE, ())


NAMES = [
    "Thinking Putty",
    "[Thinking Putty]",
    "<Live> at the Apollo",
    "The Analysis of Mind",
    "Wait and Bleed",
    "Movie 43; Scary Movie 2",
    "1984; 2001",
    "Category 5 Cable",
    "User: the band",
    "R&B [Explicit]",
    "ThinkPad X1; [ThinkPad]",
    "Human; Human After All",
    "Assistant Coach Whistle",
    "Final Fantasy VII: Final Edition",
    "Reflective Vest; [Reflective Vest]",
    "Duran Duran; Talk Talk; The The",
    "New York, New York",
    "Item by Item",
    "Harry Potter 1; Harry Potter 2; Harry Potter 3; Harry Potter 4; Harry Potter 5",
    "I, Robot; We Need to Talk",
    "What's New Pussycat?; Wait Until Dark",
    "Nothing Else Matters; None More Black",
    "Unknown Pleasures; Unknown",
    "C#; F#; <3; 5 > 3",
    "Oil A; Oil B; Oil C",
    "I Can't Help Myself; Sorry; No Puedo Vivir",
    "Wait; Actually; Draft Beer Tap; Let's Dance",
    "Question: Why; Q: The Album; A: B",
    "Blank Space; Empty; See You Above",
    "Recommended for You; Recommended Reading",
]


@pytest.mark.parametrize("names", NAMES)
def test_names_of_items_are_no_marks(names: str) -> None:
    step2 = f"Recommended categories: Things; More Things. Recommended items: {names}; Rose Soap."
    assert readable_steps(f"Step 1: {TASTE}\nStep 2: {step2}") == (TASTE, step2, ())


@pytest.mark.parametrize(
    "name", ["thinking", "reasoning_content", "redacted_thinking", "thought", "analysis", "推理"]
)
def test_names_of_thoughts(name: str) -> None:
    assert is_thought(name) and is_thought(name.upper())


@pytest.mark.parametrize(
    "name", ["content", "text", "answer", "thankful", "unreasonable", "planet", "output_text"]
)
def test_other_names(name: str) -> None:
    assert not is_thought(name)


@pytest.mark.parametrize(
    "part",
    [
        "```\n",
        "\n\n- ",
        "<|",
        "</think>",
        "user\n",
        "Let me know. ",
        "&lt;",
        "[a ",
        "Thinking: ",
        "Hmm ",
        "{'",
    ],
)
def test_time_is_bounded_for_any_repetition(part: str) -> None:
    started = time.process_time()
    for read in (readable_steps, parse_text):
        read(part * (200_000 // len(part)))
    assert time.process_time() - started < 3.0
