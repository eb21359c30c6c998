"""The page in a real browser: what a person types and picks, and what is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reland_jax.serve import Reland
from tests.looks import SIZES, faults
from tests.server.process import Process, serving

pytestmark = [pytest.mark.slow, pytest.mark.optional("starlette", requirements="serve")]


@pytest.fixture(scope="module")
def server(bundles: dict[str, Path]) -> Iterator[Process]:
    """A server of three variants."""
    with serving(*(f"--bundle={folder}" for folder in bundles.values())) as found:
        yield found


@pytest.fixture
def page(browser: Any, server: Process) -> Iterator[Any]:
    """The page, which must ask this server alone and report no error."""
    context = browser.new_context(viewport={"width": 400, "height": 800})
    found, problems = context.new_page(), list[str]()
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda asked: asked.url.startswith(server.url) or problems.append(asked.url))
    found.goto(server.url)
    yield found
    context.close()
    assert not problems


def test_a_user_is_shown_with_lists_side_by_side_and_why(page: Any, bundles: dict[str, Path]) -> None:
    page.fill("#user", "u1")
    page.click("#by-user")
    page.wait_for_selector("[data-model=reland] .list li")
    told = Reland.load(bundles["reland"]).explain("u1")
    shown = page.locator("[data-model=reland] .title").all_text_contents()
    assert shown == [each.item.title for each in told.items]
    history = [each.title for each in reversed(told.history)]
    assert page.locator("#had li").all_inner_texts() == history
    assert page.locator("#models > section").count() == 3
    assert page.locator("#written blockquote").count() == len(told.seeds)
    assert page.locator("#written h2").count() == 1  # the others have none
    page.locator("[data-model=reland] summary").first.click()
    assert told.items[0].history[0].title in page.locator("[data-model=reland] .why").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_items_are_searched_picked_and_taken_away(page: Any) -> None:
    page.fill("#words", "mint")
    page.wait_for_selector("#found button")
    assert page.locator("#found button").count() == 2
    page.keyboard.press("Enter")
    page.fill("#words", "rose soap")
    page.locator("#found button", has_text="Rose soap").click()
    assert page.locator("#chosen li").count() == 2
    page.locator("#chosen button").first.click()
    page.click("#by-items")
    page.wait_for_selector("[data-model=id] .list li")
    assert page.locator("#had li").all_inner_texts() == ["Rose soap"]


def test_what_is_wrong_is_said(page: Any) -> None:
    page.fill("#user", "<img src=x onerror=alert(1)>")
    page.click("#by-user")
    page.wait_for_selector("#status.bad")
    assert "this user is not known" in page.inner_text("#status")
    assert page.locator("#models > section").count() == 0


def test_the_description_is_readable(page: Any, server: Process) -> None:
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("#paths section")
    assert "POST /recommend" in page.inner_text("#paths")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@SIZES
def test_it_can_be_read_on_every_screen(
    browser: Any, server: Process, width: int, scheme: str, tmp_path: Path
) -> None:
    """RELAND_SCREENSHOTS names a folder where the pages are kept to be looked at."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, folder = context.new_page(), Path(os.environ.get("RELAND_SCREENSHOTS") or tmp_path)
    page.goto(server.url)
    page.fill("#user", "u2")
    page.click("#by-user")
    page.wait_for_selector("[data-model=reland] .list li")
    page.locator("[data-model=reland] summary").first.click()
    page.screenshot(path=folder / f"page-{width}-{scheme}.png", full_page=True)
    assert not faults(page)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 200) == (scheme == "dark")
    context.close()
