"""The token cache: equal tokens, mapped from disk; reuse exactly while they are valid; located damage."""

import json
import os
import re
import signal
import threading
import zlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from forclip.data.images.decode import DECODING
from forclip.data.images.views import PLAIN, make_views
from forclip.embedding import token_cache
from forclip.embedding.embed import EncodedBatch, EncodedImages, encode_batches, encode_images, encode_views
from forclip.embedding.token_cache import (
    TokenSource,
    cached_tokens,
    folder_name,
    is_current,
    open_tokens,
    read_header,
    token_source,
    verify,
    write_tokens,
)
from forclip.progress import untracked
from forclip.training.runs import encode_set
from forclip.types import Annotations
from tests.child import limit_file_size, run_in_child
from tests.tiny import TinyEyes

ROW_BYTES = 9 * 8 * 2


def pictures(folder: Path, count: int, broken: set[int] | None = None) -> list[Path]:
    """Write images of noise; those in `broken` are text files."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{k}.png" for k in range(count)]
    rng = np.random.default_rng(0)
    for k, path in enumerate(paths):
        if k in (broken or set()):
            path.write_text("no picture")
        else:
            Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)
    return paths


def write(folder: Path, paths: list[Path], num_views: int = 1) -> EncodedImages:
    """Write the tokens, and return them as `encode_views` computes them in memory."""
    ids, views, backbone = [f"id {p.stem}" for p in paths], make_views(num_views, 0), TinyEyes()
    write_tokens(folder, token_source(backbone, ids, paths, views), encode_batches(backbone, ids, paths, views))
    return encode_views(backbone, ids, paths, views)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checksum for every 10 rows."""
    monkeypatch.setattr(token_cache, "_BLOCK_BYTES", 10 * ROW_BYTES + 5)


def flip_a_bit(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 4
    file.write_bytes(content)


# 150 images are three batches, the last of 22; in the second case no image of the second batch can be read.
@pytest.mark.parametrize("broken", [set(), set(range(64, 128)), {0, 5, 149}])
@pytest.mark.parametrize("num_views", [1, 3])
def test_written_tokens_are_read_back(tmp_path: Path, small_blocks: None, broken: set[int], num_views: int) -> None:
    made = write(tmp_path / "store", pictures(tmp_path / "pictures", 150, broken), num_views)
    found = open_tokens(tmp_path / "store", TinyEyes())
    assert made.tokens.shape == (num_views, 150 - len(broken), 9, 8)
    assert found.tokens.dtype == torch.float16
    assert torch.equal(found.tokens, made.tokens)
    assert found.rows.tolist() == made.rows.tolist() == [k for k in range(150) if k not in broken]
    assert found.skipped == made.skipped
    assert [s.image_id for s in found.skipped] == [f"id {k}" for k in sorted(broken)]
    assert found.seconds > 0


def test_all_views_skip_the_same_images(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 5, {1})
    ids = [str(p) for p in paths]
    plain, several = encode_images(TinyEyes(), ids, paths), encode_views(TinyEyes(), ids, paths, make_views(3, 0))
    assert torch.equal(several.tokens[0], plain.tokens)
    assert several.skipped == plain.skipped
    # The tiny backbone's preprocessing commutes with mirroring, so the pixels can be mirrored instead of the image.
    backbone, image = TinyEyes(), Image.open(paths[4])
    mirrored = backbone.encode_tokens(backbone.preprocess(image).flip(2)[None])
    torch.testing.assert_close(several.tokens[1, -1].float(), mirrored[0], atol=0.02, rtol=0.01)
    assert not torch.equal(several.tokens[2], plain.tokens)


def test_tokens_are_mapped_and_support_indexing_and_splits(tmp_path: Path) -> None:
    made = write(tmp_path / "store", pictures(tmp_path / "pictures", 20, {3}), 2)
    tokens = open_tokens(tmp_path / "store", TinyEyes()).tokens
    file = str(tmp_path / "store" / "tokens.npy")
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(file)]
    ranges = [tuple(int(edge, 16) for edge in line.split("-")) for line in maps]
    assert any(start <= tokens.data_ptr() < stop for start, stop in ranges)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(tokens[1][rows], made.tokens[1][rows])
    assert torch.equal(tokens[torch.tensor([1, 0]), torch.tensor([2, 3])], made.tokens[[1, 0], [2, 3]])
    assert [len(part) for part in tokens[0].split(8)] == [8, 8, 3]
    assert all(part.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr() for part in tokens[0].split(8))


@pytest.mark.parametrize(("view", "row", "damaged"), [(0, 0, "rows 0-9"), (0, 24, "rows 20-24"), (0, 13, "rows 10-19")])
def test_a_wrong_bit_is_located_by_rows(tmp_path: Path, small_blocks: None, view: int, row: int, damaged: str) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 27, {0, 20}))
    file = tmp_path / "store" / "tokens.npy"
    verify(tmp_path / "store")
    flip_a_bit(file, 128 + row * ROW_BYTES + 77)
    with pytest.raises(ValueError, match=re.escape(f"{file}: {damaged}")):
        open_tokens(tmp_path / "store", TinyEyes())
    assert open_tokens(tmp_path / "store", TinyEyes(), check=False).tokens.shape == (1, 25, 9, 8)


def test_a_wrong_bit_is_located_by_view(tmp_path: Path, small_blocks: None) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 100), 2)
    for row in range(0, 100, 10):
        flip_a_bit(tmp_path / "store" / "tokens.npy", 128 + (100 + row) * ROW_BYTES)
    flip_a_bit(tmp_path / "store" / "tokens.npy", 128 + 99 * ROW_BYTES)
    with pytest.raises(ValueError, match=r"view 'plain', rows 90-99; view 'flip', rows 0-9; .* 6 more"):
        verify(tmp_path / "store")


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 9, {7}))
    file, header = tmp_path / "store" / "tokens.npy", tmp_path / "store" / "tokens.json"
    whole, text = file.read_bytes(), header.read_text()
    for content in (whole[:-1], whole[:50], b"", whole + b"\0", b"some other file"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokens\.npy: "):
            open_tokens(tmp_path / "store", TinyEyes(), check=False)
    file.unlink()
    with pytest.raises(ValueError, match=r"tokens\.npy"):
        open_tokens(tmp_path / "store", TinyEyes())
    wrong_row, wrong_size = text.replace('"skipped": [[7,', '"skipped": [[6,'), text.replace('"room": 9', '"room": 8')
    assert text not in (wrong_row, wrong_size)
    for damaged in ("", "{", "[]", text[: len(text) // 2], json.dumps({"format_version": 1}), wrong_row, wrong_size):
        header.write_text(damaged)
        with pytest.raises(ValueError, match=r"tokens\.json: "):
            open_tokens(tmp_path / "store", TinyEyes())
    header.write_text(json.dumps(json.loads(text) | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        open_tokens(tmp_path / "store", TinyEyes())
    with pytest.raises(ValueError, match="nowhere: "):
        open_tokens(tmp_path / "nowhere", TinyEyes())


def test_another_backbone_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 3))
    other = TinyEyes("other", "f" * 64)
    with pytest.raises(ValueError, match=r"'tiny' \(000000000000\).*'other' \(ffffffffffff\)"):
        open_tokens(tmp_path / "store", other)


def test_a_disk_that_is_too_small_is_refused_before_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, usage = pictures(tmp_path / "pictures", 100), type("Usage", (), {"free": 100 * ROW_BYTES - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"store: .* GB are needed"):
        write(tmp_path / "store", paths)
    assert list((tmp_path / "store").iterdir()) == []


def write_on_a_full_disk(folder: str, images: str, num_views: str) -> None:
    """Run by the child process of the next test."""
    limit_file_size(12_000)
    write(Path(folder), sorted(Path(images).glob("*.png")), int(num_views))


@pytest.mark.parametrize("num_views", ["1", "2"])
def test_a_disk_that_fills_up_is_reported_and_cleared(tmp_path: Path, num_views: str) -> None:
    pictures(tmp_path / "pictures", 100)
    failed = run_in_child(write_on_a_full_disk, tmp_path / "store", tmp_path / "pictures", num_views)
    assert re.match(r"ValueError: .*store: .*File too large", failed.stderr.splitlines()[-1])
    assert list((tmp_path / "store").iterdir()) == []


def test_other_errors_are_not_reported_as_disk_errors(tmp_path: Path) -> None:
    def broken() -> Iterator[EncodedBatch]:
        raise RuntimeError("a bug in a backbone")
        yield

    with pytest.raises(RuntimeError, match="a bug in a backbone"):
        write_tokens(tmp_path, token_source(TinyEyes(), [], [], make_views(1, 0)), broken())


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of 3 .*0\.png"):
        write(tmp_path / "store", pictures(tmp_path / "pictures", 3, {0, 1, 2}))
    assert not (tmp_path / "store" / "tokens.json").exists()


class Eyes(TinyEyes):
    """Counts the images that it encodes."""

    seen = 0

    def encode_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        return super().encode_tokens(pixels)


def cached(
    cache: Path, paths: list[Path], num_views: int = 1, eyes: TinyEyes | None = None
) -> tuple[EncodedImages, int, list[str]]:
    """Return the tokens, the number of images encoded for them, and the messages."""
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


def test_the_second_run_encodes_nothing(tmp_path: Path) -> None:
    """It still lists the unreadable images and the time that encoding took."""
    paths, cache = pictures(tmp_path / "pictures", 80, {2, 70}), tmp_path / "new" / "folder"
    first, seen, said = cached(cache, paths)
    assert (seen, said) == (78, [])
    second, seen, said = cached(cache, paths)
    assert seen == 0
    assert len(said) == 1
    assert str(stores(cache)[0]) in said[0]
    assert second.seconds == first.seconds
    advanced: list[int] = []
    cached_tokens(cache, TinyEyes(), [p.name for p in paths], paths, make_views(1, 0), advanced.append)
    assert sum(advanced) == 80


def change_a_pixel(path: Path) -> None:
    """Change the content; size or time may stay the same, but not both."""
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
def test_a_changed_image_is_encoded_again(tmp_path: Path, change: Any) -> None:
    paths, cache = pictures(tmp_path / "pictures", 5), tmp_path / "cache"
    before, _, _ = cached(cache, paths)
    kept = before.tokens.clone()
    change(paths[3])
    _, seen, said = cached(cache, paths)
    assert seen >= 4
    assert len(said) == 1
    assert str(paths[3]) in said[0]
    assert len(stores(cache)) == 1  # in place of the outdated one
    assert torch.equal(before.tokens, kept)  # old mappings stay valid
    assert cached(cache, paths)[1] == 0


def test_a_missing_image_that_appears_is_encoded(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 3), tmp_path / "cache"
    content = paths[0].read_bytes()
    paths[0].unlink()
    assert len(cached(cache, paths)[0].rows) == 2
    paths[0].write_bytes(content)
    assert len(cached(cache, paths)[0].rows) == 3


def test_sets_views_and_backbones_share_a_folder(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 6), tmp_path / "cache"
    requests: list[tuple[list[Path], int, TinyEyes | None]] = [
        (paths, 1, None),
        (paths[:4], 1, None),
        (paths[::-1], 1, None),
        (paths, 3, None),
        (paths, 1, TinyEyes("other", "f" * 64)),
    ]
    for number, (some, num_views, eyes) in enumerate(requests, start=1):
        assert cached(cache, some, num_views, eyes)[1] == len(some) * num_views
        assert len(stores(cache)) == number
    assert [cached(cache, *one)[1] for one in requests] == [0] * 5


def cache_until_killed(cache: str, folder: str) -> None:
    """Run by the child process of the next test: it dies after one batch is written and another is encoded."""
    paths = sorted(Path(folder).glob("*.png"))
    batches: list[int] = []

    def die(count: int) -> None:
        batches.append(count)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    cached_tokens(Path(cache), TinyEyes(), [p.name for p in paths], paths, make_views(2, 0), die)


def test_a_killed_runs_leftovers_are_replaced(tmp_path: Path) -> None:
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


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    paths, cache = pictures(tmp_path / "pictures", 5), tmp_path / "cache"
    cached(cache, paths)
    flip_a_bit(stores(cache)[0] / "tokens.npy", 400)
    with pytest.raises(ValueError, match=r"tokens\.npy: rows 0-4"):
        cached(cache, paths)


def test_two_runs_at_once_encode_once(tmp_path: Path) -> None:
    """The second run waits and reuses the first one's tokens."""
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


def test_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"cache/.*: cannot write"):
        cached(tmp_path / "cache", pictures(tmp_path / "pictures", 2))


def image_set(paths: list[Path]) -> Annotations:
    ids = tuple(p.name for p in paths)
    nothing = torch.empty(0, dtype=torch.int64).numpy()
    no_boxes = torch.empty(0, 4).numpy()
    return Annotations(ids, tuple(paths), (), torch.empty(len(ids), 0).bool().numpy(), no_boxes, nothing, nothing)


@pytest.mark.parametrize(("num_views", "shape"), [(1, (1, 4, 9, 8)), (3, (3, 4, 9, 8))])
def test_encode_set_reports_the_same_with_and_without_a_cache(
    tmp_path: Path, num_views: int, shape: tuple[int, ...]
) -> None:
    images = image_set(pictures(tmp_path / "pictures", 5, {1}))
    printed, tokens, views = [], [], make_views(num_views, 0)
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        console = Console(file=StringIO(), width=1000)
        encoded = encode_set(TinyEyes(), images, "training images", untracked, console, cache, views)
        printed.append(console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO
        assert isinstance(encoded.tokens, torch.Tensor)
        tokens.append(encoded.tokens)
        assert [view.name for view in encoded.views] == [view.name for view in views]
    assert tokens[0].shape == shape
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    assert printed[0] == printed[1]
    assert "1 of 5 training images could not be read and were skipped" in printed[0]
    assert printed[2].startswith("training images: tokens of 5 images are reused from ")
    assert printed[2].endswith(printed[0])


def test_encode_set_refuses_a_set_without_a_picture(tmp_path: Path) -> None:
    images = image_set(pictures(tmp_path / "pictures", 2, {0, 1}))
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(ValueError, match=r"none of 2 "):
            encode_set(TinyEyes(), images, "gallery images", untracked, Console(quiet=True), cache)


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_tokens_of_an_earlier_decoding_are_reused_unless_a_picture_is_turned(
    tmp_path: Path, orientation: int | None
) -> None:
    """Version 1 did not turn pictures; its headers do not name a version."""
    paths, said = pictures(tmp_path / "pictures", 3), []  # type: tuple[list[Path], list[str]]
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(paths[1]).save(paths[1], exif=exif)
    ids = [p.stem for p in paths]

    def cached() -> EncodedImages:
        said.clear()
        return cached_tokens(tmp_path / "cache", TinyEyes(), ids, paths, make_views(1, 0), say=said.append)

    expected = cached().tokens.clone()
    (folder,) = (tmp_path / "cache").iterdir()
    header = json.loads((folder / "tokens.json").read_text())
    assert header.pop("decoding") == DECODING
    del header["format_version"], header["checksum"]
    head = {"format_version": token_cache.FORMAT_VERSION, "checksum": zlib.crc32(json.dumps(header).encode())}
    (folder / "tokens.json").write_text(json.dumps(head | header))
    assert torch.equal(cached().tokens, expected)
    assert ("are reused" in said[-1]) == (orientation != 6)
    cached()
    assert len(said) == 1
    assert "are reused" in said[0]


def test_tokens_of_each_number_format_are_kept_apart(tmp_path: Path) -> None:
    """Tokens of earlier versions are in the folder of float32."""

    class HalfEyes(TinyEyes):
        compute = "bf16"

    paths, views = pictures(tmp_path / "pictures", 3), [PLAIN]
    ids = [path.stem for path in paths]
    single, half = (token_source(eyes, ids, paths, views) for eyes in (TinyEyes(), HalfEyes()))
    assert (single.compute, half.compute) == ("float32", "bf16")
    assert folder_name(single) != folder_name(half)
    for eyes in (TinyEyes(), HalfEyes()):
        cached_tokens(tmp_path / "cache", eyes, ids, paths, views)
    folder = tmp_path / "cache" / folder_name(half)
    assert read_header(folder).source == half
    assert is_current(folder, half)
    assert not is_current(folder, single)
    before = {"backbone", "fingerprint", "views", "image_ids", "files"}
    older = {key: value for key, value in vars(single).items() if key in before}
    assert TokenSource(**older) == single
