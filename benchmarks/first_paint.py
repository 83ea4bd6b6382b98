"""Measure how long a user waits for the page: until its first paint, and until the images of a search are visible.

    forclip demo --out runs/demo
    python -m benchmarks.first_paint --demo runs/demo --out FILE

Indexes the gallery of the demo's first world, starts `forclip serve`, and opens the page repeatedly in headless
Chromium with empty caches. Every time it searches a new text and waits until all images in the window are decoded.
The service starts without thumbnails and creates them on request.

Needs Playwright and an installed Chromium.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, sync_playwright
from rich.console import Console

from benchmarks.demo_runs import DemoRuns, demo_arguments
from benchmarks.search import machine
from benchmarks.service_load import percentiles, service
from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.text.vocabulary import load_vocabulary

_TIMES = 20
_WINDOW: ViewportSize = {"width": 1280, "height": 860}
_PAINT = """async () => {
  const paint = () => performance.getEntriesByName('first-contentful-paint')[0];
  while (!paint()) await new Promise(requestAnimationFrame);
  return paint().startTime;
}"""
# Time from the key press until the frame in which all images in the window are decoded.
_IMAGES = """async () => {
  const shown = () => [...document.querySelectorAll('.card img')].filter(
    image => image.getBoundingClientRect().top < innerHeight);
  const decoded = images => images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0);
  while (!decoded(shown())) await new Promise(requestAnimationFrame);
  return performance.now() - window.searched;
}"""


def index_gallery(runs: DemoRuns, store: Path) -> int:
    """Index the gallery of the first world. Returns the number of images."""
    seed = runs.seeds[0]
    world = runs.demo / f"world-{seed}"
    config = ModelConfig(name=str(runs.demo / f"model-{seed}"))
    index_images(str(world / "gallery.json"), store, model=config, images=world / "images")
    return len(Index(store))


def measure_waits(browser: Browser, address: str, texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds to the first contentful paint, and from Enter until the images are visible, for each text."""
    paints, pictures = [], []
    for text in texts:
        context = browser.new_context(viewport=_WINDOW)  # with empty caches
        page = context.new_page()
        page.goto(address)
        paints.append(page.evaluate(_PAINT))
        page.keyboard.type(text)
        page.evaluate("addEventListener('keydown', () => { window.searched = performance.now(); }, {capture: true})")
        page.keyboard.press("Enter")
        pictures.append(page.evaluate(_IMAGES))
        context.close()
    return paints, pictures


def main() -> None:
    runs = demo_arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Path(folder) / "store"
        images = index_gallery(runs, store)
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        with service(store) as (_, port):
            paints, pictures = measure_waits(
                browser, f"http://127.0.0.1:{port}/", load_vocabulary("lvis")[: _TIMES + 1]
            )
        first = {"first_paint_ms": round(paints[0], 1), "pictures_ms": round(pictures[0], 1)}
        content = {
            "command": "python -m benchmarks.first_paint --demo runs/demo --out docs/results/first_paint.json",
            **machine(),
            "images": images,
            "browser": browser.version,
            "window": _WINDOW,
            "the_first_time": first,
            "times": len(paints) - 1,
            "first_paint": percentiles(paints[1:]),
            "pictures": percentiles(pictures[1:]),
        }
        browser.close()
    runs.out.write_text(json.dumps(content, indent=1) + "\n")
    Console().print({name: content[name] for name in ("the_first_time", "first_paint", "pictures")})


if __name__ == "__main__":
    main()
