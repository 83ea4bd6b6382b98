"""Stores, runs and photos that move: nothing is lost, embedded again, or listed twice."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

from forclip.config import ModelConfig
from forclip.embedding import migrate
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.migrate import migrate_store, needs_migration
from forclip.embedding.relocate import describe_roots, relocate_roots
from forclip.embedding.skipped_list import read_unreadable
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.retrieval_model import no_class_vectors, save_pretrained
from forclip.models.summary_head import window_seeded_head
from forclip.search.look import look_for
from forclip.search.searcher import open_searcher
from forclip.toyworld.dataset import ToyWorld

MINI = ModelConfig("forclip-mini")


def index(source: Path | str, to: Path, **options: Any) -> IndexSummary:
    return index_images(str(source), to, **({"model": MINI} | options))


@pytest.fixture
def photos(tmp_path: Path, small_world: ToyWorld) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for k, file in enumerate(sorted(small_world.images.glob("gallery_*.jpg"))[:6]):
        shutil.copy(file, folder / ("sub" if k % 2 else ".") / file.name)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A trained run: the mini model with a small head."""
    backbone, folder = load_open_clip("forclip-mini", None), tmp_path / "run"
    pool = backbone.new_pool()
    head = window_seeded_head(pool, 3).eval()
    save_pretrained(folder, head, no_class_vectors(pool.dim), backbone, MINI, ("a photo of a {}",))
    (folder / "split.json").write_text(json.dumps({"base": ["cat"], "novel": ["dog"]}))
    return folder


def results(store: Path, **options: Any) -> list[tuple[str, float]]:
    """Name and score of all images for a text; every file must be there."""
    found = open_searcher(store, **options).search("cat", 50)
    assert all(Path(r.uri).is_file() for r in found)
    return [(Path(r.uri).name, r.score) for r in found]


def keys(store: Path) -> dict[str, int]:
    table = Index(store).store.table().to_table(["id", "number"])
    return dict(zip(table["id"].to_pylist(), table["number"].to_pylist(), strict=True))


def test_a_store_is_whole_without_the_run_that_wrote_it(photos: Path, tmp_path: Path, run: Path) -> None:
    index(photos, tmp_path / "s", model=ModelConfig(str(run)))
    before = results(tmp_path / "s")
    shutil.rmtree(run)
    os.rename(tmp_path / "s", tmp_path / "moved")
    searcher = open_searcher(tmp_path / "moved")
    assert results(tmp_path / "moved") == before
    assert searcher.model.class_vectors is not None
    assert index(photos, tmp_path / "moved", model=None).unchanged == 6


def test_errors_that_are_not_about_the_weights_do_not_ask_for_them(photos: Path, tmp_path: Path, run: Path) -> None:
    index(photos, tmp_path / "s", model=ModelConfig(str(run)))
    with pytest.raises(ValueError, match="'tpu'") as device:
        open_searcher(tmp_path / "s", "tpu")
    with pytest.raises(ValueError, match="global") as head:
        index(photos, tmp_path / "s", model=None, head="global")
    assert "--model" not in f"{device.value} {head.value}"


def test_everything_moves_together(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    os.rename(photos, tmp_path / "disk" / "photos")
    index(tmp_path / "disk" / "photos", tmp_path / "disk" / "s")
    before = results(tmp_path / "disk" / "s")
    os.rename(tmp_path / "disk", tmp_path / "mounted")
    assert results(tmp_path / "mounted" / "s") == before
    summary = index(tmp_path / "mounted" / "photos", tmp_path / "mounted" / "s", delete_vanished=True)
    assert (summary.added, summary.unchanged, summary.vanished) == (0, 6, ())


def test_weights_that_moved_are_named(photos: Path, tmp_path: Path, run: Path) -> None:
    """`--model` on search and index: accepted if the weights are those that wrote the store."""
    weights = tmp_path / "weights.safetensors"
    shutil.copy(Path(migrate.__file__).parents[1] / "models/mini_clip/forclip-mini.safetensors", weights)
    index(photos, tmp_path / "s", model=replace(MINI, pretrained=str(weights)))
    before = results(tmp_path / "s")
    os.rename(weights, tmp_path / "elsewhere.safetensors")
    with pytest.raises(ValueError, match=r"--model.*weights\.safetensors"):
        open_searcher(tmp_path / "s")
    moved = replace(MINI, pretrained=str(tmp_path / "elsewhere.safetensors"))
    assert results(tmp_path / "s", model_override=moved) == before
    with pytest.raises(ValueError, match="another model"):
        open_searcher(tmp_path / "s", model_override=replace(MINI, pretrained="random"))
    index(photos, tmp_path / "s", model=moved)  # a writer remembers it
    assert results(tmp_path / "s") == before
    index(photos, tmp_path / "t", model=ModelConfig(str(run)))
    os.rename(run, tmp_path / "run2")
    assert results(tmp_path / "t", model_override=ModelConfig(str(tmp_path / "run2"))) == results(tmp_path / "t")
    assert results(tmp_path / "t", model_override=moved) == results(tmp_path / "t")
    save_file({k: v + 1 for k, v in load_file(moved.pretrained or "").items()}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="trained on other weights"):
        open_searcher(tmp_path / "t", model_override=replace(MINI, pretrained=str(tmp_path / "other.safetensors")))
    with pytest.raises(ValueError, match="another model"):
        index(photos, tmp_path / "t", model=MINI)
    with pytest.raises(ValueError, match="another model"):
        index(photos, tmp_path / "s", model=ModelConfig(str(tmp_path / "run2")))


def test_relative_weights_work_from_any_directory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(
        Path(migrate.__file__).parents[1] / "models/mini_clip/forclip-mini.safetensors", tmp_path / "w.safetensors"
    )
    monkeypatch.chdir(tmp_path)
    index("photos", Path("s"), model=replace(MINI, pretrained="w.safetensors"))
    before = results(Path("s"))
    monkeypatch.chdir("/")
    assert results(tmp_path / "s") == before


def test_a_folder_that_moved_is_recognised(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    before, stored = results(tmp_path / "s"), keys(tmp_path / "s")
    os.rename(photos, tmp_path / "new")
    with pytest.raises(ValueError, match="photos"):
        index(photos, tmp_path / "s")  # the folder is gone, and nothing was said about deleting
    summary = index(tmp_path / "new", tmp_path / "s", delete_vanished=True)
    assert (summary.added, summary.updated, summary.moved, summary.vanished) == (0, 0, 6, ())
    assert results(tmp_path / "s") == before
    assert keys(tmp_path / "s") == stored  # no image was written


def test_a_folder_that_moved_inside_another_is_recognised(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    before = results(tmp_path / "s")
    (tmp_path / "archive").mkdir()
    os.rename(photos, tmp_path / "archive" / "2024")
    summary = index(tmp_path / "archive", tmp_path / "s", delete_vanished=True)
    assert (summary.added, summary.moved, summary.vanished) == (0, 6, ())
    assert results(tmp_path / "s") == before


def test_roots_within_each_other_move_together(photos: Path, tmp_path: Path) -> None:
    index(photos / "sub", tmp_path / "s")
    index(photos, tmp_path / "s")
    before = results(tmp_path / "s")
    os.rename(photos, tmp_path / "new")
    summary = index(tmp_path / "new", tmp_path / "s", delete_vanished=True)
    assert (summary.added, summary.moved, summary.unchanged, summary.vanished) == (0, 6, 0, ())
    assert results(tmp_path / "s") == before


def test_a_few_pictures_do_not_move_a_root(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    (tmp_path / "new").mkdir()
    first = min(photos.glob("*.jpg"))
    os.rename(first, tmp_path / "new" / first.name)
    shutil.rmtree(photos)
    assert index(tmp_path / "new", tmp_path / "s").moved == 1
    store = Index(tmp_path / "s").store
    assert sorted(i.partition("/")[0] for i in store.ids()) == ["new", *["photos"] * 5]
    assert store.roots.folders["photos"] == str(photos)


def test_renamed_files_keep_vectors_and_metadata(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    names = sorted(Index(tmp_path / "s").store.ids())
    Index(tmp_path / "s").store.annotate(names, {"shift": list(range(6))})
    before, stored = results(tmp_path / "s"), keys(tmp_path / "s")
    first, second, third, *_ = sorted(photos.glob("*.jpg"))
    os.rename(first, photos / "renamed.jpg")
    os.rename(second, first)  # a name that another image had
    shutil.copy(third, photos / "copy.jpg")  # both exist: a new image
    summary = index(photos, tmp_path / "s")
    assert (summary.added, summary.moved, summary.updated) == (1, 2, 0)
    after = Index(tmp_path / "s").store
    assert after.ids() == {f"photos/{p.relative_to(photos).as_posix()}" for p in photos.rglob("*.jpg")}
    columns = after.table().to_table(["id", "shift"])
    shift = dict(zip(columns["id"].to_pylist(), columns["shift"].to_pylist(), strict=True))
    assert shift["photos/renamed.jpg"] == names.index(f"photos/{first.name}")
    assert keys(tmp_path / "s")["photos/renamed.jpg"] not in stored.values()
    scores = dict(results(tmp_path / "s"))
    assert scores["renamed.jpg"] == dict(before)[first.name]
    assert scores[first.name] == dict(before)[second.name]
    assert Index(tmp_path / "s").verify() == []


def test_files_that_exchange_names_keep_their_vectors(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a long chain of renames, and parts of one move."""
    monkeypatch.setattr("forclip.embedding.ingest._IMAGES_PER_PART", 1)
    for file in (photos / "sub").iterdir():
        os.rename(file, photos / file.name)
    index(photos, tmp_path / "s")
    content = {r[1]: (photos / r[0]).read_bytes() for r in results(tmp_path / "s")}
    a, b, c, d, e, f = sorted(photos.glob("*.jpg"))
    for old, new in ((a, "x"), (b, a), ("x", b), (f, "y.jpg"), (e, f), (d, e), (c, d)):
        os.rename(photos / old, photos / new)
    summary = index(photos, tmp_path / "s")
    assert (summary.added, summary.updated, summary.moved, summary.vanished) == (0, 0, 6, ())
    assert {score: (photos / name).read_bytes() for name, score in results(tmp_path / "s")} == content
    assert Index(tmp_path / "s").verify() == []


def test_relocate_says_where_photos_are(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    reader = open_searcher(tmp_path / "s")
    before = results(tmp_path / "s")
    os.rename(photos, tmp_path / "new")
    assert [root["state"] for root in describe_roots(reader.index)] == ["missing"]
    (tmp_path / "empty").mkdir()
    for assignment, named in (
        ("photos=" + str(tmp_path / "nothing"), "nothing"),
        ("photos=" + str(tmp_path / "empty"), "gallery_"),
        ("pictures=" + str(tmp_path / "new"), "'pictures'"),
        ("photos", "ROOT=FOLDER"),
        ("photos=s3://photos/new", "s3://photos/new: a root is a folder"),
    ):
        with pytest.raises(ValueError, match=named):
            relocate_roots(Index(tmp_path / "s"), [assignment])
    relocate_roots(Index(tmp_path / "s"), [f"photos={tmp_path / 'new'}"])
    assert [root["state"] for root in describe_roots(reader.index)] == ["present"]  # open readers see it
    assert results(tmp_path / "s") == before
    image = next((tmp_path / "new").glob("*.jpg"))
    assert look_for(reader, str(image), "cat").image_id == f"photos/{image.name}"
    assert look_for(reader, f"photos/{image.name}", "cat").image_id == f"photos/{image.name}"
    assert index(tmp_path / "new", tmp_path / "s").unchanged == 6


def test_other_pictures_with_the_same_names_are_no_place_to_relocate_to(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    shutil.copytree(photos, tmp_path / "other")
    files = sorted((tmp_path / "other").rglob("*.jpg"))
    for k, file in enumerate(files):
        file.write_bytes((photos / files[k - 1].relative_to(tmp_path / "other")).read_bytes())
    with pytest.raises(ValueError, match="other"):
        relocate_roots(Index(tmp_path / "s"), [f"photos={tmp_path / 'other'}"])
    assert describe_roots(Index(tmp_path / "s"))[0]["folder"] == str(photos)


def test_a_root_may_have_an_equals_sign(photos: Path, tmp_path: Path) -> None:
    os.rename(photos, tmp_path / "a=b")
    index(tmp_path / "a=b", tmp_path / "s")
    os.rename(tmp_path / "a=b", tmp_path / "c=d")
    relocate_roots(Index(tmp_path / "s"), [f"a=b={tmp_path / 'c=d'}"])
    assert results(tmp_path / "s")


def test_unreadable_images_that_are_gone_are_forgotten(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "sub" / "bad.jpg").write_text("no picture either")
    index(photos, tmp_path / "s")
    os.rename(photos / "bad.jpg", photos / "renamed.jpg")
    (photos / "sub" / "bad.jpg").unlink()
    index(photos, tmp_path / "s")
    assert list(read_unreadable(tmp_path / "s")) == ["photos/renamed.jpg"]
    (photos / "renamed.jpg").unlink()
    index(photos, tmp_path / "s")
    assert not read_unreadable(tmp_path / "s")


def test_a_picture_is_a_source(photos: Path, tmp_path: Path) -> None:
    """One picture of an indexed folder is not listed twice, and the others do not count as gone."""
    picture = next(photos.glob("*.jpg"))
    assert index(picture, tmp_path / "s").added == 1
    assert index(photos, tmp_path / "s").added == 5
    summary = index(picture, tmp_path / "s", delete_vanished=True)
    assert (summary.added, summary.unchanged, summary.vanished, len(Index(tmp_path / "s"))) == (0, 1, (), 6)


def test_images_of_a_source_that_is_gone_are_deleted_on_request(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "kept")
    for file in (tmp_path / "kept").rglob("*.jpg"):
        file.write_bytes(file.read_bytes() + b" ")  # other content
    index(photos, tmp_path / "s")
    index(tmp_path / "kept", tmp_path / "s")
    index(str(photos / "*.jpg"), tmp_path / "s")
    shutil.rmtree(photos / "sub")
    assert len(index(photos / "sub", tmp_path / "s", delete_vanished=True).vanished) == 3
    shutil.rmtree(photos)
    summary = index(photos, tmp_path / "s", delete_vanished=True)
    assert len(summary.vanished) == 3
    assert {i.partition("/")[0] for i in Index(tmp_path / "s").store.ids()} == {"kept"}
    with pytest.raises(ValueError, match="photos"):
        index(photos, tmp_path / "s", delete_vanished=True)  # a mistyped folder deletes nothing
    broken = tmp_path / "labels.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"labels\.json"):
        index(broken, tmp_path / "s", images=tmp_path / "kept", delete_vanished=True)
    assert len(Index(tmp_path / "s")) == 6


def make_old(store: Path, run: Path | None = None) -> None:
    """Rewrite a store as version 2 of the format did: absolute paths everywhere, and no copy of the run."""
    index = Index(store)
    table, header, resolve = index.store.table().to_table(), index.store.header, index.store.resolve
    base = index.store.roots.folders["photos"]
    paths = [resolve(uri) for uri in table["uri"].to_pylist()]
    for name, values in (("id", paths), ("uri", paths), ("source", [base] * len(paths))):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    content: dict[str, Any] = {"format_version": 2, **asdict(header)}
    del content["roots"], content["model"]["train_last_stage"]
    if run is not None:
        del content["model"]["run"]
        content["model"] |= {"name": str(run)}
    skipped = {resolve(i): {**vars(u), "uri": resolve(u.uri)} for i, u in read_unreadable(store).items()}
    shutil.rmtree(store)
    store.mkdir()
    old = table.drop_columns(["decoding"]).replace_schema_metadata({"forclip": json.dumps(content)})
    lance.write_dataset(old, str(store / "images.lance"))
    (store / "skipped.json").write_text(json.dumps(skipped))


@pytest.mark.parametrize("stopped_at", [None, "add_columns", "drop_columns", "alter_columns", "update_schema_metadata"])
def test_stores_of_version_2_are_converted(
    photos: Path, tmp_path: Path, run: Path, stopped_at: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, also if the conversion is stopped after any of its steps and started again."""
    store = tmp_path / "s"
    (photos / "bad.jpg").write_text("no picture")
    index(photos, store, model=ModelConfig(str(run)))
    Index(store).store.annotate(sorted(Index(store).store.ids()), {"camera": list("abcdef")})
    whole, before, stored = Index(store).store.table().to_table(), results(store), keys(store)
    make_old(store, run)
    with pytest.raises(ValueError, match="forclip compact"):
        Index(store)
    assert needs_migration(store)
    if stopped_at is not None:
        step = getattr(lance.LanceDataset, stopped_at)

        def stop(*args: Any, **options: Any) -> None:
            step(*args, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(lance.LanceDataset, stopped_at, stop)
            with pytest.raises(KeyboardInterrupt):
                migrate_store(store)
    os.rename(run, tmp_path / "run2")
    with pytest.raises(ValueError, match="--model"):
        migrate_store(store)
    assert migrate_store(store, ModelConfig(str(tmp_path / "run2"))) == 6
    assert not needs_migration(store)
    shutil.rmtree(tmp_path / "run2")
    assert results(store) == before
    assert keys(store) == stored
    index_ = Index(store)
    table = index_.store.table().to_table()
    for name in whole.schema.names:
        assert name == "decoding" or table[name].to_pylist() == whole[name].to_pylist(), name
    assert index_.store.count_outdated() == 6
    assert index_.verify() == []
    assert read_unreadable(store).keys() == {"photos/bad.jpg"}
    summary = index(photos, store, model=None)
    assert (summary.added, summary.unchanged, summary.skipped) == (0, 6, 1)
    assert Index(store).store.count_outdated() == 0


def test_pictures_that_were_indexed_unturned_are_embedded_again(photos: Path, tmp_path: Path) -> None:
    """A store of version 2 ignored EXIF orientation: only turned pictures are embedded again, moved or not."""
    turned = sorted(photos.glob("*.jpg"))[:2]
    for file in turned:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        with Image.open(file) as image:
            image.save(file, exif=exif)
    index(photos, tmp_path / "s")
    expected = results(tmp_path / "s")
    make_old(tmp_path / "s")
    migrate_store(tmp_path / "s")
    os.rename(turned[0], photos / "moved.jpg")
    summary = index(photos, tmp_path / "s")
    assert (summary.added, summary.updated, summary.moved) == (0, 2, 0)
    assert Index(tmp_path / "s").store.count_outdated() == 0
    assert sorted(score for _, score in results(tmp_path / "s")) == sorted(score for _, score in expected)
    assert index(photos, tmp_path / "s").unchanged == 6


def test_rows_of_programs_stay_when_a_store_is_converted(tmp_path: Path) -> None:
    """Their ids are the program's, and their locations may be URLs."""
    header = StoreHeader("abc", 2, {"name": "some model", "pretrained": None, "head": "sum", "num_query_tokens": 1})
    schema = header.schema()
    rows: dict[str, Any] = {name: [None, None] for name in schema.names}
    rows |= {"number": [1, 2], "id": ["a", "/data/b.jpg"], "uri": ["s3://x/a.jpg", "/data/b.jpg"], "source": ["", ""]}
    rows |= {"vectors": [[np.array([1, 0], np.float16)]] * 2, "boxes": [[np.zeros(4, np.float16)]] * 2}
    content = {"format_version": 2, **asdict(header)}
    del content["roots"]
    table = pa.table(rows, schema=schema).drop_columns(["decoding"])
    lance.write_dataset(
        table.replace_schema_metadata({"forclip": json.dumps(content)}), str(tmp_path / "s" / "images.lance")
    )
    # Version 2 made columns for pandas' index and for bytes, which no later version of the table can be written with.
    damaged = lance.dataset(str(tmp_path / "s" / "images.lance"))
    damaged.add_columns(pa.schema({"": pa.int64(), "camera": pa.string(), "raw": pa.binary()}))
    migrate_store(tmp_path / "s")
    store = Index(tmp_path / "s").store
    assert {i: f.uri for i, f in store.files().items()} == {"a": "s3://x/a.jpg", "/data/b.jpg": "/data/b.jpg"}
    store.annotate(["a"], {"camera": ["front"]})
    assert store.user_columns == ["camera", "raw"]
    assert Index(tmp_path / "s").verify() == []
