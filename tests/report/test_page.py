"""The HTML page: whole, balanced, self-contained and safe with hostile texts."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reland_jax.report import Case, ReportContent, page, write_report
from reland_jax.results import RunResults
from tests.looks import SIZES, faults_of

VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Page(HTMLParser):
    """Collects elements and fails on a closing tag that does not fit."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "data", "action"):
                self.references.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(" ".join(data.split()))


@pytest.fixture(scope="module")
def html(sample: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the sample content, as written."""
    folder = tmp_path_factory.mktemp("run") / "new"
    write_report(folder / "report.html", sample)
    assert os.listdir(folder) == ["report.html"]
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the plots out, which take most of the time of a page."""
    names = ("gains", "validation", "activity", "clusters", "cosines")
    monkeypatch.setattr(page, "_plots", lambda _: dict.fromkeys(names, ""))


def test_the_page_is_balanced_and_has_every_section(html: str) -> None:
    parsed = _Page(html)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {name for name, _ in page.SECTIONS} <= set(parsed.ids)
    assert parsed.tags.count("svg") == 5 and html.index("<svg") < html.index("<table")
    assert parsed.tags.count("table") == 14
    assert re.findall(r'<div class="scroll"[^>]*>\s*<(\w+)', html) == ["table"] * 14
    assert "<caption" not in html, "captions stand outside of what scrolls"


def test_nothing_is_fetched_or_run(html: str) -> None:
    parsed = _Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)
    # A namespace is a name, not an address.
    assert not re.findall(r'https?:(?!//www\.w3\.org/2000/svg")', html) and "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_hostile_texts_are_shown_not_run(html: str) -> None:
    assert "<script" not in html
    # Two cases: title in two lists and as the target, step 1, what was read; the second case's user id twice.
    # The data.
    assert html.count("&lt;script&gt;alert") == 2 * 5 + 2 + 1 + 2


def test_cases_show_match_target_and_recommendations(html: str) -> None:
    texts = _Page(html).texts
    assert "Written from the history of seed user user-9. Weight 0.874, the cosine of the two." in texts["p"]
    assert (
        texts["p"].count(
            "Written from the history of seed user user-11. Weight 0.500, the cosine of the two."
        )
        == 2
    )
    assert any(text.startswith("A seed user") for text in texts["p"])
    assert texts["h4"].count("The 2 rationales, by weight") == 2
    marked = texts["mark"]
    assert len(marked) == 4 and sum(text.endswith("(target)") for text in marked) == 2
    headings = texts["h4"]
    # f_item recommends another item of the same title: it is no hit.
    assert headings.count("id: target not among these 5") == 2
    assert headings.count("f_item: target not among these 4") == 2
    assert headings.count("reland") == 2
    assert "4 earlier items" in texts["summary"]
    assert "Item number 13 (validation)" in texts["li"] and "Item number 12" in texts["li"]


def test_numbers_of_the_tables_are_on_the_page(html: str) -> None:
    cells = _Page(html).texts["td"]
    for cell in ("0.0462* (+10.0%)", "0.0440", "+0.0022", "10.0 times", "leave_one_out", "2.0", "+25.0%",
                 "12.5%", "21,000, of which 17,000 for training", "abc", "0.0123", "202"):  # fmt: skip
        assert cell in cells, cell


@pytest.mark.usefixtures("without_plots")
def test_what_was_done_to_the_data_is_on_the_page(sample: ReportContent, html: str) -> None:
    assert "rows read" in html and "10,000" in html
    assert "Nothing was recorded about how the data" in page.render_report(sample._replace(data=()))


def test_an_item_without_a_title_shows_its_id(sample: ReportContent) -> None:
    case = sample.cases[0]
    targets = [case.targets[0]._replace(title="")]
    html = page.render_report(sample._replace(cases=[case._replace(targets=targets)]))
    assert "<mark>B0099</mark>" in html


def headings(sample: ReportContent, case: Case, masked: bool) -> list[str]:
    """Headings of the lists of one case."""
    html = page.render_report(sample._replace(cases=[case], masked=masked))
    sentence = "lists leave out what a user has had" if masked else "The history is not masked in this run"
    assert sentence in html
    return [text for text in _Page(html).texts["h4"] if text.split(":")[0] in case.recommendations]


@pytest.mark.usefixtures("without_plots")
def test_a_list_says_why_the_target_is_not_in_it(sample: ReportContent) -> None:
    """Where it was had before it cannot be, if the history is masked."""
    case = sample.cases[0]._replace(had_before=["B0099"])
    case = case._replace(recommendations={"id": case.history[:3], "f_item": [], "reland": case.targets})
    nothing = "f_item: nothing is left that the user has not had"
    assert headings(sample, case, True) == ["id: target had before, so not listed", nothing, "reland"]
    assert headings(sample, case, False)[0] == "id: target not among these 3"
    two = case._replace(targets=[*case.targets, *case.history[5:6]])
    assert headings(sample, two, True)[0] == "id: target not among these 3"


@pytest.mark.usefixtures("without_plots")
def test_targets_had_before_are_marked_and_users_without_any_have_no_hit(sample: ReportContent) -> None:
    case = sample.cases[0]._replace(had_before=["B0099"])
    assert "(had before)" in page.render_report(sample._replace(cases=[case]))
    assert "(had before)" not in page.render_report(sample)
    untested = case._replace(targets=[], had_before=[])
    assert headings(sample, untested, True) == ["id", "f_item", "reland"]
    assert "this user has no test item" in page.render_report(sample._replace(cases=[untested]))


@pytest.mark.usefixtures("without_plots")
def test_notes_stand_below_the_tables(sample: ReportContent, results: RunResults) -> None:
    assert "What to know" not in page.render_report(sample)
    results = replace(results, notes=["2 of 9 users " + "<b>had it</b>."])
    texts = _Page(page.render_report(sample._replace(results=results))).texts
    assert "What to know about these numbers:" in texts["p"] and "2 of 9 users <b>had it</b>." in texts["li"]


@pytest.mark.usefixtures("without_plots")
def test_the_heuristic_is_named_visibly(sample: ReportContent, heuristic_results: RunResults) -> None:
    html = page.render_report(sample._replace(results=heuristic_results))
    assert 'class="warning"' in html and html.count("No LLM was used") == 2
    assert "Rationales written by" not in html
    # What an LLM would cost: 2,000 users are ten times the 200 seed users.
    assert "0.1700 USD" in html and "1.7000 USD" in html and "1,000,000" in html
    assert 'class="warning"' not in page.render_report(sample)


@pytest.mark.usefixtures("without_plots")
def test_problems_are_listed_up_to_a_limit(sample: ReportContent) -> None:
    html = page.render_report(sample._replace(problems=sample.problems * 60))
    assert "60 problems with answers" in html and "the first 50 are shown" in html
    assert html.count("step 2 is missing") == 50
    assert "Every answer could be read." in page.render_report(sample._replace(problems=()))


def test_a_page_without_cases_and_history(sample: ReportContent, heuristic_results: RunResults) -> None:
    without = {"id": replace(heuristic_results.variants["id"], history=())}
    heuristic_results = replace(heuristic_results, variants=without)
    empty = sample._replace(results=heuristic_results, cases=(), problems=(), config={})
    html = page.render_report(empty)
    _Page(html)
    assert "No users were picked" in html and "nothing was recorded" in html


def test_the_same_content_gives_the_same_page(sample: ReportContent, html: str) -> None:
    assert page.render_report(sample) == html


@pytest.mark.usefixtures("without_plots")
def test_a_failed_write_leaves_the_old_page(
    sample: ReportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("reland_jax.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, sample)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


@pytest.mark.usefixtures("without_plots")
def test_only_its_owner_may_read_it(sample: ReportContent, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", sample)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600


def test_texts_are_shown_as_they_are_and_turn_nothing(sample: ReportContent, without_plots: None) -> None:
    """Bidirectional overrides would turn what stands around them, and NULs end the page for some readers."""
    odd = "\u202eevil\u2069 \0 \x1b[2J \u2028 \ud800 می\u200cخواهم"
    case = sample.cases[0]
    case = case._replace(user_id=odd, rationales=[case.rationales[0]._replace(step2=odd)])
    problem = sample.problems[0]._replace(why=odd)
    shown = page.render_report(sample._replace(cases=[case], problems=[problem]))
    assert not set(shown) & set("\u202e\u2069\0\x1b\u2028\ud800")
    assert shown.count("\ufffdevil\ufffd") >= 3 and "می\u200cخواهم" in shown
    shown.encode("utf-8")


@pytest.mark.slow
@SIZES
def test_it_can_be_read_on_every_screen(
    browser: Any, html: str, tmp_path: Path, width: int, scheme: str
) -> None:
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    assert not faults_of(browser, tmp_path / "report.html", width, scheme)
