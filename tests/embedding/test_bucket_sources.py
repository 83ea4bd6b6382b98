"""Images of buckets and shards, from the index to the service."""

import json
from pathlib import Path

import numpy as np
import pytest

from forclip.config import ModelConfig, SourceConfig
from forclip.data.images import decode, stream
from forclip.data.sources import load_source
from forclip.embedding.ingest import index_images
from forclip.file_systems import Unreachable, list_files
from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.server.errors import Refused
from forclip.server.pictures import picture_bytes
from tests.s3 import s3_client
from tests.shards import picture, write_parquet, write_tar

MINI = ModelConfig("forclip-mini")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))


def vectors_by_content(store: Path) -> dict[str, list[list[float]]]:
    table = Index(store).store.table().to_table(["content_hash", "vectors"])
    return dict(zip(table["content_hash"].to_pylist(), table["vectors"].to_pylist(), strict=True))


def test_a_picture_has_the_same_vectors_wherever_it_is(bucket: str, s3_server: str, tmp_path: Path) -> None:
    client, name, pictures = s3_client(s3_server), bucket.removeprefix("s3://"), [picture(k) for k in range(6)]
    (tmp_path / "loose").mkdir()
    for k, content in enumerate(pictures):
        (tmp_path / "loose" / f"{k}.png").write_bytes(content)
    index_images(str(tmp_path / "loose"), tmp_path / "local", model=MINI)
    tar = write_tar(tmp_path / "a.tar", {"2.png": pictures[2], "2.cls": b"4", "3.png": pictures[3]})
    parquet = write_parquet(tmp_path / "p.parquet", [pictures[4], None, pictures[5]])
    objects = {"in/0.png": pictures[0], "in/1.png": pictures[1], "in/a.tar": tar, "in/p.parquet": parquet}
    for key, content in objects.items():
        client.put_object(Bucket=name, Key=key, Body=content)
    store = tmp_path / "remote"
    summary = index_images(f"{bucket}/in", store, model=MINI)
    assert (summary.added, list(summary.unreadable)) == (6, [f"{bucket}/in/p.parquet#1"])
    np.testing.assert_equal(vectors_by_content(store), vectors_by_content(tmp_path / "local"))
    index = Index(store)
    ids = [f"in/{i}" for i in ("0.png", "1.png", "a.tar#2.png", "a.tar#3.png", "p.parquet#0", "p.parquet#2")]
    assert index.store.ids() == {f"{bucket}/{i}" for i in ids}
    rows = index.store.table().to_table(["id", "cls", "label"]).to_pylist()
    values = {row["id"].rpartition("/")[2]: (row["cls"], row["label"]) for row in rows}
    assert values["a.tar#2.png"] == (4, None)
    assert values["p.parquet#2"] == (None, "cat")

    again = index_images(f"{bucket}/in", store)
    assert (again.added, again.updated, again.unchanged, again.vanished) == (0, 0, 6, ())

    member = index.store.files([f"{bucket}/in/a.tar#3.png"])[f"{bucket}/in/a.tar#3.png"]
    assert picture_bytes(member) == pictures[3]
    tar = write_tar(tmp_path / "a.tar", {"2.png": pictures[2], "2.cls": b"4", "3.png": picture(9), "4.png": picture(8)})
    client.put_object(Bucket=name, Key="in/a.tar", Body=tar)
    client.delete_object(Bucket=name, Key="in/0.png")
    changed = index_images(f"{bucket}/in", store, delete_vanished=True)
    assert (changed.added, changed.updated, changed.vanished) == (1, 1, (f"{bucket}/in/0.png",))
    old = ImageFile(f"{bucket}/in/a.tar#2.png", content_hash="0" * 32)
    with pytest.raises(Refused, match="changed"):
        picture_bytes(old)
    assert "secret" not in index.store.header.to_json()


def test_local_shards_have_ids_in_a_root(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "t-0.tar", {"x.png": picture(0)})
    write_tar(tmp_path / "data" / "t-1.tar", {"x.png": picture(1)})
    index_images(str(tmp_path / "data" / "t-{0..1}.tar"), tmp_path / "store", model=MINI)
    assert Index(tmp_path / "store").store.ids() == {"data/t-0.tar#x.png", "data/t-1.tar#x.png"}
    assert index_images(str(tmp_path / "data"), tmp_path / "store").unchanged == 2


def test_the_pictures_of_a_shard_that_is_gone_have_vanished(bucket: str, s3_server: str, tmp_path: Path) -> None:
    name, store = bucket.removeprefix("s3://"), tmp_path / "store"
    content = write_tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2)})
    for key, body in (("d/a.tar", content), ("d/b.png", picture(3))):
        s3_client(s3_server).put_object(Bucket=name, Key=key, Body=body)
    index_images(f"{bucket}/d", store, model=MINI)
    s3_client(s3_server).delete_object(Bucket=name, Key="d/a.tar")
    gone = index_images(f"S3://{name}/d/a.tar", store, delete_vanished=True).vanished
    assert sorted(gone) == [f"{bucket}/d/a.tar#1.png", f"{bucket}/d/a.tar#2.png"]
    assert len(Index(store)) == 1


def test_what_the_network_failed_to_fetch_is_tried_again(
    bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        s3_client(s3_server).put_object(Bucket=bucket.removeprefix("s3://"), Key=f"{k}.png", Body=picture(k))
    fetch = decode.fetch

    def fail_once(path: object) -> bytes:
        if str(path).endswith("1.png"):
            raise decode.UnreachableImage(str(Unreachable("the network is down")))
        return fetch(path)  # type: ignore[arg-type]

    monkeypatch.setattr(stream, "fetch", fail_once)
    first = index_images(bucket, tmp_path / "store", model=MINI)
    assert (first.added, len(first.unreadable)) == (1, 1)
    monkeypatch.setattr(stream, "fetch", fetch)
    second = index_images(bucket, tmp_path / "store")
    assert (second.added, second.skipped, len(second.unreadable)) == (1, 0, 0)


def test_labels_of_a_bucket_name_pictures_of_the_bucket(bucket: str, s3_server: str) -> None:
    name = bucket.removeprefix("s3://")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": f"{bucket}/other/b.png"}]
    coco = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": []}
    s3_client(s3_server).put_object(Bucket=name, Key="labels/set.json", Body=json.dumps(coco).encode())
    table = b"image,label\nshards/a.tar#x.png,dog\n"
    s3_client(s3_server).put_object(Bucket=name, Key="labels/set.csv", Body=table)
    loaded = load_source(SourceConfig(Path(f"{bucket}/labels/set.json"), Path(f"{bucket}/photos")))
    assert [str(p) for p in loaded.paths] == [f"{bucket}/photos/a.png", f"{bucket}/other/b.png"]
    loaded = load_source(SourceConfig(Path(f"{bucket}/labels/set.csv"), Path(bucket)))
    assert [str(p) for p in loaded.paths] == [f"{bucket}/shards/a.tar#x.png"]
    with pytest.raises(ValueError, match="no such file"):
        load_source(SourceConfig(Path(f"{bucket}/labels/missing.json")))


def test_an_object_that_is_written_again_in_the_same_second_is_found_changed(bucket: str, s3_server: str) -> None:
    name, states = bucket.removeprefix("s3://"), set()
    for content in (b"one", b"two", b"six"):
        s3_client(s3_server).put_object(Bucket=name, Key="a.tar", Body=content)
        (listed,) = list_files(bucket)
        states.add((listed.size, listed.modified))
    assert len(states) == 3
