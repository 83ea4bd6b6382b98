"""What many tests stand on: a small toy world, drawn once."""

import os
from pathlib import Path

import pytest

from forclip.data.toyworld import ToyWorld, write_toyworld


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> ToyWorld:
    """160 training and 60 gallery scenes: enough that every pictograph is in some training scene."""
    return write_toyworld(tmp_path_factory.mktemp("world"), num_train=160, num_gallery=60, seed=3)


@pytest.fixture
def shared() -> Path:
    """Real photos and a model with real knowledge, which are not part of the project."""
    folder = Path(os.environ.get("FORCLIP_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "photos" / "instances.json").exists():
        pytest.skip(f"no real photos at {folder}; FORCLIP_SHARED names the folder that has them")
    return folder
