"""What indexing does with odd keys, and with buckets that it can't write to."""

from pathlib import Path

import pytest

from forclip.config import ModelConfig
from forclip.embedding import ingest
from forclip.embedding.ingest import index_images
from forclip.file_systems import list_files, read_file
from forclip.index.image_index import Index
from tests.s3 import s3_client
from tests.shards import picture

MINI = ModelConfig("forclip-mini")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))


def test_keys_with_empty_parts_are_read_through_fsspec(bucket: str, s3_server: str, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    for k, key in enumerate(("in/a//0.png", "in//1.png", "in/2.png", "in///3.png")):
        client.put_object(Bucket=name, Key=key, Body=picture(k))
    summary = index_images(f"{bucket}/in", tmp_path / "store", model=MINI)
    assert (summary.added, summary.unreadable) == (4, {})
    keys = {"in/a//0.png", "in//1.png", "in/2.png", "in///3.png"}
    assert Index(tmp_path / "store").store.ids() == {f"{bucket}/{key}" for key in keys}
    assert index_images(f"{bucket}/in", tmp_path / "store").unchanged == 4
    assert read_file(f"{bucket}/in//1.png", 1, 3) == b"PNG"
    assert [file.url for file in list_files(f"{bucket}/in/a//")] == [f"{bucket}/in/a//0.png"]


def test_a_store_that_cannot_be_written_is_refused_before_embedding(
    bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_client(s3_server).put_object(Bucket=bucket.removeprefix("s3://"), Key="in/0.png", Body=picture(0))

    def embed(*_: object) -> None:
        pytest.fail("embeds")

    monkeypatch.setattr(ingest, "embed_all", embed)
    with pytest.raises(ValueError, match=r"^s3://no-bucket/store/.*there is no such bucket"):
        index_images(f"{bucket}/in", "s3://no-bucket/store", model=MINI)
