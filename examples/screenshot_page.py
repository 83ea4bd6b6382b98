"""Take the screenshots of the page for the docs, on the gallery of a `forclip demo`.

    forclip demo --out runs/demo
    python examples/screenshot_page.py runs/demo --out docs/images

Needs Playwright and an installed Chromium.
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
from playwright.sync_api import Browser, sync_playwright

from forclip.config import ModelConfig, SourceConfig
from forclip.embedding.ingest import index_images
from forclip.search.labels import load_store_labels
from forclip.search.searcher import open_searcher
from forclip.server.app import create_app

PORT = 8765
VIEWS = {  # window size, colour scheme, search text, and the keys to press afterwards
    "page_light": ((1280, 860), "light", "{}", ["Space", "y", "ArrowRight", "y", "ArrowRight", "n"]),
    "page_dark": ((1280, 860), "dark", "{}", ["ArrowRight", "Enter", "h"]),
    "page_phone": ((390, 844), "light", "{}", []),
    "page_side_by_side": ((1280, 860), "light", "{} | tree | red thing", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="output folder of `forclip demo`")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--text", default="snail")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        world = arguments.demo / "world-0"
        config = ModelConfig(name=str(arguments.demo / "model-0"))
        index_images(str(world / "gallery.json"), store, model=config, images=world / "images")
        searcher = open_searcher(store)
        labels = load_store_labels(searcher.index, SourceConfig(world / "gallery.json", world / "images"))
        with sync_playwright() as playwright:
            program = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            with serving(create_app(searcher)):
                for name in VIEWS:
                    take_screenshot(browser, name, arguments.text, arguments.out / f"{name}.png")
            with serving(create_app(searcher, labels=labels)):
                take_classes(browser, arguments.out / "page_classes.png")
            browser.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[None]:
    """Serve an application in a thread."""
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


def take_classes(browser: Browser, file: Path) -> None:
    """Take a screenshot of the table of classes, after all classes are evaluated."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(f"http://127.0.0.1:{PORT}/")
    page.get_by_role("button", name="Classes").click()
    page.get_by_text("images here that have labels").wait_for(timeout=60_000)
    page.screenshot(path=file)
    page.close()


def take_screenshot(browser: Browser, name: str, text: str, file: Path) -> None:
    """Search, press the keys of a view, and take a screenshot."""
    (width, height), scheme, words, keys = VIEWS[name]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"http://127.0.0.1:{PORT}/")
    page.keyboard.type(words.format(text))
    page.keyboard.press("Enter")
    page.wait_for_selector(".card:focus")
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    page.screenshot(path=file)
    page.close()


if __name__ == "__main__":
    main()
