"""How much of a text an encoder can read: by hand, and on scripts that MiniLM does and does not have."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from reland_jax.config import TextConfig
from reland_jax.text import reading
from reland_jax.text.checkpoint import find_checkpoint
from reland_jax.text.reading import Reading, check_reading, read_by
from reland_jax.text.tokenizer import Tokeniser, load_tokenizer
from reland_jax.types import RelandError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "soap", "##s", "12", "r", "##o", "##z", "##a", "р", "##о", "."]
TOKENISER = Tokeniser(lambda texts: [], PIECES, frozenset({0, 2, 3}), 1, "here")


def read(*token_ids: Sequence[int]) -> Reading:
    return read_by(TOKENISER, [f"text {row}" for row in range(len(token_ids))], token_ids)


def test_words_by_hand() -> None:
    assert read([2, 4, 5, 6, 13, 3]) == (1, 1, 0, 1, ()), "soaps 12 ."
    assert read([2, 1, 4, 3], [2, 4, 4, 3]) == (2, 4, 1, 2, ("text 0",)), "an unknown word is one"
    assert read([2, 7, 8, 9, 10, 3])[1:3] == (1, 1), "roza, letter by letter"
    assert read([2, 7, 8, 9, 3])[1:3] == (1, 0), "roz is short"
    assert read([2, 11, 12, 3])[1:3] == (1, 1), "but not abroad"
    assert read([2, 11, 3], [2, 12, 3])[1:3] == (2, 0), "a word may have one letter"
    assert read([2, 1, 3], [2, 1, 3], [2, 1, 1, 3])[1:4] == (4, 4, 2)
    assert read() == (0, 0, 0, 0, ()) and read([], [2, 3]) == (2, 0, 0, 2, ())


def of(texts: int, apart: int, words: int = 100, unknown: int = 0) -> Reading:
    return Reading(texts, words, unknown, apart, ("odd",))


def test_few_vectors_are_refused_and_none_of_few_texts() -> None:
    config = TextConfig(max_tokens=64)
    check_reading("titles", of(100, 51), config)
    check_reading("titles", of(9, 1, unknown=100), config)
    with pytest.raises(RelandError, match="titles: 100 distinct texts become 50 .* raise text.max_tokens=64"):
        check_reading("titles", of(100, 50), config)
    check_reading("titles", of(100, 76, unknown=11), config)
    with pytest.raises(RelandError, match="become 75 distinct vectors .* does not know 11% .* multilingual"):
        check_reading("titles", of(100, 75, unknown=11), config)
    check_reading("titles", of(100, 75, unknown=11), TextConfig(allow_alike=True))


def test_unknown_words_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    reading._tell.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            check_reading("titles", of(100, 100, unknown=11), TextConfig())
            check_reading("titles", of(100, 100, unknown=10), TextConfig())
    (record,) = caplog.records
    assert "titles: text.encoder='minilm' does not know 11% of their words, as in 'odd'" in record.message
    with caplog.at_level(logging.WARNING):
        check_reading("titles", of(100, 100, unknown=10), TextConfig(unknown_words=0.05))
    assert len(caplog.records) == 2


KNOWN = {
    "English": "rose soap cream lip balm mint oil hair mask shea butter",
    "German": "Rosenseife Gesichtscreme Lippenpflege Minze Haaröl",
    "French": "savon crème visage huile beurre karité",
    "Turkish": "gül sabun krem nane yağ",
    "numbers": "SPF 30 250 ml KEX4P",
}
FOREIGN = {
    "Chinese": "玫瑰 身体乳 薄荷 润唇膏 燕麦 浴盐",
    "Japanese": "バラ 石鹸 クリーム 口紅 ミント",
    "Korean": "장미 비누 크림 립밤 민트",
    "Russian": "Роза Лосьон Овёс Шампунь Кедр Тушь",
    "Greek": "τριαντάφυλλο σαπούνι κρέμα μέντα λάδι",
    "Arabic": "ورد صابون كريم نعناع زيت",
    "Hebrew": "ורד סבון קרם מנטה שמן",
    "Thai": "กุหลาบ สบู่ ครีม ลิปบาล์ม",
    "Hindi": "गुलाब साबुन क्रीम पुदीना तेल",
    "emoji": "🌹 🧼 💄",
}


def test_minilm_knows_its_script_and_no_other() -> None:
    tokenise = load_tokenizer(find_checkpoint("minilm"), 64)

    def share(words: str) -> float:
        texts = [f"{left} {right} 12" for left in words.split() for right in words.split()]
        return read_by(tokenise, texts, tokenise(texts)).unknown_share

    bound = TextConfig().unknown_words
    assert {name: share(words) for name, words in KNOWN.items() if share(words) > bound} == {}
    assert {name: share(words) for name, words in FOREIGN.items() if share(words) <= bound} == {}
