import os
from pathlib import Path

import pytest

from forclip.data.formats.folder import load_image_folder
from forclip.location import local_path


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
    assert found.skipped == ()
    assert len(found.take(found.box_images)) == 0


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    (tmp_path / ".hidden.jpg").touch()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    skipped = load_image_folder(tmp_path).skipped
    assert [entry.entry for entry in skipped] == [str(tmp_path / ".hidden.jpg"), str(tmp_path / "gone.jpg")]
    assert len({entry.reason for entry in skipped}) == 2


def test_a_name_that_is_not_utf8_still_leads_to_its_file(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (path,) = load_image_folder(tmp_path).paths
    assert local_path(path).exists()


@pytest.mark.parametrize("name", ["nowhere", "nowhere[1]", "file.jpg"])
def test_a_missing_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.jpg").touch()
    (tmp_path / "nowhere1").mkdir()
    with pytest.raises(ValueError, match=r"(nowhere|nowhere\[1\]|file\.jpg): no such folder"):
        load_image_folder(tmp_path / name)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path.name}: no images"):
        load_image_folder(tmp_path)
