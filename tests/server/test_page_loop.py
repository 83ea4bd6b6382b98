"""The page as a tool for the whole loop: judging, comparing queries, marking places, handing on."""

import csv
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from forclip.data.verdicts import read_verdicts
from forclip.search.request import SearchRequest, answer
from forclip.search.searcher import Searcher
from forclip.types import SearchResult
from tests.server.conftest import CHROMIUM
from tests.server.test_page import check_page, search, show_as

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def shown(page: Page) -> list[str]:
    """Names of the images in the list, in its order."""
    names: list[str] = page.evaluate("shown().map(c => state.results[c.dataset.place].name)")
    return names


def names(searcher: Searcher, text: str, count: int = 60) -> list[str]:
    return [Path(r.uri).name for r in searcher.search(text, count)]


def leave(page: Page) -> None:
    """Verdicts that were not exported make the browser ask before it leaves."""
    page.on("dialog", lambda dialog: dialog.accept())


def export(page: Page, to: Path) -> Path:
    with page.expect_download() as downloading:
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
    downloading.value.save_as(to)
    expect(page.locator("#exporting")).to_be_hidden()
    return to


def judged(searcher: Searcher, right: list[str], wrong: list[str]) -> list[SearchResult]:
    """What the library makes of these picks."""
    return answer(searcher, SearchRequest("snail", k=60, right=tuple(right), wrong=tuple(wrong))).results


def expect_list(page: Page, results: list[SearchResult]) -> None:
    expected = [Path(r.uri).name for r in results]
    for _ in range(100):
        if shown(page) == expected:
            break
        page.wait_for_timeout(50)  # the page's content policy lets the browser not wait for an expression by itself
    assert shown(page) == expected


def test_judging_ranks_the_list_anew_at_once(page: Page, served: Searcher, tmp_path: Path) -> None:
    """Judged is what has the focus, and that stays on the image, or where a wrong one was."""
    search(page, "snail")
    first = served.search("snail", 60)[0]
    page.keyboard.press("y")
    once = judged(served, [first.image_id], [])
    expect_list(page, once)
    focused = next(k for k, r in enumerate(once) if r.image_id == first.image_id)
    expect(page.locator(".card:focus")).to_have_attribute("data-place", str(focused))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    wrong = once[focused + 1]
    twice = judged(served, [first.image_id], [wrong.image_id])
    expect_list(page, twice)
    expect(page.locator(".card:focus")).to_have_attribute("data-place", str(focused + 1))
    page.keyboard.press("+")
    right = twice[focused + 1]
    expect_list(page, judged(served, [first.image_id, right.image_id], [wrong.image_id]))
    expect(page.locator("#judged-told")).to_contain_text("2 right, 1 wrong")
    expect(page.locator("#judged-told")).not_to_contain_text("probabilities")  # there are none without picks either
    expect(page.locator(".card.right")).to_have_count(2)
    expect(page.locator(".card.right").first).to_contain_text("+ right")
    expect(page.locator("#judged-strip button")).to_have_count(3)

    page.get_by_label("Judged images").locator("..").get_by_role("button", name="Export").click()
    expect(page.locator("#format")).to_be_disabled()
    export(page, tmp_path / "verdicts.csv")
    said = read_verdicts(tmp_path / "verdicts.csv", tmp_path)
    verdicts = ((first, True), (wrong, False), (right, True))
    assert said == {(Path(r.uri), "snail"): present for r, present in verdicts}

    page.get_by_title(f"{Path(wrong.uri).name}: wrong").click()
    expect(page.locator(".card")).to_have_count(60)
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("#judged")).to_be_hidden()
    expect(page.locator(".card.right")).to_have_count(0)
    expect_list(page, served.search("snail", 60))


def test_judging_with_the_mouse_and_looking_closely(page: Page, served: Searcher) -> None:
    leave(page)
    search(page, "snail")
    first = names(served, "snail")
    page.locator("#card-1").hover()
    page.locator("#card-1 .say.wrong").click()
    expect(page.locator(".card")).to_have_count(59)
    page.locator("#card-0").press("Enter")
    page.keyboard.press("y")
    expect(page.locator("#detail-right")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("y")
    expect(page.locator("#detail-right")).to_have_attribute("aria-pressed", "false")
    page.locator("#detail-wrong").click()
    expect(page.locator("#detail-name")).to_contain_text(first[0])
    page.wait_for_timeout(500)
    expect(page.locator(".card")).to_have_count(59)  # who looks closely goes on through the list as it was
    page.keyboard.press("Escape")
    expect(page.locator(".card")).to_have_count(58)
    # Another text has verdicts of its own, and these are still there afterwards.
    search(page, "anchor")
    expect(page.locator("#judged")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(60)
    search(page, "snail")
    expect(page.locator(".card")).to_have_count(58)


def test_judging_what_is_like_an_image_and_not_several_texts(page: Page) -> None:
    leave(page)
    search(page, "snail, anchor")
    page.keyboard.press("y")
    expect(page.locator("#status")).to_contain_text("list of one text")
    search(page, "snail")
    page.keyboard.press("m")
    expect(page.locator(".card")).to_have_count(59)
    expect(page.locator(".card").first).to_be_focused()
    page.keyboard.press("-")
    expect(page.locator(".card")).to_have_count(58)
    expect(page.locator("#judged-told")).to_contain_text("0 right, 1 wrong")
    questions: list[str] = []
    page.on("dialog", lambda dialog: questions.append(dialog.type))
    page.reload()
    assert questions == ["beforeunload"], "verdicts that were not exported are not lost without a question"


def test_the_list_is_handed_on_as_it_is_cut_off(page: Page, served: Searcher, tmp_path: Path) -> None:
    search(page, "snail")
    page.locator("#slider").evaluate("s => { s.value = 0.75; s.dispatchEvent(new Event('input')); }")
    kept = [r for r in served.search("snail", 60) if r.score >= float(page.locator("#slider").input_value())]
    assert 0 < len(kept) < 60
    page.keyboard.press("e")
    page.locator("#format").select_option("coco")
    page.locator("#label").fill("garden snail")
    made = json.loads(export(page, tmp_path / "list.json").read_text())
    assert [Path(i["file_name"]) for i in made["images"]] == [Path(r.uri) for r in kept]
    assert (made["categories"][0]["name"], len(made["annotations"])) == ("garden snail", len(kept))


def test_a_selection_is_handed_on_with_its_pictures(page: Page, served: Searcher, tmp_path: Path) -> None:
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 picked")
    page.keyboard.press("e")
    expect(page.locator("#what")).to_have_value("selection")
    page.locator("#format").select_option("fiftyone")
    with zipfile.ZipFile(export(page, tmp_path / "out.zip")) as zipped:
        (picture,) = [name for name in zipped.namelist() if name.startswith("data/")]
        assert zipped.read(picture) == Path(served.search("snail", 1)[0].uri).read_bytes()
    page.keyboard.press("e")
    expect(page.locator("#format")).to_have_value("fiftyone")  # as the last time
    page.locator("#format").select_option("csv")
    with export(page, tmp_path / "out.csv").open() as opened:
        (row,) = csv.DictReader(opened)
    assert (row["label"], row["present"]) == ("snail", "")


def test_what_can_not_be_handed_on_is_told_in_the_dialog(page: Page) -> None:
    page.keyboard.press("Escape")
    page.locator("#export").click()
    expect(page.locator("#status")).to_contain_text("nothing to export")
    search(page, "snail")
    page.route("**/api/export", lambda route: route.abort())
    page.keyboard.press("e")
    page.keyboard.press("Enter")
    expect(page.locator("#exporting-problem")).to_have_text("The service does not answer.")


def test_queries_side_by_side(page: Page, served: Searcher) -> None:
    page.keyboard.press("/")
    page.keyboard.type("snail | anchor |  | chair, -snail")
    page.keyboard.press("Enter")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.locator("#side .card").first).to_be_focused()
    assert shown(page)[:24] == names(served, "snail", 12) + names(served, "anchor", 12)
    expect(page.locator(".column").first).to_contain_text(f"Best score {served.search('snail', 1)[0].score:.3f}")
    both = set(names(served, "snail", 12)) & set(names(served, "anchor", 12))
    assert both, "else the next lines show nothing"
    for name in both:
        for card in page.locator(".column").nth(1).locator(".card", has_text=name).all():
            expect(card).to_contain_text(" of 3")
    lonely = next(n for n in set(shown(page)) if shown(page).count(n) == 1)
    expect(page.locator("#side .card", has_text=lonely).locator(".shared")).to_have_count(0)
    # From column to column by the arrows, a closer look, and back.
    place = 0
    while place < 12:
        page.keyboard.press("ArrowRight")
        place = int(page.locator(".card:focus").get_attribute("data-place") or 0)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_contain_text(shown(page)[place])
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 picked")
    page.reload()
    expect(page.locator(".column")).to_have_count(3)
    page.get_by_role("button", name="anchor").press("Enter")
    expect(page.locator("#status")).to_contain_text("for “anchor”")
    expect(page.locator("#text")).to_have_value("anchor")
    expect(page.locator("#grid .card")).to_have_count(60)
    expect(page.locator(".column")).to_have_count(0)
    page.go_back()
    expect(page.locator(".column")).to_have_count(3)


def test_more_queries_than_fit_are_refused(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("a|b|c|d|e|f|g")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("At most 6 queries")


def test_a_place_drawn_with_the_mouse_is_searched_by(page: Page, served: Searcher) -> None:
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
    expect(page.locator("#detail-picture .crop")).to_be_visible()
    with page.expect_request("**/api/similar") as asking:
        page.get_by_role("button", name="More like this place").click()
    sent = json.loads(asking.value.post_data or "")["box"]
    assert [sent[k] for k in ("x0", "y0", "x1", "y1")] == pytest.approx([0.25, 0.5, 0.75, 0.9], abs=0.01)
    expect(page.locator("#status")).to_contain_text("like a place in")


def test_a_place_marked_by_keyboard_is_searched_by(page: Page, served: Searcher) -> None:
    search(page, "snail")
    page.keyboard.press("Enter")
    name = page.locator("#detail-name").text_content() or ""
    page.keyboard.press("c")
    expect(page.locator("#detail-picture")).to_be_focused()
    for key in ["ArrowRight"] * 30 + ["ArrowUp"] * 5 + ["Shift+ArrowDown"] * 10 + ["Shift+ArrowLeft"] * 5:
        page.keyboard.press(key)
    expect(page.locator("#detail-name")).to_have_text(name)  # the arrows moved the place, not the look
    expect(page.locator("#crop-told")).to_contain_text("40 % wide and 70 % high")
    page.keyboard.press("Escape")
    expect(page.locator(".crop")).to_have_count(0)
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("c")
    for key in ["ArrowDown"] * 30 + ["Shift+ArrowLeft"] * 22:  # so narrow that no vector of the image looks just there
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("like a place in")
    expect(page.locator(".card").first).to_be_focused()
    first = served.search("snail", 1)[0]
    side = Image.open(first.uri).size
    crop = Image.open(first.uri).convert("RGB").crop((side[0] // 4, side[1] // 2, round(0.31 * side[0]), side[1]))
    found = [Path(r.uri).name for r in served.search_image(crop, 60) if r.uri != first.uri]
    assert shown(page) == found


def test_an_uploaded_picture_keeps_the_filter(page: Page, served: Searcher) -> None:
    page.get_by_role("button", name="Filter").click()
    page.keyboard.type("camera = 'front'")
    page.locator("#file").set_input_files(served.search("snail", 1)[0].uri)
    expect(page.locator(".card")).to_have_count(30)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_loop_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    leave(page)
    show_as(page, theme, width)
    search(page, "snail")
    page.keyboard.press("y")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    expect(page.locator(".card")).to_have_count(59)
    check_page(page)
    page.keyboard.press("Enter")
    page.keyboard.press("c")
    check_page(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    expect(page.locator("#exporting")).to_be_visible()
    check_page(page)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("snail | anchor | drum")
    page.keyboard.press("Enter")
    expect(page.locator(".column")).to_have_count(3)
    check_page(page)
