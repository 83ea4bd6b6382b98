"""Files that belong at a URL are uploaded when all are complete."""

from pathlib import Path

import pytest

from forclip.upload import written_to
from tests.s3 import s3_client


def keys(bucket: str, server: str) -> dict[str, bytes]:
    client, name = s3_client(server), bucket.removeprefix("s3://")
    found = client.list_objects_v2(Bucket=name).get("Contents", [])
    return {f["Key"]: client.get_object(Bucket=name, Key=f["Key"])["Body"].read() for f in found}


def test_a_local_path_is_written_itself(tmp_path: Path) -> None:
    with written_to(tmp_path / "a.txt") as (path, named):
        assert (path, named(path)) == (tmp_path / "a.txt", tmp_path / "a.txt")


def test_what_is_written_is_uploaded_and_what_is_there_stays(bucket: str, s3_server: str) -> None:
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    for key in ("out/old.txt", "out/kept.txt", "out/list.txt", "other.txt", "out/folder/x.txt"):
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    to = Path(bucket, "out", "new # 100%.txt")
    with written_to(to, read=(Path(bucket, "out/list.txt"), Path(bucket, "out/none.txt"))) as (path, named):
        assert (path.with_name("kept.txt").exists(), path.exists()) == (True, False)
        assert path.with_name("list.txt").read_bytes() == b"out/list.txt"
        path.write_text("new")
        path.with_name("old.txt").write_text("newer")
        path.with_name("parts").mkdir()
        path.with_name("parts").joinpath("1.txt").write_text("part")
        assert named(path) == to
    old = {key: key.encode() for key in ("out/kept.txt", "out/list.txt", "other.txt", "out/folder/x.txt")}
    new = {"out/new # 100%.txt": b"new", "out/old.txt": b"newer", "out/parts/1.txt": b"part"}
    assert keys(bucket, s3_server) == old | new


def fill(to: Path, error: Exception | None = None) -> None:
    with written_to(to) as (path, _):
        path.write_text("half")
        if error is not None:
            raise type(error)(f"{path}: {error}")


def test_an_error_uploads_nothing_and_names_the_url(bucket: str, s3_server: str) -> None:
    with pytest.raises(ValueError, match=f"^{bucket}/out/a.txt: no$"):
        fill(Path(bucket, "out/a.txt"), ValueError("no"))
    assert keys(bucket, s3_server) == {}
    with pytest.raises(ValueError, match="no such bucket"):
        fill(Path("s3://no-bucket/a.txt"))
    with pytest.raises(ValueError, match="names no file"):
        fill(Path("s3://a.txt"))
