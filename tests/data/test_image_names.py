"""Names in metadata files mean one picture, or none."""

from pathlib import Path

import pytest

from forclip.data.formats.common import UnusableEntry
from forclip.data.image_names import ImageNames


@pytest.fixture
def names(tmp_path: Path) -> ImageNames:
    files = ("photos/a.jpg", "photos/cam1/b.jpg", "photos/cam2/b.jpg", "photos/cam1/Größe.JPG")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return ImageNames({f"root/{file}": str(tmp_path / file) for file in files}, [tmp_path, tmp_path / "photos"])


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("root/photos/a.jpg", "a.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("./photos/cam1/../a.jpg", "a.jpg"),
        ("photos\\a.jpg", "a.jpg"),
        (".\\photos\\cam1\\b.jpg", "cam1/b.jpg"),
        ("cam2/b.jpg", "cam2/b.jpg"),
        ("a.jpg", "a.jpg"),
        (" photos/a.jpg ", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a", "a.jpg"),
        ("cam2/b", "cam2/b.jpg"),
        ("Gro\u0308ße.jpg", "cam1/Größe.JPG"),
        ("C:\\data\\photos\\cam2\\b.jpg", "cam2/b.jpg"),
        ("file:///elsewhere/photos/cam1/b.jpg", "cam1/b.jpg"),
    ],
)
def test_a_name_means_a_picture(name: str, image: str, names: ImageNames) -> None:
    assert names.match(name) == f"root/photos/{image}"


def test_absolute_names(names: ImageNames, tmp_path: Path) -> None:
    assert names.match(str(tmp_path / "photos" / "a.jpg")) == "root/photos/a.jpg"


@pytest.mark.parametrize("name", ["b.jpg", "c.jpg", "cam3/b.jpg", "other/a.jpg", "", " ", "..", "\0", "/"])
def test_a_name_that_means_none_or_several_is_refused(name: str, names: ImageNames) -> None:
    with pytest.raises(UnusableEntry):
        names.match(name)
