"""The service over a store with tiles: boxes, heatmaps and search by picture refer to whole pictures."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.config import ModelConfig
from forclip.data.images.decode import read_image
from forclip.data.images.tiles import Tiles
from forclip.embedding.ingest import index_images
from forclip.search.searcher import Searcher, open_searcher
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import client_of, search
from tests.server.test_look import look


@pytest.fixture(scope="module")
def tiled(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("tiled")
    (folder / "pictures").mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:10]:
        shutil.copy(file, folder / "pictures" / file.name)
    model = ModelConfig("forclip-mini", tiles="2x2", tile_overlap=0)
    index_images(str(folder / "pictures"), folder / "store", model=model, num_query_tokens=4)
    return open_searcher(folder / "store")


@pytest.fixture
def tiled_client(tiled: Searcher) -> Iterator[TestClient]:
    with client_of(tiled) as client:
        yield client


def test_regions_and_heatmaps_lie_in_the_part_that_matched(tiled: Searcher, tiled_client: TestClient) -> None:
    """A tile looked at as a picture of its own, moved to where it is."""
    parts = set()
    for text in ("snail", "house", "car"):
        answered = search(tiled_client, text=text, k=10)["results"]
        for result, found in zip(answered, tiled.search(text, 10), strict=True):
            content = look(tiled_client, result["key"], text=text)
            regions, heat = content["regions"], content["heatmap"]
            assert len(regions) == 5 * 4
            part, winner = divmod(content["winner"], 4)
            assert regions[content["winner"]]["box"] == pytest.approx(result["box"], abs=1e-3)
            picture = read_image(Path(found.uri))
            view = Tiles(2, 2, overlap=0).views()[part]
            x0, y0, x1, y1 = view.window(0, picture.size).box
            width, height = picture.size
            frame = {"x0": x0 / width, "y0": y0 / height, "x1": x1 / width, "y1": y1 / height}
            assert heat["frame"] == pytest.approx(frame)
            alone = Searcher(tiled.index, tiled.model.with_tiles(None))
            vector = alone.encode_image(view(0, picture))[winner]
            np.testing.assert_allclose(
                heat["values"], alone.heatmap(view(0, picture), vector).values.ravel(), atol=1e-2
            )
            assert heat["agreement"] == pytest.approx(1, abs=1e-3)
            for k, region in enumerate(regions):
                if (box := region["box"]) is not None:
                    own = Tiles(2, 2, overlap=0).views()[k // 4].window(0, picture.size).box
                    assert own[0] / width - 1e-3 <= box["x0"] < box["x1"] <= own[2] / width + 1e-3
                    assert own[1] / height - 1e-3 <= box["y0"] < box["y1"] <= own[3] / height + 1e-3
            parts.add(part)
    assert len(parts) > 2


def test_a_stored_picture_finds_itself(tiled: Searcher, tiled_client: TestClient) -> None:
    first = search(tiled_client, text="snail", k=1)["results"][0]
    content = Path(tiled.search("snail", 1)[0].uri).read_bytes()
    response = tiled_client.post("/api/similar/upload", files={"picture": ("a.jpg", content, "image/jpeg")})
    assert response.status_code == 200, response.text
    best = response.json()["results"][0]
    assert best["key"] == first["key"]
    assert best["score"] == pytest.approx(1, abs=5e-3)
