from pathlib import Path

import pytest

from forclip.data.formats.csv_labels import load_csv
from forclip.types import Annotations

IMAGES = Path("pictures")


def load(folder: Path, content: str | bytes) -> Annotations:
    file = folder / "labels.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_csv(file, IMAGES)


LONG = "image,label\nb.jpg,dog\nsub/a.jpg,cup\nb.jpg,cat\nc.jpg,\n"


def test_long_form(tmp_path: Path) -> None:
    """One row a pair; c.jpg shows nothing; what is not listed is an absence that someone has checked."""
    found = load(tmp_path, LONG)
    assert found.image_ids == ("b.jpg", "c.jpg", "sub/a.jpg")
    assert found.paths == (IMAGES / "b.jpg", IMAGES / "c.jpg", IMAGES / "sub" / "a.jpg")
    assert found.class_names == ("cat", "cup", "dog")
    assert found.labels.tolist() == [[True, False, True], [False, False, False], [False, True, False]]
    assert found.boxes.shape == (0, 4)
    assert found.verified is None
    assert found.verified_mask.all()


@pytest.mark.parametrize(
    "content",
    [
        "image,labels\nb.jpg,dog|cat\nsub/a.jpg,cup\nc.jpg,\n",
        "image,labels\r\nb.jpg,dog;cat\r\nc.jpg,\r\nsub/a.jpg, cup ;\r\n",
        "labels,note,image\ncup,,sub/a.jpg\n\n,,c.jpg\n,,\ncat,seen twice,b.jpg\ndog,,b.jpg",
        "\ufeffImage, Label \nb.jpg,dog\n./sub/a.jpg,cup\nb.jpg,cat\nc.jpg,\nb.jpg,dog\n",
    ],
    ids=["bars", "semicolons, CRLF", "other columns, blank rows", "byte order mark, capitals, a pair twice"],
)
def test_other_spellings_of_the_same_table(tmp_path: Path, content: str) -> None:
    found, expected = load(tmp_path, content), load(tmp_path, LONG)
    assert found.image_ids == expected.image_ids
    assert found.paths == expected.paths
    assert found.class_names == expected.class_names
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.verified is None


def test_with_present_the_labels_are_federated(tmp_path: Path) -> None:
    """Only the pairs that are listed are verified; owl was looked for and never seen, and is a class all the same."""
    rows = ["a.jpg,cat,1", "a.jpg,dog,FALSE", "b.jpg,cat,0", "b.jpg,owl,0", "c.jpg,,", "d.jpg,dog,true"]
    found = load(tmp_path, "image,label,present\n" + "\n".join(rows))
    assert found.class_names == ("cat", "dog", "owl")
    assert found.labels.tolist() == [[True, False, False], [False] * 3, [False] * 3, [False, True, False]]
    assert found.verified is not None
    assert found.verified.tolist() == [[True, True, False], [True, False, True], [False] * 3, [False, True, False]]


def test_ids_may_be_given(tmp_path: Path) -> None:
    found = load(tmp_path, "id,image,label\n7,z.jpg,cat\n10,a.jpg,cat\n7,z.jpg,dog\n")
    assert found.image_ids == ("10", "7")
    assert found.paths == (IMAGES / "a.jpg", IMAGES / "z.jpg")
    assert found.labels.tolist() == [[True, False], [True, True]]


def test_a_cell_may_hold_what_separates_lines_elsewhere(tmp_path: Path) -> None:
    found = load(tmp_path, 'image,label\n"a,b.jpg","red\ncup"\nc.jpg,"blue\u2028cup"\n')
    assert found.image_ids == ("a,b.jpg", "c.jpg")
    assert found.class_names == ("blue\u2028cup", "red\ncup")


MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", r"line 1, the header, needs a column image and one of label or labels: \[\]"),
    "no header": ("a.jpg,cat\n", r"line 1, the header, needs .*: \['a\.jpg', 'cat'\]"),
    "separated by semicolons": ("image;label\na.jpg;cat\n", r"line 1, the header, needs .*: \['image;label'\]"),
    "label and labels": ("image,label,labels\na.jpg,cat,dog\n", "line 1, the header, needs"),
    "column twice": ("image,label,image\na.jpg,cat,b.jpg\n", "line 1, the header, has the column image twice"),
    "no rows": ("image,label\n", "lists no image"),
    "short row": ("image,label\na.jpg,cat\nb.jpg\n", "line 3 has 1 cells, but the header has 2"),
    "long row": ("image,label\na.jpg,cat,dog\n", "line 2 has 3 cells, but the header has 2"),
    "no image": ("image,label\na.jpg,cat\n,dog\n", "line 3 has no file name, but ''"),
    "no id": ("image,label,id\na.jpg,cat, \n", "line 2 has no id"),
    "id of two images": (
        "image,label,id\na.jpg,cat,1\nb.jpg,cat,1\n",
        "line 3 gives the id '1' to 'b.jpg', but another",
    ),
    "image with two ids": (
        "image,label,id\na.jpg,cat,1\na.jpg,dog,2\n",
        "line 3 gives the id '2' to 'a.jpg', which has",
    ),
    "present is a word": ("image,label,present\na.jpg,cat,maybe\n", "line 2 has 'maybe' under present"),
    "present is empty": ("image,label,present\na.jpg,cat,\n", "line 2 has '' under present"),
    "both present and absent": (
        "image,label,present\na.jpg,cat,1\nb.jpg,cat,1\na.jpg,cat,0\n",
        "line 4 contradicts .*'cat' in 'a.jpg'",
    ),
    "path traversal": (
        "image,label\na.jpg,cat\n../../etc/passwd,cat\n",
        r"line 3 has a file name outside the folder pictures: '\.\./\.\./etc/passwd'",
    ),
    "absolute path": ("image,label\n/etc/passwd,cat\n", "line 2 has a file name outside the folder pictures"),
    "latin-1": ("image,label\na.jpg,cat\nb.jpg,caf\xe9\n".encode("latin-1"), "line 3 is not UTF-8"),
    "open quotes": ('image,label\na.jpg,cat\nb.jpg,"cat\nc.jpg,dog\n', "line 4 is not readable as CSV"),
    "a cell too large": ("image,label\na.jpg," + "x" * 200_000, "line 2 is not readable as CSV"),
    "a JPEG": (b"\xff\xd8\xff\xe0 JFIF", "line 1 is not UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_by_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"labels\.csv: {message}"):
        load(tmp_path, content)


def test_the_line_is_the_files_own(tmp_path: Path) -> None:
    """Blank lines count, and so do the lines inside a quoted cell."""
    with pytest.raises(ValueError, match=r"labels\.csv: line 6 has no file name"):
        load(tmp_path, 'image,label\n\na.jpg,"red\ncup"\n\n,dog\n')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: no such file"):
        load_csv(tmp_path / "nowhere.csv", IMAGES)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: not readable"):
        load_csv(tmp_path, IMAGES)
