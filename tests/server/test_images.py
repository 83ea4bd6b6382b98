"""Images and thumbnails by key: only indexed files are served, and only unchanged."""

import os
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageOps

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.search.searcher import Searcher
from forclip.server import image_routes
from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.pictures import THUMBNAIL_SIDE, ThumbnailFormat, browser_picture, make_thumbnail, picture_bytes
from tests.server.conftest import client_of

OwnPictures = tuple[Searcher, Path]


def key_of(searcher: Searcher, file: Path) -> str:
    image_id = searcher.index.store.id_of(file)
    return str(Gallery(searcher.index).keys_of_ids([image_id])[image_id])


def statuses(searcher: Searcher, file: Path) -> tuple[int, int]:
    """Request the image and its thumbnail, check that errors reveal no path, and return both status codes."""
    client, key = client_of(searcher), key_of(searcher, file)
    responses = [client.get(f"/api/{kind}/{key}") for kind in ("image", "thumbnail")]
    for response in responses:
        if response.status_code >= 400:
            assert str(file.parent) not in response.text
            assert list(response.json()) == ["detail"]
    return responses[0].status_code, responses[1].status_code


def first_file(own: OwnPictures) -> tuple[Searcher, Path]:
    searcher, pictures = own
    return searcher, sorted(pictures.glob("*.jpg"))[0]


def test_an_image_is_served_unchanged(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    response = client_of(searcher).get(f"/api/image/{key_of(searcher, file)}")
    assert response.content == file.read_bytes()
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_thumbnail_is_small_and_cached_by_etag(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    client, path = client_of(searcher), f"/api/thumbnail/{key_of(searcher, file)}"
    response = client.get(path)
    with Image.open(BytesIO(response.content)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert max(thumbnail.size) <= THUMBNAIL_SIDE
    again = client.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_is_webp_for_those_who_accept_it(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    client, path = client_of(searcher), f"/api/thumbnail/{key_of(searcher, file)}"
    accepted = {
        "image/avif,image/webp,*/*;q=0.8": "WEBP",
        "image/webp;q=0.5": "WEBP",
        "image/webp;q=0, */*": "JPEG",
        "image/jpeg": "JPEG",
        "*/*": "JPEG",
    }
    tags = {}
    for accept, expected in accepted.items():
        response = client.get(path, headers={"Accept": accept})
        with Image.open(BytesIO(response.content)) as thumbnail:
            assert (thumbnail.format, response.headers["content-type"]) == (expected, f"image/{expected.lower()}")
            assert max(thumbnail.size) <= THUMBNAIL_SIDE
        assert response.headers["vary"] == "Accept"
        tags[expected] = response.headers["etag"]
    assert len(set(tags.values())) == 2, "a tag names one content"


def test_a_format_unknown_to_browsers_is_sent_as_jpeg(own_pictures: OwnPictures) -> None:
    _, file = first_file(own_pictures)
    tiff = BytesIO()
    Image.open(file).save(tiff, "TIFF")
    content, media_type = browser_picture(tiff.getvalue())
    assert media_type == "image/jpeg"
    with Image.open(BytesIO(content)) as converted:
        assert converted.format == "JPEG"


def test_a_thumbnail_is_made_once(own_pictures: OwnPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, file = first_file(own_pictures)
    files: list[str] = []

    def record(file: ImageFile, kind: ThumbnailFormat) -> bytes:
        files.append(file.uri)
        return make_thumbnail(file, kind)

    monkeypatch.setattr(image_routes, "make_thumbnail", record)
    client, path = client_of(searcher), f"/api/thumbnail/{key_of(searcher, file)}"
    assert client.get(path).content == client.get(path).content
    assert files == [str(file)]


def test_links_to_pictures_elsewhere_are_served(own_pictures: OwnPictures, tmp_path: Path) -> None:
    """As in git-annex, DVC and the caches of model hubs: a folder of links into a store of blobs."""
    model, pictures = own_pictures
    blobs, photos = tmp_path / "blobs", tmp_path / "photos"
    blobs.mkdir()
    photos.mkdir()
    for number, file in enumerate(sorted(pictures.glob("*.jpg"))):
        shutil.copy2(file, blobs / f"{number:040x}")
        (photos / file.name).symlink_to(Path("..") / "blobs" / f"{number:040x}")
    index_images(str(photos), tmp_path / "linked.store", model=ModelConfig("forclip-mini"))
    searcher = Searcher(Index(tmp_path / "linked.store"), model.model)
    first, second, *_ = sorted(photos.iterdir())
    assert statuses(searcher, first) == statuses(searcher, second) == (200, 200)
    # A link that now leads to another picture, even one that was indexed, is not what was indexed under its name.
    first.unlink()
    first.symlink_to(blobs / f"{1:040x}")
    assert statuses(searcher, first) == (409, 409)
    first.unlink()
    first.symlink_to(blobs / f"{9:040x}")
    assert statuses(searcher, first) == (404, 404)


def test_an_image_replaced_by_a_link_to_another_file_is_refused(own_pictures: OwnPictures, tmp_path: Path) -> None:
    """Of the same size, and with the same time of change."""
    searcher, file = first_file(own_pictures)
    status = file.stat()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * status.st_size)
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    file.unlink()
    file.symlink_to(secret)
    assert statuses(searcher, file) == (409, 409)


@pytest.mark.parametrize("known", [True, False])
def test_a_store_that_names_any_file_does_not_serve_it(tmp_path: Path, known: bool) -> None:
    """Even one that knows its size and time; only its content would do."""
    secret = tmp_path / "passwd"
    secret.write_text("root:x:0:0")
    state = (secret.stat().st_size, secret.stat().st_mtime_ns) if known else (0, 0)
    with pytest.raises(Refused) as raised:
        picture_bytes(ImageFile(str(secret), 8, 8, "0" * 32 if known else "", *state))
    assert raised.value.status_code == 409
    link = tmp_path / "link.jpg"
    link.symlink_to(secret)
    with pytest.raises(Refused) as raised:
        picture_bytes(ImageFile(str(link), 8, 8, "", *state))
    assert raised.value.status_code == 403


def test_a_folder_replaced_by_a_link_is_refused(own_pictures: OwnPictures, tmp_path: Path) -> None:
    searcher, file = first_file(own_pictures)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / file.name).write_bytes(b"root:x:0:0")
    shutil.move(file.parent, tmp_path / "moved")
    file.parent.symlink_to(elsewhere)
    assert statuses(searcher, file) == (409, 409)


def test_an_image_with_other_content_is_refused(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    content = bytearray(file.read_bytes())
    file.write_bytes(content + b"x")
    assert statuses(searcher, file) == (409, 409)
    content[-20] ^= 1
    file.write_bytes(content)  # same size
    assert statuses(searcher, file) == (409, 409)


def test_an_image_with_a_new_modification_time_is_served(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    os.utime(file, (1, 1))
    assert statuses(searcher, file) == (200, 200)


def test_a_deleted_image_is_not_found(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    file.unlink()
    assert statuses(searcher, file) == (404, 404)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_an_image_replaced_by_a_pipe_does_not_block_the_service(own_pictures: OwnPictures) -> None:
    searcher, file = first_file(own_pictures)
    file.unlink()
    os.mkfifo(file)
    assert statuses(searcher, file) == (409, 409)


def test_a_folder_moved_behind_a_link_is_served(own_pictures: OwnPictures, tmp_path: Path) -> None:
    searcher, file = first_file(own_pictures)
    shutil.move(file.parent, tmp_path / "disk")
    file.parent.symlink_to(tmp_path / "disk")
    assert statuses(searcher, file) == (200, 200)


INVALID_KEYS = [
    *("0", "1" * 19, "9" * 19, "9" * 40, "-1", "1.5", "abc", "%D9%A1", "1'", "%00"),
    *("..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd"),
]


@pytest.mark.parametrize("key", INVALID_KEYS)
@pytest.mark.parametrize("kind", ["image", "thumbnail"])
def test_an_invalid_key_is_not_found(client: TestClient, kind: str, key: str) -> None:
    response = client.get(f"/api/{kind}/{key}")
    assert response.status_code == 404
    assert "/" not in response.json()["detail"]


HALVES = np.concatenate([np.zeros((30, 60, 3), np.uint8), np.full((30, 60, 3), 255, np.uint8)], 0)  # dark above


def turned(kind: str, exif: Image.Exif) -> bytes:
    """A picture whose dark half is on the left as it is stored, and above once it is turned."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(HALVES))).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_turned_picture_is_sent_so_that_every_browser_shows_it_upright(kind: str) -> None:
    """Browsers turn JPEGs as EXIF says. Any other picture is sent with its pixels upright, and no orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content, media_type = browser_picture(turned(kind, exif))
    with Image.open(BytesIO(content)) as sent:
        assert media_type == "image/jpeg"
        assert (sent.getexif().get(0x0112, 1) == 6) == (kind in ("JPEG", "MPO"))
        shown = np.asarray(ImageOps.exif_transpose(sent).convert("L"))
    np.testing.assert_allclose(shown, HALVES[..., 0], atol=40)


def test_an_orientation_that_browsers_do_not_read_is_applied() -> None:
    """XMP, which Pillow reads."""
    buffer = BytesIO()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    Image.fromarray(np.ascontiguousarray(np.rot90(HALVES))).save(buffer, "JPEG", xmp=xmp)
    content, _ = browser_picture(buffer.getvalue())
    with Image.open(BytesIO(content)) as sent:
        np.testing.assert_allclose(np.asarray(sent.convert("L")), HALVES[..., 0], atol=40)


def test_a_deep_picture_is_sent_as_it_was_scaled() -> None:
    buffer = BytesIO()
    Image.fromarray(HALVES[..., 0].astype(np.uint16) * 16).save(buffer, "PNG")
    content, media_type = browser_picture(buffer.getvalue())
    assert media_type == "image/jpeg"
    with Image.open(BytesIO(content)) as sent:
        np.testing.assert_allclose(np.asarray(sent.convert("L")), HALVES[..., 0], atol=40)
