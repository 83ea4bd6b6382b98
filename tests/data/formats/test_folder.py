import re
from pathlib import Path

import pytest

from forclip.data.formats.folder import list_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/deep/c.jpeg", "sub/d.webp", "odd[1]/e.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "none").mkdir()
    return tmp_path


def names(folder: Path, source: str) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in list_images(source)]


def test_a_folder_is_searched_all_the_way_down(folder: Path) -> None:
    """Capitals in a suffix count, text files don't, a folder named like a picture is none."""
    assert names(folder, str(folder)) == ["a.PNG", "b.jpg", "odd[1]/e.tif", "sub/d.webp", "sub/deep/c.jpeg"]


def test_a_folder_whose_name_looks_like_a_pattern(folder: Path) -> None:
    assert names(folder, str(folder / "odd[1]")) == ["odd[1]/e.tif"]


def test_a_pattern(folder: Path) -> None:
    assert names(folder, f"{folder}/*.jpg") == ["b.jpg"]
    assert names(folder, f"{folder}/**/*.*p*g") == ["b.jpg", "sub/deep/c.jpeg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such folder"),
        ("b.jpg", "b.jpg: not a folder; give a folder or a pattern"),
        ("none", "none: no images"),
        ("*.gif", "*.gif: no images"),
    ],
)
def test_nothing_to_list_is_an_error_naming_the_source(folder: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        list_images(f"{folder}/{source}")
