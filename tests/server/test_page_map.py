"""The map of the collection in a browser: points, colours, hovering, selecting, and the keyboard."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.server.conftest import CHROMIUM, PICTURES, page_without_selection
from tests.server.made_lists import PICTURE
from tests.server.test_page import check_page, search, show_as, wait_until

page = page_without_selection  # the fixture of these tests
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def open_map(page: Page) -> None:
    page.locator("body").press("p")
    expect(page.locator("#map-status")).to_have_text(f"{PICTURES} images.")


def serve_map(page: Page, *answers: dict[str, Any]) -> None:
    """Answer with these maps, and with the last one from then on."""
    waiting = list(answers)

    def answer(route: Any) -> None:
        content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        route.fulfill(status=200, content_type="application/json", body=json.dumps(content))

    page.route("**/api/map", answer)
    page.route("**/api/thumbnail/*", lambda r: r.fulfill(content_type="image/svg+xml", body=PICTURE))


def made_map(state: str, images: int, count: int) -> dict[str, Any]:
    names = [f"{n}.jpg" for n in range(count)]
    x = [n / max(1, count - 1) for n in range(count)]
    keys = [str(n + 1) for n in range(count)]
    return {"state": state, "method": "tsne", "images": images, "keys": keys, "names": names, "x": x, "y": x}


def place(page: Page, n: int) -> tuple[float, float]:
    """Where a point is on the screen."""
    x, y = page.evaluate(f"onCanvas(atlas.answer.x[{n}], atlas.answer.y[{n}])")
    edges = page.locator("#map-canvas").bounding_box()
    assert edges is not None
    return edges["x"] + x, edges["y"] + y


def test_the_map_is_used_by_keyboard(page: Page) -> None:
    page.locator("#text").blur()
    open_map(page)
    expect(page.locator("#map-canvas")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-point")).to_be_visible()
    first = page.evaluate("atlas.current")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("atlas.answer.x[atlas.current]") > page.evaluate(f"atlas.answer.x[{first}]")
    name = page.evaluate("mapImage(atlas.current).name")
    expect(page.locator("#map-image-name")).to_have_text(name)
    expect(page.locator("#map-status")).to_have_text(name)
    page.keyboard.press(" ")
    expect(page.locator("#map-status")).to_have_text(f"{name}, selected")
    expect(page.locator("#map-count")).to_have_text("1 selected")
    expect(page.locator("#map-select")).to_have_attribute("aria-pressed", "true")
    for _ in range(8):
        page.keyboard.press("+")
    page.get_by_role("button", name="Select all in view").click()
    inside = page.evaluate("state.selectedKeys.size")
    assert 1 <= inside < PICTURES
    page.locator("#map-canvas").focus()
    page.keyboard.press("0")
    page.get_by_role("button", name="Select all in view").click()
    expect(page.locator("#map-count")).to_have_text(f"{PICTURES} selected")
    page.keyboard.press("ControlOrMeta+z")
    expect(page.locator("#map-count")).to_have_text(f"{inside} selected")
    page.locator("#map-canvas").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#map")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text(f"similar to {name}")
    expect(page.locator("#card-0")).to_be_focused()


def test_the_mouse_shows_moves_and_selects(page: Page) -> None:
    page.get_by_role("button", name="Map").click()
    expect(page.locator("#map-status")).to_have_text(f"{PICTURES} images.")
    page.mouse.move(*place(page, 7))
    expect(page.locator("#map-hover")).to_be_visible()
    near = page.evaluate("atlas.hovered")  # another point may lie on this one
    expect(page.locator("#map-hover span")).to_have_text(page.evaluate(f"atlas.answer.names[{near}]"))
    src = page.locator("#map-hover img").get_attribute("src")
    assert src == f"api/thumbnail/{page.evaluate(f'atlas.answer.keys[{near}]')}"

    before = place(page, 7)
    page.mouse.down()
    page.mouse.move(before[0] + 30, before[1] + 20)
    page.mouse.move(before[0] + 50, before[1] + 40)
    page.mouse.up()
    assert place(page, 7) == pytest.approx((before[0] + 50, before[1] + 40), abs=1)
    expect(page.locator("#map-point")).to_be_hidden()  # a drag is no click
    at = place(page, 7)
    page.mouse.move(*at)
    page.mouse.wheel(0, -100)
    wait_until(page, "atlas.zoom > 1")
    assert place(page, 7) == pytest.approx(at, abs=1)
    page.mouse.click(*at)
    expect(page.locator("#map-point")).to_be_visible()
    page.get_by_role("button", name="Whole map").click()

    edges = page.locator("#map-canvas").bounding_box()
    assert edges is not None
    left, top, right, bottom = (
        edges["x"] + 2,
        edges["y"] + 2,
        edges["x"] + edges["width"] - 2,
        edges["y"] + edges["height"] / 2,
    )
    page.keyboard.down("Shift")
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        page.mouse.move(*corner)
    page.mouse.up()
    page.keyboard.up("Shift")
    upper = page.evaluate(
        "atlas.answer.keys.filter((_, n) => onCanvas(atlas.answer.x[n], atlas.answer.y[n])[1] "
        f"< {bottom - edges['y']}).length"
    )
    assert 0 < upper < PICTURES
    expect(page.locator("#map-count")).to_have_text(f"{upper} selected")
    expect(page.locator("#map-status")).to_have_text(f"{upper} images inside, {upper} newly selected.")
    page.get_by_role("button", name="Undo").last.click()
    expect(page.locator("#map-count")).to_have_text("0 selected")
    page.keyboard.press("Escape")
    expect(page.locator("#count")).to_have_text("0 selected")


def test_points_are_coloured_by_score_or_verdict(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("y")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    expect(page.locator("#verdicts-status")).to_contain_text("1 right, 1 wrong")
    with page.expect_response("**/api/map/scores") as response:
        page.keyboard.press("p")
    scores = response.value.json()["scores"]
    expect(page.locator("#map-status")).to_have_text(f"{PICTURES} images.")
    expect(page.locator("#map-high")).to_have_text(f"{max(scores.values()):.2f}")
    expect(page.locator("#map-low")).to_have_text(f"{sorted(scores.values())[(len(scores) - 1) // 2]:.2f}")
    layers = page.evaluate("mapLayers().map(([colour, indexes]) => indexes.map(n => atlas.answer.keys[n]))")
    best = max(scores, key=lambda key: scores[key])
    assert best in layers[-1]
    assert sum(map(len, layers)) == PICTURES
    assert len(layers[0]) == PICTURES - len(scores) == 1  # the wrong one has left the list
    page.get_by_label("Colour").select_option("verdict")
    assert page.evaluate("mapLayers().map(([colour, indexes]) => indexes.length)") == [PICTURES - 2, 1, 1]
    expect(page.locator("#map-legend")).to_be_hidden()
    expect(page.locator("#map-colour-help")).to_contain_text("Blue: right")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#verdicts-clear").click()


def test_what_the_map_shows_is_said(page: Page) -> None:
    serve_map(
        page,
        made_map("computing", 5_000_000, 0),
        made_map("computing", 5_000_000, 3),
        made_map("ready", 5_000_000, 4),
        made_map("failed", 7, 0),
        made_map("ready", 0, 0),
    )
    page.locator("#text").blur()
    page.keyboard.press("p")
    expect(page.locator("#map-status")).to_have_text("Computing the map …")
    expect(page.locator("#map-lasso")).to_be_disabled()
    expect(page.locator("#map-status")).to_contain_text("a new map is being computed")
    page.locator("#map-canvas").focus()
    page.keyboard.press("ArrowRight")
    chosen = page.evaluate("mapImage(atlas.current).key")
    expect(page.locator("#map-status")).to_have_text("A sample of 4 of 5,000,000 images.")
    assert page.evaluate("mapImage(atlas.current).key") == chosen
    page.evaluate("loadMap()")
    expect(page.locator("#map-status")).to_contain_text("could not be computed")
    page.evaluate("loadMap()")
    expect(page.locator("#map-status")).to_contain_text("no images yet")


def test_scores_come_with_the_points_of_a_map_that_was_not_ready(page: Page) -> None:
    serve_map(page, made_map("computing", 9, 0), made_map("computing", 9, 0), made_map("ready", 9, 9))
    scores = {"scores": {"3": 0.5, "9": 0.25}, "listed": 9, "complete": True}
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(page.locator("#map-status").inner_text())
        route.fulfill(status=200, content_type="application/json", body=json.dumps(scores))

    page.route("**/api/map/scores", answer)
    search(page, "snail")
    page.keyboard.press("p")
    expect(page.locator("#map-high")).to_have_text("0.50")
    assert page.evaluate("mapLayers().map(([, indexes]) => indexes.length).filter(Boolean)") == [7, 1, 1]
    assert len(asked) == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_map_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    search(page, "snail")
    page.keyboard.press("p")
    expect(page.locator("#map-legend")).to_be_visible()
    expect(page.locator("#map-status")).to_have_text(f"{PICTURES} images.")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator("#map-count")).to_have_text("1 selected")
    check_page(page)
    assert page.locator("#map").evaluate("e => e.scrollWidth <= e.clientWidth")
