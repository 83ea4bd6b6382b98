"""Tokens on disk: what comes back is what was made, mapped and not read, and damage is told by its place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from forclip.data.images.views import make_views
from forclip.embedding import token_file as token_writer
from forclip.embedding.embed import EncodedBatch, EncodedImages, encode_batches, encode_images, encode_views
from forclip.embedding.token_cache import token_source
from forclip.embedding.token_file import open_tokens, verify, write_tokens
from tests.child import limit_file_size, run_in_child
from tests.tiny import TinyEyes

ROW_BYTES = 9 * 8 * 2


def pictures(folder: Path, count: int, broken: set[int] | None = None) -> list[Path]:
    """Pictures of noise; those in `broken` are text."""
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
    """Writes the tokens, and returns them as they are made in memory."""
    ids, views, backbone = [f"id {p.stem}" for p in paths], make_views(num_views, 0), TinyEyes()
    write_tokens(folder, token_source(backbone, ids, paths, views), encode_batches(backbone, ids, paths, views))
    return encode_views(backbone, ids, paths, views)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checksum for every 10 rows."""
    monkeypatch.setattr(token_writer, "_BLOCK_BYTES", 10 * ROW_BYTES + 5)


def flip_a_bit(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 4
    file.write_bytes(content)


# 150 pictures are three batches, the last of 22; in the second case the second batch has none that can be read.
@pytest.mark.parametrize("broken", [set(), set(range(64, 128)), {0, 5, 149}])
@pytest.mark.parametrize("num_views", [1, 3])
def test_what_is_written_comes_back(tmp_path: Path, small_blocks: None, broken: set[int], num_views: int) -> None:
    made = write(tmp_path / "store", pictures(tmp_path / "pictures", 150, broken), num_views)
    found = open_tokens(tmp_path / "store", TinyEyes())
    assert made.tokens.shape == (num_views, 150 - len(broken), 9, 8)
    assert found.tokens.dtype == torch.float16
    assert torch.equal(found.tokens, made.tokens)
    assert found.rows.tolist() == made.rows.tolist() == [k for k in range(150) if k not in broken]
    assert found.skipped == made.skipped
    assert [s.image_id for s in found.skipped] == [f"id {k}" for k in sorted(broken)]
    assert found.seconds > 0


def test_views_are_of_the_pictures_that_one_view_has(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 5, {1})
    ids = [str(p) for p in paths]
    plain, several = encode_images(TinyEyes(), ids, paths), encode_views(TinyEyes(), ids, paths, make_views(3, 0))
    assert torch.equal(several.tokens[0], plain.tokens)
    assert several.skipped == plain.skipped
    # The tiny backbone's preprocessing commutes with mirroring, so pixels can be mirrored in place of the picture.
    backbone, image = TinyEyes(), Image.open(paths[4])
    mirrored = backbone.encode_tokens(backbone.preprocess(image).flip(2)[None])
    torch.testing.assert_close(several.tokens[1, -1].float(), mirrored[0], atol=0.02, rtol=0.01)
    assert not torch.equal(several.tokens[2], plain.tokens)


def test_tokens_are_mapped_and_work_as_any(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("view", "row", "told"), [(0, 0, "rows 0-9"), (0, 24, "rows 20-24"), (0, 13, "rows 10-19")])
def test_one_wrong_bit_is_told_by_its_rows(tmp_path: Path, small_blocks: None, view: int, row: int, told: str) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 27, {0, 20}))
    file = tmp_path / "store" / "tokens.npy"
    verify(tmp_path / "store")
    flip_a_bit(file, 128 + row * ROW_BYTES + 77)
    expected = f"{file}: {told} are damaged; delete {tmp_path / 'store'} and run again"
    with pytest.raises(ValueError, match=re.escape(expected)):
        open_tokens(tmp_path / "store", TinyEyes())
    assert open_tokens(tmp_path / "store", TinyEyes(), check=False).tokens.shape == (1, 25, 9, 8)


def test_damage_is_told_by_its_view_where_there_are_several(tmp_path: Path, small_blocks: None) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 100), 2)
    for row in range(0, 100, 10):
        flip_a_bit(tmp_path / "store" / "tokens.npy", 128 + (100 + row) * ROW_BYTES)
    flip_a_bit(tmp_path / "store" / "tokens.npy", 128 + 99 * ROW_BYTES)
    with pytest.raises(
        ValueError, match=r"npy: view 'plain', rows 90-99; view 'flip', rows 0-9; .* and 6 more are dam"
    ):
        verify(tmp_path / "store")


def test_files_that_are_cut_short_or_foreign_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 9, {7}))
    file, header = tmp_path / "store" / "tokens.npy", tmp_path / "store" / "tokens.json"
    whole, told = file.read_bytes(), header.read_text()
    for content in (whole[:-1], whole[:50], b"", whole + b"\0", b"some other file"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokens\.npy: .*; delete .*store and run again"):
            open_tokens(tmp_path / "store", TinyEyes(), check=False)
    file.unlink()
    with pytest.raises(ValueError, match=r"tokens\.npy: is missing"):
        open_tokens(tmp_path / "store", TinyEyes())
    wrong_row, wrong_size = told.replace('"skipped": [[7,', '"skipped": [[6,'), told.replace('"room": 9', '"room": 8')
    assert told not in (wrong_row, wrong_size)
    for damaged in ("", "{", "[]", told[: len(told) // 2], json.dumps({"format_version": 1}), wrong_row, wrong_size):
        header.write_text(damaged)
        with pytest.raises(ValueError, match=r"tokens\.json: is damaged .*; delete .*store and run again"):
            open_tokens(tmp_path / "store", TinyEyes())
    header.write_text(json.dumps(json.loads(told) | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        open_tokens(tmp_path / "store", TinyEyes())
    with pytest.raises(ValueError, match="nowhere: no complete cache of tokens there"):
        open_tokens(tmp_path / "nowhere", TinyEyes())


def test_another_backbone_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "store", pictures(tmp_path / "pictures", 3))
    other = TinyEyes("other", "f" * 64)
    expected = "store: holds tokens of the backbone 'tiny' (000000000000), not of 'other' (ffffffffffff)"
    with pytest.raises(ValueError, match=re.escape(expected)):
        open_tokens(tmp_path / "store", other)


def test_a_disk_that_is_too_small_is_told_before_anything_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, usage = pictures(tmp_path / "pictures", 100), type("Usage", (), {"free": 100 * ROW_BYTES - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(
        ValueError, match=r"store: cannot write the cache of tokens there: .* GB are needed and .* free"
    ):
        write(tmp_path / "store", paths)
    assert list((tmp_path / "store").iterdir()) == []


def write_on_a_full_disk(folder: str, images: str, num_views: str) -> None:
    """What the child process of the next test runs."""
    limit_file_size(12_000)
    write(Path(folder), sorted(Path(images).glob("*.png")), int(num_views))


@pytest.mark.parametrize("num_views", ["1", "2"])
def test_a_disk_that_fills_up_is_told_and_given_back(tmp_path: Path, num_views: str) -> None:
    pictures(tmp_path / "pictures", 100)
    failed = run_in_child(write_on_a_full_disk, tmp_path / "store", tmp_path / "pictures", num_views)
    told = failed.stderr.splitlines()[-1]
    assert re.match(r"ValueError: .*store: cannot write the cache of tokens there: .*File too large", told)
    assert list((tmp_path / "store").iterdir()) == []


def test_our_own_mistakes_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    def broken() -> Iterator[EncodedBatch]:
        raise RuntimeError("a bug in a backbone")
        yield

    with pytest.raises(RuntimeError, match="a bug in a backbone"):
        write_tokens(tmp_path, token_source(TinyEyes(), [], [], make_views(1, 0)), broken())


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of 3 pictures can be read; the first: .*0\.png: not an image"):
        write(tmp_path / "store", pictures(tmp_path / "pictures", 3, {0, 1, 2}))
    assert not (tmp_path / "store" / "tokens.json").exists()
