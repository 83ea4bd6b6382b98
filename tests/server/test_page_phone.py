"""The page on a phone: little height for the controls, menus, touch, and texts that speak of it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.server.conftest import CHROMIUM, open_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")

WIDTH, HEIGHT = 390, 844


@pytest.fixture
def page(browser: Browser, shared_address: str) -> Iterator[Page]:
    httpx.delete(f"{shared_address}api/selections/picked")
    with open_page(browser, shared_address, width=WIDTH, height=HEIGHT, has_touch=True, is_mobile=True) as opened:
        yield opened


def search(page: Page, text: str = "snail") -> None:
    page.locator("#text").fill(text)
    page.get_by_role("button", name="Search", exact=True).tap()
    expect(page.locator("#status")).to_contain_text(f"“{text}”")


def touch(page: Page, points: list[tuple[float, float]], hold: float = 0) -> None:
    """Touch the first point, move over the others, and lift the finger. hold: milliseconds before moving."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, at: list[tuple[float, float]]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in at]})

    send("touchStart", points[:1])
    page.wait_for_timeout(hold)
    for point in points[1:]:
        send("touchMove", [point])
    send("touchEnd", [])


def middle(page: Page, selector: str) -> tuple[float, float]:
    edges = page.locator(selector).bounding_box()
    assert edges is not None
    return edges["x"] + edges["width"] / 2, edges["y"] + edges["height"] / 2


def test_header_and_tray_take_at_most_a_sixth_of_the_height(page: Page) -> None:
    search(page)
    page.locator("#card-0 .select").tap()
    page.locator("#card-1 .select").tap()
    expect(page.locator("#count")).to_have_text("2 selected")
    expect(page.locator("#undo")).to_be_visible()
    heights = page.evaluate("['header', 'footer'].map(name => document.querySelector(name).offsetHeight)")
    assert sum(heights) <= HEIGHT / 6
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    assert page.locator("#export").bounding_box()["x"] + 40 < WIDTH  # type: ignore[index]


def test_menus_hold_the_other_buttons(page: Page) -> None:
    expect(page.locator("#filter")).to_be_hidden()
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("button", name="Filter").tap()
    expect(page.locator("#facets")).to_contain_text("camera")
    expect(page.locator("#filter")).to_be_hidden()
    page.get_by_role("button", name="Change the selection").tap()
    expect(page.get_by_role("button", name="New")).to_be_visible()
    page.locator("#status").dispatch_event("click")
    expect(page.get_by_role("button", name="New")).to_be_hidden()


def test_touch_and_hold_selects_a_range(page: Page) -> None:
    search(page)
    page.locator("#card-0 .select").tap()
    expect(page.locator("#count")).to_have_text("1 selected")
    touch(page, [middle(page, "#card-3 .frame")], hold=700)
    expect(page.locator("#count")).to_have_text("4 selected")
    expect(page.locator("#detail")).to_be_hidden()
    page.locator("#card-3").tap()
    expect(page.locator("#detail")).to_be_visible()


def test_a_region_is_drawn_with_a_finger(page: Page) -> None:
    search(page)
    page.locator("#card-0").tap()
    expect(page.locator("#drawn-status")).to_contain_text("finger")
    page.get_by_role("button", name="Draw a region").tap()
    expect(page.locator(".drawn")).to_be_visible()
    page.locator("#detail-picture").scroll_into_view_if_needed()
    edges = page.locator("#detail-picture").bounding_box()
    assert edges is not None

    def at(x: float, y: float) -> tuple[float, float]:
        assert edges is not None
        return edges["x"] + x * edges["width"], edges["y"] + y * edges["height"]

    touch(page, [at(0.2, 0.1), at(0.21, 0.11), at(0.5, 0.4), at(0.6, 0.7)])
    drawn: dict[str, Any] = page.evaluate("state.drawnRegion")
    assert [drawn[k] for k in ("x0", "y0", "x1", "y1")] == pytest.approx([0.2, 0.1, 0.6, 0.7], abs=0.02)
    with page.expect_request("**/api/similar") as request:
        page.get_by_role("button", name="More like this region").click()
    sent = json.loads(request.value.post_data or "")["box"]
    assert sent == pytest.approx(drawn)


def test_texts_speak_of_touch(page: Page) -> None:
    expect(page.locator("#empty")).to_contain_text("tap Search")
    expect(page.locator("#empty .with-keys")).to_be_hidden()
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("button", name="Help").tap()
    expect(page.locator("#keys .with-touch").first).to_be_visible()
