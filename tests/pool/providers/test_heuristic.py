"""The heuristic writer counts: its texts name what dominates a history and what came last."""

from __future__ import annotations

from reland_jax.pool.contract import RationaleRequest
from reland_jax.pool.providers.heuristic import HeuristicProvider
from reland_jax.types import Rationale


def item(title: str, brand: str = "", categories: str = "", **others: str) -> dict[str, str]:
    return {"title": title, "brand": brand, "categories": categories, **others}


def written(*history: dict[str, str]) -> Rationale:
    (rationale,) = HeuristicProvider().rationales([RationaleRequest("u", "", history)]).rationales
    assert rationale is not None
    return rationale


HISTORY = (
    item("Rose Lip Balm", "Acme", "Skin > Lips > Balms"),
    item("Mint Lip Balm", "Acme", "Skin > Lips > Balms"),
    item("Clay Mask", "Zenith", "Skin > Face > Masks"),
    item("Night Cream", "Unknown", "Skin > Face > Creams"),
)


def test_texts_by_hand() -> None:
    rationale = written(*HISTORY)
    assert rationale.step2 == (
        "Recommended categories: Lips > Balms; Face > Creams; Face > Masks. "
        "Recommended brands: Acme; Zenith. "
        "Recommended items like: Night Cream; Clay Mask; Mint Lip Balm; Rose Lip Balm. "
        "Key words: balm; lip."
    )
    assert rationale.step1 == (
        "By counts over the history, this user mostly chooses Lips > Balms, Face > Creams and Face > Masks, "
        "comes back to Acme and Zenith, often meets the words balm and lip and lately chose Night Cream and "
        "Clay Mask."
    )


def test_it_is_called_heuristic_and_costs_nothing() -> None:
    rationale = written(*HISTORY)
    assert (rationale.model, rationale.prompt_tokens, rationale.response_tokens) == ("heuristic", 0, 0)
    assert rationale.prompt_hash == "" and rationale.created == ""


def test_among_equal_counts_the_newer_wins() -> None:
    older_first = written(item("a", "Old"), item("b", "New"), item("c", "Old"), item("d", "New"))
    assert "Recommended brands: New; Old." in older_first.step2


def test_equal_weights_go_to_the_value_seen_last() -> None:
    step2 = written(item("a", "Z"), item("b", "B"), item("c"), item("d", "B"), item("e", "Z")).step2
    assert "Recommended brands: Z; B." in step2


def test_genres_are_counted_one_by_one() -> None:
    movies = [{"title": "One", "genres": "Drama War"}, {"title": "Two", "genres": "Drama|Comedy"}]
    assert "Recommended categories: Drama; Comedy; War." in written(*movies).step2


def test_lists_are_taken_apart_at_the_strongest_sign_between_their_parts() -> None:
    """As `plain` writes them: a part with a comma is one, and so is a path."""
    for value, expected in (
        ("Skin, Hair", "Hair; Skin"),
        ("Bath, Body; Hair", "Bath, Body; Hair"),
        ("Men's Hair", "Men's Hair"),
        ("Beauty > Bath, Body > Soap", "Bath, Body > Soap"),
        ("A > B > C; D", "B > C; D"),
    ):
        assert f"Recommended categories: {expected}. " in written(item("Soap", categories=value)).step2


def test_words_come_from_two_items_at_least_and_mean_something() -> None:
    step2 = written(item("The oil for hair and hair"), item("Oil with the comb"), item("A comb")).step2
    assert step2.endswith("Key words: comb; oil.")


def test_long_titles_are_shortened_without_an_open_bracket() -> None:
    step2 = written(item("one two three four five six seven eight (nine ten) eleven")).step2
    assert step2 == "Recommended items like: one two three four five six seven eight."


def test_an_empty_history_has_no_rationale() -> None:
    requests = [RationaleRequest("u1", "", HISTORY), RationaleRequest("u2", "", (item(""), item("")))]
    result = HeuristicProvider().rationales(requests)
    assert [rationale is None for rationale in result.rationales] == [False, True]
    assert result.problems == [("u2", "no item of the history has a text")]


def test_a_user_alone_or_among_others_gets_the_same_text() -> None:
    others = [RationaleRequest("o", "", (item("Sun Cream", "Beam"),)), RationaleRequest("u", "", HISTORY)]
    assert HeuristicProvider().rationales(others).rationales[1] == written(*HISTORY)
