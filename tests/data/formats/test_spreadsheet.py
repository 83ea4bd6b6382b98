"""CSV files as programs write them: nothing is lost without a line that says so."""

import csv
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forclip.data.formats.spreadsheet import Spreadsheet, read_spreadsheet

TABLE = [["image", "label"], ["a.jpg", "cat"], ["sub/b.jpg", "vögel"], ["c.jpg", ""]]
EXPECTED = [tuple(cells) for cells in TABLE[1:]]


def written(separator: str, line_end: str, quoting: Literal[0, 1]) -> str:
    file = StringIO()
    csv.writer(file, delimiter=separator, lineterminator=line_end, quoting=quoting).writerows(TABLE)
    return file.getvalue()


def read(folder: Path, content: str | bytes) -> Spreadsheet:
    file = folder / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return read_spreadsheet(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_encoding_line_end_and_separator(encoding: str, line_end: str, separator: str, tmp_path: Path) -> None:
    quotings: tuple[Literal[0, 1], ...] = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    for quoting in quotings:
        sheet = read(tmp_path, written(separator, line_end, quoting).encode(encoding))
        assert sheet.header == ("image", "label")
        assert [row.cells for row in sheet.rows] == EXPECTED
        assert [row.line for row in sheet.rows] == [2, 3, 4]
        assert (sheet.separator, sheet.skipped) == (separator, ())
        assert bool(sheet.notes) == (sheet.encoding is not None) == (encoding in ("utf-16-be", "cp1252"))


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
def test_excels_first_line_states_the_separator(first: str, tmp_path: Path) -> None:
    sheet = read(tmp_path, f"{first}\r\nimage;label\r\na,b,c.jpg;x\r\n")
    assert sheet.header == ("image", "label")
    assert [(row.line, row.cells) for row in sheet.rows] == [(3, ("a,b,c.jpg", "x"))]


def test_the_separator_is_the_one_that_the_header_shares_with_the_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "image,labels\na.jpg,cat;dog;cup\nb.jpg,cat;dog;cup\n").separator == ","
    assert read(tmp_path, "image;speed;where\na.jpg;1,5;x,y\nb.jpg;2,5;z\n").separator == ";"
    assert read(tmp_path, "image\na.jpg\n").separator == ","


def test_lines_are_the_files_own(tmp_path: Path) -> None:
    sheet = read(tmp_path, '\n image ,label\n\na.jpg,"red\ncup"\n,\nb.jpg, "cat, dog"\n')
    assert sheet.header == ("image", "label")
    assert [(row.line, row.cells) for row in sheet.rows] == [(4, ("a.jpg", "red\ncup")), (7, ("b.jpg", "cat, dog"))]


BAD_ROWS = {
    "too short": "b.jpg",
    "too long": "b.jpg,dog,bird",
    "broken quotes": 'b.jpg,"dog"s"',
    "quotes that are never closed": 'b.jpg,"dog',
    "a zero byte": "b.jpg,d\0g",
    "bytes that are no text": "b.jpg,d\udcffg",
    "a cell that is too large": "b.jpg," + "x" * 200_000,
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_left_out_alone_and_named(bad: str, tmp_path: Path) -> None:
    sheet = read(tmp_path, f"image,label\na.jpg,vögel\n{bad}\nc.jpg,dog\nd.jpg,cup\n")
    assert [row.line for row in sheet.rows] == [2, 4, 5]
    assert [entry.entry for entry in sheet.skipped] == [f"{tmp_path}/t.csv: line 3"]


def test_empty_columns_that_a_program_added_are_dropped(tmp_path: Path) -> None:
    sheet = read(tmp_path, "image;label;;\na.jpg;cat;;\nb.jpg;dog\nc.jpg;cup;;;\n")
    assert sheet.header == ("image", "label")
    assert [row.cells for row in sheet.rows] == [("a.jpg", "cat"), ("b.jpg", "dog"), ("c.jpg", "cup")]
    assert read(tmp_path, "image,label,\na.jpg,cat,note\n").header == ("image", "label", "")


def test_lines_above_the_header_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("# camera log\n\nfilename;label\na.jpg;cat\n")
    sheet = read_spreadsheet(tmp_path / "t.csv", known=["filename", "id"])
    assert (sheet.header, sheet.header_line, sheet.rows[0].line) == (("filename", "label"), 3, 4)
    assert [entry.value for entry in sheet.skipped] == ["# camera log"]
    assert read_spreadsheet(tmp_path / "t.csv", known=["id"]).header_line == 1


def test_an_empty_file_has_no_header(tmp_path: Path) -> None:
    for content in ("", "\n\n", "\ufeff"):
        assert read(tmp_path, content).header == ()


def test_a_header_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.csv: line 1, the header, is not text"):
        read(tmp_path, b"\x7fELF\x02\x01\x01\x00\x00junk,\x01\n1,2\n")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["a.jpg,cat", 'b.jpg,"x', 'c"c,"y"', "d", "e,f,g", '"h,i",j', "k,l\0", "m,\udce4", '"z']))
)
def test_no_line_is_lost_in_silence(tmp_path: Path, rows: list[str]) -> None:
    """Every line is part of a row that is read, or is reported."""
    text = "image,label\nä.jpg,ö\n" + "\n".join(rows)
    sheet = read(tmp_path, text)
    reported = {int(entry.entry.rpartition(" ")[2]) for entry in sheet.skipped}
    used = {row.line + k for row in sheet.rows for k in range(1 + "".join(row.cells).count("\n"))}
    assert not reported & used
    assert used | reported | {1} == set(range(1, len(text.splitlines()) + 1))
