"""Packaging: the wheel ships every data file, and the changelog names the version."""

import re
import subprocess
import tomllib
from pathlib import Path

import forclip

ROOT = Path(__file__).parents[1]


def test_the_wheel_ships_every_data_file() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["forclip"]
    package = ROOT / "src" / "forclip"
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "src/forclip"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = {ROOT / name for name in tracked.stdout.split("\0") if name and not name.endswith(".py")}
    assert files
    assert files <= shipped


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    releases = re.findall(r"^## ([0-9.]+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == forclip.__version__
    assert releases == sorted(releases, key=lambda release: [int(part) for part in release.split(".")], reverse=True)
