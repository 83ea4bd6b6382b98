"""What a folder holds: pictures, and what is left out, each counted once and for a reason."""

import glob
import os
import re
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from forclip.data.images import listing, picture_types
from forclip.data.images.listing import (
    BROKEN_LINK,
    CAMERA_RAW,
    HIDDEN,
    LISTED_FILE,
    LISTED_FOLDER,
    LOOP,
    OTHER_MACHINE,
    SPECIAL,
    SYSTEM,
    UNREADABLE,
    UNREADABLE_FILE,
    VIDEO,
    list_pictures,
)
from forclip.location import local_path


def made(folder: Path, *names: str, content: bytes = b"") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def pictures(folder: Path, source: str = "") -> list[str]:
    found = list_pictures(f"{folder}/{source}" if source else str(folder))
    return [local_path(path).relative_to(folder).as_posix() for path in found.pictures]


def left_out(folder: Path) -> dict[str, list[str]]:
    found = list_pictures(str(folder))
    return {reason: [os.path.relpath(p, folder) for p in paths] for reason, paths in found.left_out.items()}


def test_a_folder_is_searched_all_the_way_down(tmp_path: Path) -> None:
    """Capitals in a suffix count, a folder named like a picture is none. The order is that of the paths' parts."""
    made(tmp_path, "b.jpg", "a.PNG", "sub/deep/c.jpeg", "sub/d.webp", "sub-1.jpg", "odd[1]/e.tif")
    (tmp_path / "folder.jpg").mkdir()
    assert pictures(tmp_path) == ["a.PNG", "b.jpg", "odd[1]/e.tif", "sub/d.webp", "sub/deep/c.jpeg", "sub-1.jpg"]
    found = [local_path(path) for path in list_pictures(str(tmp_path)).pictures]
    assert sorted(found) == found
    assert pictures(tmp_path, "odd[1]") == ["odd[1]/e.tif"]
    assert left_out(tmp_path) == {}


def test_patterns_match_as_pythons_glob(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.png", "x/a.jpg", "x/y/c.jpg", "x/y/z/d.JPG", ".hidden/e.jpg", "x/.f.jpg")
    for pattern in ("*.jpg", "**/*.jpg", "**", "x/**/*.jpg", "x/*/*", "**/y/*", "**/[ab].*", "*/**/?.jpg", "*.gif"):
        peer = [p for p in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if os.path.isfile(p)]
        assert list_pictures(f"{tmp_path}/{pattern}").pictures == tuple(sorted(map(Path, set(peer)))), pattern


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        list_pictures(f"{tmp_path}/nowhere")


def test_a_source_may_be_one_picture(tmp_path: Path) -> None:
    made(tmp_path, ".b.jpg", "notes.txt")
    assert pictures(tmp_path, ".b.jpg") == [".b.jpg"]
    assert pictures(tmp_path, "notes.txt") == []


def test_all_that_pillow_opens_is_a_picture(tmp_path: Path) -> None:
    endings = "avif bmp dib gif ico j2k jfif jp2 jpe mpo pbm pgm pnm ppm psd qoi tga"
    names = [f"picture.{ending}" for ending in endings.split()]
    assert pictures(made(tmp_path, *names)) == sorted(names)


def test_what_is_no_picture_is_counted_by_its_ending(tmp_path: Path) -> None:
    made(
        tmp_path,
        "a.jpg",
        "a.xmp",
        "b.XMP",
        "a.json",
        "notes.txt",
        "paper.pdf",
        "figure.eps",
        "x.h5",
        "odd.qqq",
        "LICENSE",
    )
    found = list_pictures(str(tmp_path))
    assert [path.name for path in found.pictures] == ["a.jpg"]
    expected = {".xmp": 2, ".json": 1, ".txt": 1, ".pdf": 1, ".eps": 1, ".h5": 1, ".qqq": 1, "": 1}
    assert found.other_files == expected
    assert found.left_out == {}
    counts = {reason.rpartition(": ")[2]: part.count for reason, part in found.summary().items()}
    assert counts == {**{k: v for k, v in expected.items() if k}, "without an ending": 1}


def test_videos_and_raw_files_are_told(tmp_path: Path) -> None:
    made(tmp_path, "IMG_1.CR2", "IMG_2.nef", "IMG_3.dng", "clip.MOV", "clip.mp4", content=b"II*\0" + bytes(40))
    assert left_out(tmp_path) == {
        CAMERA_RAW: ["IMG_1.CR2", "IMG_2.nef", "IMG_3.dng"],
        VIDEO: ["clip.MOV", "clip.mp4"],
    }


def test_heic_without_the_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "IMG_1.HEIC", "b.hif", "odd.bin", "a.jpg", content=b"\0\0\0\x18ftypheic" + bytes(20))
    suffixes = picture_types.picture_suffixes() - picture_types.HEIC_SUFFIXES
    monkeypatch.setattr(listing, "picture_suffixes", lambda: suffixes)
    monkeypatch.setattr(listing, "reads_heic", lambda: False)
    (reason,) = left_out(tmp_path)
    assert "forclip[heic]" in reason
    assert left_out(tmp_path)[reason] == ["IMG_1.HEIC", "b.hif"]
    assert pictures(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "TIFF"])
def test_a_picture_without_an_ending_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    made(tmp_path, "0a1b2c", "photo.download", "page.html", content=encoded(kind))
    made(tmp_path, "README", "data.bin")
    assert pictures(tmp_path) == (["0a1b2c", "photo.download"] if kind != "TIFF" else ["0a1b2c"])


def test_hidden_and_system_files_and_folders_are_left_out(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", ".b.jpg", "._a.jpg", ".thumbnails/c.jpg", ".Trash-1000/d.jpg")
    made(tmp_path, "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/a.jpg", "lost+found/e.jpg", "#recycle/f.jpg")
    made(tmp_path, "Previews.lrdata/g.jpg", "$RECYCLE.BIN/h.jpg", "resources/i.jpg")
    made(tmp_path, "My.photoslibrary/originals/j.jpg", "My.photoslibrary/resources/derivatives/j.jpg")
    assert pictures(tmp_path) == ["My.photoslibrary/originals/j.jpg", "a.jpg", "resources/i.jpg"]
    folders = ["My.photoslibrary/resources", "Previews.lrdata"]
    assert left_out(tmp_path) == {
        HIDDEN: sorted([".Trash-1000", "._a.jpg", ".b.jpg", ".thumbnails"]),
        SYSTEM: sorted(["#recycle", "$RECYCLE.BIN", "@eaDir", *folders, "__MACOSX", "lost+found"]),
    }


def test_a_hidden_folder_that_is_asked_for_is_listed(tmp_path: Path) -> None:
    made(tmp_path, ".dvc/cache/a.jpg")
    assert [path.name for path in list_pictures(str(tmp_path / ".dvc")).pictures] == ["a.jpg"]


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    """As in git-annex, DVC and the caches of model hubs: names beside blobs that have none."""
    made(tmp_path, "blobs/0001", "elsewhere/0002", content=encoded("JPEG"))
    (tmp_path / "set").mkdir()
    for name, target in (("a.jpg", "blobs/0001"), ("same.jpg", "blobs/0001"), ("b.jpg", "elsewhere/0002")):
        (tmp_path / "set" / name).symlink_to(tmp_path / target)
    (tmp_path / "set" / "gone.jpg").symlink_to("../blobs/0003")
    (tmp_path / "set" / "itself.jpg").symlink_to("itself.jpg")
    assert pictures(tmp_path / "set") == ["a.jpg", "b.jpg", "same.jpg"]
    assert left_out(tmp_path / "set") == {BROKEN_LINK: ["gone.jpg", "itself.jpg"]}
    # The blobs themselves are listed under the names that people know.
    assert pictures(tmp_path) == ["set/a.jpg", "set/b.jpg", "set/same.jpg"]
    assert left_out(tmp_path)[LISTED_FILE] == ["blobs/0001", "elsewhere/0002"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    made(tmp_path, "photos/z_real/a.jpg", "outside/b.jpg", "outside/deep/c.jpg")
    (tmp_path / "photos" / "a_latest").symlink_to("z_real")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "outside")
    (tmp_path / "photos" / "part").symlink_to(tmp_path / "outside" / "deep")
    assert pictures(tmp_path / "photos") == ["more/b.jpg", "more/deep/c.jpg", "z_real/a.jpg"]
    assert left_out(tmp_path / "photos") == {LISTED_FOLDER: ["a_latest", "part"]}


def test_loops_end(tmp_path: Path) -> None:
    """A link to a folder around it, as Wine's drive Z: is, would list the whole disk."""
    made(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "other/c.jpg")
    for name, target in (("loop", "."), ("sub/up", ".."), ("sub/self", "self"), ("root", "/"), ("beyond", "..")):
        (tmp_path / "photos" / name).symlink_to(target, target_is_directory=True)
    (tmp_path / "photos" / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "photos")
    assert pictures(tmp_path / "photos") == ["a.jpg", "other/c.jpg", "sub/b.jpg"]
    found = left_out(tmp_path / "photos")
    assert found == {
        BROKEN_LINK: ["sub/self"],
        LOOP: ["beyond", "root"],
        LISTED_FOLDER: ["loop", "other/back", "sub/up"],
    }


def test_links_to_other_machines_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    (tmp_path / "far").symlink_to(shared)
    made(tmp_path, "a.jpg")
    monkeypatch.setattr(listing, "_network_devices", lambda: frozenset({shared.stat().st_dev}))
    assert left_out(tmp_path) == {OTHER_MACHINE: ["far"]}


def test_mounts_of_other_machines_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "22 27 0:21 / /proc rw - proc proc rw\n40 27 0:45 / /nas rw shared:1 - nfs4 nas:/photos rw\n"
    lines += "41 27 0:46 / /home/u/far rw - fuse.sshfs u@host: rw\n42 27 0:47 / /pool rw - fuse.mergerfs a:b rw\n"
    (tmp_path / "mountinfo").write_text(lines)
    monkeypatch.setattr(listing, "_MOUNTS", str(tmp_path / "mountinfo"))
    listing._network_devices.cache_clear()
    assert listing._network_devices() == {os.makedev(0, 45), os.makedev(0, 46)}
    listing._network_devices.cache_clear()


def test_folders_and_files_that_cannot_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "a.jpg", "secret/b.jpg", "unknown")
    scan = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    def fail(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(listing, "_read_start", fail)
    assert pictures(tmp_path) == ["a.jpg"]
    assert left_out(tmp_path) == {UNREADABLE: ["secret"], UNREADABLE_FILE: ["unknown"]}
    found = list_pictures(str(tmp_path))
    assert found.may_hold(str(tmp_path / "secret" / "deep" / "b.jpg"))
    assert not found.may_hold(str(tmp_path / "secrets.jpg"))
    assert str(tmp_path / "secret") in found.summary()[UNREADABLE].examples


@pytest.fixture
def pipe_and_socket(tmp_path: Path) -> Iterator[Path]:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    made(tmp_path, "a.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket may have about a hundred characters
        opened.bind("socket.jpg")
        os.chdir(here)
        yield tmp_path


def test_pipes_and_sockets_are_never_opened(pipe_and_socket: Path) -> None:
    expected = ["link.jpg", "pipe", "pipe.jpg", "socket.jpg"]
    assert left_out(pipe_and_socket) == {SPECIAL: expected}
    assert pictures(pipe_and_socket, "*") == ["a.jpg"]


def test_names_that_are_not_utf8_are_listed_and_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        made(tmp_path, f"{name}.jpg", f".{name}.jpg", f"{name}.txt")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = list_pictures(str(tmp_path))
    assert found.pictures == (tmp_path / f"{name}.jpg",)
    assert found.summary()[HIDDEN].examples == (f"{tmp_path}/.caf\\xe9.jpg",)


def test_an_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    made(tmp_path, ".a.jpg", "b.txt", "c.txt")
    found = list_pictures(str(tmp_path))
    assert found.pictures == ()
    assert re.search(
        r"here: no images found.*hidden.*: 1 \(.*\.a\.jpg\); other files: 2 \.txt", found.why_empty("here")
    )
