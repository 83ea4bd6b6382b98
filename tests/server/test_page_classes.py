"""The page of a service with labels, in a real browser: the table of classes, and what labels say about results."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from forclip.config import SourceConfig
from forclip.search.labels import StoreLabels, evaluate_list, load_store_labels
from forclip.search.searcher import Searcher
from forclip.server.app import create_app
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import CHROMIUM, open_page, serving
from tests.server.test_page import check_page, search, show_as

NOTHING = "\N{EN DASH}"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture
def labels(served: Searcher, store_folder: Path, small_world: ToyWorld) -> StoreLabels:
    """One class has a hostile name and another a comma in its name. The last twenty images are not labelled."""
    found = load_store_labels(served.index, SourceConfig(small_world.gallery_file, store_folder / "pictures")).images
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
    expect(page.locator("#classes-status")).to_contain_text("59")


def values(page: Page, column: int) -> list[str]:
    return page.locator(f"#class-rows tr > :nth-child({column + 1})").all_text_contents()


def test_classes_by_keyboard_alone(page: Page, served: Searcher, labels: StoreLabels) -> None:
    open_classes(page)
    expect(page.locator("#class-filter")).to_be_focused()
    expect(page.locator("#means")).to_contain_text("novel (1)")  # no labelled image shows a drum
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
    expect(page.locator("#status")).to_contain_text("“snail”")
    expect(page.locator(".card").first).to_be_focused()
    column = labels.images.class_names.index("snail")
    shows = [labels.shows(r.image_id, column) for r in served.search("snail", 60)]
    signs = {True: "✓", False: "✗", None: "?"}
    badges = page.locator(".card .label").all_text_contents()
    assert len(badges) == len(shows)
    assert all(signs[show] in badge for show, badge in zip(shows, badges, strict=True))
    found = evaluate_list(served.index, labels, column, served.encode_text("snail"))
    assert found.images == 1
    expect(page.locator("#label-quality")).to_contain_text("only 1 image")  # too few for a percentage
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text(signs[shows[0]])


def test_only_false_positives_or_false_negatives_and_back(page: Page, served: Searcher, labels: StoreLabels) -> None:
    def missed(column: int) -> int:
        text = served.encode_text(labels.images.class_names[column])
        return len(evaluate_list(served.index, labels, column, text).missed)

    column = max(range(len(labels.images.class_names)), key=missed)
    name, count = labels.images.class_names[column], missed(column)
    assert count
    search(page, name)
    button = page.get_by_role("button", name=f"False negatives ({count})")
    button.click()
    expect(page.locator(".card")).to_have_count(count)
    expect(button).to_have_attribute("aria-pressed", "true")
    assert all(int(rank) > 50 for rank in page.locator(".card .rank").all_text_contents())
    page.get_by_role("button", name="False positives").click()
    expect(page.get_by_role("button", name="False positives")).to_have_attribute("aria-pressed", "true")
    assert all("✗" in badge for badge in page.locator(".label").all_text_contents())
    expect(button).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="False positives").click()
    expect(page.locator(".card")).to_have_count(60)


def test_a_click_sorts_and_a_click_searches(page: Page) -> None:
    page.get_by_role("button", name="Classes").click()
    page.get_by_role("button", name="Images").click()
    expect(page.locator("th[data-by=images]")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#classes-status")).to_contain_text("59")
    counts = [int(v) for v in values(page, 2)]
    assert counts == sorted(counts, reverse=True)
    page.get_by_role("button", name="Images").click()
    assert [int(v) for v in values(page, 2)] == counts[::-1]
    page.locator("#class-filter").fill("of a ship")
    page.locator("#class-rows td").first.click()
    expect(page.locator("#status")).to_contain_text("“anchor, of a ship”")
    expect(page.locator("#label-quality")).to_contain_text("anchor, of a ship")


def test_a_hostile_class_name_is_shown_as_text(page: Page) -> None:
    page.evaluate("() => { window.hacked = () => { window.wasHacked = true; }; }")
    open_classes(page)
    page.keyboard.type("<b on")
    page.keyboard.press("Enter")
    expect(page.locator("#label-quality")).to_contain_text("<b onclick=hacked()>apple")
    assert page.locator("main b, dialog b").count() == 0


@pytest.mark.parametrize("name", ["snail", "anchor, of a ship"])
def test_the_closer_look_shows_a_heatmap_for_a_class_name(page: Page, name: str) -> None:
    search(page, name)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Heatmap").click()
    expect(page.get_by_role("img", name="Heatmap")).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text(f"“{name}”")
    page.reload()
    expect(page.locator("#label-summary")).to_be_visible()  # the address is read as the name of a class, too


def test_texts_that_name_no_class_have_no_labels(page: Page) -> None:
    search(page, "snail")
    expect(page.locator("#label-summary")).to_be_visible()
    search(page, "a snail on a leaf")
    expect(page.locator("#label-summary")).to_be_hidden()
    expect(page.locator(".label")).to_have_count(0)


def test_verdicts_and_export_with_labels(page: Page, tmp_path: Path) -> None:
    page.on("dialog", lambda dialog: dialog.accept())  # verdicts that were not exported
    search(page, "anchor, of a ship")
    expect(page.locator("#label-summary")).to_be_visible()
    page.keyboard.press("n")
    expect(page.locator(".card")).to_have_count(59)  # a class name with a comma is one text
    expect(page.locator("#label-summary")).to_be_hidden()  # quality is only shown for results without verdicts
    page.get_by_role("button", name="Clear all").click()
    page.get_by_role("button", name="False positives").click()
    expect(page.get_by_role("button", name="False positives")).to_have_attribute("aria-pressed", "true")
    page.locator("#card-0").press("y")
    expect(page.locator("#verdicts")).to_be_hidden()
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
    expect(page.locator("#label-summary")).to_be_hidden()
    expect(page.locator(".label")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_classes_are_accessible_and_fit(page: Page, theme: str, width: int) -> None:
    show_as(page, theme, width)
    open_classes(page)
    check_page(page)
    page.locator("#class-filter").fill("snail")
    page.keyboard.press("Enter")
    expect(page.locator(".label").first).to_be_visible()
    check_page(page)
    page.get_by_role("button", name="False positives").click()
    expect(page.get_by_role("button", name="False positives")).to_have_attribute("aria-pressed", "true")
    check_page(page)
