"""The page, as a person uses it, in a real browser; and what axe-core says of it."""

import csv
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, HOSTILE_NAME, HOSTILE_VALUE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def search(page: Page, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"“{text}”")
    expect(page.locator(".card").first).to_be_focused()


def test_search_look_pick_and_export_by_keyboard_alone(page: Page, served: Searcher, tmp_path: Path) -> None:
    search(page, "snail")
    found = served.search("snail", 60)
    expect(page.locator(".card")).to_have_count(60)
    expect(page.locator(".card").first).to_contain_text(f"{found[0].score:.3f}")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 picked")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#card-1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_have_text(f"2. {Path(found[1].uri).name}")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-name")).to_have_text(f"3. {Path(found[2].uri).name}")
    page.keyboard.press(" ")
    expect(page.locator("#detail-pick")).to_have_text("Picked")
    page.keyboard.press("Escape")
    expect(page.locator("#card-2")).to_be_focused()
    expect(page.locator("#card-2")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("e")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    downloading.value.save_as(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as opened:
        assert [row["image"] for row in csv.DictReader(opened)] == [found[0].uri, found[2].uri]
    page.reload()
    expect(page.locator("#count")).to_have_text("2 picked")
    expect(page.locator("#text")).to_have_value("snail")


def test_the_place_is_outlined_where_it_is(page: Page, served: Searcher) -> None:
    search(page, "snail")
    box = served.search("snail", 1)[0].box
    assert box is not None
    expect(page.locator("#card-0 img")).to_have_js_property("complete", True)
    edges = page.evaluate(
        """() => {
        const image = document.querySelector('#card-0 img').getBoundingClientRect();
        const place = document.querySelector('#card-0 .place').getBoundingClientRect();
        return [(place.left - image.left) / image.width, (place.top - image.top) / image.height,
                (place.right - image.left) / image.width, (place.bottom - image.top) / image.height];
        }"""
    )
    assert edges == pytest.approx(list(box), abs=0.01)


def test_more_like_a_place_and_back(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="More like this place").click()
    expect(page.locator("#status")).to_contain_text("like a place in")
    expect(page.locator(".card")).to_have_count(59)
    page.keyboard.press("m")
    expect(page.locator("#status")).to_contain_text("images like gallery")


def test_the_cut_off_takes_the_tail_away_at_once(page: Page, served: Searcher) -> None:
    search(page, "snail")
    bound = 0.75
    page.locator("#slider").evaluate(f"s => {{ s.value = {bound}; s.dispatchEvent(new Event('input')); }}")
    kept = float(page.locator("#slider").input_value())
    expected = sum(r.score >= kept for r in served.search("snail", 60))
    expect(page.locator(".card:visible")).to_have_count(expected)
    expect(page.locator("#status")).to_contain_text(f"{expected} images")


def test_several_texts(page: Page) -> None:
    search(page, "snail, anchor, -drum")
    assert 0 < page.locator(".card").count() <= 60
    expect(page.locator("#cutoff")).to_be_hidden()  # no score orders such a list
    search(page, "snail")
    expect(page.locator("#cutoff")).to_be_visible()


def test_a_filter_and_what_is_wrong_with_one(page: Page) -> None:
    search(page, "snail")
    page.get_by_role("button", name="Filter").click()
    page.keyboard.type("camera = 'front'")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(30)


def test_hostile_names_and_metadata_are_only_text(page: Page) -> None:
    page.evaluate("() => { window.hacked = () => { window.wasHacked = true; }; }")
    search(page, "snail")
    page.locator(".card", has_text=HOSTILE_NAME).click()
    expect(page.locator("#detail-name")).to_contain_text(HOSTILE_NAME)
    page.keyboard.press("Escape")
    page.evaluate(f"look(state.results.findIndex(r => r.metadata.remark === {HOSTILE_VALUE!r}))")
    expect(page.locator("#facts")).to_contain_text(HOSTILE_VALUE)
    assert page.locator("img[src=x], main script, dialog script").count() == 0
    assert page.evaluate("window.wasHacked") is None


def test_a_new_selection_and_its_end(page: Page) -> None:
    page.get_by_role("button", name="New").click()
    page.keyboard.type("wet <b>roads")
    page.keyboard.press("Enter")
    expect(page.locator("#selection")).to_have_value("wet <b>roads")
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 picked")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#selection")).to_have_value("picked")
    expect(page.locator("#count")).to_have_text("0 picked")


def test_a_picture_from_disk(page: Page, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    page.locator("#file").set_input_files(uri)
    expect(page.locator("#status")).to_contain_text(f"like {Path(uri).name}")
    expect(page.locator(".card")).to_have_count(60)


def test_the_history_is_kept(page: Page) -> None:
    search(page, "snail")
    search(page, "anchor")
    assert page.locator("#history option").evaluate_all("all => all.map(o => o.value)") == ["anchor", "snail"]
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“snail”")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    """No finding of axe-core's rules, in any state of the page, and nothing to scroll sideways."""
    show_as(page, theme, width)
    check_page(page)
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 picked")
    page.locator("#filter").click()
    check_page(page)
    page.locator("#card-0").press("Enter")
    check_page(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    check_page(page)


def show_as(page: Page, theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    if page.evaluate("document.documentElement.dataset.theme") != theme:
        page.locator("#theme").click()


def check_page(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["help"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")


def test_it_says_when_the_service_is_gone(page: Page, address: str) -> None:
    page.route("**/api/search", lambda route: route.abort())
    page.keyboard.press("/")
    page.keyboard.type("snail")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The service does not answer.")
