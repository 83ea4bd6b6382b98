"""Pictures of the page for the docs: light, dark and phone, on the toy world's gallery of a `forclip demo`.

    forclip demo --out runs/demo
    python examples/screenshot_page.py runs/demo --out docs/images

Needs `pip install playwright` and a chromium.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from threading import Thread

import uvicorn
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from forclip.config import ModelConfig
from forclip.indexing import IndexJob, StoreOptions, index_images
from forclip.search import open_searcher
from forclip.server.app import create_app

PORT = 8765
VIEWS = {
    "page_light": ((1280, 860), "light", False),
    "page_dark": ((1280, 860), "dark", True),
    "page_phone": ((390, 844), "light", False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="The folder that `forclip demo` wrote.")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--text", default="snail")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        world = arguments.demo / "world-0"
        job = IndexJob(str(world / "gallery.json"), images=world / "images")
        config = ModelConfig(name=str(arguments.demo / "model-0"))
        index_images(job, store, StoreOptions(config), "cpu", Console())
        take_pictures(store, arguments.text, arguments.out)


def take_pictures(store: Path, text: str, out: Path) -> None:
    """Searches, picks three images, and where VIEWS says so has a closer look at the second."""
    server = uvicorn.Server(uvicorn.Config(create_app(open_searcher(store)), port=PORT, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        with sync_playwright() as playwright:
            program = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            for name in VIEWS:
                take_picture(browser, name, text, out / f"{name}.png")
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


def take_picture(browser: Browser, name: str, text: str, file: Path) -> None:
    (width, height), scheme, closer = VIEWS[name]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"http://127.0.0.1:{PORT}/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    for key in ("Space", "ArrowRight", "Space", "ArrowRight", "Space", "ArrowLeft") if name == "page_light" else ():
        page.keyboard.press(key)
    if closer:
        page.keyboard.press("Enter")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    page.screenshot(path=file)
    page.close()


if __name__ == "__main__":
    main()
