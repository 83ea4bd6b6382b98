"""The page in a real browser: the review queue, from the first key to labels that training reads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from forclip.config import DataConfig, SourceConfig
from forclip.data.label_export import config_of_labels
from forclip.data.sources import load_sets
from forclip.data.verdicts import read_verdicts
from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, open_page
from tests.server.test_page import check_page, search, show_as
from tests.server.test_page_verdicts_export import export

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def open_queue(page: Page) -> None:
    page.keyboard.press("r")
    expect(page.locator("#review")).to_be_visible()
    expect(page.locator("#review-picture")).to_be_focused()


def progress(page: Page, text: str) -> None:
    expect(page.locator("#review-status")).to_have_text(text)


def set_cutoff(page: Page, searcher: Searcher, count: int) -> list[str]:
    """Set the lowest score so that it keeps about this many results; return the names of those kept."""
    results = searcher.search("snail", 60)
    value = (results[count - 1].score + results[count].score) / 2
    page.locator("#slider").evaluate(f"s => {{ s.value = {value}; s.dispatchEvent(new Event('input')); }}")
    least = float(page.locator("#slider").input_value())
    return [Path(r.uri).name for r in results if r.score >= least]


def test_a_review_by_keys_becomes_labels_for_training(page: Page, served: Searcher, tmp_path: Path) -> None:
    """The whole way: mark images on the page, export the verdicts, and read them as a training does."""
    search(page, "snail")
    kept = set_cutoff(page, served, 8)
    open_queue(page)
    progress(page, f"0 of {len(kept)} reviewed")
    expect(page.locator("#review-order")).to_contain_text("near the cut-off")
    said: dict[str, bool] = {}
    for position in range(len(kept)):
        expect(page.locator("#review-picture .region")).to_have_count(1)
        name = str(page.locator("#review-picture img").get_attribute("alt"))
        said[name] = position % 3 > 0
        page.keyboard.press("y" if said[name] else "n")
        if position + 1 < len(kept):
            progress(page, f"{position + 1} of {len(kept)} reviewed")
            expect(page.locator("#review-picture")).to_be_focused()
    assert set(said) == set(kept)
    share = int(100 * sum(said.values()) / len(said) + 0.5)
    expect(page.locator("#review-done")).to_be_focused()
    expect(page.locator("#review-precision")).to_have_text(f"Precision of the first {len(kept)} results: {share} %.")
    page.get_by_role("button", name="Export the verdicts").click()
    expect(page.locator("#what")).to_have_value("verdicts")
    file = export(page, tmp_path / "verdicts.csv")

    verdicts, skipped = read_verdicts(file, tmp_path)
    assert {(path.name, label): present for (path, label), present in verdicts.items()} == {
        (name, "snail"): present for name, present in said.items()
    }
    assert not skipped
    # As the labels of a training by themselves: forclip train --from verdicts.csv --images PHOTOS
    folder = Path(served.search("snail", 1)[0].uri).parent
    train, gallery = load_sets(config_of_labels(file, folder).data)
    shown = dict(zip((*train.image_ids, *gallery.image_ids), [*train.labels[:, 0], *gallery.labels[:, 0]], strict=True))
    assert {Path(image_id).name: bool(label) for image_id, label in shown.items()} == said
    # And as verdicts that join other labels: data: {verdicts: verdicts.csv}
    others = [path.name for path in sorted(folder.iterdir()) if path.name not in said][:4]
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f'"{name}",drum\n' for name in others))
    merged, _ = load_sets(DataConfig(SourceConfig(tmp_path / "labels.csv", folder), verdicts=file))
    column = merged.class_names.index("snail")
    added = {path.name: bool(merged.labels[row, column]) for row, path in enumerate(merged.paths) if path.name in said}
    assert added == said
    assert merged.verified_mask[:, column].sum() == len(said)


def test_undo_skip_and_a_reload_keep_the_place(page: Page, served: Searcher) -> None:
    search(page, "snail")
    kept = set_cutoff(page, served, 20)
    open_queue(page)
    names = page.evaluate("queue.entries.map(entry => entry.image.name)")
    shown = page.locator("#review-picture img")
    expect(page.locator("#review-undo")).to_be_disabled()
    for key, position in (("y", 1), ("n", 2), (" ", 3), ("u", 2), ("Control+z", 1), ("n", 2), (" ", 3)):
        page.keyboard.press(key)
        progress(page, f"{position} of {len(kept)} reviewed")
        expect(shown).to_have_attribute("alt", names[position])
    page.evaluate("queue.sending")
    address = page.url
    assert "review=score" in address
    page.reload()
    progress(page, f"3 of {len(kept)} reviewed")
    expect(shown).to_have_attribute("alt", names[3])
    assert page.url == address
    page.keyboard.press("u")
    page.keyboard.press("u")
    expect(page.locator("#review-wrong")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(page.locator("#review")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("review"))
    expect(page.locator("#verdicts-status")).to_have_text("1 right, 0 wrong.")
    expect(page.locator(".card.right")).to_have_count(1)


def test_the_queue_opens_and_closes_with_the_address(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("ArrowRight")
    open_queue(page)
    page.go_back()
    expect(page.locator("#review")).to_be_hidden()
    expect(page.locator("#card-1")).to_be_focused()
    page.go_forward()
    expect(page.locator("#review")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#review")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("review"))
    page.locator("#card-2").press("m")
    expect(page.locator("#status")).to_contain_text("similar to")
    open_queue(page)
    page.reload()
    expect(page.locator("#review-name")).to_contain_text("similar to")


def test_the_list_and_its_focus_stay_as_they_were(page: Page) -> None:
    """A review neither ranks the list again nor takes the focus from its image."""
    search(page, "snail")
    page.keyboard.press("y")
    expect(page.locator("#verdicts-rank")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#verdicts-status")).to_contain_text("Ranked")
    page.wait_for_timeout(500)
    plain = httpx.post(page.url.partition("#")[0] + "api/search", json={"text": "snail", "k": 60}).json()["results"]
    page.keyboard.press("ArrowRight")
    open_queue(page)
    assert page.evaluate("state.results.map(r => r.key)") == [r["key"] for r in plain]
    for key in "yny":
        page.keyboard.press(key)
    page.evaluate("queue.sending")
    page.keyboard.press("Escape")
    expect(page.locator("#review")).to_be_hidden()
    expect(page.locator("#verdicts-status")).to_have_text("3 right, 1 wrong.")
    assert page.evaluate("state.results.map(r => r.key)") == [r["key"] for r in plain]
    expect(page.locator(".card:focus")).to_have_count(1)
    page.locator("#verdicts-rank").click()
    expect(page.locator("#verdicts-status")).to_contain_text("Ranked by your verdicts")
    expect(page.locator("#verdicts-rank")).to_be_focused()
    expect(page.locator(".card.wrong")).to_have_count(0)


def test_buttons_keep_the_focus_and_space_presses_only_the_focused_one(page: Page) -> None:
    search(page, "snail")
    open_queue(page)
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.id") != "review-right":
        page.keyboard.press("Tab")
    page.keyboard.press(" ")
    page.keyboard.press("Enter")
    expect(page.locator("#review-right")).to_be_focused()
    assert page.evaluate("queue.entries.slice(0, 2).map(e => e.verdict)") == ["right", "right"]
    page.locator("#review-wrong").click()
    expect(page.locator("#review-picture")).to_be_focused()
    page.keyboard.press(" ")
    assert page.evaluate("queue.entries.slice(2, 4).map(e => e.verdict)") == ["wrong", None]
    page.locator("#review-undo").click()
    progress(page, "3 of 60 reviewed")
    page.locator("#review-undo").focus()
    for position in (2, 1, 0):
        page.keyboard.press("Enter")
        progress(page, f"{position} of 60 reviewed")
    expect(page.locator("#review-picture")).to_be_focused()


def test_the_next_images_are_loaded_ahead(page: Page) -> None:
    search(page, "snail")
    loaded: list[str] = []
    page.on(
        "request",
        lambda request: loaded.append(request.url.rpartition("/")[2]) if "/api/image/" in request.url else None,
    )
    open_queue(page)
    expect(page.locator("#review-picture img")).to_have_js_property("complete", True)
    keys = page.evaluate("queue.entries.slice(0, 4).map(entry => entry.image.key)")
    assert sorted(loaded) == sorted(keys[:3])
    page.keyboard.press(" ")
    progress(page, "1 of 60 reviewed")
    expect(page.locator("#review-picture img")).to_have_attribute("src", f"api/image/{keys[1]}")


def test_an_answer_that_is_not_kept_is_said_and_the_place_is_found_again(page: Page) -> None:
    search(page, "snail")
    open_queue(page)
    page.keyboard.press("y")
    page.evaluate("queue.sending")
    page.route("**/queue/answer", lambda route: route.abort())
    page.keyboard.press("y")
    expect(page.locator("#review-error")).to_contain_text("does not respond")
    expect(page.locator("#review-retry")).to_be_focused()
    page.unroute("**/queue/answer")
    page.keyboard.press("Enter")
    progress(page, "1 of 60 reviewed")
    expect(page.locator("#review-error")).to_be_hidden()
    expect(page.locator("#review-picture")).to_be_focused()


def test_lists_of_several_texts_have_no_review(page: Page) -> None:
    search(page, "snail, anchor")
    expect(page.locator("#review-open")).to_be_hidden()
    page.keyboard.press("r")
    expect(page.locator("#status")).to_contain_text("one text")
    expect(page.locator("#review")).to_be_hidden()


def test_with_a_calibration_the_recommended_cutoff_is_reviewed(browser: Browser, shared_address: str) -> None:
    with open_page(browser, shared_address) as page:
        search(page, "snail")
        recommended = page.evaluate("state.confidence.cutoff")
        assert 0 < recommended < 60
        page.locator("#review-open").click()
        expect(page.locator("#review-order")).to_contain_text("50 %")
        expect(page.locator("#review-facts")).to_contain_text("probability")
        progress(page, f"0 of {recommended} reviewed")
        expect(page.locator("#review-precision")).to_contain_text("not enough data")
        page.keyboard.press("y")
        page.keyboard.press("Escape")
        expect(page.locator("#verdicts-status")).to_contain_text("1 right, 0 wrong.")
        expect(page.locator("#verdicts-status")).not_to_contain_text("Ranked")
        expect(page.locator("#slider-value")).to_have_text(f"first {recommended}")
        expect(page.locator("#review-open")).to_be_focused()


@pytest.fixture
def phone(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, address, width=390, height=844, has_touch=True, is_mobile=True) as opened:
        yield opened


def test_a_review_on_a_phone(phone: Page) -> None:
    """All buttons are on the screen at once, large enough for a thumb."""
    phone.locator("#text").fill("snail")
    phone.get_by_role("button", name="Search", exact=True).tap()
    phone.get_by_role("button", name="Review").tap()
    expect(phone.locator("#review-picture img")).to_have_js_property("complete", True)
    for name, position in (("Right", 1), ("Wrong", 2), ("Skip", 3), ("Undo", 2)):
        button = phone.locator("#review-actions").get_by_role("button", name=name)
        edges: Any = button.bounding_box()
        assert edges["height"] >= 44
        assert edges["y"] + edges["height"] <= 844
        button.tap()
        progress(phone, f"{position} of 60 reviewed")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.evaluate("queue.sending")
    given = json.loads(phone.evaluate("call(reviewerPath()).then(JSON.stringify)"))["searches"][0]
    assert (len(given["right"]), len(given["wrong"])) == (1, 1)


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1200)])
def test_the_review_is_accessible_and_fits(page: Page, served: Searcher, theme: str, width: int) -> None:
    show_as(page, theme, width)
    search(page, "snail")
    set_cutoff(page, served, 3)
    open_queue(page)
    check_page(page)
    page.keyboard.press("y")
    page.keyboard.press("u")
    expect(page.locator("#review-undo")).to_be_disabled()
    count = page.evaluate("queue.entries.length")
    for _ in range(count):
        page.keyboard.press("y")
    expect(page.locator("#review-done")).to_be_focused()
    check_page(page)
    page.keyboard.press("Escape")
    expect(page.locator("#verdicts")).to_be_visible()
    check_page(page)
