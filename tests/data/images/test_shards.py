from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forclip.data.images.fetch import read_bytes
from forclip.data.images.listing import list_pictures
from forclip.data.images.remote_listing import expand_braces
from forclip.data.images.shard_listing import BROKEN, REPEATED
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
    assert len(found.left_out[BROKEN]) == 1


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
