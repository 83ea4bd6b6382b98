import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forclip.data.images.fetch import read_bytes
from forclip.data.images.listing import list_pictures
from forclip.data.images.remote_listing import expand_braces
from forclip.data.images.shard_listing import BROKEN, DEAD_LINK, DROPPED_COLUMN, NO_PICTURES, REPEATED
from forclip.location import Location, Uri, in_reading_order, location_text, parse_location
from tests.s3 import s3_client
from tests.shards import picture, write_parquet, write_saved_dataset, write_tar


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))


def contents(source: str) -> dict[str, bytes]:
    """The bytes of each picture that is listed, by location."""
    return {str(location): read_bytes(location) for location in list_pictures(source).pictures}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_pictures_of_a_tar_are_its_members_byte_for_byte(name: str, tmp_path: Path) -> None:
    members = {f"deep/{k:03d}.png": picture(k) for k in range(5)} | {f"{'long' * 40}.png": picture(9), "x.txt": b"no"}
    write_tar(tmp_path / name, members, "w:gz" if name.endswith("gz") else "w")
    expected = {f"{tmp_path / name}#{m}": content for m, content in members.items() if m.endswith("png")}
    assert contents(str(tmp_path)) == expected
    backwards = dict(reversed(expected.items()))
    assert {text: read_bytes(parse_location(text)) for text in backwards} == backwards


def test_values_next_to_pictures_become_columns(tmp_path: Path) -> None:
    members = {"1.png": picture(1), "1.json": b'{"camera": "left", "nested": [1]}', "1.cls": b"7", "2.png": picture(2)}
    write_tar(tmp_path / "a.tar", members | {"2.txt": b"a dog\n", "2.json": b"broken"})
    columns = list_pictures(str(tmp_path / "a.tar")).columns
    assert columns is not None
    assert columns.to_pydict() == {"camera": ["left", None], "cls": [7, None], "txt": [None, "a dog"]}


def test_a_tar_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2)})
    (tmp_path / "a.tar").write_bytes(whole[:1800])
    found = list_pictures(str(tmp_path))
    assert [str(p) for p in found.pictures] == [f"{tmp_path}/a.tar#1.png"]
    assert len(found.left_out[BROKEN]) == 1


def test_a_name_that_occurs_twice_is_reported(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.png": picture(1)})
    write_tar(tmp_path / "a.tar", {"1.png": picture(2)}, "a")
    found = list_pictures(str(tmp_path))
    assert [read_bytes(p) for p in found.pictures] == [picture(1)]
    assert found.left_out[REPEATED] == (f"{tmp_path}/a.tar#1.png",)


def test_a_changed_tar_never_gives_another_members_bytes(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.png": picture(1), "2.png": picture(2)})
    second = location_text(list_pictures(str(tmp_path)).pictures[1])
    assert "&bytes=" in second
    write_tar(tmp_path / "a.tar", {"0.png": picture(5), "1.png": picture(1), "2.png": picture(2)})
    assert read_bytes(parse_location(second)) == picture(2)


def test_rows_of_parquet_and_of_a_saved_dataset(tmp_path: Path) -> None:
    pictures = [picture(1), picture(2), None, picture(3), picture(4), picture(5), picture(6)]
    write_parquet(tmp_path / "part.parquet", pictures)
    write_saved_dataset(tmp_path / "saved", pictures)
    listing = list_pictures(str(tmp_path))
    assert len(listing.pictures) == 14
    assert listing.columns is not None
    assert listing.columns["label"].to_pylist() == 2 * ["cat", "dog", "cat", "dog", "cat", "dog", "cat"]
    for shard in ("part.parquet", "saved/data-00000-of-00001.arrow"):
        for row in (6, 0, 1, 3, 5, 4, 3):
            assert read_bytes(parse_location(f"{tmp_path}/{shard}#{row}")) == pictures[row]
        with pytest.raises(ValueError, match="no picture"):
            read_bytes(parse_location(f"{tmp_path}/{shard}#2"))
        with pytest.raises(FileNotFoundError):
            read_bytes(parse_location(f"{tmp_path}/{shard}#7"))


def test_a_table_without_pictures_and_a_damaged_one_stop_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "good.parquet", [picture(1)])
    pq.write_table(pq.read_table(tmp_path / "good.parquet").select(["label"]), tmp_path / "labels.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    found = list_pictures(str(tmp_path))
    assert [str(p) for p in found.pictures] == [f"{tmp_path}/good.parquet#0"]
    assert len(found.left_out[BROKEN]) == len(found.left_out[NO_PICTURES]) == 1


def test_folders_of_a_partitioned_table_become_columns_and_what_is_not_kept_is_named(tmp_path: Path) -> None:
    rows = pa.table({"image": [picture(1)], "boxes": [[1, 2]], "camera": ["left"], "": [1]})
    for k, folder in enumerate(("day=2026-01-31/camera=a%20b", "day=__HIVE_DEFAULT_PARTITION__", "run=7")):
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(rows if k else rows.drop("camera"), tmp_path / folder / "part.parquet")
    found = list_pictures(str(tmp_path))
    assert found.columns is not None
    assert found.columns.to_pydict() == {
        "day": ["2026-01-31", None, None],
        "camera": ["a b", "left", "left"],
        "run": [None, None, 7],
    }
    assert len(found.left_out[DROPPED_COLUMN]) == 6


@pytest.mark.parametrize("kind", [pa.list_(pa.binary()), pa.list_(pa.struct({"bytes": pa.binary()}))])
def test_a_table_of_lists_of_pictures_says_so(kind: pa.DataType, tmp_path: Path) -> None:
    pq.write_table(pa.table({"views": pa.nulls(1, kind)}), tmp_path / "a.parquet")
    found = list_pictures(str(tmp_path / "a.parquet"))
    assert "'views' has lists" in found.left_out[NO_PICTURES][0]


def test_a_bucket_is_listed_with_sizes_and_read(bucket: str, s3_server: str, tmp_path: Path) -> None:
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    tar = write_tar(tmp_path / "a.tar", {f"{k}.png": picture(k) for k in range(4)})
    parquet = write_parquet(tmp_path / "a.parquet", [picture(7), picture(8)])
    loose = {"in/a b.png": picture(10), "in/sub/c#d.png": picture(11), "in/nameless": picture(12), "in/x.md": b"hi"}
    for key, content in {**loose, "in/a.tar": tar, "in/p.parquet": parquet, "in/.hidden/x.png": picture(1)}.items():
        client.put_object(Bucket=name, Key=key, Body=content)
    expected = {f"{bucket}/{key}": content for key, content in loose.items() if not key.endswith("md")}
    expected |= {f"{bucket}/in/a.tar#{k}.png": picture(k) for k in range(4)}
    expected |= {f"{bucket}/in/p.parquet#{k}": picture(7 + k) for k in range(2)}
    assert contents(f"{bucket}/in") == expected
    first = list_pictures(f"{bucket}/in/*.png").pictures
    assert [str(p) for p in first] == [f"{bucket}/in/a b.png"]
    assert isinstance(first[0], Uri)
    assert first[0].size == len(picture(10))
    assert first[0].modified > 0
    with pytest.raises(ValueError, match="no such folder"):
        list_pictures(f"{bucket}/nothing")


def test_other_kinds_of_urls_go_through_fsspec() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/photos/a.png", picture(1))
    assert [read_bytes(p) for p in list_pictures("memory://photos").pictures] == [picture(1)]


@pytest.mark.parametrize(
    "url", ["s3://me:secret@bucket/x", "https://host/x.png?X-Amz-Signature=secret", "s3://bucket/?secret_key=secret"]
)
def test_urls_with_credentials_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match="environment") as caught:
        list_pictures(url)
    assert ":secret" not in str(caught.value)
    assert "=secret" not in str(caught.value)


def test_braces_are_expanded_as_shells_do() -> None:
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    assert expand_braces("plain{") == ["plain{"]


def test_shards_are_read_from_start_to_end() -> None:
    rows = [Uri("p.parquet", str(k)) for k in (1, 10, 2)]
    locations: list[Location] = [Path("a.jpg"), *rows, Path("b.jpg"), Uri("p.parquet", "0")]
    assert in_reading_order(["a", "1", "10", "2", "b", "0"], locations) == ["a", "0", "1", "2", "10", "b"]


@pytest.mark.parametrize(
    ("name", "compression"),
    [("a.tgz", "gzip"), ("a.tar.bz2", "bz2"), ("a.tar.zst", "zstd"), ("a.tar.xz", "xz"), ("a.tar", "gzip")],
)
def test_a_tar_is_compressed_as_its_first_bytes_say(name: str, compression: str, tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "plain", {"1.png": picture(1), "2.png": picture(2)})
    halves = plain[:700], plain[700:]  # two parts, as parallel compressors write them
    own: dict[str, Callable[[bytes], bytes]] = {"bz2": bz2.compress, "xz": lzma.compress}
    compress = own.get(compression) or pa.Codec(compression).compress
    (tmp_path / name).write_bytes(b"".join(bytes(memoryview(compress(half))) for half in halves))
    assert contents(str(tmp_path / name)) == {f"{tmp_path / name}#{k}.png": picture(k) for k in (1, 2)}


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, pa.Codec("zstd").compress])
def test_a_compressed_tar_that_is_cut_off_is_read_as_far_as_it_goes(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    contents = np.random.default_rng(0).bytes(30 * 30_000)
    members = {f"{k:02}.jpg": contents[30_000 * k :][:30_000] for k in range(30)}
    whole = bytes(memoryview(compress(write_tar(tmp_path / "a.tar", members))))
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    found = list_pictures(str(tmp_path))
    assert len(found.left_out[BROKEN]) == 1
    *read, last = found.pictures
    assert len(read) > 5
    assert [read_bytes(p) for p in read] == list(members.values())[: len(read)]
    with pytest.raises(ValueError, match="cut off"):
        read_bytes(last)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_links_in_a_tar_are_pictures_like_what_they_lead_to(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:

        def link(name: str, kind: bytes, target: str) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)

        link("deep/ahead.png", tarfile.SYMTYPE, "../2.png")
        for k in (1, 2):
            info = tarfile.TarInfo(f"{k}.png")
            info.size = len(picture(k))
            tar.addfile(info, io.BytesIO(picture(k)))
        link("hard.png", tarfile.LNKTYPE, "1.png")
        link("twice.png", tarfile.SYMTYPE, "hard.png")
        link("lost.png", tarfile.LNKTYPE, "no.png")
        link("circle.png", tarfile.SYMTYPE, "circle.png")
    expected = {"1": 1, "hard": 1, "twice": 1, "2": 2, "deep/ahead": 2}
    there = str(tmp_path / name)
    assert contents(there) == {f"{there}#{member}.png": picture(k) for member, k in expected.items()}
    assert list_pictures(there).left_out[DEAD_LINK] == (f"{there}#circle.png", f"{there}#lost.png")


def test_all_spellings_of_a_url_name_one_object(bucket: str, s3_server: str, tmp_path: Path) -> None:
    name = bucket.removeprefix("s3://")
    keys = ["a b/ü+%20#1?.png", "a[1]/{1,2}.png", "/lost.png"]
    for k, key in enumerate(keys):
        s3_client(s3_server).put_object(Bucket=name, Key=key, Body=picture(k))
    expected = {f"{bucket}/{key}": picture(k) for k, key in enumerate(keys[:2])}
    for source in (bucket, f"{bucket}/", f"S3://{name}", f"s3a://{name}/"):
        listed = list_pictures(source).pictures
        assert [str(location) for location in listed if not str(location).endswith("lost.png")] == list(expected)
    assert {url: read_bytes(parse_location(url.replace("s3:", "S3A:"))) for url in expected} == expected
    for source in (f"{bucket}/a[1]", f"{bucket}/a[1]/{{1,2}}.png", f"{bucket}/a[[]1]/*"):
        assert [str(location) for location in list_pictures(source).pictures] == [f"{bucket}/{keys[1]}"]
    with pytest.raises(OSError, match="lost"):  # Arrow reads no name with two slashes
        read_bytes(parse_location(f"{bucket}//lost.png"))
    for source in ("s3://", f"{bucket}//lost.png"):
        with pytest.raises(ValueError, match=re.escape(source)):
            list_pictures(source)
    write_tar(tmp_path / "a.tar", {"1.png": picture(1)})
    assert parse_location(f"FILE://{tmp_path}/a%2Etar#1.png") == parse_location(f"{tmp_path}/a.tar#1.png")
