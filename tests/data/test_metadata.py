"""A user's columns: typed, matched to pictures, and never lost in silence."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forclip.data.metadata import ImageMetadata, read_metadata
from forclip.index.columns import is_stored_as_is, name_problem

IDS = ("a.jpg", "b.jpg", "sub/c.jpg")


def matched(folder: Path, content: Any, schema: pa.Schema | None = None, name: str = "m.csv") -> ImageMetadata:
    file = folder / name
    if isinstance(content, pa.Table):
        pa.parquet.write_table(content, file)
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_metadata(file).match({i: str(folder / i) for i in IDS}, None, schema)


def columns(metadata: ImageMetadata) -> dict[str, list[Any]]:
    return {name: values.to_pylist() for name, values in metadata.values_for(IDS).items()}


def test_columns_have_their_types(tmp_path: Path) -> None:
    text = "image,camera,speed,time of day\na.jpg,front,3.5,2026-01-02 03:04:05\nsub/c.jpg,,4,2026-01-03 00:00:00\n"
    expected: dict[str, list[Any]] = {
        "camera": ["front", None, ""],
        "speed": [3.5, None, 4.0],
        "time of day": [dt.datetime(2026, 1, 2, 3, 4, 5), None, dt.datetime(2026, 1, 3)],
    }
    assert columns(matched(tmp_path, text)) == expected
    table = pa.table({"image": ["a.jpg", "sub/c.jpg"], **{n: [v[0], v[2]] for n, v in expected.items()}})
    assert columns(matched(tmp_path, table, name="m.parquet")) == expected
    pa.feather.write_feather(table, str(tmp_path / "m.feather"))
    again = read_metadata(tmp_path / "m.feather").match({i: str(tmp_path / i) for i in IDS})
    assert columns(again) == expected


def test_json_lines(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"file_name": "a.jpg", "n": 1, "tags": ["x", "y"]},
        {"file_name": "b.jpg", "n": 2.5, "code": "007"},
    ]
    metadata = matched(tmp_path, "\n".join([*map(json.dumps, lines), "{", "[1]"]), name="metadata.jsonl")
    assert columns(metadata) == {"n": [1, 2.5, None], "tags": ['["x", "y"]', None, None], "code": [None, "007", None]}
    assert [entry.entry.rpartition(": ")[2] for entry in metadata.skipped] == ["line 3", "line 4"]


def test_a_list_in_json(tmp_path: Path) -> None:
    metadata = matched(tmp_path, json.dumps([{"image": "a.jpg", "n": 1}, 5, {"image": "x.jpg"}]), name="m.json")
    assert columns(metadata) == {"n": [1, None, None]}
    assert [entry.entry.rpartition(": ")[2] for entry in metadata.skipped] == ["entry 2", "entry 3"]


@pytest.mark.parametrize("key", ["Image", "file", "filename", "FileName", "file_name", "path", "image_path"])
def test_other_columns_may_name_the_pictures(key: str, tmp_path: Path) -> None:
    metadata = matched(tmp_path, f"speed,{key}\n1,a.jpg\n")
    assert columns(metadata) == {"speed": [1, None, None]}
    assert any(key in note for note in metadata.notes) == (key != "Image")


def test_the_column_that_names_pictures_is_the_one_whose_names_are_found(tmp_path: Path) -> None:
    metadata = matched(tmp_path, "image,path\n0,a.jpg\n1,b.jpg\n")
    assert metadata.row_of == {"a.jpg": 0, "b.jpg": 1}


def test_hugging_face_pictures_are_named_by_their_path(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": b"x", "path": "a.jpg"}], "n": [1]})
    assert columns(matched(tmp_path, table, name="m.parquet")) == {"n": [1, None, None]}


def test_rows_without_a_picture_are_counted_and_shown(tmp_path: Path) -> None:
    metadata = matched(tmp_path, "image,n\na.jpg,1\nx.jpg,2\n,3\ny.jpg\nz.jpg,4\n")
    assert (metadata.num_rows, len(metadata.skipped)) == (1, 4)
    report = "\n".join(metadata.report({"a.jpg", "b.jpg"}, IDS))
    for shown in ("line 3: x.jpg", "line 6: z.jpg", "line 4", "line 5", "4 rows left out", "1 picture of the source"):
        assert shown in report


def test_if_no_row_has_a_picture_no_column_is_made(tmp_path: Path) -> None:
    metadata = matched(tmp_path, "image,n\nx.jpg,1\ny.jpg,2\n")
    assert metadata.types == {}
    assert "none of 2 rows" in metadata.report(IDS, IDS)[0]


def test_rows_of_pictures_that_could_not_be_read_are_counted(tmp_path: Path) -> None:
    report = matched(tmp_path, "image,n\na.jpg,1\nb.jpg,2\n").report({"a.jpg"}, IDS)
    assert "1 picture got values of 'n'" in report[0]
    assert any("1 row of pictures that could not be read" in line for line in report)


def test_a_picture_may_be_listed_twice_with_the_same_values(tmp_path: Path) -> None:
    metadata = matched(tmp_path, "image,n\na.jpg,1\n./a.jpg,1\n")
    assert (metadata.num_rows, metadata.row_of) == (2, {"a.jpg": 0})
    assert matched(tmp_path, ",image,n\n0,a.jpg,1\n1,a.jpg,1\n").row_of == {"a.jpg": 0}  # pandas' index differs
    with pytest.raises(ValueError, match=r"m\.csv: line 2 and line 3 have different values for '\./a\.jpg'"):
        matched(tmp_path, "image,n\na.jpg,1\n./a.jpg,2\n")


@pytest.mark.parametrize("content", ["name\na.jpg\n", "camera,speed\nfront,1\n", "", "\n"])
def test_a_file_without_pictures_names_what_it_has(content: str, tmp_path: Path) -> None:
    if content.startswith("name"):
        assert matched(tmp_path, content).row_of == {"a.jpg": 0}
    else:
        with pytest.raises(ValueError, match=r"m\.csv: .* column 'image'"):
            matched(tmp_path, content)


def test_a_file_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    for name in ("gone.csv", "gone.parquet", "gone.jsonl", "gone.feather"):
        with pytest.raises(ValueError, match=name):
            read_metadata(tmp_path / name)
    (tmp_path / "bad.parquet").write_text("image\n")
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        read_metadata(tmp_path / "bad.parquet")


def test_names_that_would_break_a_store_are_left_out_or_changed(tmp_path: Path) -> None:
    header = ",image,a.b,ID,Camera,camera,camera,_rowid,`,width"
    metadata = matched(tmp_path, f"{header}\n0,a.jpg,1,2,3,4,4,5,6,7\n")
    assert [values[0] for values in columns(metadata).values()] == [1, 2, 3, 4, 5, 6, 7]
    names = list(metadata.types)
    for position, name in enumerate(names):
        assert name_problem(name, names[:position]) is None
    notes = " ".join(metadata.notes)
    for name in ("a.b", "ID", "camera", "_rowid", "`", "width", "without a name"):
        assert name in notes


def test_the_second_time_a_file_is_used_its_columns_are_the_same(tmp_path: Path) -> None:
    text = "image,a.b,width,Camera,camera\na.jpg,1,2,3,4\n"
    first = matched(tmp_path, text)
    assert matched(tmp_path, text, pa.schema(first.types)).types == first.types
    assert matched(tmp_path, "image,CAMERA\na.jpg,5\n", pa.schema({"camera": pa.int64()})).types == {
        "camera": pa.int64()
    }


def test_pandas_index_of_a_parquet_file_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"__index_level_0__": [5], "image": ["a.jpg"], "n": [1]})
    assert list(matched(tmp_path, table, name="m.parquet").types) == ["n"]


def test_columns_without_values_or_of_bytes_are_left_out(tmp_path: Path) -> None:
    table = pa.table({"image": ["a.jpg"], "none": pa.nulls(1), "thumb": [b"\xff\xd8"], "n": [1]})
    metadata = matched(tmp_path, table, name="m.parquet")
    assert list(metadata.types) == ["n"]
    for name in ("none", "thumb"):
        assert any(repr(name) in note for note in metadata.notes)


STORED = {
    "whole numbers stay": (pa.int64(), "3", pa.int64(), 3),
    "whole numbers that pandas wrote as fractions stay": (pa.int64(), "3.0", pa.int64(), 3),
    "whole numbers widen to numbers": (pa.int64(), "0.5", pa.float64(), 0.5),
    "numbers take whole ones": (pa.float64(), "3", pa.float64(), 3.0),
    "dates widen to times": (pa.date32(), "2026-01-02 03:04", pa.timestamp("us"), dt.datetime(2026, 1, 2, 3, 4)),
    "text takes numbers as they are written": (pa.string(), "007", pa.string(), "007"),
    "truth values take digits": (pa.bool_(), "1", pa.bool_(), True),
    "no value fits all": (pa.int64(), "", pa.int64(), None),
}


@pytest.mark.parametrize(("stored", "cell", "data_type", "value"), STORED.values(), ids=STORED.keys())
def test_values_fit_the_stores_column_or_widen_it(
    stored: pa.DataType, cell: str, data_type: pa.DataType, value: Any, tmp_path: Path
) -> None:
    metadata = matched(tmp_path, f"image;c\na.jpg;{cell}\nb.jpg;\n", pa.schema({"c": stored}))
    assert metadata.types == {"c": data_type}
    assert columns(metadata)["c"][0] == value
    assert bool(metadata.notes) == (data_type != stored)


@pytest.mark.parametrize(
    ("stored", "kind", "cell", "found"),
    [
        (pa.int64(), "whole numbers", "fast", "text"),
        (pa.float64(), "numbers", "true", "true and false"),
        (pa.date32(), "dates", "12", "whole numbers"),
        (pa.timestamp("us"), "dates with times", "2026-01-02T03:04:05Z", "time zone"),
        (pa.float64(), "numbers", "9007199254740993", "whole numbers"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_line_and_both_types(
    stored: pa.DataType, kind: str, cell: str, found: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"m\.csv: line 3 has '?{cell}'? under 'c' .*{found}.*{kind} in the store"):
        matched(tmp_path, f"image,c\na.jpg,\nb.jpg,{cell}\n", pa.schema({"c": stored}))


def test_typed_files_fit_too(tmp_path: Path) -> None:
    table = pa.table({"image": ["a.jpg", "b.jpg"], "c": [1.0, None]})
    for stored in (pa.int64(), pa.float64()):
        assert matched(tmp_path, table, pa.schema({"c": stored}), "m.parquet").types == {"c": stored}
    with pytest.raises(ValueError, match=r"m\.parquet: row 1 has 1\.0 under 'c' \(numbers\).*true and false"):
        matched(tmp_path, table, pa.schema({"c": pa.bool_()}), "m.parquet")


def test_a_column_of_numbers_with_a_few_words_is_text_and_told(tmp_path: Path) -> None:
    rows = "".join(f"{i},{n}\n" for i, n in zip(IDS, ("1", "2", "fast"), strict=True))
    assert columns(matched(tmp_path, f"image,n\n{rows}"))["n"] == ["1", "2", "fast"]
    many = {f"{k}.jpg": str(tmp_path / f"{k}.jpg") for k in range(10)}
    (tmp_path / "n.csv").write_text("image,n\n" + "".join(f"{k}.jpg,{k if k else 'fast'}\n" for k in range(10)))
    assert any("line 2: 'fast'" in note for note in read_metadata(tmp_path / "n.csv").match(many).notes)


MANGLED_ROWS = [
    "a.jpg,front,1",
    "b.jpg,back,2.5",
    "sub\\c.jpg,vögel,x",
    "x.jpg,,3",
    ",",
    "a.jpg",
    '"',
    "b.jpg,back,2.5,9",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.permutations(["image", "camera", "n"]),
    rows=st.lists(st.sampled_from(MANGLED_ROWS), max_size=8, unique=True),
    separator=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    stored=st.sampled_from([pa.int64(), pa.float64(), pa.string()]),
)
def test_no_row_of_a_mangled_file_is_lost(
    tmp_path: Path, header: list[str], rows: list[str], separator: str, encoding: str, stored: pa.DataType
) -> None:
    """Every row is used or reported, and what is stored is what filters and JSON can work with."""
    text = "\n".join([",".join(header), *rows]).replace(",", separator)
    try:
        metadata = matched(tmp_path, text.encode(encoding), pa.schema({"n": stored}))
    except ValueError:  # refused as a whole: text in a column of numbers, or two rows of a picture
        return
    blank = [row for row in rows if not row.strip(',"')]
    assert metadata.num_rows + len(metadata.skipped) in range(len(rows) - len(blank), len(rows) + 1)
    assert all(is_stored_as_is(data_type) for data_type in metadata.types.values())
    assert metadata.report(IDS, IDS)
