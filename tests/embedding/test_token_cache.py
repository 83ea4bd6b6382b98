"""The cache of tokens: reused exactly while it is true, whatever happened to it or to the pictures."""

import os
import signal
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from forclip.data.images.views import make_views
from forclip.embedding.embed import EncodedImages, encode_views
from forclip.embedding.token_cache import cached_tokens
from forclip.progress import untracked
from forclip.training.runs import encode_set
from forclip.types import Annotations
from tests.child import run_in_child
from tests.embedding.test_token_store import flip_a_bit, pictures
from tests.tiny import TinyEyes


class Eyes(TinyEyes):
    """Counts the pictures that it is shown."""

    seen = 0

    def encode_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        return super().encode_tokens(pixels)


def cached(
    cache: Path, paths: list[Path], num_views: int = 1, eyes: TinyEyes | None = None
) -> tuple[EncodedImages, int, list[str]]:
    """What comes of it, how many pictures were encoded for it, and what was said."""
    backbone = Eyes(eyes.name, eyes.fingerprint) if eyes else Eyes()
    said: list[str] = []
    ids, views = [p.name for p in paths], make_views(num_views, 0)
    found = cached_tokens(cache, backbone, ids, paths, views, say=said.append)
    expected = encode_views(TinyEyes(), ids, paths, views)
    assert torch.equal(found.tokens, expected.tokens)
    assert found.skipped == expected.skipped
    assert found.rows.tolist() == expected.rows.tolist()
    return found, backbone.seen, said


def stores(cache: Path) -> list[Path]:
    return sorted(p.parent for p in cache.glob("*/tokens.json"))


def test_the_second_time_nothing_is_encoded(tmp_path: Path) -> None:
    """The unreadable pictures are told all the same, and the time is what it took to encode."""
    paths, cache = pictures(tmp_path / "pictures", 80, {2, 70}), tmp_path / "made" / "for it"
    first, seen, said = cached(cache, paths)
    assert (seen, said) == (78, [])
    second, seen, said = cached(cache, paths)
    assert (seen, said) == (0, [f"tokens of 80 images are reused from {stores(cache)[0]}"])
    assert second.seconds == first.seconds
    told: list[int] = []
    cached_tokens(cache, TinyEyes(), [p.name for p in paths], paths, make_views(1, 0), told.append)
    assert sum(told) == 80


def change_a_pixel(path: Path) -> None:
    """And nothing else: size and time can be what they were, but not both."""
    Image.new("RGB", (8, 12), (1, 2, 3)).save(path)


@pytest.mark.parametrize(
    "change",
    [
        change_a_pixel,
        lambda path: path.write_text("a text"),
        Path.unlink,
        lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
    ],
    ids=["another picture", "no picture", "no file", "touched"],
)
def test_a_changed_picture_is_noticed(tmp_path: Path, change: Any) -> None:
    paths, cache = pictures(tmp_path / "pictures", 5), tmp_path / "cache"
    before, _, _ = cached(cache, paths)
    kept = before.tokens.clone()
    change(paths[3])
    _, seen, said = cached(cache, paths)
    assert seen >= 4
    assert said == [f"{stores(cache)[0]}: 1 picture(s) changed, the first {paths[3]}, since, so all are encoded again"]
    assert len(stores(cache)) == 1  # not beside the one that is of no use any more
    assert torch.equal(before.tokens, kept)  # whoever has it still can go on with it
    assert cached(cache, paths)[1] == 0


def test_a_missing_picture_that_appears_is_noticed(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 3), tmp_path / "cache"
    content = paths[0].read_bytes()
    paths[0].unlink()
    assert len(cached(cache, paths)[0].rows) == 2
    paths[0].write_bytes(content)
    assert len(cached(cache, paths)[0].rows) == 3


def test_sets_views_and_backbones_share_a_folder(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 6), tmp_path / "cache"
    asked: list[tuple[list[Path], int, TinyEyes | None]] = [
        (paths, 1, None),
        (paths[:4], 1, None),
        (paths[::-1], 1, None),
        (paths, 3, None),
        (paths, 1, TinyEyes("other", "f" * 64)),
    ]
    for number, (some, num_views, eyes) in enumerate(asked, start=1):
        assert cached(cache, some, num_views, eyes)[1] == len(some) * num_views
        assert len(stores(cache)) == number
    assert [cached(cache, *one)[1] for one in asked] == [0] * 5


def cache_until_killed(cache: str, folder: str) -> None:
    """What the subprocess of the next test runs: it dies when one batch is written and another is on its way."""
    paths = sorted(Path(folder).glob("*.png"))
    batches: list[int] = []

    def die(count: int) -> None:
        batches.append(count)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    cached_tokens(Path(cache), TinyEyes(), [p.name for p in paths], paths, make_views(2, 0), die)


def test_what_a_kill_left_is_ignored_and_written_anew(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures", 150)
    paths, cache = sorted((tmp_path / "pictures").glob("*.png")), tmp_path / "cache"
    killed = run_in_child(cache_until_killed, cache, tmp_path / "pictures")
    assert killed.returncode == -signal.SIGKILL
    (partial,) = cache.glob("*/tokens.partial")
    assert partial.stat().st_size > 0
    assert stores(cache) == []
    assert cached(cache, paths, 2)[1] == 300
    assert not partial.exists()
    # Between the tokens and the header.
    (stores(cache)[0] / "tokens.json").unlink()
    assert cached(cache, paths, 2)[1] == 300


def test_a_damaged_cache_is_told_and_not_used(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 5), tmp_path / "cache"
    cached(cache, paths)
    flip_a_bit(stores(cache)[0] / "tokens.npy", 400)
    with pytest.raises(ValueError, match=r"tokens\.npy: rows 0-4 are damaged; delete .* and run again"):
        cached(cache, paths)


def test_two_runs_at_once_encode_once(tmp_path: Path) -> None:
    """The second waits, and finds what the first has made."""
    paths, cache, eyes = pictures(tmp_path / "pictures", 5), tmp_path / "cache", Eyes()
    waiting, said = threading.Event(), []
    found: list[EncodedImages] = []

    def say(message: str) -> None:
        said.append(message)
        waiting.set()

    def run() -> None:
        found.append(cached_tokens(cache, eyes, [p.name for p in paths], paths, make_views(1, 0), say=say))

    second = threading.Thread(target=run)

    def start_the_second(count: int) -> None:
        second.start()
        assert waiting.wait(20)

    first = cached_tokens(cache, eyes, [p.name for p in paths], paths, make_views(1, 0), start_the_second)
    second.join(20)
    assert eyes.seen == 5
    assert [message.split()[0] for message in said] == ["waiting", "tokens"]
    assert torch.equal(found[0].tokens, first.tokens)


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"cache/.*: cannot write the cache of tokens there"):
        cached(tmp_path / "cache", pictures(tmp_path / "pictures", 2))


def image_set(paths: list[Path]) -> Annotations:
    ids = tuple(p.name for p in paths)
    nothing = torch.empty(0, dtype=torch.int64).numpy()
    no_boxes = torch.empty(0, 4).numpy()
    return Annotations(ids, tuple(paths), (), torch.empty(len(ids), 0).bool().numpy(), no_boxes, nothing, nothing)


@pytest.mark.parametrize(("num_views", "shape"), [(1, (4, 9, 8)), (3, (3, 4, 9, 8))])
def test_encode_set_tells_the_same_with_and_without_a_cache(
    tmp_path: Path, num_views: int, shape: tuple[int, ...]
) -> None:
    images = image_set(pictures(tmp_path / "pictures", 5, {1}))
    told, tokens = [], []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        console = Console(file=StringIO(), width=1000)
        encoded = encode_set(TinyEyes(), images, "training images", untracked, console, cache, num_views)
        told.append(console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO
        tokens.append(encoded.tokens)
    assert tokens[0].shape == shape
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    assert told[0] == told[1]
    assert "1 of 5 training images could not be read and were skipped" in told[0]
    assert told[2].startswith("training images: tokens of 5 images are reused from ")
    assert told[2].endswith(told[0])


def test_encode_set_refuses_a_set_without_a_picture(tmp_path: Path) -> None:
    images = image_set(pictures(tmp_path / "pictures", 2, {0, 1}))
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ValueError, match=r"none of 2 .* can be read; the first: "):
            encode_set(TinyEyes(), images, "gallery images", untracked, Console(quiet=True), cache)
