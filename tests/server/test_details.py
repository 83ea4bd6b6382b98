"""Details of an image for the closer look: its path, its metadata, and why its file can't be read."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import ExifTags, Image

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.search.searcher import Searcher
from tests.server.conftest import client_of
from tests.server.test_images import key_of

OwnPictures = tuple[Searcher, Path]


@pytest.fixture
def photo(own_pictures: OwnPictures) -> tuple[Searcher, Path]:
    """Searcher over a store with a photo that has metadata, and that photo."""
    searcher, pictures = own_pictures
    file, exif = pictures / "photo.jpg", Image.Exif()
    exif[ExifTags.Base.Model] = "X100"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:17 13:02:11"
    Image.open(next(pictures.glob("*.jpg"))).save(file, exif=exif)
    index_images(str(pictures), searcher.index.store.folder, model=ModelConfig("forclip-mini"))
    return Searcher(Index(searcher.index.store.folder), searcher.model), file


def test_details_hold_path_time_and_camera(photo: tuple[Searcher, Path]) -> None:
    searcher, file = photo
    content = client_of(searcher).get(f"/api/details/{key_of(searcher, file)}").json()
    assert content == {"path": str(file), "taken": "2024-05-17T13:02:11", "camera": "X100", "problem": None}


def test_a_file_that_is_gone_or_changed_is_named_with_the_reason(photo: tuple[Searcher, Path]) -> None:
    searcher, file = photo
    client, address = client_of(searcher), f"/api/details/{key_of(searcher, file)}"
    file.write_bytes(b"other")
    changed = client.get(address).json()
    file.unlink()
    gone = client.get(address).json()
    assert (changed["path"], changed["camera"]) == (gone["path"], gone["camera"]) == (str(file), None)
    assert "changed" in changed["problem"]
    assert "no longer exists" in gone["problem"]


def test_an_unknown_image_has_no_details(client: TestClient) -> None:
    assert client.get("/api/details/777").status_code == 404
    assert client.get("/api/details/x").status_code == 404
