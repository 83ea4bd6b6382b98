"""The closer look in a real browser: the heatmap, the regions of all vectors, and regions drawn by hand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, open_page
from tests.server.test_page import check_page, search, show_as, wait_until
from tests.server.test_page_verdicts_export import visible_names

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, address) as opened:
        yield opened


# The centre of the most opaque pixel and the edges of the outlined region, as fractions of the shown image.
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
  const region = document.querySelector('#detail-picture .region').getBoundingClientRect();
  const across = (most % canvas.width + 0.5) / canvas.width;
  const down = (Math.floor(most / canvas.width) + 0.5) / canvas.height;
  return {
    most: on(lies.left + across * lies.width, lies.top + down * lies.height),
    opacity: data[4 * most + 3],
    region: [...on(region.left, region.top), ...on(region.right, region.bottom)],
    canvas: [...on(lies.left, lies.top), ...on(lies.right, lies.bottom)],
  };
}"""


def look_at_first(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.locator("#detail-picture img")).to_have_js_property("complete", True)


def test_the_drawn_heatmap_is_strongest_inside_the_best_region(page: Page) -> None:
    look_at_first(page)
    expect(page.locator(".heat")).to_have_count(0)
    for _ in range(3):
        page.keyboard.press("h")
        expect(page.locator(".heat canvas")).to_have_count(1)
        drawn = page.evaluate(DRAWN)
        left, top, right, bottom = drawn["region"]
        assert left < drawn["most"][0] < right
        assert top < drawn["most"][1] < bottom
        assert drawn["opacity"] == round(255 * 0.8)
        assert drawn["canvas"] == pytest.approx([0, 0, 1, 1], abs=0.01)
        expect(page.locator("#region-status")).to_contain_text("“snail”")
        expect(page.locator("#heatmap")).to_have_attribute("aria-pressed", "true")
        label = page.locator(".heat canvas").get_attribute("aria-label")
        across, down = (float(n) for n in re.findall(r"\d+", str(label)))
        assert [across / 100, down / 100] == pytest.approx(drawn["most"], abs=0.01)
        page.keyboard.press("h")
        expect(page.locator(".heat")).to_have_count(0)
        page.keyboard.press("ArrowRight")


def test_the_heatmap_stays_on_from_image_to_image(page: Page) -> None:
    look_at_first(page)
    page.keyboard.press("h")
    expect(page.locator(".heat canvas")).to_have_count(1)
    first = page.locator(".heat canvas").get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".heat canvas")).not_to_have_attribute("aria-label", str(first))


def test_all_regions_are_outlined_and_listed_best_first(page: Page, served: Searcher) -> None:
    look_at_first(page)
    page.keyboard.press("o")
    expect(page.locator(".other")).to_have_count(24)
    lines = page.locator("#region-list button")
    expect(lines).to_have_count(25)
    best = served.search("snail", 1)[0]
    expect(lines.first).to_contain_text(f"{best.score:.3f}")
    scores = page.locator(".other span").evaluate_all("spans => spans.map(s => Number(s.textContent))")
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= round(best.score, 3)
    lines.nth(1).focus()
    marked = page.locator(".other.on")
    expect(marked).to_have_count(1)
    expect(marked.locator("span")).to_be_visible()
    assert lines.nth(1).inner_text().startswith(marked.locator("span").inner_text())
    lines.nth(2).hover()
    expect(page.locator(".other").nth(1)).to_have_class("other on")
    page.keyboard.press("o")
    expect(page.locator(".other")).to_have_count(0)
    expect(page.locator("#region-list")).to_be_hidden()


def test_an_image_in_a_column_has_a_heatmap_for_the_text_of_the_column(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("snail | anchor, -drum")
    page.keyboard.press("Enter")
    page.locator(".column").nth(1).locator(".card").first.click()
    page.keyboard.press("h")
    expect(page.locator(".heat canvas")).to_have_count(1)
    expect(page.locator("#region-status")).to_contain_text("“anchor”")


def test_a_search_by_image_has_regions_but_no_heatmap(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("m")
    expect(page.locator(".card")).to_have_count(59)
    page.keyboard.press("Enter")
    expect(page.locator("#heatmap")).to_be_hidden()
    page.keyboard.press("h")
    page.keyboard.press("o")
    expect(page.locator("#region-list button")).to_have_count(25)
    expect(page.locator("#region-list button").first).not_to_be_empty()
    expect(page.locator(".heat")).to_have_count(0)


def answer_with(page: Page, content: dict[str, Any], status: int = 200) -> None:
    def fulfil(route: Route) -> None:
        route.fulfill(status=status, content_type="application/json", body=json.dumps(content))

    page.route("**/api/look", fulfil)


def test_a_heatmap_that_extends_beyond_the_image_is_clipped(page: Page) -> None:
    """The frame is padded above and below by half the image's height; the strongest cell is the lower left of 2 x 2."""
    frame = {"x0": 0, "y0": -0.5, "x1": 1, "y1": 1.5}
    heatmap = {"rows": 2, "columns": 2, "values": [0, 0.2, 1, 0.1], "frame": frame, "agreement": 0.9}
    answer_with(page, {"regions": [{"box": None, "score": 0.3}], "text": "<b>snail", "winner": 0, "heatmap": heatmap})
    look_at_first(page)
    page.keyboard.press("h")
    expect(page.locator(".heat canvas")).to_have_count(1)
    drawn = page.evaluate(DRAWN)
    assert drawn["canvas"] == pytest.approx([0, -0.5, 1, 1.5], abs=0.01)
    assert drawn["most"] == pytest.approx([0.25, 1.0], abs=0.01)
    expect(page.locator("#region-status")).to_contain_text("“<b>snail”")
    expect(page.locator("#region-status")).to_contain_text("0.90")
    clip = page.locator(".heat").bounding_box()
    shown = page.locator("#detail-picture").bounding_box()
    assert clip == pytest.approx(shown)
    assert page.locator(".heat").evaluate("e => getComputedStyle(e).overflow") == "hidden"


def test_a_region_drawn_with_the_mouse_is_searched(page: Page, served: Searcher) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-picture img")).to_have_js_property("complete", True)
    edges = page.locator("#detail-picture").bounding_box()
    assert edges is not None
    page.mouse.move(edges["x"] + edges["width"] * 0.75, edges["y"] + edges["height"] * 0.9)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] * 0.5, edges["y"] + edges["height"] * 0.7)
    page.mouse.move(edges["x"] + edges["width"] * 0.25, edges["y"] + edges["height"] * 0.5)
    page.mouse.up()
    expect(page.locator("#detail-picture .drawn")).to_be_visible()
    with page.expect_request("**/api/similar") as request:
        page.get_by_role("button", name="More like this region").click()
    sent = json.loads(request.value.post_data or "")["box"]
    assert [sent[k] for k in ("x0", "y0", "x1", "y1")] == pytest.approx([0.25, 0.5, 0.75, 0.9], abs=0.01)


def test_a_region_drawn_by_keyboard_is_searched(page: Page, served: Searcher) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    name = page.locator("#detail-name").text_content() or ""
    page.keyboard.press("c")
    expect(page.locator("#detail-picture")).to_be_focused()
    for key in ["ArrowRight"] * 30 + ["ArrowUp"] * 5 + ["Shift+ArrowDown"] * 10 + ["Shift+ArrowLeft"] * 5:
        page.keyboard.press(key)
    expect(page.locator("#detail-name")).to_have_text(name)  # the arrow keys moved the region and not to another image
    expect(page.locator("#drawn-status")).to_contain_text("40 % wide, 70 % high")
    page.keyboard.press("Escape")
    expect(page.locator(".drawn")).to_have_count(0)
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("c")
    for key in ["ArrowDown"] * 30 + ["Shift+ArrowLeft"] * 22:  # narrower than any region of a vector
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(59)
    expect(page.locator(".card").first).to_be_focused()
    first = served.search("snail", 1)[0]
    side = Image.open(first.uri).size
    crop = Image.open(first.uri).convert("RGB").crop((side[0] // 4, side[1] // 2, round(0.31 * side[0]), side[1]))
    expected = [Path(r.uri).name for r in served.search_image(crop, 60) if r.uri != first.uri]
    assert visible_names(page) == expected


# What is in the middle of the view, as fractions of the image, and how much of the image's width is seen.
VIEW = """() => {
  const view = document.querySelector('#detail-view').getBoundingClientRect();
  const image = document.querySelector('#detail-picture').getBoundingClientRect();
  return [(view.left + view.width / 2 - image.left) / image.width,
          (view.top + view.height / 2 - image.top) / image.height, view.width / image.width];
}"""


def test_zoom_and_place_stay_from_image_to_image(page: Page) -> None:
    look_at_first(page)
    expect(page.locator("#zoom-level")).to_have_text("100 %")
    small = page.locator("#detail-picture").bounding_box()
    for _ in range(3):
        page.keyboard.press("z")
    expect(page.locator("#zoom-level")).to_have_text("300 %")
    page.keyboard.press("Shift+Z")
    expect(page.locator("#zoom-level")).to_have_text("200 %")
    large = page.locator("#detail-picture").bounding_box()
    assert small is not None
    assert large is not None
    assert large["width"] == pytest.approx(2 * small["width"], abs=1)
    assert page.evaluate(VIEW)[:2] == pytest.approx([0.5, 0.5], abs=0.01)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    wait_until(page, "zoom.x > 0.51 && zoom.y > 0.51")
    place = page.evaluate(VIEW)
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        name = page.locator("#detail-name").text_content()
        page.keyboard.press(key)
        expect(page.locator("#detail-name")).not_to_have_text(str(name))
        expect(page.locator("#zoom-level")).to_have_text("200 %")
        assert page.evaluate(VIEW) == pytest.approx(place, abs=0.01)
    page.locator("#detail-picture").hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, 100)
    page.keyboard.up("Control")
    expect(page.locator("#zoom-level")).to_have_text("150 %")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.locator("#zoom-level")).to_have_text("100 %")


def test_an_image_of_another_shape_does_not_change_the_place(page: Page) -> None:
    look_at_first(page)
    page.evaluate("state.results[1].width = 4 * state.results[1].height")
    page.evaluate("setZoom(2); zoom.x = 0.6; zoom.y = 0.7; showPlace()")
    place = page.evaluate(VIEW)
    assert place[:2] == pytest.approx([0.6, 0.7], abs=0.01)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(VIEW)[1] == pytest.approx(0.5, abs=0.01)  # it is too low to scroll
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(50)
    page.evaluate("state.results[2].width = state.results[0].width")
    assert page.evaluate(VIEW)[:2] == pytest.approx(place[:2], abs=0.01)


def test_next_and_previous_stay_in_place_and_keep_the_focus(page: Page) -> None:
    """Also where the browser's own zoom is 200 %, which leaves half the width and height."""
    page.set_viewport_size({"width": 600, "height": 400})
    look_at_first(page)
    page.keyboard.press("o")
    expect(page.locator("#region-list button")).to_have_count(25)
    page.locator("#region-list button").nth(20).focus()
    page.locator("#region-list button").nth(20).scroll_into_view_if_needed()
    edges = page.locator("#next").bounding_box()
    assert edges is not None
    assert 0 <= edges["y"] < 120
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-name")).to_contain_text("2.")
    assert page.evaluate("document.querySelector('#detail').contains(document.activeElement)")
    assert page.locator("#next").bounding_box() == edges
    page.locator("#next").focus()
    page.evaluate("state.shown.length = 3")
    page.keyboard.press("Enter")
    expect(page.locator("#next")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#next")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_contain_text("3.")


def test_details_of_the_file_are_shown(page: Page, served: Searcher) -> None:
    page.route(
        "**/api/details/*",
        lambda route: route.fulfill(
            json={"path": "/a/<b>.jpg", "taken": "2024-05-17T13:02:11+02:00", "camera": "X100", "problem": None}
        ),
        times=1,
    )
    look_at_first(page)
    expect(page.locator("#facts")).to_contain_text("2024-05-17 13:02:11+02:00")
    expect(page.locator("#facts")).to_contain_text("X100")
    expect(page.locator("#facts")).to_contain_text("/a/<b>.jpg")
    expect(page.locator("#facts")).to_contain_text("camera")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#facts")).to_contain_text(served.search("snail", 2)[1].uri)
    expect(page.locator("#facts")).not_to_contain_text("X100")


def test_a_missing_file_is_named_and_looked_for_again(browser: Browser, address: str) -> None:
    with open_page(browser, address, allowed="404") as page:
        search(page, "snail")
        gone = {"detail": "the picture's file no longer exists"}
        page.route("**/api/image/*", lambda route: route.fulfill(status=404, json=gone))
        page.keyboard.press("Enter")
        expect(page.locator("#detail-problem")).to_contain_text("The picture's file no longer exists.")
        expect(page.locator("#detail-view")).to_be_hidden()
        expect(page.locator("#facts")).to_contain_text(".jpg")
        check_page(page)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#detail-problem")).to_be_visible()
        page.unroute("**/api/image/*")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("#detail-picture img")).to_have_js_property("complete", True)
        expect(page.locator("#detail-problem")).to_be_hidden()
        expect(page.locator("#detail-picture")).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_closer_look_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    look_at_first(page)
    page.keyboard.press("h")
    page.keyboard.press("o")
    expect(page.locator(".heat canvas")).to_have_count(1)
    expect(page.locator("#region-list button")).to_have_count(25)
    page.locator("#region-list button").nth(3).focus()
    check_page(page)
