"""The page in a real browser: verdicts, export, and several searches side by side."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Route, expect

from forclip.data.verdicts import read_verdicts
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import Searcher
from forclip.types import SearchResult
from tests.server.conftest import CHROMIUM
from tests.server.made_lists import serve_made_list
from tests.server.test_page import check_page, search, show_as

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def visible_names(page: Page) -> list[str]:
    """Return the names of the images that are shown, in order."""
    names: list[str] = page.evaluate("state.shown.map(index => state.results[index].name)")
    return names


def names(searcher: Searcher, text: str, count: int = 60) -> list[str]:
    return [Path(r.uri).name for r in searcher.search(text, count)]


def export(page: Page, to: Path) -> Path:
    with page.expect_download() as downloading:
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
    downloading.value.save_as(to)
    expect(page.locator("#exporting")).to_be_hidden()
    return to


def ranked_by_verdicts(searcher: Searcher, right: list[str], wrong: list[str]) -> list[SearchResult]:
    """Search in Python with the same verdicts."""
    request = SearchRequest(text="snail", k=60, right=tuple(right), wrong=tuple(wrong))
    return list(run_search(searcher, request).results)


def expect_list(page: Page, results: list[SearchResult]) -> None:
    expected = [Path(r.uri).name for r in results]
    for _ in range(100):
        if visible_names(page) == expected:
            break
        page.wait_for_timeout(50)  # wait_for_function is blocked by the page's content policy
    assert visible_names(page) == expected


def test_verdicts_rank_the_results_again(page: Page, served: Searcher, tmp_path: Path) -> None:
    """The focus stays on the image, or moves to the position of an image that was wrong."""
    search(page, "snail")
    first = served.search("snail", 60)[0]
    page.keyboard.press("y")
    once = ranked_by_verdicts(served, [first.image_id], [])
    expect_list(page, once)
    focused = next(k for k, r in enumerate(once) if r.image_id == first.image_id)
    expect(page.locator(".card:focus")).to_have_attribute("data-index", str(focused))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    wrong = once[focused + 1]
    twice = ranked_by_verdicts(served, [first.image_id], [wrong.image_id])
    expect_list(page, twice)
    expect(page.locator(".card:focus")).to_have_attribute("data-index", str(focused + 1))
    page.keyboard.press("+")
    right = twice[focused + 1]
    expect_list(page, ranked_by_verdicts(served, [first.image_id, right.image_id], [wrong.image_id]))
    expect(page.locator("#verdicts-status")).to_contain_text("2 right, 1 wrong")
    expect(page.locator("#verdicts-status")).not_to_contain_text("probabilities")  # this store has no calibration
    expect(page.locator(".card.right")).to_have_count(2)
    expect(page.locator(".card.right .verdict")).to_have_count(2)
    expect(page.locator("#verdicts-list button")).to_have_count(3)

    page.locator("#verdicts").get_by_role("button", name="Export").click()
    expect(page.locator("#format")).to_be_disabled()
    export(page, tmp_path / "verdicts.csv")
    exported, _ = read_verdicts(tmp_path / "verdicts.csv", tmp_path)
    verdicts = ((first, True), (wrong, False), (right, True))
    assert exported == {(Path(r.uri), "snail"): present for r, present in verdicts}

    page.get_by_label("Images with a verdict").get_by_role("button", name=Path(wrong.uri).name).click()
    expect(page.locator(".card")).to_have_count(60)
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#verdicts")).to_be_hidden()
    expect(page.locator(".card.right")).to_have_count(0)
    expect_list(page, served.search("snail", 60))


def test_verdicts_with_the_mouse_and_in_the_closer_look(page: Page, served: Searcher) -> None:
    search(page, "snail")
    first = names(served, "snail")
    page.locator("#card-1").hover()
    page.locator("#card-1 .give.wrong").click()
    expect(page.locator(".card")).to_have_count(59)
    page.locator("#card-0").press("Enter")
    page.keyboard.press("y")
    expect(page.locator("#detail-right")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("y")
    expect(page.locator("#detail-right")).to_have_attribute("aria-pressed", "false")
    page.locator("#detail-wrong").click()
    expect(page.locator("#detail-name")).to_contain_text(first[0])
    page.wait_for_timeout(500)
    expect(page.locator(".card")).to_have_count(59)  # the results stay as they are while the closer look is open
    page.keyboard.press("Escape")
    expect(page.locator(".card")).to_have_count(58)
    # Each text has its own verdicts, and they are kept.
    search(page, "anchor")
    expect(page.locator("#verdicts")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(60)
    search(page, "snail")
    expect(page.locator(".card")).to_have_count(58)


def test_verdicts_for_similar_images_but_not_for_several_texts(page: Page) -> None:
    search(page, "snail, anchor")
    page.keyboard.press("y")
    expect(page.locator("#status")).to_contain_text("one text")
    expect(page.locator("#verdicts")).to_be_hidden()
    search(page, "snail")
    page.keyboard.press("m")
    expect(page.locator(".card")).to_have_count(59)
    expect(page.locator(".card").first).to_be_focused()
    page.keyboard.press("-")
    expect(page.locator(".card")).to_have_count(58)
    expect(page.locator("#verdicts-status")).to_contain_text("0 right, 1 wrong")


def test_exported_results_end_at_the_cutoff(page: Page, served: Searcher, tmp_path: Path) -> None:
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


def test_a_list_like_an_upload_is_exported(page: Page, served: Searcher, tmp_path: Path) -> None:
    uri = served.search("anchor", 1)[0].uri
    page.locator("#file").set_input_files(uri)
    expect(page.locator(".card").first).to_be_focused()
    page.keyboard.press("e")
    page.locator("#format").select_option("yolo")
    page.get_by_role("dialog").get_by_role("button", name="Export").click()
    expect(page.locator("#label")).to_be_focused()  # a class needs a name
    page.locator("#format").select_option("files")
    with page.expect_download() as downloading:
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
    assert downloading.value.suggested_filename == f"like_{Path(uri).stem}.txt"
    downloading.value.save_as(tmp_path / "list.txt")
    assert [Path(line).name for line in (tmp_path / "list.txt").read_text().splitlines()] == visible_names(page)


def test_all_results_above_the_cutoff_are_exported_without_loading_them(page: Page) -> None:
    """Reviewed images that are hidden, and otherwise wrong ones, are left out."""
    asked = serve_made_list(page, 5_000, [0.9 - n / 6_000 for n in range(5_000)], cutoff=2_000)
    sent: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        sent.append(route.request.post_data_json or {})
        route.fulfill(
            status=200, headers={"Content-Disposition": "attachment; filename*=utf-8''caf%C3%A9.csv"}, body="a"
        )

    page.route("**/api/export", answer)
    page.evaluate(
        """() => {
        const id = JSON.stringify(['search', 'snail']);
        const verdict = (key, right) => [key, {result: {key, name: key}, right}];
        verdicts.set(id, new Map([verdict('7', true), verdict('9', false)]));
        unranked.add(id);
        }"""
    )
    search(page, "snail")

    def exported(what: str) -> dict[str, Any]:
        page.locator("#export").click()
        page.locator("#what").select_option(what)
        with page.expect_download() as downloading:
            page.get_by_role("dialog").get_by_role("button", name="Export").click()
        assert downloading.value.suggested_filename == "café.csv"
        expect(page.locator("#exporting")).to_be_hidden()
        return {
            name: value
            for name, value in sent[-1].items()
            if name not in ("all_of", "any_of", "none_of", "format", "label")
        }

    assert exported("list") == {"k": 60, "leave_out": ["9"]}
    assert exported("all") == {"k": 20_000, "leave_out": ["9"]}
    page.locator("#slider").evaluate("s => { s.value = 0.4; s.dispatchEvent(new Event('input')); }")
    page.get_by_text("View", exact=True).click()
    page.get_by_label("Hide reviewed").check()
    assert exported("all") == {"k": 20_000, "min_probability": 0.4, "leave_out": ["7", "9"]}
    assert sum(asked) == 60


def test_a_selection_is_exported_with_its_images(page: Page, served: Searcher, tmp_path: Path) -> None:
    search(page, "snail")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    page.keyboard.press("e")
    expect(page.locator("#what")).to_have_value("selection")
    page.locator("#format").select_option("fiftyone")
    with zipfile.ZipFile(export(page, tmp_path / "out.zip")) as zipped:
        (picture,) = [name for name in zipped.namelist() if name.startswith("data/")]
        assert zipped.read(picture) == Path(served.search("snail", 1)[0].uri).read_bytes()
    page.keyboard.press("e")
    expect(page.locator("#format")).to_have_value("fiftyone")  # the last used format
    page.locator("#format").select_option("csv")
    with export(page, tmp_path / "out.csv").open() as opened:
        (row,) = csv.DictReader(opened)
    assert (row["label"], row["present"]) == ("snail", "")


def test_images_that_an_export_leaves_out_are_named(page: Page, tmp_path: Path) -> None:
    said = "1 left out, the first: ü.jpg: the file no longer exists"
    headers = {"Content-Disposition": 'attachment; filename="some.zip"', "Forclip-Left-Out": quote(said)}
    page.route("**/api/export", lambda route: route.fulfill(body=b"zip", headers=headers))
    search(page, "snail")
    page.keyboard.press("e")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    assert downloading.value.suggested_filename == "some.zip"
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text(said)


def test_export_errors_are_shown(page: Page) -> None:
    page.keyboard.press("Escape")
    page.locator("#export").click()
    expect(page.locator("#exporting")).to_be_hidden()
    expect(page.locator("#status")).not_to_be_empty()
    search(page, "snail")
    page.route("**/api/export", lambda route: route.abort())
    page.keyboard.press("e")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("service")


def test_searches_side_by_side(page: Page, served: Searcher) -> None:
    page.keyboard.press("/")
    page.keyboard.type("snail | anchor |  | chair, -snail")
    page.keyboard.press("Enter")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.locator("#columns .card").first).to_be_focused()
    assert visible_names(page)[:24] == names(served, "snail", 12) + names(served, "anchor", 12)
    expect(page.locator(".column").first).to_contain_text(f"{served.search('snail', 1)[0].score:.3f}")
    both = set(names(served, "snail", 12)) & set(names(served, "anchor", 12))
    assert both
    for name in both:
        for card in page.locator(".column").nth(1).locator(".card", has_text=name).all():
            expect(card).to_contain_text(" of 3")
    lonely = next(n for n in set(visible_names(page)) if visible_names(page).count(n) == 1)
    expect(page.locator("#columns .card", has_text=lonely).locator(".shared")).to_have_count(0)
    # Arrow keys move to the next column; a closer look and back.
    index = 0
    while index < 12:
        page.keyboard.press("ArrowRight")
        index = int(page.locator(".card:focus").get_attribute("data-index") or 0)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_contain_text(visible_names(page)[index])
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("1 selected")
    page.reload()
    expect(page.locator(".column")).to_have_count(3)
    page.get_by_role("button", name="anchor").press("Enter")
    expect(page.locator("#status")).to_contain_text("“anchor”")
    expect(page.locator("#text")).to_have_value("anchor")
    expect(page.locator("#grid .card")).to_have_count(60)
    expect(page.locator(".column")).to_have_count(0)
    page.go_back()
    expect(page.locator(".column")).to_have_count(3)


def test_more_than_six_searches_side_by_side_are_refused(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("a|b|c|d|e|f|g")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("6")


def test_search_by_an_image_file_keeps_the_filter(page: Page, served: Searcher) -> None:
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("SQL").fill("camera = 'front'")
    page.locator("#file").set_input_files(served.search("snail", 1)[0].uri)
    expect(page.locator(".card")).to_have_count(30)


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1200)])
def test_verdicts_and_export_are_accessible_and_fit(page: Page, theme: str, width: int) -> None:
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
