"""The S3 server of the tests works with every client that forclip uses."""

import lance
import pyarrow as pa
import pyarrow.fs

from tests.s3 import s3_client


def test_pyarrow_and_lance_reach_the_bucket_through_the_environment(bucket: str, s3_server: str) -> None:
    name = bucket.removeprefix("s3://")
    s3_client(s3_server).put_object(Bucket=name, Key="a/b c.txt", Body=b"hello")
    files, path = pyarrow.fs.FileSystem.from_uri(bucket)
    found = next(f for f in files.get_file_info(pyarrow.fs.FileSelector(path, recursive=True)) if f.is_file)
    assert (found.path, found.size) == (f"{name}/a/b c.txt", 5)
    assert files.open_input_file(found.path).read() == b"hello"

    lance.write_dataset(pa.table({"x": [1, 2]}), f"{bucket}/table.lance")
    lance.write_dataset(pa.table({"x": [3]}), f"{bucket}/table.lance", mode="append")
    assert lance.dataset(f"{bucket}/table.lance").to_table()["x"].to_pylist() == [1, 2, 3]
