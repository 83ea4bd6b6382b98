"""Files that belong at a URL are uploaded when all are complete."""

from pathlib import Path
from typing import Any

import pytest

from forclip import file_systems
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
    there = ("out/old # 1.txt", "out/new # 1_kept.txt", "out/.new # 1.list", "other.txt", "out/folder/x.txt")
    for key in there:
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    to = Path(bucket, "out", "new # 1.txt")
    with written_to(to, read=(Path(bucket, "out/.new # 1.list"), Path(bucket, "out/none.txt"))) as (path, named):
        assert [path.with_name(n).exists() for n in ("new # 1_kept.txt", path.name, "old # 1.txt")] == [
            True,
            False,
            False,
        ]
        assert path.with_name(".new # 1.list").read_bytes() == b"out/.new # 1.list"
        path.write_text("new")
        path.with_name("old # 1.txt").write_text("newer")
        path.with_name("parts").mkdir()
        path.with_name("parts").joinpath("1.txt").write_text("part")
        assert named(path) == to
    old = {key: key.encode() for key in there[1:]}
    new = {"out/new # 1.txt": b"new", "out/old # 1.txt": b"newer", "out/parts/1.txt": b"part"}
    assert keys(bucket, s3_server) == old | new


def fill(to: Path, error: Exception | None = None, others: tuple[str, ...] = ()) -> None:
    with written_to(to) as (path, _):
        for name in (to.name, *others):
            path.with_name(name).write_text("half")
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


def test_an_upload_that_fails_leaves_nothing_new_and_deletes_nothing(
    bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    for key in ("out/b.txt", "out/c.txt"):
        client.put_object(Bucket=name, Key=key, Body=b"old")
    upload = file_systems._upload

    def fail(files: Any, source: Path, target: str) -> None:
        if source.name == "c.txt":
            raise OSError("the connection broke")
        upload(files, source, target)

    monkeypatch.setattr(file_systems, "_upload", fail)
    monkeypatch.setattr(file_systems, "retry", lambda url, call: call())
    with pytest.raises(OSError, match="broke"):
        fill(Path(bucket, "out/a.txt"), others=("b.txt", "c.txt"))
    there = {key: content for key, content in keys(bucket, s3_server).items() if not key.endswith("/")}
    assert there == {"out/b.txt": b"half", "out/c.txt": b"old"}
