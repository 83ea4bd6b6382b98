import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from forclip.data import annotation_cache
from forclip.data.annotation_cache import cached_annotations
from forclip.location import local_path
from forclip.types import Annotations, SkippedEntry


def example(folder: Path, federated: bool = True) -> Annotations:
    """Three images and eleven classes: labels end inside a byte. One file name is not UTF-8, one is no ASCII."""
    rng = np.random.default_rng(0)
    labels = rng.random((3, 11)) < 0.4
    names = ["a.jpg", "sub/käse.jpg", os.fsdecode(b"caf\xe9.jpg")]
    return Annotations(
        image_ids=("1", "zwei", "3\n"),
        paths=tuple(folder / name for name in names),
        class_names=tuple(f"class {k} \u2603 \0" for k in range(11)),
        labels=labels,
        boxes=rng.random((5, 4)).astype(np.float32),
        box_images=np.array([0, 2, 1, 1, 0]),
        box_classes=np.array([10, 0, 3, 3, 9]),
        verified=labels | (rng.random((3, 11)) < 0.3) if federated else None,
        synonyms=tuple(("a", "b")[: k % 3] for k in range(11)) if federated else (),
        frequencies=tuple("rcf"[k % 3] for k in range(11)) if federated else (),
        skipped=(
            SkippedEntry("file.json: annotation 7", "unknown image_id", "'\udcff'"),
            SkippedEntry("file.json: annotation 8", "the box is not finite", "[nan]", used_in_part=True),
        ),
    )


def assert_same(found: Annotations, expected: Annotations) -> None:
    for field in fields(Annotations):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert type(mine) is type(theirs), field.name
        if isinstance(theirs, np.ndarray):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field.name
            assert mine.flags.writeable
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs, field.name


class Source:
    """An annotation file, an image folder, and a reader of them that counts how often it has to read."""

    def __init__(self, folder: Path) -> None:
        self.file, self.images, self.cache = folder / "file.json", folder / "images", folder / "made" / "cache"
        self.images.mkdir()
        self.file.write_text("content")
        self.reads = 0

    def load(self, file: Path, images: Path) -> Annotations:
        self.reads += 1
        return example(images)

    def get(self, kind: str = "coco", images: Path | None = None) -> Annotations:
        return cached_annotations(self.file, images or self.images, kind, self.load, self.cache)

    def copies(self) -> list[Path]:
        return sorted(self.cache.iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.mark.parametrize("federated", [True, False])
def test_cached_annotations_equal_those_read(source: Source, federated: bool) -> None:
    expected = example(source.images, federated)
    cached_annotations(source.file, source.images, "coco", lambda file, images: expected, source.cache)
    found = cached_annotations(source.file, source.images, "coco", source.load, source.cache)
    assert source.reads == 0
    assert_same(found, expected)
    assert os.fsencode(local_path(found.paths[2])).endswith(b"caf\xe9.jpg")


@given(shape=st.tuples(st.integers(0, 9), st.integers(0, 20)), data=st.data())
def test_any_labels_survive(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "file.json").touch()
    (folder / "images").mkdir()
    labels = data.draw(arrays.arrays(bool, shape))
    texts = st.lists(st.text(st.characters(), max_size=3), min_size=shape[1], max_size=shape[1], unique=True)
    none = np.zeros(0, np.int64)
    expected = Annotations(
        image_ids=tuple(map(str, range(shape[0]))),
        paths=tuple(Path(f"{k}.jpg") for k in range(shape[0])),
        class_names=tuple(data.draw(texts)),
        labels=labels,
        boxes=np.zeros((0, 4), np.float32),
        box_images=none,
        box_classes=none,
        verified=data.draw(st.none() | st.just(~labels)),
    )
    for _ in range(2):
        found = cached_annotations(
            folder / "file.json", folder, "coco", lambda file, images: expected, folder / "cache"
        )
        assert_same(found, expected)


def test_the_file_is_read_once(source: Source) -> None:
    for _ in range(3):
        assert_same(source.get(), example(source.images))
    assert source.reads == 1


def test_a_picture_that_arrives_in_a_folder_makes_the_copy_stale(source: Source) -> None:
    """Names may be resolved by what is in the folders of the pictures."""
    (source.images / "sub").mkdir()
    source.get()
    os.utime(source.images, ns=(1, 1))
    source.get()
    (source.images / "sub" / "new.jpg").touch()
    os.utime(source.images, ns=(1, 1))
    source.get()
    source.get()
    assert source.reads == 3


def test_there_is_no_copy_while_files_are_not_found(source: Source) -> None:
    skipped = (SkippedEntry("file.json: image 7", "the file is not in the image folder", "/elsewhere/x.jpg"),)

    def load(file: Path, images: Path) -> Annotations:
        return replace(source.load(file, images), skipped=skipped)

    for _ in range(2):
        cached_annotations(source.file, source.images, "coco", load, source.cache)
    assert source.reads == 2


def test_a_cache_in_the_image_folder_does_not_make_itself_stale(source: Source) -> None:
    source.cache = source.images / "cache"
    for _ in range(3):
        source.get()
    assert source.reads == 1


def test_without_a_cache_nothing_is_kept(source: Source) -> None:
    for _ in range(2):
        cached_annotations(source.file, source.images, "coco", source.load, None)
    assert source.reads == 2
    assert not source.cache.exists()


def test_each_format_file_and_folder_has_its_own_copy(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another spelling of the folder makes other paths, so it is another folder."""
    monkeypatch.chdir(source.images.parent)
    for _ in range(2):
        source.get()
        source.get("lvis")
        assert source.get(images=Path("images")).paths[0] == Path("images/a.jpg")
    assert source.reads == len(source.copies()) == 3


def rewrite(source: Source) -> None:
    source.file.write_text("other content")


def touch_file(source: Source) -> None:
    os.utime(source.file, ns=(0, source.file.stat().st_mtime_ns + 1))


def add_a_picture(source: Source) -> None:
    os.utime(source.images, ns=(0, source.images.stat().st_mtime_ns + 1))


def remove_the_pictures(source: Source) -> None:
    source.images.rmdir()


@pytest.mark.parametrize("change", [rewrite, touch_file, add_a_picture, remove_the_pictures])
def test_a_stale_copy_is_replaced(source: Source, change: Callable[[Source], None]) -> None:
    source.get()
    (before,) = source.copies()
    old = before.read_bytes()
    change(source)
    assert_same(source.get(), example(source.images))
    assert source.reads == 2
    assert source.copies() == [before]
    assert before.read_bytes() != old
    source.get()
    assert source.reads == 2


def test_a_copy_of_another_format_is_replaced(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.get()
    monkeypatch.setattr(annotation_cache, "FORMAT_VERSION", annotation_cache.FORMAT_VERSION + 1)
    source.get()
    assert source.reads == 2


def test_a_copy_with_any_byte_changed_or_missing_is_replaced(source: Source) -> None:
    source.get()
    (copy,) = source.copies()
    whole = copy.read_bytes()
    places = np.random.default_rng(0).integers(0, len(whole), 40).tolist()
    flipped = [whole[:k] + bytes([whole[k] ^ 4]) + whole[k + 1 :] for k in (*places, 0, 31, 32, len(whole) - 1)]
    damaged = [*flipped, b"", whole[:7], whole[:32], whole[:-1], whole + b"\0", bytes(len(whole))]
    for k, content in enumerate(damaged):
        copy.write_bytes(content)
        assert_same(source.get(), example(source.images))
        assert source.reads == k + 2
        assert copy.read_bytes() == whole


def test_a_copy_that_is_a_folder_is_only_a_warning(source: Source) -> None:
    source.get()
    (copy,) = source.copies()
    copy.unlink()
    copy.mkdir()
    with pytest.warns(UserWarning, match=r"the copy of .*file\.json can't be kept: Is a directory"):
        assert_same(source.get(), example(source.images))
    assert source.copies() == [copy]


def test_a_cache_that_can_not_be_written_is_only_a_warning(source: Source) -> None:
    source.cache = source.file / "cache"
    with pytest.warns(UserWarning, match="can't be kept: Not a directory"):
        assert_same(source.get(), example(source.images))


def test_a_writer_that_is_stopped_leaves_no_copy(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        source.get()
    assert source.copies() == []


def test_a_file_that_changes_while_it_is_read_is_read_again(source: Source) -> None:
    """The copy is of the time before the change, and so stale."""
    read = source.load

    def load_slowly(file: Path, images: Path) -> Annotations:
        found = read(file, images)
        rewrite(source)
        return found

    source.load = load_slowly  # type: ignore[method-assign]
    source.get()
    source.load = read  # type: ignore[method-assign]
    source.get()
    assert source.reads == 2


def test_errors_are_those_of_the_reader(source: Source) -> None:
    def refuse(file: Path, images: Path) -> Annotations:
        raise ValueError(f"{file}: no such annotation file")

    source.file.unlink()
    with pytest.raises(ValueError, match=r"file\.json: no such annotation file"):
        cached_annotations(source.file, source.images, "coco", refuse, source.cache)
    assert not source.cache.exists()
