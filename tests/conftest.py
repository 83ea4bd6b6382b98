"""Shared fixtures: a small toy world and a searcher over it, created once per session."""

import os
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.embed import embed_images
from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import load_model, store_header
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld, write_toyworld
from tests.milvus_server import milvus_server
from tests.s3 import bucket, s3_server

__all__ = ["bucket", "milvus_server", "s3_server"]  # the fixtures of other modules

# Part sizes that were measured change the last bits of results.
os.environ.setdefault("FORCLIP_IMAGES_AT_ONCE", "8")

# Equal examples in every run, so that a run fails only for what has changed. FORCLIP_RANDOM_TESTS=1 looks for new ones.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("FORCLIP_RANDOM_TESTS"):
    settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> ToyWorld:
    """160 training and 60 gallery scenes; every pictograph is in some training scene."""
    return write_toyworld(tmp_path_factory.mktemp("world"), num_train=160, num_gallery=60, seed=3)


@pytest.fixture(scope="session")
def searcher(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """The small world's gallery under the untrained mini model, with a column `half` : 0, 1, 0, 1. Read-only."""
    config = ModelConfig("forclip-mini")
    model = load_model(config, num_query_tokens=4)
    paths = sorted(small_world.images.glob("gallery_*.jpg"))
    embeddings, _ = embed_images(model, paths)
    index = Index.create(tmp_path_factory.mktemp("searched") / "store", store_header(model, config, "sum", 4))
    files = [ImageFile(str(path), *Image.open(path).size) for path in paths]
    index.add(embeddings, files, {"half": [k % 2 for k in range(len(paths))]})
    return Searcher(index, model)


@pytest.fixture
def shared() -> Path:
    """Folder of real photos and a model trained on real data, which are not part of the project. Skips without them."""
    folder = Path(os.environ.get("FORCLIP_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "photos" / "instances.json").exists():
        pytest.skip(f"no real photos at {folder}; set FORCLIP_SHARED to their folder")
    return folder
