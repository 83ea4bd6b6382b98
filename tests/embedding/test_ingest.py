"""Indexing a source: new, changed, unreadable and vanished images, and jobs that were killed."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from forclip.config import ModelConfig
from forclip.data.images.tiles import Tiles
from forclip.data.metadata import read_metadata
from forclip.embedding.describe_store import describe_store
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.list_source import find_images
from forclip.embedding.run_options import RunOptions
from forclip.embedding.skipped_list import read_unreadable
from forclip.index.image_index import Index
from forclip.index.table import read_vectors
from forclip.location import local_path
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.retrieval_model import no_class_vectors, save_pretrained
from forclip.models.summary_head import window_seeded_head
from forclip.progress import Notice
from forclip.search.searcher import open_searcher
from forclip.toyworld.dataset import ToyWorld
from tests.child import run_in_child


def index(source: Path | str, to: Path, **options: Any) -> IndexSummary:
    """Index with four vectors per image by default."""
    mini = {} if to.exists() else {"model": ModelConfig("forclip-mini")}
    return index_images(str(source), to, **({"num_query_tokens": 4} | mini | options))


def counts(summary: IndexSummary) -> tuple[int, int, int, int]:
    """Added, updated, unchanged, unreadable."""
    return summary.added, summary.updated, summary.unchanged, len(summary.unreadable)


@pytest.fixture
def photos(tmp_path: Path, small_world: ToyWorld) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:8]:
        shutil.copy(file, folder / file.name)
    return folder


def test_indexing_again_adds_only_new_and_changed_images(photos: Path, tmp_path: Path, small_world: ToyWorld) -> None:
    to = tmp_path / "s"
    assert counts(index(photos, to)) == (8, 0, 0, 0)
    version = Index(to).store.version
    assert counts(index(photos, to)) == (0, 0, 8, 0)
    assert Index(to).store.version == version
    first, second, third, *_ = sorted(photos.iterdir())
    before = Index(to).store.files()
    os.utime(first, (1, 1))  # the same content
    shutil.copy(sorted(small_world.images.glob("gallery_*.jpg"))[20], second)  # other content
    third.unlink()
    shutil.copy(first, photos / "new.jpg")
    summary = index(photos, to)
    assert counts(summary) == (1, 1, 6, 0)
    assert summary.vanished == (f"photos/{third.name}",)
    after = Index(to).store.files()
    assert after.keys() == before.keys() | {"photos/new.jpg"}
    assert after[f"photos/{second.name}"].content_hash != before[f"photos/{second.name}"].content_hash
    assert after[f"photos/{first.name}"] == before[f"photos/{first.name}"]
    assert after[f"photos/{first.name}"].width == Image.open(first).width
    assert index(photos, to, delete_vanished=True).vanished == (f"photos/{third.name}",)
    assert f"photos/{third.name}" not in Index(to).store.ids()
    assert Index(to).verify() == []


def test_images_of_another_folder_are_not_vanished(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(photos.iterdir()), other / "x.jpg")
    index(photos, tmp_path / "s")
    summary = index(other, tmp_path / "s", delete_vanished=True)
    assert (summary.added, summary.vanished) == (1, ())
    assert len(Index(tmp_path / "s")) == 9


def test_unreadable_images_are_listed_and_tried_again_on_request(photos: Path, tmp_path: Path) -> None:
    to, bad = tmp_path / "s", photos / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 not a picture")
    summary = index(photos, to)
    assert counts(summary) == (8, 0, 0, 1)
    assert str(bad) in summary.unreadable["photos/bad.jpg"].reason
    (listed,) = read_unreadable(to).values()
    assert listed.uri == "photos/bad.jpg"
    again = index(photos, to)
    assert counts(again) == (0, 0, 8, 0)
    assert again.skipped == 1
    assert counts(index(photos, to, retry=True)) == (0, 0, 8, 1)
    shutil.copy(next(photos.glob("gallery*")), bad)  # it has changed, so it is tried
    assert counts(index(photos, to)) == (1, 0, 8, 0)
    assert read_unreadable(to) == {}
    bad.write_bytes(b"\xff\xd8 not a picture")  # stored, and now unreadable
    assert counts(index(photos, to)) == (0, 0, 8, 1)
    (to / "skipped.json").write_text("[")
    with pytest.raises(ValueError, match=r"skipped\.json"):
        index(photos, to)


def test_without_a_readable_image_no_store_is_created(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        index(tmp_path / "photos", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_metadata_come_with_pictures_and_later(photos: Path, tmp_path: Path) -> None:
    names = sorted(p.name for p in photos.iterdir())
    csv = photos.parent / "meta.csv"
    csv.write_text("image,speed\n" + "".join(f"photos/{n},{k}\n" for k, n in enumerate(names)))
    index(photos, tmp_path / "s")
    index(photos, tmp_path / "s", metadata=read_metadata(csv))
    index(photos, tmp_path / "fresh", metadata=read_metadata(csv))
    for to in ("s", "fresh"):
        found = Index(tmp_path / to).store.keys("speed >= 6")
        assert len(found) == 2


def test_a_yolo_file_names_the_pictures_of_all_splits(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / split / "images").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "images" / f"{split}.jpg")
    file = tmp_path / "data.yaml"
    file.write_text("train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]\n")
    assert {local_path(p).stem for p in find_images(str(file), None).pictures} == {"train", "valid", "test"}


def test_annotation_files_name_pictures(small_world: ToyWorld, tmp_path: Path) -> None:
    paths = find_images(str(small_world.gallery_file), small_world.images).pictures
    assert len(paths) == 60
    assert all(local_path(p).exists() for p in paths)
    with pytest.raises(ValueError, match="nothing"):
        find_images(str(tmp_path / "nothing"), None)


def test_a_folder_of_labels_beside_its_pictures(small_world: ToyWorld, tmp_path: Path) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "pictures").mkdir()
    shutil.copy(next(small_world.images.glob("gallery_*.jpg")), tmp_path / "pictures" / "a.jpg")
    (tmp_path / "xml" / "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    store = tmp_path / "store"
    (tmp_path / "images").symlink_to(tmp_path / "pictures")
    assert find_images(str(tmp_path / "xml"), None).pictures == (tmp_path / "images" / "a.jpg",)
    assert counts(index(tmp_path / "xml", store, images=tmp_path / "pictures")) == (1, 0, 0, 0)
    again = index(tmp_path / "xml", store, images=tmp_path / "pictures")
    assert (counts(again), again.vanished) == ((0, 0, 1, 0), ())


def test_a_folder_of_labels_and_pictures_gives_all_pictures(tmp_path: Path) -> None:
    """Whether or not they have labels; but VOC's masks are none."""
    for name in ("a.jpg", "a.png", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a.xml").write_text("<annotation/>")
    assert [p.name for p in find_images(str(tmp_path), None).pictures] == ["a.jpg", "a.png", "b.jpg"]
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").touch()
    assert find_images(str(tmp_path), None).pictures == (tmp_path / "JPEGImages" / "a.jpg",)


def test_smaller_stores_find_the_same_objects(photos: Path, tmp_path: Path) -> None:
    """int8 and merged vectors are near the full ones; scores move by little."""
    index(photos, tmp_path / "full")
    index(photos, tmp_path / "int8", precision="int8")
    index(photos, tmp_path / "merged", merge=0.9)
    full = Index(tmp_path / "full")
    query = full.view().parts[0].segment.decode(slice(0, 1))[0].astype("float32")
    scores = {r.image_id: r.score for r in full.search(query)}
    for name, bound in (("int8", 0.02), ("merged", 0.12)):
        other = Index(tmp_path / name)
        assert other.info()["vectors"] <= full.info()["vectors"]
        for r in other.search(query):
            assert r.score == pytest.approx(scores[r.image_id], abs=bound)
    assert Index(tmp_path / "merged").info()["vectors"] < full.info()["vectors"]


def test_a_store_keeps_its_options(photos: Path, tmp_path: Path) -> None:
    """The model, the number of vectors, the precision and merging are the store's; other choices are refused."""
    (tmp_path / "later").mkdir()
    first, *_ = sorted(photos.iterdir())
    shutil.copy(first, tmp_path / "later")
    index(photos, tmp_path / "s", num_query_tokens=5, precision="int8", merge=0.9)
    index(tmp_path / "later", tmp_path / "s", num_query_tokens=None)
    header = Index(tmp_path / "s").store.header
    assert (header.precision, header.merge, header.model["num_query_tokens"]) == ("int8", 0.9, 5)
    codes: dict[str, list[list[int]]] = {}
    for part in read_vectors(Index(tmp_path / "s").store.table(), header.dim):
        spans = zip(part.offsets[:-1], part.offsets[1:], strict=True)
        codes |= dict(zip(part.images["id"].to_pylist(), [part.codes[s:e].tolist() for s, e in spans], strict=True))
    assert len(codes[f"later/{first.name}"]) == len(codes[f"photos/{first.name}"])
    for options, named in (
        ({"precision": "fp16"}, "int8, not fp16"),
        ({"merge": 0.5}, r"0\.9, not 0\.5"),
        ({"max_vectors": 3}, "max_vectors None, not 3"),
        ({"tiles": "2x2"}, "tiles none, not 2x2"),
        ({"num_query_tokens": 9}, "another model"),
        ({"model": ModelConfig("forclip-mini"), "head": "global"}, "another model"),
    ):
        with pytest.raises(ValueError, match=named):
            index(photos, tmp_path / "s", **({"num_query_tokens": None} | options))
    with pytest.raises(ValueError, match=r"num_query_tokens 9 .*cluster_3"):
        index(photos, tmp_path / "other", head="cluster_3", num_query_tokens=9)


def test_tiles_are_the_stores(photos: Path, tmp_path: Path) -> None:
    """They add vectors, are kept when the store grows, and other tiles are refused by name."""
    to = tmp_path / "s"
    (tmp_path / "later").mkdir()
    first, *_ = sorted(photos.iterdir())
    shutil.copy(first, tmp_path / "later")
    index(photos, to, tiles="2x2")
    index(tmp_path / "later", to, num_query_tokens=None)
    index(tmp_path / "later", to, num_query_tokens=None, tiles="auto")
    assert Index(to).info()["vectors"] == 9 * 5 * 4
    assert open_searcher(to).model.tiles == Tiles(2, 2)
    assert describe_store(Index(to))["model tiles"] == "2x2"
    for options, named in (
        ({"tiles": "3x3"}, "2x2, not 3x3"),
        ({"tiles": "none"}, "2x2, not none"),
        ({"tiles": "2x2", "tile_overlap": 0.25}, r"2x2, not 2x2 overlapping by 0\.25"),
        ({"model": ModelConfig("forclip-mini", tiles="3x3")}, "2x2, not 3x3"),
        ({"tiles": "three"}, "'three'"),
        ({"tile_overlap": 0.25}, r"0\.25 needs tiles"),
    ):
        with pytest.raises(ValueError, match=named):
            index(photos, to, **({"num_query_tokens": None} | options))


def test_a_run_is_indexed_with_its_own_tiles_or_with_others(photos: Path, tmp_path: Path) -> None:
    backbone = load_open_clip("forclip-mini", None)
    pool, tiled = backbone.new_pool(), ModelConfig("forclip-mini", tiles="2x2")
    save_pretrained(tmp_path / "run", window_seeded_head(pool, 3), no_class_vectors(pool.dim), backbone, tiled, ("{}",))
    run = ModelConfig(str(tmp_path / "run"))
    for name, tiles, parts in (("own", None, 5), ("auto", "auto", 5), ("one pass", "none", 1), ("more", "1x2", 3)):
        index(photos, tmp_path / name, model=run, num_query_tokens=None, tiles=tiles)
        assert Index(tmp_path / name).info()["vectors"] == 8 * parts * 3
        index(photos, tmp_path / name, model=run, num_query_tokens=None)
    searcher = open_searcher(tmp_path / "one pass")
    with Image.open(sorted(photos.iterdir())[0]) as picture:
        assert searcher.encode_image(picture).shape[0] == 3


def test_auto_chooses_by_the_size_of_the_pictures(photos: Path, tmp_path: Path) -> None:
    for name, side, expected in (("small", 96, "none"), ("large", 192, "3x3")):
        (tmp_path / f"{name} pictures").mkdir()
        for file in photos.iterdir():
            with Image.open(file) as image:
                image.resize((side, side)).save(tmp_path / f"{name} pictures" / file.name)
        with pytest.warns(Notice, match=rf"auto: {expected}, .*{side} x {side} pixels"):
            index(tmp_path / f"{name} pictures", tmp_path / name, tiles="auto")
        assert Index(tmp_path / name).store.header.model["tiles"] == expected


def test_an_image_has_no_more_vectors_than_the_limit(photos: Path, tmp_path: Path) -> None:
    to = tmp_path / "s"
    index(photos, to, tiles="2x2", max_vectors=6)
    (tmp_path / "later").mkdir()
    shutil.copy(sorted(photos.iterdir())[0], tmp_path / "later")
    index(tmp_path / "later", to, num_query_tokens=None)
    found = Index(to)
    assert (len(found), found.info()["vectors"]) == (9, 54)
    assert found.info()["max_vectors"] == 6
    assert found.verify() == []
    with Image.open(sorted(photos.iterdir())[0]) as picture:
        (best, *_) = open_searcher(to).search_image(picture.convert("RGB"), k=2)
    assert best.score == pytest.approx(1, abs=5e-3)
    with pytest.raises(ValueError, match="not at most 0"):
        index(photos, tmp_path / "other", max_vectors=0)


@pytest.mark.parametrize("processes", [0, 2])
def test_processes_decode_as_threads_do(photos: Path, tmp_path: Path, processes: int) -> None:
    (photos / "bad.jpg").write_text("no picture")
    assert counts(index(photos, tmp_path / "s", processes=processes)) == (8, 0, 0, 1)
    index(photos, tmp_path / "plain")
    mine, plain = Index(tmp_path / "s"), Index(tmp_path / "plain")
    query = plain.view().parts[0].segment.decode(slice(0, 1))[0].astype("float32")
    assert mine.search(query) == plain.search(query)
    assert mine.store.files() == plain.store.files()


def index_until_killed(photos: str, to: str) -> None:
    """Run by the next test in a child process, which dies after the first slice is stored."""
    put = Index.put

    def put_and_die(self: Index, *given: object) -> None:
        put(self, *given)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    Index.put = put_and_die  # type: ignore[assignment,method-assign]
    index(photos, Path(to), run=RunOptions(images_per_commit=64))


def test_a_killed_job_continues_where_it_was(tmp_path: Path, small_world: ToyWorld) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pictures = sorted(small_world.images.glob("*.jpg"))[:130]
    for picture in pictures:
        shutil.copy(picture, photos / picture.name)
    killed = run_in_child(index_until_killed, photos, tmp_path / "s")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(Index(tmp_path / "s")) == 64
    assert counts(index(photos, tmp_path / "s")) == (66, 0, 64, 0)
    assert len(Index(tmp_path / "s")) == 130
    assert Index(tmp_path / "s").verify() == []


@pytest.mark.parametrize("moves", [False, True])
def test_pictures_in_a_folder_that_cannot_be_read_have_not_vanished(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    """Also if the whole folder has moved since it was indexed."""
    (photos / "secret").mkdir()
    files = sorted(photos.glob("*.jpg"))
    files[0].rename(photos / "secret" / "a.jpg")
    index(photos, tmp_path / "s")
    scan = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files[1].unlink()
    if moves:
        photos = photos.rename(tmp_path / "moved")
    summary = index(photos, tmp_path / "s", delete_vanished=True)
    assert len(summary.vanished) == 1
    assert [part.examples for part in summary.not_indexed.values()] == [(str(photos / "secret"),)]
    assert len(Index(tmp_path / "s")) == len(files) - 1


def test_a_single_picture_is_indexed(photos: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted(photos.glob("*.jpg"))
    assert index(first, tmp_path / "s").added == 1
    summary = index(second, tmp_path / "s")
    assert (summary.added, summary.vanished) == (1, ())
    with pytest.raises(ValueError, match="nothing"):
        index(photos / "nothing.jpg", tmp_path / "s")
