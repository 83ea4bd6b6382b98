"""The search page in a real browser: search, closer look, selection, filter, errors and accessibility."""

import csv
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, HOSTILE_NAME, HOSTILE_VALUE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def search(page: Page, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"“{text}”")
    expect(page.locator(".card").first).to_be_focused()


def test_a_search_before_the_page_is_ready_keeps_its_list_and_focus(page: Page) -> None:
    waiting: list[Route] = []
    page.route("**/api/reviewers*", lambda route: waiting.append(route))
    page.reload()
    search(page, "snail")
    assert waiting
    page.keyboard.press("ArrowRight")
    for route in waiting:
        route.continue_()
    page.wait_for_load_state("networkidle")
    expect(page.locator("#card-1")).to_be_focused()


def test_search_look_select_and_export_by_keyboard_alone(page: Page, served: Searcher, tmp_path: Path) -> None:
    search(page, "snail")
    results = served.search("snail", 60)
    expect(page.locator(".card")).to_have_count(60)
    expect(page.locator(".card").first).to_contain_text(f"{results[0].score:.3f}")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#card-1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_have_text(f"2. {Path(results[1].uri).name}")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-name")).to_have_text(f"3. {Path(results[2].uri).name}")
    page.keyboard.press(" ")
    expect(page.locator("#detail-select")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#card-2")).to_be_focused()
    expect(page.locator("#card-2")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("e")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    downloading.value.save_as(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as opened:
        assert [row["image"] for row in csv.DictReader(opened)] == [results[0].uri, results[2].uri]
    page.reload()
    expect(page.locator("#count")).to_have_text("2 selected")
    expect(page.locator("#text")).to_have_value("snail")


def test_the_best_region_is_outlined_at_its_position(page: Page, served: Searcher) -> None:
    search(page, "snail")
    box = served.search("snail", 1)[0].box
    assert box is not None
    expect(page.locator("#card-0 img")).to_have_js_property("complete", True)
    edges = page.evaluate(
        """() => {
        const image = document.querySelector('#card-0 img').getBoundingClientRect();
        const region = document.querySelector('#card-0 .region').getBoundingClientRect();
        return [(region.left - image.left) / image.width, (region.top - image.top) / image.height,
                (region.right - image.left) / image.width, (region.bottom - image.top) / image.height];
        }"""
    )
    assert edges == pytest.approx(list(box), abs=0.01)


def test_more_like_a_region_and_more_like_an_image(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    with page.expect_request("**/api/similar") as region_request:
        page.get_by_role("button", name="More like this region").click()
    assert '"box"' in (region_request.value.post_data or "")
    expect(page.locator(".card")).to_have_count(59)
    with page.expect_request("**/api/similar") as image_request:
        page.keyboard.press("m")
    assert '"box"' not in (image_request.value.post_data or "")
    expect(page.locator("#status")).to_contain_text("gallery")


def test_the_cutoff_hides_results_below_it(page: Page, served: Searcher) -> None:
    search(page, "snail")
    bound = 0.75
    page.locator("#slider").evaluate(f"s => {{ s.value = {bound}; s.dispatchEvent(new Event('input')); }}")
    kept = float(page.locator("#slider").input_value())
    expected = sum(r.score >= kept for r in served.search("snail", 60))
    expect(page.locator(".card:visible")).to_have_count(expected)
    expect(page.locator("#status")).to_contain_text(str(expected))


def test_several_texts_have_no_cutoff(page: Page) -> None:
    search(page, "snail, anchor, -drum")
    assert 0 < page.locator(".card").count() <= 60
    expect(page.locator("#cutoff")).to_be_hidden()  # no single score orders these results
    search(page, "snail")
    expect(page.locator("#cutoff")).to_be_visible()


def test_a_filter_limits_the_results(page: Page) -> None:
    search(page, "snail")
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("SQL").fill("camera = 'front'")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(30)


def test_hostile_names_and_metadata_are_shown_as_text(page: Page) -> None:
    page.evaluate("() => { window.hacked = () => { window.wasHacked = true; }; }")
    search(page, "snail")
    page.locator(".card", has_text=HOSTILE_NAME).click()
    expect(page.locator("#detail-name")).to_contain_text(HOSTILE_NAME)
    page.keyboard.press("Escape")
    page.evaluate(f"openDetail(state.results.findIndex(r => r.metadata.remark === {HOSTILE_VALUE!r}))")
    expect(page.locator("#facts")).to_contain_text(HOSTILE_VALUE)
    assert page.locator("img[src=x], main script, dialog script").count() == 0
    assert page.evaluate("window.wasHacked") is None


def test_a_selection_is_created_and_deleted(page: Page) -> None:
    page.get_by_role("button", name="New").click()
    page.keyboard.type("wet <b>roads")
    page.keyboard.press("Enter")
    expect(page.locator("#selection")).to_have_value("wet <b>roads")
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#selection")).to_have_value("picked")
    expect(page.locator("#count")).to_have_text("0 selected")


def test_search_by_an_image_file(page: Page, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    page.locator("#file").set_input_files(uri)
    expect(page.locator("#status")).to_contain_text(Path(uri).name)
    expect(page.locator(".card")).to_have_count(60)


def test_earlier_searches_are_suggested_and_go_back_works(page: Page) -> None:
    search(page, "snail")
    search(page, "anchor")
    assert page.locator("#history option").evaluate_all("all => all.map(o => o.value)") == ["anchor", "snail"]
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“snail”")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    """Check that axe-core finds nothing in any state of the page, and that nothing scrolls sideways."""
    show_as(page, theme, width)
    check_page(page)
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    page.keyboard.press("f")
    expect(page.locator("#facets")).to_contain_text("camera")
    check_page(page)
    page.locator("#card-0").press("Enter")
    check_page(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    check_page(page)


def show_as(page: Page, theme: str, width: int) -> None:
    if page.evaluate("document.documentElement.dataset.theme") != theme:
        page.locator("#theme").click()
    page.set_viewport_size({"width": width, "height": 800})


def wait_until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true. The page's policy forbids Playwright's own `wait_for_function`."""
    for _ in range(250):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {condition}")


def check_page(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert [(v["id"], v["help"], [n["target"] for n in v["nodes"]][:3]) for v in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")


def test_an_unreachable_service_is_reported(page: Page) -> None:
    page.route("**/api/search", lambda route: route.abort())
    page.keyboard.press("/")
    page.keyboard.type("snail")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("service")
