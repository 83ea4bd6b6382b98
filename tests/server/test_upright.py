"""A photo that is stored turned, as phones do, is the same photo everywhere in the service."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageOps

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.search.searcher import Searcher
from tests.server.conftest import client_of

ORIENTATION = 0x0112


@pytest.fixture(params=["png", "jpg"])
def turned(request: pytest.FixtureRequest, own_pictures: tuple[Searcher, Path], tmp_path: Path) -> TestClient:
    """A service over a photo and its copy that is stored turned. The photo is not square."""
    model, pictures = own_pictures
    photos, ending = tmp_path / "photos", request.param
    photos.mkdir()
    with Image.open(sorted(pictures.glob("*.jpg"))[0]) as opened:
        picture = opened.convert("RGB").crop((0, 0, 224, 160))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options: dict[str, Any] = {} if ending == "png" else {"quality": 95, "subsampling": 0}
    picture.save(photos / f"a.{ending}", **options)
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / f"b.{ending}", exif=exif, **options)
    index_images(str(photos), tmp_path / "turned.store", model=ModelConfig("forclip-mini"))
    return client_of(Searcher(Index(tmp_path / "turned.store"), model.model))


def both(client: TestClient) -> list[dict[str, Any]]:
    """The results of the photo and its turned copy."""
    results = client.post("/api/search", json={"text": "cat"}).json()["results"]
    return sorted(results, key=lambda result: str(result["name"]))


def same(first: Any, second: Any, tolerance: float = 0.02) -> bool:
    return bool(np.allclose(np.array(first, float), np.array(second, float), atol=tolerance))


def test_size_score_and_region_are_the_same(turned: TestClient) -> None:
    upright, phone = both(turned)
    assert (phone["width"], phone["height"]) == (upright["width"], upright["height"]) == (224, 160)
    assert same(phone["score"], upright["score"])
    assert same(list(phone["box"].values()), list(upright["box"].values()), 0.05)


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
def test_the_pictures_look_the_same(turned: TestClient, kind: str) -> None:
    shown = []
    for result in both(turned):
        with Image.open(BytesIO(turned.get(f"/api/{kind}/{result['key']}").content)) as picture:
            # As browsers do; a thumbnail has no orientation.
            shown.append(np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).astype(int))
    assert shown[0].shape == shown[1].shape
    assert np.abs(shown[0] - shown[1]).mean() < 4


def test_a_look_and_its_heatmap_are_the_same(turned: TestClient) -> None:
    looks = [turned.post("/api/look", json={"key": r["key"], "text": "cat"}).json() for r in both(turned)]
    assert same(looks[0]["heatmap"]["values"], looks[1]["heatmap"]["values"], 0.1)
    assert looks[1]["heatmap"]["agreement"] > 0.98
    assert looks[0]["heatmap"]["frame"] == looks[1]["heatmap"]["frame"]


def test_a_region_is_cut_from_the_upright_picture(turned: TestClient) -> None:
    """The two photos are each other's nearest, also by a region."""
    box = {"x0": 0.5, "y0": 0.0, "x1": 1.0, "y1": 0.6}
    scores = []
    for result in both(turned):
        (other,) = turned.post("/api/similar", json={"key": result["key"], "box": box}).json()["results"]
        scores.append(other["score"])
    assert same(*scores)


def test_exports_have_upright_sizes_and_boxes(turned: TestClient) -> None:
    content = turned.post("/api/export", json={"text": "cat", "format": "coco"}).json()
    assert {(image["width"], image["height"]) for image in content["images"]} == {(224, 160)}
    boxes = [annotation["bbox"] for annotation in content["annotations"]]
    assert same(boxes[0], boxes[1], 8)
    assert content["info"]["box_frame"] == "upright"


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "TIFF", "PNG", "JPEG2000", "TGA", "16 bit"])
def test_pictures_of_any_format_can_be_searched_with(turned: TestClient, kind: str) -> None:
    upright = both(turned)[0]
    with Image.open(BytesIO(turned.get(f"/api/image/{upright['key']}").content)) as opened:
        picture = opened.convert("RGB")
    content = BytesIO()
    if kind == "HEIC":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(picture).save(content, quality=90)
    elif kind == "16 bit":
        picture = picture.convert("L")
        Image.fromarray(np.asarray(picture).astype(np.uint16) * 16).save(content, "PNG")
    else:
        picture.save(content, kind)
    plain = BytesIO()
    picture.save(plain, "PNG")
    found = [
        turned.post("/api/similar/upload", files={"picture": ("upload", data.getvalue())}).json()["results"]
        for data in (content, plain)
    ]
    assert same([r["score"] for r in found[0]], [r["score"] for r in found[1]])
