"""A tiny model of transformers, made on the spot: padding, sampling, chat templates, ends."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.hf import HfProvider
from reland_jax.pool.providers.hf_model import LocalModel, prompt_seed
from reland_jax.types import RelandError

torch = pytest.importorskip("torch", reason="needs PyTorch: requirements-hf.txt")

WORDS = "step likes more books music films the a of and 1 2 : . user prompt".split()
END, FILLER = "</s>", "<pad>"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}step{% endif %}"
)
LLM = LLMConfig(concurrency=2)


def make_tokenizer(template: str | None, filler: str | None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([END, FILLER, "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=filler, unk_token="<unk>"
    )
    fast.chat_template = template
    return fast


def make_model(folder: Path, kind: str, template: str | None = TEMPLATE, filler: str | None = FILLER) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(template, filler)
    common = {"vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": None, "pad_token_id": None}
    if kind == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(**common, **sizes, max_position_embeddings=64))
    else:
        model = GPT2LMHeadModel(GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    with torch.no_grad():  # larger weights than a fresh model has, so that it is sure of something
        for weight in model.parameters():
            weight.mul_(8.0) if weight.dim() > 1 else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp(request.param), request.param)


def load(model: str, temperature: float = 0.0) -> LocalModel:
    return LocalModel(PoolConfig(provider="hf", model=model, temperature=temperature), LLM)


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_left_padded_batches_write_what_single_prompts_do(model: str) -> None:
    """The oracle is a loop over argmax, without padding, cache or `generate`."""
    from transformers import AutoModelForCausalLM

    writer = load(model)
    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    prompts = [writer.encode(chat(text)) for text in ("books", "the music of films and books", "more")]
    written = writer.write(prompts, [0] * 3, 12)
    for prompt, text in zip(prompts, written, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 12 and (len(ids) == len(prompt) or ids[-1] != 0):
            with torch.inference_mode():
                ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
        new = ids[len(prompt) :]
        words = [(END, FILLER, "<unk>", *WORDS)[token] for token in new]
        assert text.tokens == len(new)
        assert text.text.split() == [word for word in words if word not in (END, FILLER, "<unk>")]


def test_sampling_does_not_depend_on_the_batch(model: str) -> None:
    writer = load(model, temperature=1.0)
    chats = [chat(text) for text in ("books", "the music of films and books", "more", "a user")]
    prompts, seeds = [writer.encode(c) for c in chats], [prompt_seed(c) for c in chats]
    alone = [writer.write([prompt], [seed], 8)[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert writer.write(prompts, seeds, 8) == alone
    assert writer.write(prompts[::-1], seeds[::-1], 8) == alone[::-1]
    assert load(model, temperature=1.0).write(prompts, seeds, 8) == alone
    assert writer.write(prompts[:1] * 2, [1, 2], 8) != [alone[0]] * 2


def test_sampling_has_the_distribution_of_the_model(model: str) -> None:
    from transformers import AutoModelForCausalLM

    temperature, draws = 1.5, 2000
    writer = load(model, temperature)
    prompt = writer.encode(chat("books"))
    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.inference_mode():
        expected = torch.softmax(plain(torch.tensor([prompt])).logits[0, -1] / temperature, -1)
    found = Counter(text.text for text in writer.write([prompt] * draws, range(draws), 1))
    for token, word in enumerate(WORDS, start=3):
        share = float(expected[token])
        assert abs(found[word] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5 + 1e-3


def test_the_chat_template_or_plain_text(model: str, tmp_path: Path) -> None:
    decode = make_tokenizer(None, FILLER).decode
    assert decode(load(model).encode(chat("books"))) == "user : books </s> step"
    plain = load(make_model(tmp_path, "llama", template=None))
    asked_again = [*chat("books"), {"role": "assistant", "content": "music"}, *chat("more")]
    assert decode(plain.encode(asked_again)) == "books music more"


def test_a_tokenizer_without_a_filler(tmp_path: Path) -> None:
    with_filler = load(make_model(tmp_path / "with", "llama"))
    without = load(make_model(tmp_path / "without", "llama", filler=None))
    prompts = [with_filler.encode(chat(text)) for text in ("books", "the music of films")]
    expected = with_filler.write(prompts, [0, 0], 9)
    written = without.write(prompts, [0, 0], 9)
    assert [text.tokens for text in written] == [text.tokens for text in expected]
    # Without the role of a filler, the token is a word like any other.
    assert [text.text.replace(FILLER, "").split() for text in written] == [e.text.split() for e in expected]


def test_the_bound_on_tokens_and_the_context(model: str) -> None:
    writer = load(model)
    assert writer.context == 64 and writer.name == Path(model).name
    (text,) = writer.write([writer.encode(chat("books"))], [0], 3)
    assert 1 <= text.tokens <= 3


def test_nonsense_is_asked_again_and_never_used(model: str, tmp_path: Path) -> None:
    """The whole provider with a model that cannot answer: listed, and nothing of it is used."""
    config = PoolConfig(provider="hf", model=model, max_tokens=6, temperature=1.0)
    texts = ["books", "music and films", "books"]
    requests = [RationaleRequest(f"u{number}", text) for number, text in enumerate(texts)]
    result = HfProvider(config, LLM, tmp_path).rationales(requests)
    assert result.rationales == [None] * 3
    assert [problem.user_id for problem in result.problems] == ["u0", "u1", "u2"]
    again = HfProvider(config, LLM, tmp_path, lambda *_: pytest.fail("asked again")).rationales(requests[:1])
    empty = "the answer has no content"
    assert again == (result.rationales[:1], result.problems[:1]) or empty in result.problems[0].why


@pytest.mark.parametrize("change", [{"model": "no/such-model"}, {"device": "nonsense"}])
def test_faults(model: str, change: dict[str, str]) -> None:
    config = PoolConfig(provider="hf", model=change.get("model", model))
    llm = dataclasses.replace(LLM, device=change.get("device", "cpu"))
    with pytest.raises(RelandError, match=f"config.pool.model='{config.model}' cannot be read onto"):
        LocalModel(config, llm)


def test_marks_of_thoughts_stay_and_a_prompt_that_opens_them_counts(tmp_path: Path) -> None:
    """Hidden or left out, a mark would turn thoughts into an answer."""
    writer = load(make_model(tmp_path, "llama"))
    writer._tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    opened, shut = (writer._tokenizer.convert_tokens_to_ids(mark) for mark in ("<think>", "</think>"))
    written = writer._written([opened], [3, shut, 4, 0, 5])
    assert written.text.replace(" ", "") == "<think>step</think>likes"
    assert written.tokens == 4 and written.ended
    assert writer._written([opened, shut], [3, 4]) == ("step likes", 2, False)
