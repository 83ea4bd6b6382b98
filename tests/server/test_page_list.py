"""The list on the page in a browser: select many, order, view, cut-off, long lists and errors."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.server.conftest import CHROMIUM, page_without_selection
from tests.server.made_lists import PICTURE, made_result, serve_made_list
from tests.server.test_page import search

page = page_without_selection  # the fixture of these tests
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def stored_selection(page: Page) -> int:
    """How many images the service has in the selection."""
    page.evaluate("sending")
    return len(page.request.get(f"{page.url.split('#')[0]}api/selections/picked").json()["keys"])


def names(page: Page) -> list[str]:
    found: list[str] = page.evaluate("state.shown.map(index => state.results[index].name)")
    return found


def test_ranges_are_selected_and_undone(page: Page) -> None:
    search(page, "snail")
    page.locator("#card-2").click(modifiers=["ControlOrMeta"])
    page.locator("#card-6").click(modifiers=["Shift"])
    expect(page.locator("#count")).to_have_text("5 selected")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#card-4")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#undo")).to_have_text("Undo: 4 added")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#count")).to_have_text("7 selected")
    page.keyboard.press("ControlOrMeta+z")
    page.keyboard.press("ControlOrMeta+z")
    expect(page.locator("#count")).to_have_text("5 selected")
    page.locator("#undo").click()
    expect(page.locator("#count")).to_have_text("1 selected")
    assert stored_selection(page) == 1
    page.reload()
    expect(page.locator("#count")).to_have_text("1 selected")


def test_all_are_selected_unselected_and_undone(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("ControlOrMeta+a")
    expect(page.locator("#count")).to_have_text("60 selected")
    assert stored_selection(page) == 60
    page.get_by_role("button", name="Unselect all").click()
    expect(page.locator("#count")).to_have_text("0 selected")
    page.get_by_role("button", name="Undo: 60 removed").click()
    expect(page.locator("#count")).to_have_text("60 selected")
    assert stored_selection(page) == 60
    page.locator("#text").focus()
    page.keyboard.press("ControlOrMeta+z")
    expect(page.locator("#count")).to_have_text("60 selected")  # in a field the keys belong to the field


def test_selecting_all_above_the_cutoff_loads_them_first(page: Page) -> None:
    asked = serve_made_list(page, 5000)
    search(page, "snail")
    page.locator("#slider").evaluate("s => { s.value = 0.86; s.dispatchEvent(new Event('input')); }")
    page.get_by_role("button", name="Select all above the cut-off").click()
    cutoff = float(page.locator("#slider").input_value())
    expected = sum(made_result(n, count=5000)["score"] >= cutoff for n in range(5000))
    assert 300 < expected < 1300
    expect(page.locator("#count")).to_have_text(f"{expected:,} selected")
    assert sum(asked) <= 1300, "what is below the cut-off is not loaded"


def test_images_on_the_screen_load_before_all_others(page: Page) -> None:
    """On a slow network, the others would delay them. One that does not come delays the others for a moment only."""
    serve_made_list(page, 1200)
    waiting: list[Route] = []
    page.route("**/api/thumbnail/*", lambda route: waiting.append(route))
    search(page, "snail")
    seen = page.locator("#grid > .card").evaluate_all(
        "cards => cards.filter(card => card.getBoundingClientRect().top < innerHeight).length"
    )
    expect(page.locator("#grid img[src]")).to_have_count(seen)
    assert 0 < seen < 60
    for route in waiting[1:]:
        route.fulfill(content_type="image/svg+xml", body=PICTURE)
    expect(page.locator(f"#card-{seen} img")).to_have_attribute("src", f"api/thumbnail/{seen + 1}")


def test_a_long_list_has_few_cards_and_every_image_is_reached(page: Page) -> None:
    serve_made_list(page, 1200)
    search(page, "snail")
    for loaded in ("60", "300", "1,200"):
        expect(page.locator("#status")).to_contain_text(f"{loaded} results")
        page.keyboard.press("End")
    page.keyboard.press("End")
    expect(page.locator("#card-1199")).to_be_focused()
    expect(page.locator("#card-1199")).to_have_attribute("aria-posinset", "1200")
    expect(page.locator("#card-1199")).to_have_attribute("aria-setsize", "1200")
    assert page.locator(".card").count() < 300
    numbers = page.locator("#grid .card").evaluate_all("cards => cards.map(c => Number(c.dataset.index))")
    assert numbers == sorted(numbers), "the order for screen readers is the order on the page"
    page.keyboard.press("Home")
    expect(page.locator("#card-0")).to_be_focused()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight / 2)")
    expect(page.locator("#card-600")).to_be_visible()
    expect(page.locator("#card-0")).to_be_focused()  # the focus is not lost where its card is far away
    page.keyboard.press("ControlOrMeta+a")
    expect(page.locator("#count")).to_have_text("1,200 selected")
    expect(page.locator("#card-600")).to_have_attribute("aria-selected", "true")


def test_results_are_sorted_and_the_address_keeps_the_order(page: Page) -> None:
    search(page, "snail")
    best_first = names(page)
    page.locator("#sort").select_option("name")
    expect(page.locator("#status")).to_contain_text("sorted by name")
    assert names(page) == sorted(best_first)
    page.locator("#sort").select_option("size")
    sizes = page.evaluate("state.shown.map(index => state.results[index].width * state.results[index].height)")
    assert sizes == sorted(sizes, reverse=True)
    page.locator("#sort").select_option("time")
    times = page.evaluate("state.shown.map(index => state.results[index].modified)")
    assert times == sorted(times, reverse=True)
    page.locator("#sort").select_option("column camera")
    cameras = page.evaluate("state.shown.map(index => state.results[index].metadata.camera)")
    assert cameras == ["back"] * 30 + ["front"] * 30
    expect(page.locator(".card").first).to_have_attribute("id", f"card-{page.evaluate('state.shown[0]')}")
    page.reload()
    expect(page.locator("#sort")).to_have_value("column camera")
    assert page.evaluate("state.shown.map(index => state.results[index].metadata.camera)") == cameras
    page.locator("#sort").select_option("score")
    assert names(page) == best_first


def test_an_order_other_than_by_score_is_of_many_results(page: Page) -> None:
    serve_made_list(page, 5000)
    search(page, "snail")
    page.locator("#sort").select_option("time")
    expect(page.locator("#status")).to_contain_text("the first 1,300 results")
    newest = max(made_result(n)["modified"] for n in range(1300))
    assert page.evaluate("state.results[state.shown[0]].modified") == newest


def test_the_view_is_kept(page: Page) -> None:
    search(page, "snail")
    columns = page.evaluate("layout.columns")
    page.get_by_text("View", exact=True).click()
    page.get_by_label("Large").check()
    page.get_by_label("File names").check()
    page.get_by_role("checkbox", name="Regions").uncheck()
    page.get_by_label("Fill the cards").uncheck()
    for _ in range(2):
        assert page.evaluate("layout.columns") < columns
        first = page.locator("#card-0")
        expect(first.locator(".name")).to_have_text(names(page)[0])
        expect(first.locator(".region")).to_be_hidden()
        expect(first.locator(".filling")).to_have_count(0)
        page.reload()
        expect(page.locator("#card-0")).to_be_visible()


def test_images_fill_their_cards_and_show_the_region(page: Page) -> None:
    serve_made_list(page, 10)
    search(page, "snail")
    left, top, right, bottom = edges(page, "#card-3 .frame")
    image, region = edges(page, "#card-3 img"), edges(page, "#card-3 .region")
    assert image[0] <= left + 0.5
    assert image[1] <= top + 0.5
    assert image[2] >= right - 0.5
    assert image[3] >= bottom - 0.5
    assert region[0] >= left - 0.5
    assert region[1] >= top - 0.5
    assert region[2] <= right + 0.5
    assert region[3] <= bottom + 0.5
    assert (image[2] - image[0]) / (image[3] - image[1]) == pytest.approx(1.5, abs=0.02)


def edges(page: Page, selector: str) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of an element."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def test_the_slider_spans_the_probabilities_that_occur(page: Page) -> None:
    serve_made_list(page, 40, probabilities=[0.07 - 0.001 * n for n in range(40)])
    search(page, "snail")
    expect(page.locator("#advice")).to_have_text("No reliable matches: the best has a 7 % probability.")
    slider = page.locator("#slider")
    assert [float(slider.get_attribute(edge) or "") for edge in ("min", "max")] == [0.03, 0.07]
    expect(page.locator("#slider-value")).to_have_text("all")
    slider.evaluate("s => { s.value = 0.05; s.dispatchEvent(new Event('input')); }")
    expect(page.locator("#slider-value")).to_have_text("5 %")
    expect(page.locator("#status")).to_contain_text("21 results")
    slider.evaluate("s => { s.value = s.max; s.dispatchEvent(new Event('input')); }")
    expect(page.locator("#status")).to_contain_text("1 result ")


def test_a_likely_list_has_a_recommendation_and_no_warning(page: Page) -> None:
    serve_made_list(page, 400, probabilities=[0.9 - 0.002 * n for n in range(400)], cutoff=200)
    search(page, "snail")
    expect(page.locator("#advice")).to_be_hidden()
    page.get_by_role("button", name="Recommended: first 200").click()
    expect(page.locator("#status")).to_contain_text("Showing 200 results")
    page.get_by_role("button", name="Select all above the cut-off").click()
    expect(page.locator("#count")).to_have_text("200 selected")


def test_after_an_error_the_old_list_goes_and_retry_brings_the_new_one(page: Page) -> None:
    search(page, "snail")
    page.route("**/api/search", lambda route: route.abort())
    page.locator("#text").fill("anchor")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("service does not respond")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#cutoff")).to_be_hidden()
    page.unroute("**/api/search")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("#status")).to_contain_text("“anchor”")
    expect(page.locator(".card")).to_have_count(60)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_page_of_results_that_fails_can_be_retried(page: Page) -> None:
    serve_made_list(page, 1000)
    search(page, "snail")
    page.route("**/api/search", lambda route: route.abort())
    page.keyboard.press("End")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert page.locator(".card").count() > 0, "what is loaded stays"
    page.unroute("**/api/search")
    requested = serve_made_list(page, 1000)
    for key in ("Home", "End", "Home", "End"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert not requested, "only Retry loads the page that failed"
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("#status")).to_contain_text("the first 300")


def test_a_change_of_the_selection_that_fails_is_taken_back(page: Page) -> None:
    def refuse(route: Route) -> None:
        route.abort() if route.request.method == "POST" else route.fallback()

    page.route("**/api/selections", refuse)
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.get_by_role("alert")).to_contain_text("service")
    expect(page.locator("#count")).to_have_text("0 selected")
    expect(page.locator("#card-0")).to_have_attribute("aria-selected", "false")


def test_a_search_that_names_nothing_to_find_says_what_is_missing(page: Page) -> None:
    for text, said in {
        "-umbrella": "only leaves images out",
        "+ , -": "Say what the images show",
        ", ,": "Say what the images show",
        ",".join("abcdefghijk"): "At most 10 texts fit in one search. This one has 11.",
        "a | -b": "only leaves images out",
    }.items():
        for written in (text, "snail"):
            page.locator("#text").fill(written)
            page.locator("#text").press("Enter")
            if written == text:
                expect(page.locator("#error-text")).to_contain_text(said)
                page.locator("#text").focus()
        expect(page.locator("#error")).to_be_hidden()
        expect(page.locator("#status")).to_contain_text("“snail”")


def test_an_own_column_keeps_its_name_where_the_list_is_sorted_by_it(page: Page) -> None:
    def capitalise(route: Route) -> None:
        result = made_result(0) | {"metadata": {"Kamera ID": 1}}
        answer = {"results": [result], "confidence": None, "images": 1, "milliseconds": 1, "labels": None, "notes": []}
        route.fulfill(json=answer)

    serve_made_list(page, 1)
    page.route("**/api/search", capitalise)
    search(page, "snail")
    page.locator("#sort").select_option(label="Kamera ID")
    expect(page.locator("#status")).to_contain_text("sorted by Kamera ID.")
    page.locator("#sort").select_option(label="Size")
    expect(page.locator("#status")).to_contain_text("sorted by size.")
