"""Pictures by key: only those that were indexed, and only as they were then."""

import os
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from forclip.index.store import ImageFile
from forclip.search.searcher import Searcher
from forclip.server import image_routes
from forclip.server.gallery import Gallery
from forclip.server.pictures import THUMBNAIL_SIDE, make_thumbnail
from tests.server.conftest import client_of

Own = tuple[Searcher, Path]


def key_of(searcher: Searcher, file: Path) -> str:
    return str(Gallery(searcher.index).keys_of_ids([str(file)])[str(file)])


def statuses(searcher: Searcher, file: Path) -> tuple[int, int]:
    """Of the picture and of its thumbnail. No path is told."""
    client, key = client_of(searcher), key_of(searcher, file)
    answers = [client.get(f"/api/{kind}/{key}") for kind in ("image", "thumbnail")]
    for answer in answers:
        if answer.status_code >= 400:
            assert str(file.parent) not in answer.text
            assert list(answer.json()) == ["detail"]
    return answers[0].status_code, answers[1].status_code


def one_of(own: Own) -> tuple[Searcher, Path]:
    searcher, pictures = own
    return searcher, sorted(pictures.glob("*.jpg"))[0]


def test_a_picture_is_served_as_it_is(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    answer = client_of(searcher).get(f"/api/image/{key_of(searcher, file)}")
    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_thumbnail_is_small_and_known_by_its_tag(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    client, path = client_of(searcher), f"/api/thumbnail/{key_of(searcher, file)}"
    answer = client.get(path)
    with Image.open(BytesIO(answer.content)) as made:
        assert made.format == "JPEG"
        assert max(made.size) <= THUMBNAIL_SIDE
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_format_that_browsers_do_not_show_is_sent_as_jpeg(own_pictures: Own) -> None:
    from forclip.server.pictures import browser_picture

    _, file = one_of(own_pictures)
    tiff = BytesIO()
    Image.open(file).save(tiff, "TIFF")
    content, media_type = browser_picture(tiff.getvalue())
    assert media_type == "image/jpeg"
    with Image.open(BytesIO(content)) as made:
        assert made.format == "JPEG"


def test_a_thumbnail_is_made_once(own_pictures: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, file = one_of(own_pictures)
    files: list[str] = []

    def record(file: ImageFile) -> bytes:
        files.append(file.uri)
        return make_thumbnail(file)

    monkeypatch.setattr(image_routes, "make_thumbnail", record)
    client, path = client_of(searcher), f"/api/thumbnail/{key_of(searcher, file)}"
    assert client.get(path).content == client.get(path).content
    assert files == [str(file)]


def test_a_link_put_in_the_place_of_a_picture_is_refused(own_pictures: Own, tmp_path: Path) -> None:
    searcher, file = one_of(own_pictures)
    secret = tmp_path / "secret.jpg"
    shutil.copy2(file, secret)  # the same bytes and times: only the place differs
    file.unlink()
    file.symlink_to(secret)
    assert statuses(searcher, file) == (403, 403)


def test_a_folder_replaced_by_a_link_is_refused(own_pictures: Own, tmp_path: Path) -> None:
    searcher, file = one_of(own_pictures)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / file.name).write_bytes(b"root:x:0:0")
    shutil.move(file.parent, tmp_path / "moved")
    file.parent.symlink_to(elsewhere)
    assert statuses(searcher, file) == (409, 409)


def test_another_file_in_its_place_is_refused(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    content = bytearray(file.read_bytes())
    file.write_bytes(content + b"x")
    assert statuses(searcher, file) == (409, 409)
    content[-20] ^= 1
    file.write_bytes(content)  # of the same size
    assert statuses(searcher, file) == (409, 409)


def test_a_picture_that_was_only_touched_is_served(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    os.utime(file, (1, 1))
    assert statuses(searcher, file) == (200, 200)


def test_a_vanished_picture_is_told(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    file.unlink()
    assert statuses(searcher, file) == (404, 404)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_in_its_place_does_not_hold_the_service_up(own_pictures: Own) -> None:
    searcher, file = one_of(own_pictures)
    file.unlink()
    os.mkfifo(file)
    assert statuses(searcher, file) == (409, 409)


def test_a_store_reached_through_a_link_is_served(own_pictures: Own, tmp_path: Path) -> None:
    """A folder that was indexed by way of a link is what was indexed."""
    searcher, file = one_of(own_pictures)
    shutil.move(file.parent, tmp_path / "disk")
    file.parent.symlink_to(tmp_path / "disk")
    assert statuses(searcher, file) == (200, 200)


NO_KEYS = [
    *("0", "1" * 19, "9" * 19, "9" * 40, "-1", "1.5", "abc", "%D9%A1", "1'", "%00"),
    *("..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd"),
]


@pytest.mark.parametrize("key", NO_KEYS)
@pytest.mark.parametrize("kind", ["image", "thumbnail"])
def test_what_is_no_key_finds_nothing(client: TestClient, kind: str, key: str) -> None:
    answer = client.get(f"/api/{kind}/{key}")
    assert answer.status_code == 404
    assert "/" not in answer.json()["detail"]
