"""The page in a real browser: verdicts and searches that are kept, the start page, and lists that have an address."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM
from tests.server.test_page import search

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def test_verdicts_survive_a_reload_and_belong_to_a_name(page: Page, served: Searcher) -> None:
    search(page, "snail")
    first = Path(served.search("snail", 1)[0].uri).name
    page.keyboard.press("y")
    expect(page.locator("#verdicts-status")).to_contain_text("1 right, 0 wrong")
    page.evaluate("sendingVerdicts")
    page.reload()
    expect(page.locator("#verdicts-status")).to_contain_text("1 right, 0 wrong")
    expect(page.locator("#verdicts-list button")).to_have_attribute("title", f"Remove {first} (right)")

    page.get_by_text("View", exact=True).click()
    page.get_by_label("Your name").fill("ana")
    page.get_by_label("Your name").press("Enter")
    expect(page.locator("#verdicts")).to_be_hidden()
    page.get_by_label("Your name").fill("me")
    page.get_by_label("Your name").press("Enter")
    expect(page.locator("#verdicts-status")).to_contain_text("1 right")

    expect(page.locator(".card.right")).to_have_count(1)
    page.get_by_label("Hide reviewed").check()
    expect(page.locator(".card.right")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("59 results")


def test_a_saved_search_is_opened_from_the_start_page(page: Page) -> None:
    expect(page.locator("#sample-images button")).to_have_count(24)
    expect(page.locator("#saved")).to_be_hidden()
    search(page, "snail")
    page.get_by_role("button", name="Save search").click()
    expect(page.get_by_role("button", name="Saved")).to_have_attribute("aria-pressed", "true")
    page.goto(page.url.partition("#")[0])
    page.reload()
    expect(page.locator("#recent-searches a")).to_have_text(["snail"])
    page.locator("#saved-searches a", has_text="snail").click()
    expect(page.locator(".card").first).to_be_visible()
    expect(page.locator("#text")).to_have_value("snail")
    page.go_back()
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_role("button", name="Remove snail").click()
    expect(page.locator("#saved")).to_be_hidden()


def test_a_list_like_an_image_or_a_region_has_an_address(page: Page) -> None:
    page.locator("#sample-images button").first.click()
    expect(page.locator("#status")).to_contain_text("similar to")
    like, keys = page.url, page.evaluate("state.results.map(result => result.key)")
    page.evaluate("searchSimilar(state.results[0], {x0: 0.1, y0: 0.123456, x1: 0.5, y1: 0.6})")
    expect(page.locator("#status")).to_contain_text("a region of")
    region, region_keys = page.url, page.evaluate("state.results.map(result => result.key)")
    page.go_back()
    expect(page.locator("#status")).not_to_contain_text("a region of")
    for address, expected in ((region, region_keys), (like, keys)):
        page.goto(address)
        page.reload()
        expect(page.locator("#status")).to_contain_text("similar to")
        assert page.evaluate("state.results.map(result => result.key)") == expected
