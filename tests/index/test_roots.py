"""Named roots: where images are, and what they are called, whatever moves."""

import os
from pathlib import Path

import pytest

from forclip.index.roots import Roots, from_json, source_reference, to_json


def test_a_location_is_found_in_its_root(tmp_path: Path) -> None:
    roots = Roots().with_folder(tmp_path / "photos")
    file = tmp_path / "photos" / "2024" / "a b.jpg"
    assert roots.reference(file) == "photos/2024/a b.jpg"
    assert roots.resolve("photos/2024/a b.jpg") == str(file)
    assert roots.reference(tmp_path / "photos2" / "x.jpg") is None
    assert roots.id_of(tmp_path / "x.jpg") == str(tmp_path / "x.jpg")
    moved = roots.with_root("photos", "/mnt/new")
    assert moved.resolve("photos/2024/a b.jpg") == "/mnt/new/2024/a b.jpg"


@pytest.mark.parametrize("uri", ["/data/x.jpg", "s3://bucket/x.jpg", "https://host/x.jpg", "unknown/x.jpg", "x.jpg"])
def test_other_locations_stay(uri: str) -> None:
    assert Roots({"s3:": "/a", "photos": "/b"}).resolve(uri) == uri


def test_the_deepest_root_names_an_image() -> None:
    roots = Roots({"cam": "/data/cam", "front": "/data/cam/front"})
    assert roots.reference("/data/cam/front/x.jpg") == "front/x.jpg"
    assert roots.reference("/data/cam/frontal/x.jpg") == "cam/frontal/x.jpg"


def test_roots_of_equal_name_get_a_number() -> None:
    roots = Roots().with_folder("/a/images").with_folder("/b/images").with_folder("/a/images/sub").with_folder("/")
    assert roots.folders == {"images": "/a/images", "images-2": "/b/images", "root": "/"}


def test_a_link_leads_to_the_same_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    roots = Roots().with_folder(tmp_path / "real")
    assert roots.with_folder(tmp_path / "link") == roots
    assert roots.reference(tmp_path / "link" / "x.jpg") == "real/x.jpg"
    (tmp_path / "real" / "y.jpg").symlink_to(tmp_path / "blob")  # a picture that is a link keeps its own name
    assert roots.reference(tmp_path / "link" / "y.jpg") == "real/y.jpg"


def test_store_and_photos_move_together(tmp_path: Path) -> None:
    (tmp_path / "disk" / "photos").mkdir(parents=True)
    content = to_json(Roots().with_folder(tmp_path / "disk" / "photos"), tmp_path / "disk" / "s")
    os.rename(tmp_path / "disk", tmp_path / "other")
    assert from_json(content, tmp_path / "other" / "s").folders == {"photos": str(tmp_path / "other" / "photos")}
    # The photos alone are missing: the message about them names the last known place.
    os.rename(tmp_path / "other" / "photos", tmp_path / "away")
    assert from_json(content, tmp_path / "other" / "s").folders == {"photos": str(tmp_path / "disk" / "photos")}


def test_names_that_are_not_utf8_are_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    roots = Roots().with_folder(folder)
    assert roots.reference(folder / "x.jpg") == r"caf\xe9/x.jpg"


def test_a_source_is_named_relative_to_a_root() -> None:
    roots = Roots({"images": "/data/images"})
    assert source_reference(roots, "images", "/data/images") == "images"
    assert source_reference(roots, "images", "/data/images/**/*.jpg") == "images/**/*.jpg"
    assert source_reference(roots, "images", "/data/labels.json") == "images/../labels.json"
