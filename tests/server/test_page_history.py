"""The page in a real browser: Back, Forward, addresses that others wrote, odd texts, and several windows at once."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.server.conftest import CHROMIUM, open_page
from tests.server.test_page import search

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def test_back_to_the_start_page_leaves_nothing_of_the_list(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    page.go_back()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#text")).to_have_value("")

    page.locator("#text").fill("-snail")
    page.keyboard.press("Enter")
    expect(page.locator("#error")).to_be_visible()
    page.go_back()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#error")).to_be_hidden()


def test_an_answer_that_comes_after_back_is_dropped(page: Page) -> None:
    waiting: list[Route] = []
    page.route("**/api/search", lambda route: waiting.append(route))
    page.locator("#text").fill("snail")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Searching …")
    page.go_back()
    expect(page.locator("#empty")).to_be_visible()
    with page.expect_response("**/api/search"):
        waiting[0].continue_()
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#grid")).to_be_hidden()


def test_an_address_written_in_another_way_is_no_trap_for_back(page: Page) -> None:
    start = page.url
    page.goto(f"{start}#sort=name&q=snail%20shell")
    expect(page.locator("#status")).to_contain_text("“snail shell”")
    expect(page.locator("#sort")).to_have_value("name")
    page.go_back()
    expect(page).to_have_url(start)
    expect(page.locator("#empty")).to_be_visible()


def test_a_long_word_does_not_widen_the_page(page: Page) -> None:
    search(page, "a" * 1000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_two_windows_share_selection_and_verdicts(browser: Browser, address: str) -> None:
    with open_page(browser, address, allowed="404") as page:  # of a selection that another window deleted
        share_selection_and_verdicts(page)


def share_selection_and_verdicts(page: Page) -> None:
    search(page, "snail")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#card-1")).to_be_visible()
    page.keyboard.press(" ")
    page.evaluate("sending")
    other.locator("#card-1").press(" ")
    expect(other.locator("#count")).to_have_text("2 selected")
    expect(other.locator("#error")).to_be_hidden()
    page.keyboard.press("y")
    page.evaluate("sendingVerdicts")
    look_at(other)
    expect(other.locator("#verdicts-status")).to_contain_text("1 right, 0 wrong")
    look_at(page)
    expect(page.locator("#count")).to_have_text("2 selected")

    other.on("dialog", lambda dialog: dialog.accept())
    other.locator("#delete").click()
    expect(other.locator("#count")).to_have_text("0 selected")
    page.locator("#card-2").press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    expect(page.locator("#error")).to_be_hidden()


def look_at(page: Page) -> None:
    """Do what the browser does when its window gets the focus, some time after the last time."""
    page.evaluate("refreshed = 0; window.dispatchEvent(new Event('focus'))")


def test_a_text_that_the_model_does_not_know_is_named(page: Page) -> None:
    search(page, "犬")
    expect(page.locator("#advice")).to_contain_text("“犬”")
    search(page, "snail")
    expect(page.locator("#advice")).to_be_hidden()


def test_a_list_like_the_only_image_says_that_there_is_no_other(page: Page) -> None:
    search(page, "snail")
    answer: dict[str, Any] = {
        "results": [],
        "confidence": None,
        "images": 1,
        "milliseconds": 1,
        "labels": None,
        "notes": [],
    }
    page.route("**/api/similar", lambda route: route.fulfill(json=answer))
    page.keyboard.press("m")
    expect(page.locator("#no-results-help")).to_have_text("The collection has no other image.")
