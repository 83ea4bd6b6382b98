"""Stores in a bucket: the same answers as a local store, and machines without locks that write at the same time."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from forclip.bucket_path import BucketPath, store_path
from forclip.index.image_index import Index
from forclip.index.local_cache import cached_store
from forclip.index.roots import Roots, from_json, to_json
from forclip.index.store import ImageFile
from tests.child import ROOT
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit, write_all_segments
from tests.s3 import s3_client


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def found(index: Index, k: int = 1000) -> list[tuple[str, float]]:
    results = index.search(unit(np.random.default_rng(5), DIM), k)
    return [(r.image_id, round(r.score, 9)) for r in results]


def expected(kept: dict[str, np.ndarray], k: int = 1000) -> list[tuple[str, float]]:
    return [(i, round(s, 9)) for i, s in oracle(kept, unit(np.random.default_rng(5), DIM), k)]


def test_a_store_in_a_bucket_does_what_a_local_one_does(bucket: str, cache: Path) -> None:
    index = Index.create(f"{bucket}/a/store", HEADER)
    first, second = some(names(30)), some([*names(5), "new"], seed=1)
    index.add(first, files(first.image_ids), {"camera": ["front"] * 30, "n": list(range(30))})
    index.put(second, files(second.image_ids), {"n": [0.5] * 6})
    kept = by_image(first) | by_image(second)
    assert found(index) == expected(kept)
    with pytest.raises(ValueError, match="already stored"):
        index.add(second, files(second.image_ids))
    assert index.delete("n = 7") == 1
    assert index.delete_ids(["image 00008", "unknown"]) == 1
    index.store.move({"image 00009": ("moved", ImageFile("/elsewhere"))})
    kept = {i: v for i, v in kept.items() if i not in ("image 00007", "image 00008")}
    kept["moved"] = kept.pop("image 00009")
    assert index.store.ids("camera = 'front'") == kept.keys() - {"new"}
    write_all_segments(index)
    index.optimize("SQ8")
    index.compact()
    assert index.verify() == []
    assert [part["place"] for part in index.info()["parts"]] == ["mapped"]
    again = Index(f"{bucket}/a/store")
    assert found(again) == expected(kept)
    assert list(cache.glob("stores/*/search/*/segment.json"))
    assert not any("/search/" in name for name in BucketPath(bucket).sizes())


def test_machines_that_create_a_store_at_the_same_moment_all_open_it(bucket: str) -> None:
    barrier = Barrier(6)

    def create(folder: str) -> int:
        barrier.wait()
        return len(Index.create(folder, HEADER))

    with ThreadPoolExecutor(barrier.parties) as pool:
        for k in range(8):
            assert list(pool.map(create, [f"{bucket}/store-{k}"] * barrier.parties)) == [0] * barrier.parties


WRITER = """
import sys
from forclip.index.image_index import Index
from tests.index.made import HEADER, files, some
index = Index.create(sys.argv[1], HEADER)
for part in range(4):
    start = 20 * ((part + int(sys.argv[2])) % 4)
    ids = [f"image {k}" for k in range(start, start + 30)]
    index.put(some(ids, seed=start), files(ids), {"writer": [sys.argv[2]] * len(ids)})
"""


def test_four_writers_without_locks_leave_each_image_once(bucket: str) -> None:
    """They create the store, add its column and write overlapping images, all at the same moment."""
    store, env = f"{bucket}/store", os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", WRITER, store]
    writers = [
        subprocess.Popen([*command, str(k)], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) for k in range(4)
    ]
    try:
        for writer in writers:
            _, err = writer.communicate(timeout=120)
            assert writer.returncode == 0, err
    finally:
        for writer in writers:
            writer.kill()
    index = Index(store)
    ids = index.store.table().to_table(["id"])["id"].to_pylist()
    assert sorted(ids) == sorted(f"image {k}" for k in range(90))
    assert index.verify() == []
    versions = [by_image(some([f"image {k}" for k in range(start, start + 30)], start)) for start in range(0, 80, 20)]
    query = unit(np.random.default_rng(5), DIM)
    scores = {i: {round(s, 9) for v in versions if i in v for _, s in oracle({i: v[i]}, query, 1)} for i in ids}
    assert all(round(r.score, 9) in scores[r.image_id] for r in index.search(query, 100))


def test_two_machines_add_roots_and_neither_is_lost(bucket: str) -> None:
    one = Index.create(f"{bucket}/s", HEADER)
    other = Index(f"{bucket}/s")
    one.store.write_roots(one.store.roots.with_folder("/data/a"))
    other.store.write_roots(Roots().with_folder("/data/b"))
    third = Index.create(f"{bucket}/s", replace(HEADER, roots=to_json(Roots().with_folder("/data/c"), Path("/s"))))
    assert third.store.roots.folders == {"a": "/data/a", "b": "/data/b", "c": "/data/c"}
    with pytest.raises(ValueError, match="root 'a'"):
        Index.create(f"{bucket}/s", replace(HEADER, roots=to_json(Roots({"a": "/data/other"}), Path("/s"))))


def test_images_in_the_bucket_move_with_the_store(bucket: str, s3_server: str) -> None:
    store = BucketPath(f"{bucket}/sets/store")
    content = to_json(Roots().with_folder(f"{bucket}/photos").with_folder("/data/local"), store)
    assert content["photos"]["from_store"] == "../../photos"
    client = s3_client(s3_server)
    moved = f"moved-{store.bucket}"
    client.create_bucket(Bucket=moved)
    client.put_object(Bucket=moved, Key="photos/x.jpg", Body=b"x")
    roots = from_json(content, BucketPath(f"s3://{moved}/sets/store"))
    assert roots.folders == {"photos": f"s3://{moved}/photos", "local": "/data/local"}
    assert roots.resolve("photos/x.jpg") == f"s3://{moved}/photos/x.jpg"
    assert roots.reference(f"s3://{moved}/photos/x.jpg") == "photos/x.jpg"


def test_the_model_of_a_store_is_downloaded_once(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    index = Index.create(f"{bucket}/s", HEADER, tmp_path / "run")
    folder = index.store.model_folder
    assert (folder / "config.json").read_text() == "{}"
    (BucketPath(f"{bucket}/s") / "model" / "config.json").unlink()
    assert (Index(f"{bucket}/s").store.model_folder / "config.json").exists()


def test_the_cache_removes_the_stores_unused_for_longest(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE_GB", "0.000002")
    folders = []
    for k in range(3):
        folder = cached_store(BucketPath(f"s3://bucket/{k}"), "x")
        (folder / "segment").write_bytes(bytes(900))
        os.utime(folder / "used", (k, k))
        folders.append(folder)
    cached_store(BucketPath("s3://bucket/0"), "x")  # used again
    cached_store(BucketPath("s3://bucket/3"), "x")
    assert [folder.exists() for folder in folders] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3:/bucket/store", "s3://bucket/store"),
        ("S3:bucket/store", "s3://bucket/store"),
        ("s4://bucket/store", "s4"),
        ("s3:///store", "no bucket"),
        ("s3://key:secret@bucket/store", "credentials"),
        ("s3://bucket/store?region=x", "can't be in a URL"),
        ("s3://bucket//store", "can't be in a URL"),
        ("s3://bucket/store?X-Amz-Signature=key:secret", "can't be in a URL"),
        ("s3:bucket?sig=key:secret", "s3://bucket"),
        ("milvus://host/photos", "published"),
    ],
)
def test_a_text_that_was_meant_as_a_url_is_no_local_folder(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        store_path(text)
    assert "key:secret" not in str(error.value)


def test_where_a_store_is() -> None:
    assert store_path("s3://bucket/a b/") == BucketPath("s3://bucket/a b")
    assert store_path("file:///data/a%20b") == Path("/data/a b")
    assert store_path("photos.store") == store_path(Path("photos.store")) == Path("photos.store")
    assert store_path("C:/photos") == Path("C:/photos")


def test_what_is_wrong_with_a_bucket_is_said_in_a_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-very-secret-key")
    for url, words in ((f"{bucket}/none", "no forclip store"), ("s3://not-there/s", "no such bucket")):
        with pytest.raises(ValueError, match=words) as error:
            Index(url)
        assert "a-very-secret-key" not in str(error.value)
    (BucketPath(bucket) / "full" / "x.txt").write_bytes(b"x")
    with pytest.raises(ValueError, match="no forclip store"):
        Index.create(f"{bucket}/full", HEADER)


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        ("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>", "denied"),
        ("AWS Error ACCESS_DENIED during HeadObject operation", "denied"),
        ("<Code>PermanentRedirect</Code>", "AWS_REGION"),
        ("HTTP error: error sending request", "http://127.0.0.1:9 can't be reached"),
        ("CredentialsNotLoaded(CredentialsNotLoaded)", "no credentials"),
        ("<Code>ExpiredToken</Code>", "expired"),
    ],
)
def test_errors_of_object_stores_are_explained(reported: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    problem = BucketPath("s3://bucket/s").problem(OSError(reported))
    assert problem is not None
    assert problem.startswith("s3://bucket/s: ")
    assert words in problem
