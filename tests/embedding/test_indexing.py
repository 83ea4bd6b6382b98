"""An indexing job: what is added, renewed, left alone, told and survived."""

import json
import os
import shutil
import signal
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from forclip.config import ModelConfig
from forclip.data.metadata import read_metadata
from forclip.embedding.ingest import IndexJob, StoreOptions, find_pictures, index_images
from forclip.index.image_index import Index
from forclip.index.store import read_vectors
from forclip.toyworld.dataset import ToyWorld
from tests.child import run_in_child


def index(job: IndexJob | str, to: Path, options: StoreOptions | None = None) -> str:
    """Runs a job with the bundled model; returns what it said."""
    said = Console(file=StringIO(), width=400)
    given = IndexJob(job) if isinstance(job, str) else job
    index_images(given, to, options or StoreOptions(num_query_tokens=4), "cpu", said)
    assert isinstance(said.file, StringIO)
    return said.file.getvalue()


@pytest.fixture
def photos(tmp_path: Path, small_world: ToyWorld) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:8]:
        shutil.copy(file, folder / file.name)
    return folder


def test_again_adds_only_what_is_new_or_changed(photos: Path, tmp_path: Path) -> None:
    to = tmp_path / "s"
    assert "8 added, 0 renewed, 0 were there, 0 could not be read" in index(str(photos), to)
    version = Index(to).store.version
    assert "0 added, 0 renewed, 8 were there" in index(str(photos), to)
    assert Index(to).store.version == version
    first, second, third, *_ = sorted(photos.iterdir())
    before = Index(to).store.files()
    os.utime(first, (1, 1))  # touched: the same content
    shutil.copy(third, second)  # other content
    third.unlink()
    shutil.copy(first, photos / "new.jpg")
    said = index(str(photos), to)
    assert "1 added, 1 renewed, 7 were there" in said or "1 added, 1 renewed, 6 were there" in said
    assert "1 are not there any more, still in the store" in said
    after = Index(to).store.files()
    assert after.keys() == before.keys() | {str(photos / "new.jpg")}
    assert after[str(second)].content_hash == before[str(third)].content_hash
    assert after[str(first)] == before[str(first)]
    assert after[str(first)].width == Image.open(first).width
    assert "1 are not there any more, deleted" in index(IndexJob(str(photos), delete_vanished=True), to)
    assert str(third) not in Index(to).store.ids()
    assert Index(to).verify() == []


def test_another_folder_is_no_reason_to_miss_the_first(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next(photos.iterdir()), other / "x.jpg")
    index(str(photos), tmp_path / "s")
    said = index(IndexJob(str(other), delete_vanished=True), tmp_path / "s")
    assert "1 added" in said
    assert "any more" not in said
    assert len(Index(tmp_path / "s")) == 9


def test_bad_pictures_are_listed_and_tried_again_on_request(photos: Path, tmp_path: Path) -> None:
    to, bad = tmp_path / "s", photos / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 not a picture")
    said = index(str(photos), to)
    assert "8 added, 0 renewed, 0 were there, 1 could not be read" in said
    assert f"{bad}: not an image" in said
    (told,) = json.loads((to / "skipped.json").read_text()).values()
    assert told["uri"] == str(bad)
    again = index(str(photos), to)
    assert "0 added, 0 renewed, 8 were there, 0 could not be read" in again
    assert "1 could not be read before and have not changed (--retry tries them again)" in again
    assert "1 could not be read:" in index(IndexJob(str(photos), retry=True), to)
    shutil.copy(next(photos.glob("gallery*")), bad)  # mended: it has changed, so it is tried
    assert "1 added" in index(str(photos), to)
    assert json.loads((to / "skipped.json").read_text()) == {}
    (to / "skipped.json").write_text("[")
    with pytest.raises(ValueError, match=r"skipped\.json: damaged"):
        index(str(photos), to)


def test_nothing_readable_makes_no_store(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"none of 1 pictures can be read; the first: .*bad\.jpg"):
        index(str(tmp_path / "photos"), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_metadata_come_with_pictures_and_later(photos: Path, tmp_path: Path) -> None:
    names = sorted(p.name for p in photos.iterdir())
    csv = photos.parent / "meta.csv"
    csv.write_text("image,speed\n" + "".join(f"photos/{n},{k}\n" for k, n in enumerate(names)))
    index(str(photos), tmp_path / "s")
    index(IndexJob(str(photos), metadata=read_metadata(csv)), tmp_path / "s")
    index(IndexJob(str(photos), metadata=read_metadata(csv)), tmp_path / "fresh")
    for to in ("s", "fresh"):
        found = Index(tmp_path / to).store.keys("speed >= 6")
        assert len(found) == 2


def test_annotation_files_name_pictures(small_world: ToyWorld, tmp_path: Path) -> None:
    paths = find_pictures(str(small_world.gallery_file), small_world.images)
    assert len(paths) == 60
    assert all(p.exists() for p in paths)
    with pytest.raises(ValueError, match="no such folder or file"):
        find_pictures(str(tmp_path / "nothing"), None)


def test_smaller_stores_find_the_same_objects(photos: Path, tmp_path: Path) -> None:
    """int8 and merged vectors are near the full ones; scores move by little."""
    index(str(photos), tmp_path / "full")
    index(str(photos), tmp_path / "int8", StoreOptions(num_query_tokens=4, precision="int8"))
    index(str(photos), tmp_path / "merged", StoreOptions(num_query_tokens=4, merge=0.9))
    full = Index(tmp_path / "full")
    query = full.view().parts[0].segment.decode(slice(0, 1))[0].astype("float32")
    scores = {r.image_id: r.score for r in full.search(query)}
    for name, bound in (("int8", 0.02), ("merged", 0.12)):
        other = Index(tmp_path / name)
        assert other.info()["vectors"] <= full.info()["vectors"]
        for r in other.search(query):
            assert r.score == pytest.approx(scores[r.image_id], abs=bound)
    assert Index(tmp_path / "merged").info()["vectors"] < full.info()["vectors"]


def test_a_store_goes_on_as_it_was_made(photos: Path, tmp_path: Path) -> None:
    """Its model, its number of vectors and its merging are its own; to ask for others is an error."""
    made = StoreOptions(num_query_tokens=5, precision="int8", merge=0.9)
    (tmp_path / "later").mkdir()
    first, *_ = sorted(photos.iterdir())
    shutil.copy(first, tmp_path / "later")
    index(str(photos), tmp_path / "s", made)
    index(str(tmp_path / "later"), tmp_path / "s", StoreOptions())
    header = Index(tmp_path / "s").store.header
    assert (header.precision, header.merge, header.model["num_query_tokens"]) == ("int8", 0.9, 5)
    codes: dict[str, list[list[int]]] = {}
    for part in read_vectors(Index(tmp_path / "s").store.table(), header.dim):
        spans = zip(part.offsets[:-1], part.offsets[1:], strict=True)
        codes |= dict(zip(part.images["id"].to_pylist(), [part.codes[s:e].tolist() for s, e in spans], strict=True))
    assert len(codes[str(tmp_path / "later" / first.name)]) == len(codes[str(first)])
    for options, told in (
        (StoreOptions(precision="fp16"), "made with precision int8, not fp16"),
        (StoreOptions(merge=0.5), r"made with merge 0\.9, not 0\.5"),
        (StoreOptions(num_query_tokens=9), "another model"),
        (StoreOptions(ModelConfig(), "global"), "another model"),
    ):
        with pytest.raises(ValueError, match=told):
            index(str(photos), tmp_path / "s", options)


@pytest.mark.parametrize("processes", [0, 2])
def test_processes_decode_as_threads_do(photos: Path, tmp_path: Path, processes: int) -> None:
    (photos / "bad.jpg").write_text("no picture")
    said = index(IndexJob(str(photos), processes=processes), tmp_path / "s")
    assert "8 added, 0 renewed, 0 were there, 1 could not be read" in said
    index(IndexJob(str(photos)), tmp_path / "plain")
    mine, plain = Index(tmp_path / "s"), Index(tmp_path / "plain")
    query = plain.view().parts[0].segment.decode(slice(0, 1))[0].astype("float32")
    assert mine.search(query) == plain.search(query)
    assert mine.store.files() == plain.store.files()


def index_until_killed(photos: str, to: str) -> None:
    """What the child of the next test runs: it dies when one part is stored and the next is on its way."""
    import forclip.embedding.ingest as module

    module._IMAGES_A_PART = 64  # one batch
    put = Index.put

    def put_and_die(self: Index, *given: object) -> None:
        put(self, *given)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    Index.put = put_and_die  # type: ignore[assignment,method-assign]
    index(photos, Path(to))


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, small_world: ToyWorld) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pictures = sorted(small_world.images.glob("*.jpg"))[:130]
    for picture in pictures:
        shutil.copy(picture, photos / picture.name)
    killed = run_in_child(index_until_killed, photos, tmp_path / "s")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(Index(tmp_path / "s")) == 64
    assert "66 added, 0 renewed, 64 were there" in index(str(photos), tmp_path / "s")
    assert len(Index(tmp_path / "s")) == 130
    assert Index(tmp_path / "s").verify() == []
