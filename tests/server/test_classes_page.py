"""The page where there are labels: what a person does with the classes, in a real browser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from forclip.config import SourceConfig
from forclip.search.labels import StoreLabels, judge_by_labels, load_store_labels
from forclip.search.searcher import Searcher
from forclip.server.app import create_app
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import CHROMIUM, open_page, serving
from tests.server.test_page import check_page, search, show_as

NOTHING = "\N{EN DASH}"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture
def labels(served: Searcher, made_store: Path, small_world: ToyWorld) -> StoreLabels:
    """One class is named as no class should be, and another with a comma; the last twenty images were not checked."""
    found = load_store_labels(served.index, SourceConfig(small_world.gallery_file, made_store / "pictures")).images
    names = {"apple": "<b onclick=hacked()>apple", "anchor": "anchor, of a ship"}
    assert set(names) <= set(found.class_names)
    verified = found.verified_mask
    verified[40:] = False
    images = replace(found, class_names=tuple(names.get(n, n) for n in found.class_names), verified=verified)
    return StoreLabels(images, {n: "novel" if n in ("snail", "drum") else "base" for n in images.class_names})


@pytest.fixture
def page(browser: Browser, served: Searcher, labels: StoreLabels) -> Iterator[Page]:
    with serving(create_app(served, labels=labels)) as address, open_page(browser, address) as opened:
        expect(opened.get_by_role("button", name="Classes")).to_be_visible()
        yield opened


def open_classes(page: Page) -> None:
    page.locator("#text").blur()
    page.keyboard.press("l")
    expect(page.locator("#classes-told")).to_contain_text("over the 59 images")


def values(page: Page, column: int) -> list[str]:
    return page.locator(f"#class-rows tr > :nth-child({column + 1})").all_text_contents()


def test_classes_by_keyboard_alone(page: Page, served: Searcher, labels: StoreLabels) -> None:
    open_classes(page)
    expect(page.locator("#class-filter")).to_be_focused()
    expect(page.locator("#means")).to_contain_text("novel (1)")  # of a drum no image was checked that shows one
    measured = [float(v) for v in values(page, 3) if v != NOTHING]
    assert measured == sorted(measured)
    assert values(page, 3) == [f"{v:.1f}" for v in measured] + [NOTHING] * (
        len(labels.images.class_names) - len(measured)
    )
    page.keyboard.type("novel")
    expect(page.locator("#class-rows tr")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#class-filter")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("snai")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("for “snail”")
    expect(page.locator(".card").first).to_be_focused()
    column = labels.images.class_names.index("snail")
    shows = [labels.shows(r.image_id, column) for r in served.search("snail", 60)]
    signs = {True: "label ✓ right", False: "label ✗ wrong", None: "label ? not checked"}
    assert page.locator(".card .by-label").all_text_contents() == [signs[s] for s in shows]
    found = judge_by_labels(served.index, labels, column, served.encode_text("snail"))
    assert found.average_precision is not None
    expect(page.locator("#labels-told")).to_contain_text(f"snail (novel): AP@50 {found.average_precision:.1f} %")
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text(signs[shows[0]].removeprefix("label "))


def test_only_what_is_wrong_or_missed_and_back(page: Page, served: Searcher, labels: StoreLabels) -> None:
    def missed(column: int) -> int:
        text = served.encode_text(labels.images.class_names[column])
        return len(judge_by_labels(served.index, labels, column, text).missed)

    column = max(range(len(labels.images.class_names)), key=missed)
    name, count = labels.images.class_names[column], missed(column)
    assert count
    search(page, name)
    button = page.get_by_role("button", name=f"Only missed ({count})")
    button.click()
    expect(page.locator("#status")).to_have_text(f"{count} {'image' if count == 1 else 'images'} missed for “{name}”")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert all(int(rank) > 50 for rank in page.locator(".card .rank").all_text_contents())
    page.get_by_role("button", name="Only wrong").click()
    expect(page.locator("#status")).to_contain_text("wrong for")
    assert set(page.locator(".by-label").all_text_contents()) == {"label ✗ wrong"}
    expect(button).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Only wrong").click()
    expect(page.locator(".card")).to_have_count(60)


def test_a_click_sorts_and_a_click_searches(page: Page) -> None:
    page.get_by_role("button", name="Classes").click()
    page.get_by_role("button", name="Images").click()
    expect(page.locator("th[data-by=images]")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#classes-told")).to_contain_text("over the 59 images")
    counts = [int(v) for v in values(page, 2)]
    assert counts == sorted(counts, reverse=True)
    page.get_by_role("button", name="Images").click()
    assert [int(v) for v in values(page, 2)] == counts[::-1]
    page.locator("#class-filter").fill("of a ship")
    page.locator("#class-rows td").first.click()
    expect(page.locator("#status")).to_contain_text("for “anchor, of a ship”")
    expect(page.locator("#labels-told")).to_contain_text("anchor, of a ship (base)")


def test_a_hostile_class_name_is_only_text(page: Page) -> None:
    page.evaluate("() => { window.hacked = () => { window.wasHacked = true; }; }")
    open_classes(page)
    page.keyboard.type("<b on")
    page.keyboard.press("Enter")
    expect(page.locator("#labels-told")).to_contain_text("<b onclick=hacked()>apple")
    assert page.locator("main b, dialog b").count() == 0


def test_of_other_texts_the_labels_say_nothing(page: Page) -> None:
    search(page, "snail")
    expect(page.locator("#by-labels")).to_be_visible()
    search(page, "a snail on a leaf")
    expect(page.locator("#by-labels")).to_be_hidden()
    expect(page.locator(".by-label")).to_have_count(0)


def test_judging_and_exporting_beside_labels(page: Page, tmp_path: Path) -> None:
    page.on("dialog", lambda dialog: dialog.accept())  # verdicts that were not exported
    search(page, "anchor, of a ship")
    expect(page.locator("#by-labels")).to_be_visible()
    page.keyboard.press("n")
    expect(page.locator(".card")).to_have_count(59)  # a class's name with a comma is one text
    expect(page.locator("#by-labels")).to_be_hidden()  # the list lacks an image, so labels say nothing of it
    page.get_by_role("button", name="Forget").click()
    page.get_by_role("button", name="Only wrong").click()
    expect(page.locator("#status")).to_contain_text("wrong for")
    page.locator("#card-0").press("y")
    expect(page.locator("#status")).to_contain_text("whole list of one text")
    wrong = page.evaluate("state.results.map(r => r.name)")
    page.keyboard.press("e")
    page.locator("#format").select_option("files")
    with page.expect_download() as downloading:
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
    downloading.value.save_as(tmp_path / "wrong.txt")
    assert [Path(line).name for line in (tmp_path / "wrong.txt").read_text().splitlines()] == wrong
    page.locator("#text").fill("snail | anchor, of a ship")
    page.keyboard.press("Enter")
    expect(page.locator(".column")).to_have_count(2)
    expect(page.locator("#by-labels")).to_be_hidden()
    expect(page.locator(".by-label")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_is_accessible_and_fits(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    open_classes(page)
    check_page(page)
    page.locator("#class-filter").fill("snail")
    page.keyboard.press("Enter")
    expect(page.locator(".by-label").first).to_be_visible()
    check_page(page)
    page.get_by_role("button", name="Only wrong").click()
    expect(page.locator("#status")).to_contain_text("wrong for")
    check_page(page)
