"""A stand-in for the Hugging Face hub: a cache folder, and no network."""

from pathlib import Path

import pytest
from huggingface_hub import constants


def without_network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Use a cache in this folder, and fail on every request without retries."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def cache_repository(cache: Path, repository: str) -> Path:
    """Create a repository in the cache, as a download leaves it. Returns the folder for its files."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return snapshot
