from pathlib import Path

import pytest

from forclip.data.formats.common import path_inside

FOLDER = Path("pictures")


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "sub/deep/a.jpg", "./a.jpg", "a..b.jpg", "..jpg", "a b.jpg", "12:30.jpg", "a\\b.jpg", "\udcff.jpg"],
)
def test_names_inside_are_joined(name: str) -> None:
    assert path_inside(FOLDER, name, "labels.csv: line 2") == FOLDER / name


OUTSIDE = {
    "absolute": "/etc/passwd",
    "climbing": "../secret.jpg",
    "climbing later": "a/../../secret.jpg",
    "climbing by a backslash": "a\\..\\..\\secret.jpg",
    "climbing by both": "a/..\\../secret.jpg",
    "drive": "C:\\secret.jpg",
    "drive, with slashes": "c:/secret.jpg",
    "drive without a folder": "c:secret.jpg",
    "root of the drive": "\\secret.jpg",
    "share": "\\\\server\\share\\secret.jpg",
    "share, with slashes": "//server/share/secret.jpg",
}


@pytest.mark.parametrize("name", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_path_traversal_is_refused_by_file_and_entry(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^labels\.csv: line 2 has a file name outside the folder pictures: "
    ) as error:
        path_inside(FOLDER, name, "labels.csv: line 2")
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["", " ", "a\0.jpg"])
def test_an_empty_or_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^labels\.csv: line 2 has no file name, but "):
        path_inside(FOLDER, name, "labels.csv: line 2")
