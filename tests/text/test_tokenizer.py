"""Token ids with the checkpoint's own tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reland_jax.text.tokenizer import load_tokenizer
from reland_jax.types import RelandError

CLS, SEP, UNKNOWN, FIRST_WORD = 2, 3, 1, 4


def test_texts_are_cut_but_not_padded(tiny_folder: Path) -> None:
    tokenise = load_tokenizer(tiny_folder, max_tokens=8)
    long = " ".join(f"w{index}" for index in range(20))
    assert tokenise(["w1", "w0 other", long]) == [
        [CLS, FIRST_WORD + 1, SEP],
        [CLS, FIRST_WORD, UNKNOWN, SEP],
        [CLS, *range(FIRST_WORD, FIRST_WORD + 6), SEP],
    ]


def test_no_text_has_no_ids(tiny_folder: Path) -> None:
    assert load_tokenizer(tiny_folder, max_tokens=8)([]) == []


def test_the_tokenizer_knows_its_pieces(tiny_folder: Path) -> None:
    tokenise = load_tokenizer(tiny_folder, max_tokens=8)
    assert tokenise.unknown == UNKNOWN and tokenise.special == {CLS, SEP}
    assert tokenise.pieces[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert tokenise.where == str(tiny_folder / "tokenizer.json")


def test_a_tokenizer_that_fails_on_a_text_is_an_error(tiny_folder: Path) -> None:
    path = tiny_folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["unk_token"] = "gone"
    path.write_text(json.dumps(values))
    with pytest.raises(RelandError, match=r"tokenizer\.json: the tokenizer fails on texts"):
        load_tokenizer(tiny_folder, max_tokens=8)(["w1 nobody knows"])


def test_a_vocabulary_alone_is_enough(tiny_folder: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "creme", "soap", "##s", ",", "日"]
    (tiny_folder / "tokenizer.json").unlink()
    (tiny_folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokenise = load_tokenizer(tiny_folder, max_tokens=6)
    assert (tokenise.unknown, tokenise.special, tokenise.pieces[7]) == (1, {0, 2, 3, 4}, "##s")
    found = tokenise(["Crème, soaps 日 soap soap", "soap"])
    # Word pieces by hand: lower case, no accents, punctuation apart, longest piece first.
    assert found == [[2, 5, 8, 6, 7, 3], [2, 6, 3]]


@pytest.mark.parametrize(
    ("settings", "first"),
    [({}, 7), ({"do_lower_case": False}, 1), ({"strip_accents": False}, 6)],
)
def test_the_settings_of_a_vocabulary(tiny_folder: Path, settings: dict[str, bool], first: int) -> None:
    """The expected ids are those of `BertTokenizerFast` of transformers 5.24."""
    words = ["Creme", "crème", "creme", "soap", "##s", ",", "日"]
    (tiny_folder / "tokenizer.json").unlink()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tiny_folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    (tiny_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = ["Crème, soaps日soap\tCreme", "", "unheard [MASK] creme"]
    found = load_tokenizer(tiny_folder, max_tokens=6)(texts)
    assert found == [[2, first, 10, 8, 9, 3], [2, 3], [2, 1, 4, 7, 3]]


def test_a_vocabulary_without_marks_is_an_error(tiny_folder: Path) -> None:
    (tiny_folder / "tokenizer.json").unlink()
    (tiny_folder / "vocab.txt").write_text("soap\n##s", encoding="utf-8")
    with pytest.raises(RelandError, match=r"vocab\.txt: \[CLS\] and \[SEP\] must be in the vocabulary"):
        load_tokenizer(tiny_folder, max_tokens=6)


def test_no_tokenizer_is_an_error(tiny_folder: Path) -> None:
    (tiny_folder / "tokenizer.json").unlink()
    with pytest.raises(RelandError, match=r"tiny: no tokenizer\.json and no vocab\.txt"):
        load_tokenizer(tiny_folder, max_tokens=8)


def test_a_damaged_tokenizer_is_an_error(tiny_folder: Path) -> None:
    (tiny_folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RelandError, match=r"tokenizer\.json: cannot read the tokenizer"):
        load_tokenizer(tiny_folder, max_tokens=8)
