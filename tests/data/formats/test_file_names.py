import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.file_names import FileNames

FILES = ("x.jpg", "train/x.jpg", "a b.jpg", "IMG_1.JPG", "café.jpg", "up/load (1).jpg", "50%25.jpg", "back\\slash.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "set" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "images" / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    (tmp_path / "secret.jpg").write_text("of somebody else")
    return tmp_path / "set" / "images"


NAMES = {
    "plain": ("train/x.jpg", "train/x.jpg"),
    "its own escape": ("50%25.jpg", "50%25.jpg"),
    "its own backslash": ("back\\slash.jpg", "back\\slash.jpg"),
    "missing": ("gone/y.jpg", "gone/y.jpg"),
    "missing, with a date": ("20240101-x.jpg", "20240101-x.jpg"),
    "missing in one of two folders": ("val/x.jpg", "val/x.jpg"),
    "dot": ("./train/./x.jpg", "train/x.jpg"),
    "doubled slash": ("train//x.jpg", "train/x.jpg"),
    "inside after climbing": ("train/../x.jpg", "x.jpg"),
    "backslash": ("train\\x.jpg", "train/x.jpg"),
    "backslash, missing": (".\\gone\\y.jpg", "gone/y.jpg"),
    "escapes": ("a%20b.jpg", "a b.jpg"),
    "suffix in lower case": ("IMG_1.jpg", "IMG_1.JPG"),
    "blanks around it": (" train/x.jpg ", "train/x.jpg"),
    "decomposed": (unicodedata.normalize("NFD", "café.jpg"), "café.jpg"),
    "with the folder's own name": ("images/train/x.jpg", "train/x.jpg"),
    "with the folder's own names": ("set/images/x.jpg", "x.jpg"),
    "beside the label file": ("../images/train/x.jpg", "train/x.jpg"),
    "another machine": ("/home/anna/set/images/train/x.jpg", "train/x.jpg"),
    "another machine, flat": ("/home/anna/pictures/x.jpg", "x.jpg"),
    "another home": ("~/pictures/x.jpg", "x.jpg"),
    "Windows": ("C:\\data\\train\\x.jpg", "train/x.jpg"),
    "Windows, other case": ("d:/data/TRAIN/X.JPG", "train/x.jpg"),
    "Windows share": ("\\\\server\\share\\train\\x.jpg", "train/x.jpg"),
    "Label Studio's upload": ("/data/upload/3/ab12cd34-x.jpg", "x.jpg"),
    "Label Studio's upload, digits alone": ("/data/upload/3/12345678-x.jpg", "x.jpg"),
    "Label Studio's upload, plain": ("images/ab12cd34-x.jpg", "x.jpg"),
    "Label Studio's upload, cleaned": ("/data/upload/up/ab12cd34-load_1.jpg", "up/load (1).jpg"),
    "Label Studio's local files": ("/data/local-files/?d=set/images/train/x.jpg", "train/x.jpg"),
    "Label Studio's local files, escaped": ("/data/local-files/?d=images%5Ctrain%5Cx.jpg", "train/x.jpg"),
    "Label Studio's local files, by host": ("http://localhost:8080/data/local-files/?d=a%20b.jpg", "a b.jpg"),
    "Label Studio's import": ("upload://3/ab12cd34-x.jpg", "x.jpg"),
    "file URL": ("file:///home/anna/train/x.jpg", "train/x.jpg"),
    "file URL of Windows": ("file:///C:/data/a%20b.jpg", "a b.jpg"),
    "web": ("https://host/set/train/x.jpg?width=64#top", "train/x.jpg"),
    "bucket": ("s3://bucket/train/x.jpg", "train/x.jpg"),
}


@pytest.mark.parametrize(("name", "meant"), NAMES.values(), ids=NAMES.keys())
def test_a_name_leads_to_its_picture(folder: Path, name: str, meant: str) -> None:
    assert FileNames(folder).resolve(name) == folder / meant


def test_absolute_names_in_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way leads there, and whether or not the picture is there."""
    monkeypatch.chdir(folder.parent)
    for given_folder in (folder, tmp_path / "link" / "images", Path("images"), Path("../set/images")):
        for start in (folder, tmp_path / "link" / "images", tmp_path / "set" / ".." / "link" / "images"):
            for name in ("train/x.jpg", "train/gone.jpg", "gone/x.jpg"):
                assert FileNames(given_folder).resolve(f"{start}/{name}") == given_folder / name


UNUSABLE = {
    "empty": "",
    "blank": " ",
    "NUL": "a\0.jpg",
    "half a character": "\ud800.jpg",
    "climbing": "../secret.jpg",
    "climbing later": "train/../../secret.jpg",
    "climbing by a backslash": "train\\..\\..\\secret.jpg",
    "climbing by escapes": "..%2f%2e%2e/secret.jpg/../../../y.jpg",
    "absolute": "/etc/passwd",
    "drive": "C:\\secret.jpg",
    "drive without a folder": "c:secret.jpg",
    "share": "\\\\server\\share\\secret.jpg",
    "home": "~/secret.jpg",
    "URL": "file:///etc/passwd",
    "no URL": "http://[1/x.png",
    "the folder itself": "..",
    "nothing but a dot": "/.",
}


@pytest.mark.parametrize("name", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_name_from_elsewhere_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(UnusableEntry) as error:
        FileNames(folder).resolve(name)
    assert error.value.value == (name if name.isprintable() else ascii(name)[1:-1])


def test_another_file_of_this_machine_is_not_taken_for_one_in_the_folder(folder: Path, tmp_path: Path) -> None:
    """A copy is: of the same size, at least."""
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "x.jpg"
    other.write_text("another picture")
    with pytest.raises(UnusableEntry, match="outside"):
        FileNames(folder).resolve(str(other))
    other.write_bytes((folder / "x.jpg").read_bytes())
    assert FileNames(folder).resolve(str(other)) == folder / "x.jpg"


def test_two_names_with_the_same_end_are_not_one_picture(folder: Path) -> None:
    names = FileNames(folder)
    for _ in range(2):
        assert names.resolve("/home/anna/cam1/x.jpg") == folder / "x.jpg"
        assert names.resolve("C:\\home\\anna\\cam1\\x.jpg") == folder / "x.jpg"
    with pytest.raises(UnusableEntry, match=r"cam2/x\.jpg"):
        names.resolve("/home/anna/cam2/x.jpg")
    assert names.resolve("x.jpg") == folder / "x.jpg"


def test_a_name_that_fits_two_files_is_missing(folder: Path) -> None:
    (folder / "img_1.jpg").touch()
    assert FileNames(folder).resolve("Img_1.jpg") == folder / "Img_1.jpg"
    assert FileNames(folder).resolve("IMG_1.JPG") == folder / "IMG_1.JPG"


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    name = os.fsdecode(b"train/caf\xe9.jpg")
    (folder / name).touch()
    assert FileNames(folder).resolve(f"/home/anna/{name}") == folder / name


def test_folders_are_listed_once_and_files_never(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []

    def list_folder(path: Path) -> list[str]:
        listed.append(path)
        return [entry.name for entry in os.scandir(path)]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was looked up")

    names = FileNames(folder)
    monkeypatch.setattr(os, "listdir", list_folder)
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", refuse)
    for k in range(100):
        names.resolve("train/x.jpg")
        names.resolve("x.jpg")
        names.resolve(f"gone{k}.jpg")
    assert sorted(listed) == [folder, folder / "train"]


def test_the_image_folder_may_be_missing(tmp_path: Path) -> None:
    assert FileNames(tmp_path / "gone").resolve("a/x.jpg") == tmp_path / "gone" / "a" / "x.jpg"
    with pytest.raises(UnusableEntry):
        FileNames(tmp_path / "gone").resolve("/home/anna/x.jpg")


PARTS = st.sampled_from(
    ["..", ".", "", "x.jpg", "secret.jpg", "train", "~", "C:", "%2e%2e", "\\", "..\\", "file:", "/", "?d="]
)


@given(st.lists(PARTS, max_size=8).map("/".join) | st.text(max_size=20))
def test_no_name_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    (root / "images" / "train").mkdir(parents=True, exist_ok=True)
    (root / "images" / "x.jpg").touch()
    (root / "secret.jpg").touch()
    try:
        path = FileNames(root / "images").resolve(name)
    except UnusableEntry:
        return
    assert Path(os.path.normpath(path)).is_relative_to(root / "images")
    assert path != root / "images"
    assert ".." not in path.parts


def test_escapes_stand_for_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "sub" / os.fsdecode(b"caf\xe9.jpg")
    file.parent.mkdir()
    file.write_bytes(b"x")
    names = FileNames(tmp_path)
    assert names.resolve(r"sub/caf\xe9.jpg") == file
    assert names.resolve(f"{tmp_path}/sub/caf\\xe9.jpg") == file
    assert names.resolve(r"C:\data\sub\caf\xe9.jpg") == file
    literal = tmp_path / "sub" / r"caf\xe9.jpg"
    literal.write_bytes(b"y")
    assert FileNames(tmp_path).resolve(r"sub/caf\xe9.jpg") == literal
