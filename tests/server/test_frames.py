"""Frames of videos are served like pictures, and handed on as files."""

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.models.retrieval_model import load_model
from forclip.search.searcher import Searcher
from forclip.server import pictures
from forclip.server.gallery import Gallery
from tests.server.conftest import client_of
from tests.videos import frame_number, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", 100)


@pytest.fixture
def searcher(video: Path) -> Searcher:
    store = video.parent / "store"
    index_images(str(video), store, model=ModelConfig("forclip-mini"))
    return Searcher(Index(store), load_model(ModelConfig("forclip-mini")))


def keys(searcher: Searcher) -> list[str]:
    """Keys in the order of time."""
    ids = sorted(searcher.index.store.files())
    return [str(key) for key in Gallery(searcher.index).keys_of_ids(ids).values()]


def seen(client: TestClient, kind: str, key: str) -> int:
    response = client.get(f"/api/{kind}/{key}")
    assert response.headers["content-type"] == "image/jpeg", response.text
    return frame_number(Image.open(BytesIO(response.content)).convert("RGB"), 100)


def test_frames_and_thumbnails_are_served(searcher: Searcher) -> None:
    client = client_of(searcher)
    for kind in ("image", "thumbnail"):
        assert [seen(client, kind, key) for key in keys(searcher)] == [0, 25, 50, 75]
    details = client.get(f"/api/details/{keys(searcher)[2]}").json()
    assert details["path"].endswith("clip.mp4#t=2.000")
    assert details["problem"] is details["taken"] is None
    look = client.post("/api/look", json={"key": keys(searcher)[2], "text": "cat"})
    assert look.json()["heatmap"]["values"]


def test_a_video_is_read_whole_only_if_its_time_differs(
    searcher: Searcher, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, key = client_of(searcher), keys(searcher)[1]
    monkeypatch.setattr(pictures, "content_digest", lambda path: pytest.fail("read whole"))
    assert seen(client, "image", key) == 25
    monkeypatch.undo()
    os.utime(video, (1, 1))
    assert seen(client, "image", key) == 25


def test_changed_and_missing_videos_are_refused(searcher: Searcher, video: Path) -> None:
    client, key = client_of(searcher), keys(searcher)[1]
    write_video(video, 60)
    assert client.get(f"/api/image/{key}").status_code == 409
    video.unlink()
    assert client.get(f"/api/image/{key}").status_code == 404


@pytest.mark.parametrize("format", ["coco", "csv", "files"])
def test_downloads_hold_the_frames_that_they_name(searcher: Searcher, format: str) -> None:
    response = client_of(searcher).post("/api/export", json={"text": "cat", "k": 4, "format": format})
    assert ".zip" in response.headers["content-disposition"]
    with zipfile.ZipFile(BytesIO(response.content)) as zipped:
        frames = [name for name in zipped.namelist() if name.endswith(".jpg")]
        (export,) = [name for name in zipped.namelist() if name not in frames]
        assert len(frames) == 4
        assert all(name in zipped.read(export).decode() for name in frames)
