"""Made-up lists of any length for the page in a browser, in place of the service's answers."""

import json
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200">'
    '<rect width="300" height="200" fill="#8ab"/><circle cx="90" cy="100" r="60" fill="#c54"/></svg>'
)


def made_result(n: int, probability: float | None = None, count: int = 1) -> dict[str, Any]:
    """The n-th result of a list."""
    return {
        "key": str(n + 1),
        "rank": n + 1,
        "score": 0.9 - 0.5 * n / count,
        "probability": probability,
        "box": {"x0": 0.1, "y0": 0.2, "x1": 0.5, "y1": 0.8},
        "name": f"image {n * 7919 % 100_003}.jpg",
        "width": 300,
        "height": 200,
        "modified": 1_700_000_000_000 + n * 7919 % 100_003,
        "metadata": {"camera": ("front", "rear")[n % 2]},
        "relevant": None,
    }


def serve_made_list(page: Page, count: int, probabilities: list[float] | None = None, cutoff: int = 0) -> list[int]:
    """Answer each search of a page with a list of `count` results, and keep its selection.

    probabilities: of all results, with which the answer also has a confidence. Returns the sizes of the pages asked
    for, which grows.
    """
    asked: list[int] = []
    selected: dict[str, None] = {}

    def search(route: Route) -> None:
        body = route.request.post_data_json or {}
        k, offset = body["k"], body["offset"]
        asked.append(k)
        numbers = range(offset, min(count, offset + k))
        results = [made_result(n, probabilities[n] if probabilities else None, count) for n in numbers]
        confidence = (
            {"cutoff": cutoff, "expected_images": sum(probabilities), "nothing_here": False} if probabilities else None
        )
        answer = {
            "results": results,
            "confidence": confidence,
            "images": count,
            "milliseconds": 1,
            "labels": None,
            "notes": [],
        }
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    def select(route: Route) -> None:
        path, body = urlsplit(route.request.url).path, route.request.post_data_json or {}
        if path.endswith("/remove"):
            for key in body["keys"]:
                selected.pop(key, None)
        else:
            selected.update(dict.fromkeys(body.get("keys", [])))
        answer = {"name": "picked", "keys": list(selected), "gone": 0}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    page.route("**/api/search", search)
    page.route("**/api/selections", lambda r: select(r) if r.request.method == "POST" else r.fallback())
    page.route("**/api/selections/**", select)
    page.route("**/api/thumbnail/*", lambda r: r.fulfill(content_type="image/svg+xml", body=PICTURE))
    page.route("**/api/image/*", lambda r: r.fulfill(content_type="image/svg+xml", body=PICTURE))
    return asked
