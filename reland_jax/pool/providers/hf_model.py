"""Generation with a local model: transformers and PyTorch, an optional extra (`requirements-hf.txt`).

Nothing random depends on which prompts share a batch. At temperature 0 the most likely token is taken.
Otherwise every prompt has a random generator of its own, whose seed comes from the prompt: the sampled
token is the largest of ``logits / temperature + Gumbel noise``, which has the softmax distribution.
(Sums of floating point numbers do depend on the shape of a batch, in the last bit; two tokens whose
probabilities tie to that precision may come out in either order.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from reland_jax.config import LLMConfig, PoolConfig
from reland_jax.pool.reading.spoken import opened_thoughts
from reland_jax.types import RelandError

if TYPE_CHECKING:
    import torch


_TAIL_TOKENS = 64
"""End of a prompt in which a mark is looked for that opens thoughts."""


class Written(NamedTuple):
    """What a model wrote.

    Attributes:
        text: without the token that ends it, fillers and the like. Marks of turns and thoughts stay in it,
            also one with which the prompt opened thoughts: whoever reads it has to know them.
        tokens: tokens written, the one that ends the text included.
        ended: whether the model ended it; else the bound on tokens did.
    """

    text: str
    tokens: int
    ended: bool = True


class Writer(Protocol):
    """A model at hand.

    Attributes:
        name: for people and for `Rationale.model`.
        context: tokens that it takes, prompt and answer together; 0 means no bound is known.
    """

    name: str
    context: int

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation, as the model wants to see it."""
        ...

    def write(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_tokens: int
    ) -> list[Written]:
        """Continues every prompt by at most `max_tokens` tokens, which depend on it and its seed only."""
        ...


class LocalModel:
    """A causal language model of transformers (PyTorch) on one device.

    Attributes:
        name: hub name, or name of the folder (not where it lies: that may say who the user is).
        context: tokens that it takes, prompt and answer together; 0 means no bound is known.
    """

    def __init__(self, config: PoolConfig, llm: LLMConfig) -> None:
        """Reads the model and its tokenizer; a hub name is downloaded unless it is in the cache.

        Args:
            config: `model`, a folder or hub name, and `temperature`.
            llm: `device`.

        Raises:
            RelandError: PyTorch or transformers is missing, there is no such model or device, or the
                tokenizer has no token that can fill up a batch.
        """
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise RelandError(
                "provider 'hf' needs PyTorch and transformers: pip install -r requirements-hf.txt"
            ) from error
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.model)
            model = AutoModelForCausalLM.from_pretrained(config.model, dtype="auto")
            self._model = model.to(torch.device(llm.device)).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise RelandError(
                f"config.pool.model={config.model!r} cannot be read onto config.llm.device={llm.device!r}; "
                f"give the folder or hub name of a causal language model ({str(error)[:200]})"
            ) from error
        self._temperature = config.temperature
        self.name = Path(config.model).resolve().name if Path(config.model).is_dir() else config.model
        self.context = int(getattr(self._model.config, "max_position_embeddings", 0) or 0)
        self._ends = _end_ids(self._model.generation_config, self._tokenizer)
        self._filler = self._filler_id()
        self._silent = {*self._ends, *_plain_special_ids(self._tokenizer)}

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids by the tokenizer's chat template; without one, the texts with a blank line between."""
        if self._tokenizer.chat_template:
            chat = [dict(message) for message in messages]
            return self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=True, return_dict=True
            )["input_ids"]
        text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        return self._tokenizer(text)["input_ids"]

    def write(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_tokens: int
    ) -> list[Written]:
        """Continues the prompts as one batch, padded on the left, by at most `max_tokens` tokens each.

        Raises:
            RelandError: the device has not enough memory for the batch.
        """
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        device = self._model.device
        settings = GenerationConfig(
            do_sample=False, num_beams=1, num_return_sequences=1, max_new_tokens=max_tokens,
            eos_token_id=self._ends or None, pad_token_id=self._filler, use_cache=True,
        )  # fmt: skip
        noise = [_GumbelNoise(seeds, self._temperature, device)] if self._temperature > 0 else []
        ids, mask = (torch.tensor(rows, device=device) for rows in _left_padded(prompts, self._filler))
        with torch.inference_mode(), _memory_hint(len(prompts)):
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=LogitsProcessorList(noise),
            )
        rows = out[:, ids.shape[1] :].tolist()
        return [self._written(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]

    def _written(self, prompt: Sequence[int], row: list[int]) -> Written:
        length = next((place + 1 for place, token in enumerate(row) if token in self._ends), len(row))
        ended = bool(length) and row[length - 1] in self._ends
        text = self._tokenizer.decode([token for token in row[:length] if token not in self._silent])
        tail = self._tokenizer.decode(list(prompt[-_TAIL_TOKENS:]))
        return Written(opened_thoughts(tail) + text, length, ended)

    def _filler_id(self) -> int:
        """What fills up shorter rows; it is masked, so any token serves."""
        if self._tokenizer.pad_token_id is not None:
            return int(self._tokenizer.pad_token_id)
        return self._ends[0] if self._ends else 0


class _GumbelNoise:
    """Turns the choice of the most likely token into sampling, with one random generator per row."""

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        import torch

        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        # Exponential(1) noise E gives Gumbel noise as -log(E).
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self._temperature - noise.log()


def prompt_seed(messages: Sequence[Mapping[str, str]]) -> int:
    """Seed of the sampling of one conversation, in [0, 2**63): the first bytes of its SHA-256."""
    text = json.dumps([dict(message) for message in messages], ensure_ascii=False, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of rows of similar length, the longest first.

    The longest first, so that a batch that does not fit in memory fails at once, and the time left is
    never underestimated.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _left_padded(prompts: Sequence[Sequence[int]], filler: int) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask, both ``[prompts, longest]``."""
    width = max(len(prompt) for prompt in prompts)
    gaps = [width - len(prompt) for prompt in prompts]
    ids = [[filler] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
    return ids, [[0] * gap + [1] * (width - gap) for gap in gaps]


def _end_ids(generation: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text: those of the model's generation settings, else the tokenizer's."""
    ends = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None:
        return []
    return [int(end) for end in ends] if isinstance(ends, (list, tuple)) else [int(ends)]


def _plain_special_ids(tokenizer: Any) -> list[int]:
    """Special tokens that say nothing; those of chat templates and of thoughts are not among them."""
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
    return [int(token) for token in found if token is not None]


@contextmanager
def _memory_hint(rows: int) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RelandError(
            f"the device has not enough memory for {rows} prompts at a time; lower config.llm.concurrency. "
            "What was written before is in the journal"
        ) from error
