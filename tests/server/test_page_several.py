"""The page in a browser: more images like those of the selection."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.server.conftest import CHROMIUM, page_without_selection
from tests.server.made_lists import serve_made_list
from tests.server.test_page import search, wait_until

page = page_without_selection  # the fixture of these tests
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def test_more_like_the_selection_has_an_address_history_and_a_filter(page: Page) -> None:
    expect(page.locator("#like-selection")).to_be_hidden()
    search(page, "snail")
    for index in range(3):
        page.locator(f"#card-{index}").focus()
        page.keyboard.press(" ")
    keys = page.evaluate("[...state.selectedKeys]")
    with page.expect_request("**/api/similar") as request:
        page.get_by_role("button", name="More like these").click()
    assert json.loads(request.value.post_data or "")["keys"] == keys
    expect(page.locator("#status")).to_contain_text("57 results similar to 3 images of “picked”")
    expect(page.locator("#card-0")).to_be_focused()
    found = page.evaluate("state.results.map(result => result.key)")
    assert not set(found) & set(keys)
    page.keyboard.press("y")  # verdicts work as for one image
    expect(page.locator("#verdicts-status")).to_contain_text("1 right, 0 wrong")
    page.keyboard.press("y")
    expect(page.locator("#verdicts")).to_be_hidden()

    address = page.url
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“snail”")
    page.goto(address)
    page.reload()
    expect(page.locator("#status")).to_contain_text("57 results similar to 3 images of “picked”")
    assert page.evaluate("state.results.map(result => result.key)") == found
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("SQL").fill("camera = 'front'")
    page.keyboard.press("Enter")
    wait_until(page, "state.results.every(result => result.metadata.camera === 'front')")
    assert 0 < page.evaluate("state.results.length") < 57


def test_lists_like_other_images_are_saved_side_by_side(page: Page) -> None:
    search(page, "snail")
    for count in (1, 2):
        page.evaluate(f"searchSimilar(state.results[{count}], {{x0: 0.1, y0: 0.1, x1: 0.{count + 3}, y1: 0.6}})")
        page.evaluate("state.latest.name = 'one name'")
        page.get_by_role("button", name="Save search").click()
        expect(page.get_by_role("button", name="Saved")).to_be_visible()
    assert page.evaluate("state.saved.map(search => search.title)") == ["like one name (2)", "like one name"]


def test_of_a_large_selection_the_latest_images_count(page: Page) -> None:
    serve_made_list(page, 80)
    answer: dict[str, Any] = {"results": [], "confidence": None, "notes": []}
    page.route("**/api/similar", lambda route: route.fulfill(json=answer))
    search(page, "snail")
    page.keyboard.press("ControlOrMeta+a")
    expect(page.locator("#count")).to_have_text("60 selected")
    with page.expect_request("**/api/similar") as request:
        page.keyboard.press("Shift+M")
    sent = json.loads(request.value.post_data or "")["keys"]
    assert sent == [str(key) for key in range(11, 61)]
    expect(page.locator("#status")).to_contain_text("the latest 50 of 60 images")
