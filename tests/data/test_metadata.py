"""A user's columns: typed, found by picture, and refused with the reason."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from forclip.data.metadata import read_metadata

CSV = "image,camera,speed,time\na.jpg,front,3.5,2026-01-02 03:04:05\nsub/b.jpg,,4,2026-01-03 00:00:00\n"


def test_columns_have_their_types(tmp_path: Path) -> None:
    file = tmp_path / "meta.csv"
    file.write_text(CSV)
    ids = [str(tmp_path / "sub" / "b.jpg"), "/elsewhere.jpg", str(tmp_path / "a.jpg")]
    expected = {
        "camera": ["", None, "front"],
        "speed": [4.0, None, 3.5],
        "time": [datetime.datetime(2026, 1, 3), None, datetime.datetime(2026, 1, 2, 3, 4, 5)],
    }
    assert read_metadata(file).values_for(ids) == expected
    pa.parquet.write_table(pa.csv.read_csv(file), tmp_path / "meta.parquet")
    assert read_metadata(tmp_path / "meta.parquet").values_for(ids) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,camera\na.jpg,front\n", "no column 'image', only 'name', 'camera'"),
        ("image,camera\na.jpg,front\n./a.jpg,back\n", r"'\./a\.jpg' is listed twice"),
        ("image,camera\na.jpg,front,extra\n", "metadata can't be read"),
    ],
)
def test_bad_files(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"meta\.csv: {message}"):
        read_metadata(tmp_path / "meta.csv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.csv", "gone.parquet"):
        with pytest.raises(ValueError, match=f"{name}: metadata can't be read"):
            read_metadata(tmp_path / name)
