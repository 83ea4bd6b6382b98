"""Where in the image, on the page: the drawn heatmap, the outlines of all places, and their list."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, open_page
from tests.server.test_page import check_page, search, show_as

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, address) as opened:
        yield opened


# The middle of the most opaque pixel, and the edges of the outlined place, as fractions of the shown picture.
DRAWN = """() => {
  const canvas = document.querySelector('.heat canvas'), image = document.querySelector('#detail-picture img');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let most = 0;
  for (let k = 0; k < data.length / 4; k++) if (data[4 * k + 3] > data[4 * most + 3]) most = k;
  const on = (x, y) => {
    const frame = image.getBoundingClientRect();
    return [(x - frame.left) / frame.width, (y - frame.top) / frame.height];
  };
  const lies = canvas.getBoundingClientRect();
  const place = document.querySelector('#detail-picture .place').getBoundingClientRect();
  const across = (most % canvas.width + 0.5) / canvas.width;
  const down = (Math.floor(most / canvas.width) + 0.5) / canvas.height;
  return {
    most: on(lies.left + across * lies.width, lies.top + down * lies.height),
    opacity: data[4 * most + 3],
    place: [...on(place.left, place.top), ...on(place.right, place.bottom)],
    canvas: [...on(lies.left, lies.top), ...on(lies.right, lies.bottom)],
  };
}"""


def look_at_first(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.locator("#detail-picture img")).to_have_js_property("complete", True)


def test_the_drawn_heatmap_is_strongest_inside_the_winning_place(page: Page) -> None:
    look_at_first(page)
    expect(page.locator(".heat")).to_have_count(0)
    for _ in range(3):
        page.keyboard.press("h")
        expect(page.locator(".heat canvas")).to_have_count(1)
        drawn = page.evaluate(DRAWN)
        left, top, right, bottom = drawn["place"]
        assert left < drawn["most"][0] < right
        assert top < drawn["most"][1] < bottom
        assert drawn["opacity"] == round(255 * 0.8)
        assert drawn["canvas"] == pytest.approx([0, 0, 1, 1], abs=0.01)
        expect(page.locator("#places-told")).to_contain_text("“snail”")
        expect(page.locator("#heat")).to_have_attribute("aria-pressed", "true")
        told = page.locator(".heat canvas").get_attribute("aria-label")
        across, down = (float(n) for n in re.findall(r"\d+", str(told)))
        assert [across / 100, down / 100] == pytest.approx(drawn["most"], abs=0.01)
        page.keyboard.press("h")
        expect(page.locator(".heat")).to_have_count(0)
        page.keyboard.press("ArrowRight")


def test_it_stays_on_from_image_to_image(page: Page) -> None:
    look_at_first(page)
    page.keyboard.press("h")
    expect(page.locator(".heat canvas")).to_have_count(1)
    first = page.locator(".heat canvas").get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".heat canvas")).not_to_have_attribute("aria-label", str(first))


def test_all_places_are_outlined_and_listed_best_first(page: Page, served: Searcher) -> None:
    look_at_first(page)
    page.keyboard.press("o")
    expect(page.locator(".other")).to_have_count(24)
    lines = page.locator("#places-list button")
    expect(lines).to_have_count(25)
    best = served.search("snail", 1)[0]
    expect(lines.first).to_contain_text(f"{best.score:.3f} answers")
    told = page.locator(".other span").evaluate_all("spans => spans.map(s => Number(s.textContent))")
    assert told == sorted(told, reverse=True)
    assert max(told) <= round(best.score, 3)
    lines.nth(1).focus()
    marked = page.locator(".other.on")
    expect(marked).to_have_count(1)
    expect(marked.locator("span")).to_be_visible()
    assert lines.nth(1).inner_text().startswith(marked.locator("span").inner_text())
    lines.nth(2).hover()
    expect(page.locator(".other").nth(1)).to_have_class("other on")
    page.keyboard.press("o")
    expect(page.locator(".other")).to_have_count(0)
    expect(page.locator("#places-list")).to_be_hidden()


def test_like_an_image_there_is_no_text_and_so_no_heatmap(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("m")
    expect(page.locator("#status")).to_contain_text("images like")
    page.keyboard.press("Enter")
    expect(page.locator("#heat")).to_be_hidden()
    page.keyboard.press("h")
    page.keyboard.press("o")
    expect(page.locator("#places-list button")).to_have_count(25)
    expect(page.locator("#places-list button").first).to_contain_text("vector 1")
    expect(page.locator(".heat")).to_have_count(0)


def answer_with(page: Page, content: dict[str, Any], status: int = 200) -> None:
    def fulfil(route: Route) -> None:
        route.fulfill(status=status, content_type="application/json", body=json.dumps(content))

    page.route("**/api/look", fulfil)


def test_a_frame_beyond_the_picture_is_cut_off_at_its_edges(page: Page) -> None:
    """Padded above and below by half the picture's height: the lower left of 2 x 2 lies over its lower left."""
    frame = {"x0": 0, "y0": -0.5, "x1": 1, "y1": 1.5}
    heatmap = {"rows": 2, "columns": 2, "values": [0, 0.2, 1, 0.1], "frame": frame, "agreement": 0.9}
    answer_with(page, {"regions": [{"box": None, "score": 0.3}], "text": "<b>snail", "winner": 0, "heatmap": heatmap})
    look_at_first(page)
    page.keyboard.press("h")
    expect(page.locator(".heat canvas")).to_have_count(1)
    drawn = page.evaluate(DRAWN)
    assert drawn["canvas"] == pytest.approx([0, -0.5, 1, 1.5], abs=0.01)
    assert drawn["most"] == pytest.approx([0.25, 1.0], abs=0.01)
    expect(page.locator("#places-told")).to_contain_text("“<b>snail”")
    expect(page.locator("#places-told")).to_contain_text("at a cosine of 0.90")
    clip = page.locator(".heat").bounding_box()
    shown = page.locator("#detail-picture").bounding_box()
    assert clip == pytest.approx(shown)
    assert page.locator(".heat").evaluate("e => getComputedStyle(e).overflow") == "hidden"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_overlays_are_accessible_and_fit(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    look_at_first(page)
    page.keyboard.press("h")
    page.keyboard.press("o")
    expect(page.locator(".heat canvas")).to_have_count(1)
    expect(page.locator("#places-list button")).to_have_count(25)
    page.locator("#places-list button").nth(3).focus()
    check_page(page)
