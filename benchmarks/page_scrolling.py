"""Measure how smoothly the page scrolls and selects in long lists: frame times and the time of single actions.

    python -m benchmarks.page_scrolling --images 20000 100000 --out docs/results/page_scrolling.json

The page runs in a headless Chromium with made-up results, so no store or model is needed. A frame at 60 Hz takes
16.7 ms; one of twice that counts as late. On a busy machine frames are late for other reasons, so the CPU time of the
page's main thread is measured as well; the load of the machine is written beside the numbers.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, Route, sync_playwright

from forclip.server.service_routes import read_page

ADDRESS = "http://forclip.test/"
FRAMES = 120  # of one measurement
LATE = 2 * 1000 / 60  # ms

# Show `count` results, made in the page: sending them takes longer than showing them.
SHOW = """count => {
  const results = Array.from({ length: count }, (_, n) => ({
    key: String(n + 1), rank: n + 1, score: 0.9 - 0.5 * n / count, probability: 0.9 - 0.8 * n / count,
    box: { x0: 0.1, y0: 0.2, x1: 0.5, y1: 0.8 }, name: `image ${n * 7919 % 100003}.jpg`, width: 360, height: 240,
    modified: 1.7e12 + n * 7919 % 100003, metadata: { camera: n % 2 ? "front" : "rear" }, relevant: null,
  }));
  state.mostListed = count;
  const request = { kind: "search", fields: { any_of: ["made"], all_of: [], none_of: [] }, target: "for made results" };
  const started = performance.now();
  showResults(request, { results, confidence: null, labels: null }, count);
  return performance.now() - started;
}"""

# Scroll through some screens, a part in each frame, and return the times between frames in ms.
SCROLL = """([from, distance, frames]) => new Promise((resolve) => {
  const times = [];
  window.scrollTo(0, from);
  let last = 0, n = 0;
  function step(now) {
    if (last) times.push(now - last);
    last = now;
    if (n >= frames) return resolve(times);
    n += 1;
    window.scrollTo(0, from + distance * n / frames);
    requestAnimationFrame(step);
  }
  requestAnimationFrame(() => requestAnimationFrame(step));
})"""

# Run an action and return the milliseconds until the page is drawn again.
TIMED = """action => new Promise((resolve) => {
  const started = performance.now();
  (0, eval)(action);
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - started)));
})"""

ACTIONS = {
    "select one image": "toggleSelected(state.results[5])",
    "select all images": "selectAll()",
    "undo": "undoSelection()",
    "select a range of 1,000": "state.anchor = 100; selectRange(1100)",
    "move the cut-off": "$('slider').value = 0.5; $('slider').dispatchEvent(new Event('input'))",
    "no cut-off": "$('slider').value = 0; $('slider').dispatchEvent(new Event('input'))",
    "sort by name": "changeSort('name')",
    "sort by score": "changeSort('score')",
    "larger images": "changeView({ size: 'large' })",
    "jump to the end": "focusCard(state.shown.length - 1)",
    "jump to the start": "focusCard(0)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 100_000], help="Lengths of the list.")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers.")
    arguments = parser.parse_args()
    measured = []
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for count in arguments.images:
            page = browser.new_page(viewport={"width": 1280, "height": 860}, bypass_csp=True)
            answer_requests(page)
            page.goto(ADDRESS)
            measured.append({"images": count, "load": round(os.getloadavg()[0], 1), **measure(page, count)})
            print(json.dumps(measured[-1], indent=1))
            page.close()
        browser.close()
    if arguments.out:
        arguments.out.write_text(json.dumps(measured, indent=1) + "\n")


def answer_requests(page: Page) -> None:
    """Serve the page and made-up answers without a service."""
    info = {"images": 100_000, "has_calibration": True, "most_listed": 20_000, "most_skipped": 10_000, "columns": {}}
    answers: dict[str, Any] = {
        "api/info": info,
        "api/classes": {"state": "no labels", "classes": []},
        "api/selections": [],
        "api/columns": {"columns": [], "images": 100_000, "complete": True},
    }
    answers["api/selections/**"] = {"name": "picked", "keys": [], "gone": 0}
    for path, answer in answers.items():
        page.route(ADDRESS + path, fulfil(json.dumps(answer), "application/json"))
    page.route(f"{ADDRESS}api/thumbnail/*", fulfil(thumbnail(), "image/jpeg"))
    page.route(ADDRESS, fulfil(read_page(), "text/html"))


def thumbnail() -> bytes:
    """A JPEG with as much detail as a photo's."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    written = BytesIO()
    Image.fromarray(noise).resize((360, 240), Image.Resampling.BICUBIC).save(written, "JPEG", quality=85)
    return written.getvalue()


def fulfil(body: str | bytes, content_type: str) -> Callable[[Route], None]:
    """Return a handler that answers every request alike."""
    return lambda route: route.fulfill(body=body, content_type=content_type)


def measure(page: Page, count: int) -> dict[str, Any]:
    """Return the times of one list, in ms."""
    shown = page.evaluate(SHOW, count)
    page.wait_for_timeout(1000)
    height = page.evaluate("document.body.scrollHeight")
    cpu = MainThread(page)
    idle = cpu.frames(0, 0)
    calm = cpu.frames(height // 3, 60 * FRAMES)  # 60 pixels a frame, a fast turn of the wheel
    fast = cpu.frames(0, height - 860)  # the whole list in two seconds, as with the scroll bar
    cards = page.evaluate("cards().length")
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    actions = {}
    for name, action in ACTIONS.items():
        before = cpu.milliseconds()
        drawn = page.evaluate(TIMED, action)
        actions[name] = {"until_drawn": round(drawn, 1), "cpu": round(cpu.milliseconds() - before, 1)}
        page.wait_for_timeout(300)
    return {
        "ms_to_show": round(shown, 1),
        "cards_in_the_page": cards,
        "frames_without_scrolling": idle,
        "frames_scrolling_60_pixels_each": calm,
        "frames_scrolling_the_whole_list": fast,
        "ms_of_actions": actions,
    }


class MainThread:
    """Measures the CPU time of a page's main thread, which other processes of the machine do not change."""

    def __init__(self, page: Page) -> None:
        self._page, self._session = page, page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def milliseconds(self) -> float:
        """CPU time so far."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    def frames(self, start: int, distance: int) -> dict[str, float]:
        """Scroll from a height over a distance, in pixels, and return times of frames in ms."""
        self._page.wait_for_timeout(500)
        before = self.milliseconds()
        times = self._page.evaluate(SCROLL, [start, distance, FRAMES])
        return {
            "cpu_per_frame_ms": round((self.milliseconds() - before) / len(times), 2),
            "median_ms": round(float(np.median(times)), 1),
            "p95_ms": round(float(np.percentile(times, 95)), 1),
            "longest_ms": round(max(times), 1),
            "late": sum(time > LATE for time in times),
            "of": len(times),
        }


if __name__ == "__main__":
    main()
