import os
import re
from pathlib import Path

import pytest

from forclip.data.formats.folder import list_images, load_image_folder


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


def test_a_folder_is_a_set_without_classes(tmp_path: Path) -> None:
    """Sorted by id: `a-b` comes before `a/`, although a path of more parts would sort first."""
    for name in ("b.jpg", "a/one.PNG", "a-b.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = load_image_folder(tmp_path)
    assert found.image_ids == ("a-b.jpg", "a/one.PNG", "b.jpg")
    assert found.paths == tuple(tmp_path / i for i in found.image_ids)
    assert found.class_names == ()
    assert found.labels.shape == (3, 0)
    assert found.boxes.shape == (0, 4)
    assert found.verified_mask.shape == (3, 0)
    assert len(found.take(found.box_images)) == 0


def test_a_name_that_is_not_utf8_still_leads_to_its_file(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (path,) = load_image_folder(tmp_path).paths
    assert path.exists()


@pytest.mark.parametrize("name", ["nowhere", "nowhere[1]", "file.jpg"])
def test_a_missing_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.jpg").touch()
    (tmp_path / "nowhere1").mkdir()
    with pytest.raises(ValueError, match=r"(nowhere|nowhere\[1\]|file\.jpg): no such folder"):
        load_image_folder(tmp_path / name)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path.name}: no images"):
        load_image_folder(tmp_path)
