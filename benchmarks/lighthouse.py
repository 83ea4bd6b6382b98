"""Check the page with Google's Lighthouse: performance, accessibility and best practices, from 0 to 100.

    forclip serve photos.store
    python -m benchmarks.lighthouse --address http://127.0.0.1:8000/ --text umbrella --out docs/results/lighthouse.json

Checks the start page and a list of results, each as on a desktop and as on a phone. For a phone, Lighthouse simulates a
slow network and a quarter of the processor. On a busy machine performance is lower.

Needs Node.js with npx, which downloads Lighthouse, and a Chromium (CHROMIUM names it, if it is not in PATH).
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

_CATEGORIES = ("performance", "accessibility", "best-practices")
_TIMES = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift")
_FORMS = {"desktop": ["--preset=desktop"], "phone": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://127.0.0.1:8000/", help="Where a service runs.")
    parser.add_argument("--text", default="umbrella", help="The text to search for.")
    parser.add_argument("--lighthouse", default="lighthouse@12", help="The npm package, or the folder of one.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    pages = {"start": arguments.address, "results": f"{arguments.address}#{urlencode({'q': arguments.text})}"}
    checked = []
    for page, address in pages.items():
        for form, options in _FORMS.items():
            found = check(arguments.lighthouse, address, options)
            checked.append({"page": page, "form": form, "load": round(os.getloadavg()[0], 1), **found})
            print(json.dumps(checked[-1], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(checked, indent=1) + "\n")


def check(lighthouse: str, address: str, options: list[str]) -> dict[str, Any]:
    """Return the scores, the times and the audits that failed of one page."""
    chrome = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = ["npx", "--yes", lighthouse, address, "--output=json", f"--output-path={file}", "--quiet"]
        command += [f"--only-categories={','.join(_CATEGORIES)}", "--chrome-flags=--headless=new --no-sandbox"]
        subprocess.run([*command, *options], check=True, env={**os.environ, "CHROME_PATH": chrome})
        return summarise(json.loads(file.read_text()))


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of Lighthouse's report. failed: audits that cost points, by category."""
    audits = report["audits"]
    failed = {
        name: [
            reference["id"]
            for reference in report["categories"][name]["auditRefs"]
            if reference["weight"]
            and (audits[reference["id"]]["score"] or 0) < 0.9
            and audits[reference["id"]]["scoreDisplayMode"] in ("binary", "numeric", "metricSavings")
        ]
        for name in _CATEGORIES
    }
    return {
        "lighthouse": report["lighthouseVersion"],
        **{name: round(100 * report["categories"][name]["score"]) for name in _CATEGORIES},
        "times": {name: audits[name]["displayValue"].replace("\xa0", " ") for name in _TIMES},
        "failed": {name: found for name, found in failed.items() if found},
    }


if __name__ == "__main__":
    main()
