"""Groups of near duplicates on the page in a browser: one card each, opened, closed, and selected as a whole."""

import json

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.server.conftest import CHROMIUM, open_page, page_without_selection
from tests.server.made_lists import serve_made_list
from tests.server.test_page import check_page, search, show_as

page = page_without_selection  # the fixture of these tests
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def serve_groups(page: Page, size: int) -> None:
    """Group a made list: `size` results after each other are near duplicates."""

    def group(route: Route) -> None:
        body = route.request.post_data_json or {}
        firsts = [str(size * ((int(key) - 1) // size) + 1) for key in body["keys"]]
        # A group that another part of the list started is named among its firsts.
        assert set(firsts) <= {*body["keys"], *body["firsts"]}
        route.fulfill(status=200, content_type="application/json", body=json.dumps({"firsts": firsts}))

    page.route("**/api/duplicates", group)


def group_results(page: Page) -> None:
    page.get_by_text("View", exact=True).click()
    page.get_by_label("Group near duplicates").check()
    page.keyboard.press("Escape")


def shown(page: Page) -> list[int]:
    indexes: list[int] = page.evaluate("state.shown")
    return indexes


def test_a_group_is_one_card_that_opens_and_closes(page: Page) -> None:
    serve_made_list(page, 60)
    serve_groups(page, 4)
    search(page, "snail")
    group_results(page)
    expect(page.locator("#status")).to_contain_text("60 results in 15 groups")
    assert shown(page) == list(range(0, 60, 4))
    expect(page.locator("#card-4 .group")).to_contain_text("group of 4 near duplicates, closed")
    page.locator("#card-0").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#card-4")).to_be_focused()
    page.keyboard.press("g")
    expect(page.locator("#card-4")).to_be_focused()
    assert shown(page) == [0, 4, 5, 6, 7, *range(8, 60, 4)]
    expect(page.locator("#card-4 .group")).to_contain_text("open")
    expect(page.locator("#card-6 .group")).to_contain_text("near duplicate 3 of 4")
    expect(page.locator("#status")).to_contain_text("Opened a group of 4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("g")
    expect(page.locator("#card-4")).to_be_focused()
    assert shown(page) == list(range(0, 60, 4))
    page.locator("#card-4 .group").click()
    expect(page.locator("#card-7")).to_be_visible()
    expect(page.locator("#detail")).to_be_hidden()

    page.reload()  # the browser remembers the view, and a search is grouped before it is shown
    expect(page.locator("#status")).to_contain_text("60 results in 15 groups")
    page.get_by_text("View", exact=True).click()
    page.get_by_label("Group near duplicates").uncheck()
    assert shown(page) == list(range(60))
    expect(page.locator(".group, .stacked, .member")).to_have_count(0)


def test_the_selection_of_a_group_selects_its_members(page: Page) -> None:
    serve_made_list(page, 60)
    serve_groups(page, 4)
    search(page, "snail")
    group_results(page)
    page.locator("#card-4").focus()
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("4 selected")
    expect(page.locator("#card-4")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("g")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("3 selected")
    expect(page.locator("#card-5")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("g")
    expect(page.locator("#card-4")).to_have_attribute("aria-selected", "false")
    expect(page.locator("#card-4 .group")).to_contain_text("3 selected")
    page.locator("#card-12").click(modifiers=["Shift"])
    expect(page.locator("#count")).to_have_text("12 selected")
    page.keyboard.press("ControlOrMeta+a")
    expect(page.locator("#count")).to_have_text("60 selected")
    page.keyboard.press("ControlOrMeta+z")
    expect(page.locator("#count")).to_have_text("12 selected")
    page.get_by_role("button", name="Export").click()
    expect(page.locator("#what option[value=all]")).to_contain_text("60 images")


def test_a_long_list_is_loaded_until_its_groups_fill_the_screen(page: Page) -> None:
    asked = serve_made_list(page, 3000)
    serve_groups(page, 50)
    search(page, "snail")
    group_results(page)
    expect(page.locator("#card-1000")).to_be_visible()
    assert asked[0] == 60
    assert page.evaluate("new Set(state.results.map(groupOf)).size * 50 - state.results.length") < 50
    page.locator("#sort").select_option("name")
    expect(page.locator("#status")).to_contain_text("sorted by name")
    names = page.evaluate("state.shown.map(index => state.results[index].name)")
    assert names == sorted(names, key=lambda name: int(name.split()[1].split(".")[0]))
    assert page.evaluate("new Set(state.shown.map(index => groupOf(state.results[index]))).size") == len(names)


def test_results_stay_where_groups_can_not_be_found(browser: Browser, shared_address: str) -> None:
    with open_page(browser, shared_address, allowed="500") as page:
        page.route("**/api/duplicates", lambda r: r.fulfill(status=500, body='{"detail": "no groups today"}'))
        search(page, "snail")
        group_results(page)
        expect(page.get_by_role("alert")).to_contain_text("no groups today")
        expect(page.locator(".card")).to_have_count(60)
        search(page, "anchor")
        expect(page.locator(".card")).to_have_count(60)


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 390)])
def test_groups_are_accessible_and_fit(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    serve_made_list(page, 60)
    serve_groups(page, 4)
    search(page, "snail")
    group_results(page)
    page.locator("#card-4").focus()
    page.keyboard.press("g")
    page.keyboard.press(" ")
    expect(page.locator("#card-7")).to_be_visible()
    check_page(page)
