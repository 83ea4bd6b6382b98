from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.frame_location import frame_path
from forclip.data.images.picture import Picture
from forclip.data.images.stream import PixelBatch, stream_pixels
from forclip.data.images.video import VideoReader
from tests.videos import frame_number, write_video


def grey_level(row: int, picture: Picture) -> Tensor:
    return torch.from_numpy(np.array(picture.pixels)).permute(2, 0, 1).float()


def pictures(folder: Path, count: int, broken: set[int]) -> list[Path]:
    """Pictures whose every pixel is their number; those in `broken` are text."""
    paths = [folder / f"{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        if k in broken:
            path.write_text("no picture")
        else:
            Image.new("RGB", (3, 2), (k, k, k)).save(path)
    return paths


def levels(batch: PixelBatch) -> list[int]:
    return [int(p[0, 0, 0]) for p in batch.pixels]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (3, 1, [1] * 3)]
)
@pytest.mark.parametrize("threads", [1, 4])
def test_batches_keep_the_order(tmp_path: Path, count: int, batch_size: int, sizes: list[int], threads: int) -> None:
    batches = list(stream_pixels(pictures(tmp_path, count, set()), grey_level, batch_size, threads))
    assert [len(b.rows) for b in batches] == sizes
    assert [row for b in batches for row in b.rows] == list(range(count))
    assert [level for b in batches for level in levels(b)] == list(range(count))
    assert batches[0].pixels.shape == (sizes[0], 3, 2, 3)
    assert all(b.unreadable == [] for b in batches)


def test_unreadable_pictures_are_set_aside(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 8, {0, 4, 5})
    paths[7].unlink()
    batches = list(stream_pixels(paths, grey_level, 3))
    assert [b.rows for b in batches] == [[1, 2], [3], [6]]
    assert [levels(b) for b in batches] == [[1, 2], [3], [6]]
    assert [[row for row, _ in b.unreadable] for b in batches] == [[0], [4, 5], [7]]
    for batch in batches:
        for row, reason in batch.unreadable:
            assert reason.startswith(f"{paths[row]}: ")
    assert batches[2].unreadable[0][1].endswith("no such file")


@pytest.mark.parametrize("broken", [set(), {0, 4, 5}, {6, 7, 8}, {29}])
def test_processes_write_into_memory_that_they_share(tmp_path: Path, broken: set[int]) -> None:
    """A batch is valid while the next one is already asked for."""
    paths, rows, before = pictures(tmp_path, 30, broken), list[int](), list[PixelBatch]()
    for batch in stream_pixels(paths, grey_level, 3, processes=2, shape=(3, 2, 3)):
        before = [*before[-1:], batch]
        for one in before:
            assert one.pixels.shape[:1] == (len(one.rows),)
            assert levels(one) == one.rows
        rows += batch.rows
    assert rows == sorted(set(range(30)) - broken)


def test_none_can_be_read(tmp_path: Path) -> None:
    batches = list(stream_pixels(pictures(tmp_path, 5, set(range(5))), grey_level, 2))
    assert [b.rows for b in batches] == [[], [], []]
    assert [len(b.pixels) for b in batches] == [0, 0, 0]
    assert [row for b in batches for row, _ in b.unreadable] == list(range(5))


def test_no_pictures_are_no_batches() -> None:
    assert list(stream_pixels([], grey_level, 4)) == []


class Watched(list[Path]):
    """Paths that note how many of them were taken."""

    taken = 0

    def __iter__(self) -> Iterator[Path]:
        for path in super().__iter__():
            self.taken += 1
            yield path


def test_a_long_list_is_decoded_two_batches_ahead_and_no_further(tmp_path: Path) -> None:
    paths = Watched(pictures(tmp_path, 30, set()))
    taken = [paths.taken for _ in stream_pixels(paths, grey_level, 2)]
    assert taken[:5] == [6, 8, 10, 12, 14]
    assert taken[-1] == 30


def test_an_error_in_prepare_is_raised(tmp_path: Path) -> None:
    def wrong(row: int, picture: Picture) -> Tensor:
        raise RuntimeError("a bug in preprocessing")

    with pytest.raises(RuntimeError, match="a bug in preprocessing"):
        list(stream_pixels(pictures(tmp_path, 3, set()), wrong, 2))


@pytest.mark.parametrize("processes", [0, 2])
def test_frames_of_videos_are_decoded_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Between pictures, and although two workers read two videos."""
    videos = [write_video(tmp_path / f"{name}.mp4", 100) for name in "ab"]
    frames = [frame_path(video, time / 10) for time in range(40) for video in videos]
    paths = [*pictures(tmp_path, 3, {1}), *frames, frame_path(tmp_path / "gone.mp4", 1)]
    opened: list[str] = []
    monkeypatch.setattr(VideoReader, "_seek", lambda reader, until: opened.append("sought"))
    monkeypatch.setattr(VideoReader, "_restart", lambda reader: opened.append("opened again"))

    def number(row: int, picture: Picture) -> Tensor:
        return torch.tensor([picture.size[0] == 3 or frame_number(picture.pixels, 100)])

    batches = list(stream_pixels(paths, number, 16, processes=processes))
    numbers = {row: int(p) for batch in batches for row, p in zip(batch.rows, batch.pixels, strict=True)}
    assert [numbers[row] for row in range(3, 83)] == [int(2.5 * time) for time in range(40) for _ in videos]
    assert [row for batch in batches for row, _ in batch.unreadable] == [1, 83]
    assert opened == []
