"""Filters on the page in a browser: columns with values, ranges and text, chips, SQL, and what they leave."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from forclip.index.filters import lance_filter
from forclip.search.searcher import Searcher
from tests.server.conftest import CHROMIUM, HOSTILE_VALUE, open_page
from tests.server.test_page import search

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture
def page(browser: Browser, shared_address: str) -> Iterator[Page]:
    with open_page(browser, shared_address, allowed="status of 400") as opened:
        opened.on("dialog", lambda dialog: dialog.accept())  # verdicts that were not exported
        yield opened


def open_filter(page: Page) -> None:
    page.keyboard.press("f")
    expect(page.locator("#facets")).to_contain_text("camera")


def test_a_value_is_chosen_kept_in_the_address_and_removed(page: Page) -> None:
    search(page, "snail")
    open_filter(page)
    front = page.get_by_role("group", name="camera").get_by_label("front")
    expect(front.locator("xpath=..")).to_contain_text("30")
    front.check()
    expect(page.locator("#status")).to_contain_text("30 results")
    expect(page.get_by_label("Active filters")).to_contain_text("camera: front")
    expect(page.locator("#filter")).to_have_text("Filter (1)")
    expect(front).to_be_focused()
    page.get_by_role("group", name="camera").get_by_label("back").check()
    expect(page.locator("#status")).to_contain_text("60 results")
    page.get_by_role("group", name="camera").get_by_label("back").uncheck()
    page.reload()
    expect(page.locator("#status")).to_contain_text("30 results")
    assert page.evaluate("state.results.every(r => r.metadata.camera === 'front')")
    page.get_by_role("button", name="Remove camera: front").click()
    expect(page.locator("#status")).to_contain_text("60 results")
    expect(page.locator("#chips")).to_be_hidden()
    page.go_back()
    expect(page.locator("#status")).to_contain_text("30 results")


def test_ranges_texts_and_sql_together(page: Page, model: Searcher) -> None:
    search(page, "snail")
    open_filter(page)
    rows = model.index.store.table().to_table(["size", "uri"]).to_pylist()
    middle = sorted(row["size"] for row in rows)[len(rows) // 2]
    page.get_by_label("size in bytes, from").fill(str(middle))
    page.get_by_label("size in bytes, from").press("Tab")
    expected = [row for row in rows if row["size"] >= middle]
    expect(page.locator("#status")).to_contain_text(f"{len(expected)} results")
    page.get_by_label("path contains").fill("GALLERY_0000")
    page.get_by_label("path contains").press("Enter")
    expected = [row for row in expected if "gallery_0000" in row["uri"]]
    assert 0 < len(expected) < 20
    expect(page.locator("#status")).to_contain_text(f"{len(expected)} result")
    page.get_by_label("SQL").fill("camera = 'front' OR camera = 'back'")
    page.get_by_label("SQL").press("Enter")
    expect(page.locator("#chip-list li")).to_have_count(3)
    expect(page.locator("#status")).to_contain_text(f"{len(expected)} result")
    page.locator("#chips").get_by_role("button", name="Clear all").click()
    expect(page.locator("#status")).to_contain_text("60 results")
    expect(page.get_by_label("SQL")).to_have_value("")


def test_a_hostile_value_is_a_value_like_others(page: Page) -> None:
    search(page, "snail")
    open_filter(page)
    page.get_by_role("group", name="remark").get_by_label(HOSTILE_VALUE).check()
    expect(page.locator("#status")).to_contain_text("1 result")
    expect(page.locator("#chip-list")).to_contain_text(HOSTILE_VALUE)
    assert page.locator("main script, header script").count() == 0


@pytest.mark.parametrize(
    ("name", "filter", "expected"),
    [
        ("it's", {"kind": "choice", "values": ["a'b", None]}, """("it's" IN ('a''b') OR "it's" IS NULL)"""),
        ("n", {"kind": "number", "from": "-1.5", "to": ""}, '"n" >= -1.5'),
        ("n", {"kind": "number", "from": "0", "to": "1e3"}, '"n" >= 0 AND "n" <= 1000'),
        ("night", {"kind": "choice", "values": [True]}, '"night" IN (TRUE)'),
        (
            "t",
            {"kind": "time", "from": "2024-02-28", "to": "2024-02-29"},
            "\"t\" >= '2024-02-28' AND \"t\" < '2024-03-01'",
        ),
        ("s", {"kind": "text", "text": "50%_!'"}, "\"s\" ILIKE '%50!%!_!!''%' ESCAPE '!'"),
    ],
)
def test_filters_as_sql(page: Page, name: str, filter: dict[str, object], expected: str) -> None:
    assert page.evaluate("([name, filter]) => filterSql(name, filter)", [name, filter]) == expected


def test_the_sql_of_each_kind_is_accepted(page: Page) -> None:
    import pyarrow as pa

    types = {"c": pa.string(), "n": pa.float64(), "b": pa.bool_(), "d": pa.date32(), "t": pa.timestamp("us", "UTC")}
    filters = [
        ["c", {"kind": "choice", "values": ["a'b", None, ""]}],
        ["n", {"kind": "number", "from": "-1.5", "to": "1e3"}],
        ["b", {"kind": "choice", "values": [False]}],
        ["d", {"kind": "time", "from": "2024-02-28", "to": "2024-02-29"}],
        ["t", {"kind": "time", "from": "2024-02-28", "to": ""}],
        ["c", {"kind": "text", "text": "50%_!'"}],
    ]
    for name, filter in filters:
        lance_filter(page.evaluate("([n, f]) => filterSql(n, f)", [name, filter]), pa.schema(list(types.items())))


def test_a_wrong_filter_names_the_users_columns_and_the_old_list_goes(page: Page) -> None:
    search(page, "snail")
    open_filter(page)
    page.get_by_label("SQL").fill("qqq = 'front'")
    page.get_by_label("SQL").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("the columns are camera, remark")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#columns-help")).to_have_text("Columns: camera, remark")
    page.get_by_label("SQL").fill("camera = 'front'")
    page.get_by_label("SQL").press("Enter")
    expect(page.locator("#status")).to_contain_text("30 results")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_verdicts_and_a_filter_that_leaves_nothing(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("y")
    expect(page.locator("#verdicts-status")).to_contain_text("1 right")
    open_filter(page)
    page.get_by_label("SQL").fill("camera = 'none'")
    page.get_by_label("SQL").press("Enter")
    expect(page.get_by_role("heading", name="No results")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator(".card")).to_have_count(60)


def test_a_filter_applies_to_similar_images_too(page: Page) -> None:
    search(page, "snail")
    page.keyboard.press("m")
    expect(page.locator("#status")).to_contain_text("similar to")
    open_filter(page)
    page.get_by_role("group", name="camera").get_by_label("back").check()
    expect(page.get_by_label("Active filters")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("similar to")
    expect(page.locator(".card").nth(30)).to_have_count(0)
    assert page.evaluate("state.results.length > 20 && state.results.every(r => r.metadata.camera === 'back')")
