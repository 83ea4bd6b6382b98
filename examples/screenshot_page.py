"""Take screenshots of the search page for the documentation, with the model and gallery of a `forclip demo`.

    forclip demo --out runs/demo
    python examples/screenshot_page.py runs/demo --out docs/images

Needs `pip install playwright` and a chromium.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from forclip.config import ModelConfig, SourceConfig
from forclip.embedding.ingest import index_images
from forclip.search.labels import load_store_labels
from forclip.search.searcher import open_searcher
from forclip.server.app import create_app

PORT = 8765
DESKTOP, PHONE = ViewportSize(width=1280, height=860), ViewportSize(width=390, height=844)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="The folder that `forclip demo` wrote.")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--text", default="snail", help="The text to search for.")
    arguments = parser.parse_args()
    text, out = arguments.text, arguments.out
    world = arguments.demo / "world-0"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Path(folder) / "store"
        model = ModelConfig(name=str(arguments.demo / "model-0"))
        images = shutil.copytree(world / "images", Path(folder) / "photos")  # the page shows where an image is
        index_images(str(world / "gallery.json"), store, model=model, images=images)
        searcher = open_searcher(store)
        labels = load_store_labels(searcher.index, SourceConfig(world / "gallery.json", images))
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        with serving(create_app(searcher)):
            with opened_page(browser, DESKTOP, "light") as page:
                search(page, text, keys=["Space", "y", "ArrowRight", "y", "ArrowRight", "n"])
                save_screenshot(page, out / "page_light.png")
            with opened_page(browser, DESKTOP, "dark") as page:
                search(page, text, keys=["ArrowRight", "Enter", "h"])
                save_screenshot(page, out / "page_dark.png")
            with opened_page(browser, PHONE, "light") as page:
                search(page, text)
                save_screenshot(page, out / "page_phone.png")
            with opened_page(browser, DESKTOP, "light") as page:
                search(page, f"{text} | tree | red thing")
                save_screenshot(page, out / "page_side_by_side.png")
        with serving(create_app(searcher, labels=labels)), opened_page(browser, DESKTOP, "light") as page:
            page.get_by_role("button", name="Classes").click()
            page.get_by_text("labelled images").wait_for(timeout=60_000)
            save_screenshot(page, out / "page_classes.png")
        browser.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, port=PORT, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def opened_page(browser: Browser, viewport: ViewportSize, theme: str) -> Iterator[Page]:
    page = browser.new_page(viewport=viewport, color_scheme="dark" if theme == "dark" else "light")
    page.goto(f"http://127.0.0.1:{PORT}/")
    yield page
    page.close()


def search(page: Page, text: str, keys: list[str] | None = None) -> None:
    """Search for a text and press keys once the results are shown."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card:focus")
    for key in keys or []:
        page.keyboard.press(key)


def save_screenshot(page: Page, file: Path) -> None:
    """Write a PNG with a palette of 256 colours, which makes it several times smaller."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # verdicts take effect after a delay
    page.screenshot(path=file)
    with Image.open(file) as opened:
        colours = opened.convert("RGB")
    smaller = colours.quantize(palette=colours.quantize(256, kmeans=1))  # a given palette is dithered
    smaller.save(file, optimize=True)


if __name__ == "__main__":
    main()
