import codecs
import gzip
from pathlib import Path

import pytest

from forclip.data.formats.text_encoding import decode_unknown, read_unknown_text

TEXT = "image,camera\nphotos/a.jpg,vögel\nphotos/b.jpg,straße\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        b"",
    ],
)
def test_a_file_that_shows_its_encoding_is_not_guessed(content: bytes) -> None:
    decoded = decode_unknown(content, "a.csv")
    assert decoded.guessed is None
    assert decoded.text == (TEXT if content else "")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEXT, "cp1252"),
        (TEXT, "mac_roman"),
        (TEXT, "cp850"),
        (TEXT, "utf-16-le"),
        (TEXT, "utf-16-be"),
        ("image,label\na.jpg,кошка\nb.jpg,собака\n", "cp1251"),
        ("image,label\na.jpg,猫\nb.jpg,犬カメラ\n", "cp932"),
        ("image,label\na.jpg,猫\nb.jpg,狗和猫在一起的照片\n", "gb18030"),
        ("image,label\na.jpg,고양이\nb.jpg,개\n", "cp949"),
    ],
)
def test_a_guessed_encoding_is_named(text: str, encoding: str) -> None:
    decoded = decode_unknown(text.encode(encoding), "a.csv")
    assert (decoded.text, decoded.guessed) == (text, encoding)


def test_damaged_bytes_do_not_change_what_the_rest_is_read_as() -> None:
    decoded = decode_unknown("a,vögel\nb,straße\n".encode() + b"c,\xff\n", "a.csv")
    assert decoded.guessed is None
    assert decoded.text == "a,vögel\nb,straße\nc,\udcff\n"


def test_bytes_that_nothing_decodes_are_refused_with_their_line() -> None:
    with pytest.raises(ValueError, match=r"a\.csv: line 3"):
        decode_unknown(codecs.BOM_UTF16_LE + "a\nb\n".encode("utf-16-le") + b"\x00\xd8", "a.csv")


def test_files_that_are_no_text_are_refused_by_name(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04...", b"\xff\xd8\xff\xe0 JFIF", b"PAR1"):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.csv: is "):
            read_unknown_text(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"gone\.csv: no such list"):
        read_unknown_text(tmp_path / "gone.csv", "list")
    with pytest.raises(ValueError, match=f"{tmp_path.name}: not readable"):
        read_unknown_text(tmp_path)


def test_a_compressed_file_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert read_unknown_text(tmp_path / "a.csv.gz").text == TEXT
