"""Scrubbing: what is taken for personal data, and the many numbers of titles that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from reland_jax.pool.prompting.cleaning import clean_title
from reland_jax.pool.prompting.prompts import shown_text
from reland_jax.pool.prompting.scrub import EMAIL, NAME, PHONE, USER, scrubber
from reland_jax.types import RelandError

DEFAULT = scrubber(("email", "phone"))


@pytest.mark.parametrize(
    ("title", "scrubbed"),
    [
        ("Soap, ask shop.one+x@mail.example.co.uk now", f"Soap, ask {EMAIL} now"),
        ("a_b@example.com; c@example.org", f"{EMAIL}; {EMAIL}"),
        ("MAILTO:Me@Example.COM.", f"MAILTO:{EMAIL}."),
        ("me (at) example (dot) com", EMAIL),
        ("me[at]example.com", EMAIL),
        ("me＠example.com", EMAIL),
        ("m\u200ce\u200d@exam\u200dple.com", EMAIL),
        ("Call 1-800-555-0147 now", f"Call {PHONE} now"),
        ("(212) 555-0147 soap", f"{PHONE} soap"),
        ("1 (212) 555-0147", PHONE),
        ("212.555.0147", PHONE),
        ("Wig +49 151 23456789!", f"Wig {PHONE}!"),
        ("+491512345678", PHONE),
        ("+1 (212) 555-0147", PHONE),
        ("+44 (0)20 7946 0958", PHONE),
        ("0049 30 12345678", PHONE),
        ("020 7946 0958", PHONE),
        ("0151/23456789", PHONE),
        ("01 23 45 67 89", PHONE),
        ("Tel: 5550147", f"Tel: {PHONE}"),
        ("phone: 555 0147", f"phone: {PHONE}"),
        ("Contact us at 5550147.", f"Contact us at {PHONE}."),
        ("WhatsApp +8613800138000", f"WhatsApp {PHONE}"),
    ],
)
def test_personal_data(title: str, scrubbed: str) -> None:
    assert DEFAULT(title) == scrubbed


@pytest.mark.parametrize(
    "title",
    [
        "ISBN 0-306-40615-2", "ISBN 978-0-306-40615-7", "9780306406157", "0306406152", "UPC 071249 143384",
        "EAN 4 006381 333931", "Butter 8 Oz. (00501309)", "Part 022600-1234-5678", "Part No. 501-0000-123",
        "iPhone 4 4S 5 5S 6", "Cell Phone 5500 mAh", "Phone 10 20 30 40", "Phone Case 2019 2020 2021",
        "1999-2004", "Summer of 42 (1971)", "2001: A Space Odyssey (1968)", "Call of Duty 4 2007",
        "100 200 300 400 grit", "240 320 400 600", "+100 200 300 pcs", "SPF 50+ 30 ml", "2 x 100 ml",
        "12.5 oz 250.75 ml", "8.4 oz/250 ml 0501309", "3-1/2 inch 100-240V 50/60Hz", "1920x1080",
        "No. 4711 800 ml", "Vitamin E 1000 IU 2000 3000", "0.05 1234 5678", "12-pack 355-0147", "Blink 182",
        "Ring 925 1200 3400 size 7", "$12.99 @ shop", "@home Spa", "Buy 2 @ 3.99", "a@b", "Tel Aviv 1234567",
        "98.6% Pure 0.025%", "10-20-30", "Route 66 1926-1985", "555-0147", "2125550147",
    ],
)  # fmt: skip
def test_numbers_of_titles_stay(title: str) -> None:
    assert DEFAULT(title) == title


@given(
    st.sampled_from(["", "Soap ", "Wig (2019), "]),
    st.from_regex(
        r"[a-z][a-z0-9._+-]{0,9}[a-z0-9]@[a-z][a-z0-9-]{0,8}[a-z0-9]\.(com|de|co\.uk)", fullmatch=True
    ),
    st.sampled_from(["", " for you", ", 5 oz", ")"]),
)
def test_no_address_stays(before: str, address: str, after: str) -> None:
    assert DEFAULT(before + address + after) == before + EMAIL + after


@given(
    st.sampled_from(["+1 {} {} {}", "+1-{}-{}-{}", "({}) {}-{}", "1-{}-{}-{}", "{}.{}.{}", "Tel. {}{}{}"]),
    st.integers(200, 999), st.integers(200, 999), st.integers(0, 9999),
    st.sampled_from(["", "Soap ", "5 oz, "]), st.sampled_from(["", " now", "; 5 oz"]),
)  # fmt: skip
def test_no_number_of_these_forms_stays(
    form: str, area: int, exchange: int, line: int, before: str, after: str
) -> None:
    assume(before + after or area % 11 or area < 800)  # a toll-free number alone is a name
    number = form.format(area, exchange, f"{line:04}")
    word = "Tel. " if form.startswith("Tel") else ""
    assert DEFAULT(before + number + after) == before + word + PHONE + after


QUANTITY = st.builds(
    "{}{}".format,
    st.one_of(st.integers(0, 9999), st.decimals(0, 999, places=2)),
    st.sampled_from(["", " oz", "ml", " pcs", "%", '"', "-pack", " x 2", "th", "mm"]),
)


@given(st.lists(QUANTITY, min_size=1, max_size=3), st.sampled_from([", ", " / ", " - ", " x "]))
def test_quantities_stay(quantities: list[str], separator: str) -> None:
    title = f"Set {separator.join(quantities)}"
    assert DEFAULT(title) == title


PIECES = st.sampled_from(
    [
        "a",
        "@",
        "b.com",
        " ",
        "+",
        "1",
        "555",
        "0147",
        "-",
        "(",
        ")",
        "Tel",
        ":",
        "phone",
        "[",
        "]",
        "name",
        "Ann",
    ]
    + [EMAIL, PHONE, NAME, USER, "lee", "u1234567", "\u200d", "at", "."]
)


@given(st.one_of(st.text(st.characters(), max_size=60), st.lists(PIECES, max_size=15).map("".join)))
@example("a@b.com@c.com")
@example("name@name.name")
def test_twice_is_once_and_the_prompt_brings_nothing_back(text: str) -> None:
    scrub = scrubber(("email", "phone", "names"), ["Ann", "ann lee", "Name", "email"], ["u1234567"])
    scrubbed = scrub(clean_title(text))
    assert scrub(scrubbed) == scrubbed
    assert scrub(shown_text(scrubbed)) == shown_text(scrubbed)


@pytest.mark.parametrize("title", ["1-800-273-8255", "800.555.0147", " 888-555-0147 "])
def test_a_toll_free_number_alone_is_a_name(title: str) -> None:
    assert DEFAULT(title) == title
    assert PHONE in DEFAULT(f"Soap {title.strip()}, call now")


def test_names_of_works_are_no_telephone_numbers() -> None:
    assert DEFAULT("(212) 555-0147 by me@example.com", name=True) == f"(212) 555-0147 by {EMAIL}"


def test_what_is_not_asked_for_stays() -> None:
    both = "a@example.com (212) 555-0147"
    assert scrubber(())(both) == both
    assert scrubber(("email",))(both) == f"{EMAIL} (212) 555-0147"
    assert scrubber(("phone",))(both) == f"a@example.com {PHONE}"


def test_names(tmp_path: Path) -> None:
    listed = tmp_path / "people.txt"
    listed.write_text("\ufeffQuill Marrow\n\n  O'Tarn \n", "utf-8")
    scrub = scrubber(("names",), ["Quill", str(listed), "Straße"])
    assert scrub("Letters of QUILL  MARROW, signed") == f"Letters of {NAME}, signed"
    assert scrub("quill-marrow's soap") == f"{NAME}'s soap"
    assert scrub("Quill and o’tarn (STRASSE)") == f"{NAME} and {NAME} ({NAME})"
    assert scrub("Quillwort, Marrow, Tarn") == "Quillwort, Marrow, Tarn"


def test_user_ids_that_can_be_told_from_words() -> None:
    scrub = scrubber((), (), ["A1B2C3D4E5", "secret-user-3", "12345678", "metallica", "u2", "no token 1"])
    assert scrub("by A1B2C3D4E5: (secret-user-3)") == f"by {USER}: ({USER})"
    kept = "A1B2C3D4E5F secret-user-31 12345678 metallica u2 no token 1"
    assert scrub(kept) == kept


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(RelandError, match="config.pool.scrub='mail' is not known; .*email"):
        scrubber(("mail",))
    with pytest.raises(RelandError, match="config.pool.names is empty"):
        scrubber(("names",))
    with pytest.raises(RelandError, match="config.pool.scrub does not have 'names'"):
        scrubber(("email",), ["Quill"])
    with pytest.raises(RelandError, match="names: '--' has a name without any letter"):
        scrubber(("names",), ["--"])
    missing = str(tmp_path / "people.txt")
    with pytest.raises(
        RelandError, match="the file .*people.txt cannot be read .FileNotFoundError.; .*per line"
    ):
        scrubber(("names",), [missing])
    Path(missing).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RelandError, match="people.txt cannot be read .UnicodeDecodeError"):
        scrubber(("names",), [missing])


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "items"), [("amazon-beauty", 12_101), ("ml-1m", 3_307)])
def test_titles_of_real_data_change_hardly_ever(shared_data: Path, name: str, items: int) -> None:
    """None of these catalogues holds an address or telephone number, and nothing is taken for one."""
    lines = (shared_data / name / f"{name}.item").read_text("utf-8").splitlines()[1:]
    cleaned = [clean_title(field) for field in {field for line in lines for field in line.split("\t")[1:]}]
    changed = [text for text in cleaned if DEFAULT(text) != text]
    assert len(lines) == items and changed == []
