"""Videos in a store: which frames are indexed, when they are read again, and what filters find."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.data.images.decode import read_image
from forclip.data.images.frame_location import frame_path
from forclip.data.images.video import VideoReader
from forclip.data.metadata import read_metadata
from forclip.embedding.embed import embed_images
from forclip.embedding.frames import VIDEOS_FILE, IndexedVideo, add_videos, read_videos
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.index.image_index import Index
from forclip.models.retrieval_model import load_model
from forclip.search.export import export
from forclip.search.selection import select_ids
from tests.videos import frame_number, write_sound, write_video


def indexed(folder: Path, every: float | None = None, source: str = "", **options: Any) -> IndexSummary:
    model = None if (folder.parent / "store").exists() else ModelConfig("forclip-mini")
    return index_images(str(folder / source), folder.parent / "store", model=model, every=every, **options)


def times(folder: Path) -> dict[str, list[float]]:
    """The times of each video's frames in the store, by the column `video`."""
    table = Index(folder.parent / "store").store.table().to_table(["video", "time"], filter="video IS NOT NULL")
    found: dict[str, list[float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["video"], []).append(row["time"])
    return {video: sorted(times) for video, times in sorted(found.items())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture, a video of 4 seconds, and one of 2 seconds in a folder below."""
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    Image.new("RGB", (20, 10), "red").save(folder / "a.png")
    write_video(folder / "clip.mp4", 100)
    write_video(folder / "below" / "b.mkv", 50)
    return folder


def test_frames_are_images_with_columns(folder: Path) -> None:
    summary = indexed(folder)
    assert (summary.added, summary.videos, summary.unreadable) == (7, 2, {})
    assert times(folder) == {"below/b.mkv": [0, 1], "clip.mp4": [0, 1, 2, 3]}
    index = Index(folder.parent / "store")
    assert len(index.store.keys("video = 'clip.mp4' AND time BETWEEN 1 AND 2.5")) == 2
    assert len(index.store.keys("video IS NULL")) == 1
    files = index.store.files()
    assert {i.rpartition("/")[2] for i in files} >= {"a.png", "clip.mp4#t=3.000", "b.mkv#t=0.000"}
    assert all((file.width, file.height) == (64, 48) for i, file in files.items() if "#t=" in i)
    model = load_model(ModelConfig("forclip-mini"))
    expected, _ = embed_images(model, [frame_path(folder / "clip.mp4", 2)])
    key = int(index.store.keys("video = 'clip.mp4' AND time = 2")[0])
    stored = index.vectors_of(key)
    assert stored is not None
    np.testing.assert_allclose(stored[0], expected.vectors, atol=2e-3)


def test_unchanged_videos_are_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(folder, 0.5)
    monkeypatch.setattr(VideoReader, "__init__", lambda *arguments: pytest.fail("opened"))
    summary = indexed(folder)  # every half second, as before
    assert (summary.added, summary.unchanged, summary.vanished) == (0, 13, ())


def test_changed_videos_are_read_again(folder: Path) -> None:
    indexed(folder)
    write_video(folder / "clip.mp4", 50, size=(32, 32))
    summary = indexed(folder, delete_vanished=True)
    assert (summary.added, summary.updated, summary.unchanged, len(summary.vanished)) == (0, 2, 3, 2)
    assert times(folder) == {"below/b.mkv": [0, 1], "clip.mp4": [0, 1]}


def test_another_interval_adds_frames_and_names_those_that_are_left_over(folder: Path) -> None:
    indexed(folder, source="clip.mp4")
    assert (indexed(folder, 0.5, "clip.mp4").added, len(times(folder)["clip.mp4"])) == (4, 8)
    summary = indexed(folder, 2)  # another source, which has the video too
    assert (summary.added, summary.unchanged, len(summary.vanished)) == (2, 2, 6)
    indexed(folder, 2, delete_vanished=True)
    assert times(folder) == {"below/b.mkv": [0], "clip.mp4": [0, 2]}


def test_lost_records_and_deleted_frames_do_no_harm(folder: Path) -> None:
    indexed(folder)
    store = folder.parent / "store"
    (store / VIDEOS_FILE).unlink()
    assert indexed(folder).added == 0
    Index(store).delete("video = 'clip.mp4' AND time > 1")
    assert indexed(folder).added == 2


def test_jobs_that_end_together_keep_all_records(tmp_path: Path) -> None:
    records = {f"clip{k}.mp4": IndexedVideo(k, 0, 1.0, 1, None) for k in range(16)}
    with ThreadPoolExecutor(8) as jobs:
        list(jobs.map(lambda name: add_videos(tmp_path, {name: records[name]}), records))
    assert read_videos(tmp_path) == records


def test_records_that_cannot_be_read_at_the_moment_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ({name: IndexedVideo(1, 0, 5.0, 1, None)} for name in ("a.mp4", "b.mp4"))
    add_videos(tmp_path, one)

    def fail(*_: object) -> str:
        raise PermissionError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", fail)
        with pytest.raises(PermissionError):
            add_videos(tmp_path, other)
    assert read_videos(tmp_path) == one


def test_bad_videos_are_reported_once_and_stop_nothing(folder: Path) -> None:
    whole = write_video(folder / "cut.mp4", 200, options={"movflags": "faststart"}).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: 6 * len(whole) // 10])
    (folder / "text.mp4").write_text("no video")
    write_sound(folder / "sound.mp4")
    summary = indexed(folder)
    assert {i.rpartition("/")[2] for i in summary.unreadable} == {"cut.mp4", "text.mp4", "sound.mp4"}
    assert len(times(folder)["cut.mp4"]) >= 2
    again = indexed(folder)
    assert (again.added, again.unreadable, again.skipped) == (0, {}, 3)
    assert len(indexed(folder, retry=True).unreadable) == 3
    (folder / "text.mp4").write_bytes(write_video(folder.parent / "good.mp4").read_bytes())
    assert (indexed(folder).added, indexed(folder).skipped) == (2, 2)


def test_none_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.mp4").write_text("no video")
    for source in ("", "text.mp4"):
        with pytest.raises(ValueError, match=r"text\.mp4"):
            indexed(tmp_path / "v", source=source)


def test_a_column_of_another_kind_is_named_before_anything_is_written(folder: Path) -> None:
    (folder / "clip.mp4").rename(folder.parent / "clip.mp4")
    (folder / "below" / "b.mkv").unlink()
    indexed(folder)
    store = Index(folder.parent / "store").store
    store.annotate(list(store.files()), {"time": ["noon"]})
    (folder.parent / "clip.mp4").rename(folder / "clip.mp4")
    with pytest.raises(ValueError, match="'time' holds string"):
        indexed(folder)
    assert len(Index(folder.parent / "store")) == 1


def test_a_moved_folder_keeps_its_frames(folder: Path) -> None:
    indexed(folder)
    moved = folder.rename(folder.parent / "elsewhere")
    summary = indexed(moved)
    assert (summary.added, summary.moved, summary.vanished) == (0, 7, ())


@pytest.mark.parametrize("format", ["coco", "csv", "files", "fiftyone"])
def test_exported_frames_are_files(folder: Path, format: str) -> None:
    indexed(folder)
    index = Index(folder.parent / "store")
    target = folder.parent / "picks.out"
    ids = sorted(index.store.files())
    export(select_ids(index, ids, "cat"), format, target)
    where = target / "data" if format == "fiftyone" else folder.parent / "picks_frames"
    frames = sorted(where.glob("*.jpg"))
    assert len(frames) == 6
    clip = [path for path in frames if "clip" in path.name]
    assert [frame_number(read_image(path), 100) for path in clip] == [0, 25, 50, 75]
    if format == "files":
        listed = {Path(line) for line in target.read_text().splitlines()}
        assert listed == {*frames, folder / "a.png"}
    elif format == "coco":
        loaded = load_coco(target, folder.parent)
        assert {str(path) for path in loaded.paths} == {*map(str, frames), str(folder / "a.png")}


def test_an_export_names_the_frames_of_a_video_that_is_gone(folder: Path) -> None:
    indexed(folder)
    index = Index(folder.parent / "store")
    (folder / "clip.mp4").unlink()
    ids = sorted(index.store.files())
    gone = [i for i in ids if "clip.mp4" in i]
    done = export(select_ids(index, ids), "files", folder.parent / "picks.txt")
    assert sorted(done.left_out) == gone
    assert len((folder.parent / "picks.txt").read_text().splitlines()) == len(ids) - len(gone) == 3
    assert len(list((folder.parent / "picks_frames").iterdir())) == 2


def test_a_failed_export_leaves_no_frame(folder: Path) -> None:
    indexed(folder)
    index = Index(folder.parent / "store")
    (folder / "clip.mp4").unlink()
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ValueError, match=r"clip\.mp4"):
        export(select_ids(index, [i for i in index.store.files() if "clip" in i]), "files", folder.parent / "picks.txt")
    assert sorted(folder.parent.iterdir()) == before


def test_patterns_labels_and_metadata_name_videos_and_frames(folder: Path) -> None:
    store = folder.parent / "store"
    (folder / "meta.csv").write_text("image,camera\nclip.mp4,front\nclip.mp4#t=1.000,rear\n")
    indexed(folder, source="*.mp4", metadata=read_metadata(folder / "meta.csv"))
    rows = Index(store).store.table().to_table(["time", "camera"]).to_pylist()
    assert {row["time"]: row["camera"] for row in rows} == {0: "front", 1: "rear", 2: "front", 3: "front"}
    images = [{"id": k, "file_name": name} for k, name in enumerate(("below/b.mkv#t=1.5", "below/b.mkv#t=99", "a.png"))]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    summary = indexed(folder, source="labels.json", images=folder)
    assert (summary.added, len(summary.unreadable)) == (2, 1)
    assert times(folder)["below/b.mkv"] == [1.5]


def test_a_renamed_video_keeps_its_frames_and_its_interval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(folder, every=2)
    monkeypatch.setattr("forclip.data.images.video.scan_video", lambda video: pytest.fail(f"{video} was read"))
    (folder / "clip.mp4").rename(folder / "below" / "renamed.mp4")
    assert (indexed(folder).added, times(folder)) == (0, {"below/b.mkv": [0], "below/renamed.mp4": [0, 2]})
    (folder / "bad.mp4").write_text("no video")
    monkeypatch.undo()
    assert [len(indexed(folder).unreadable) for _ in range(2)] == [1, 0]
    moved = folder.rename(folder.parent / "elsewhere")
    summary = indexed(moved)
    assert (summary.added, summary.moved, summary.unchanged, summary.skipped) == (0, 4, 0, 1)
    assert times(moved) == {"below/b.mkv": [0], "below/renamed.mp4": [0, 2]}
