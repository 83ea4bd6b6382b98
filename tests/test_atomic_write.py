"""Atomic writes: all of the new content or all of the old, and no temporary file left behind."""

from pathlib import Path

import pytest

from forclip.atomic_write import write_atomically, write_text_atomically


def test_the_content_is_written_and_folders_are_created(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "file.txt"
    write_text_atomically(file, "Zürich \udc80", sync=True)
    assert file.read_text(encoding="utf-8") == "Zürich ?"
    write_atomically(file, lambda path: path.write_bytes(b"\x00\xff"))
    assert file.read_bytes() == b"\x00\xff"
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    def fail_halfway(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    file = tmp_path / "file.txt"
    file.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail_halfway)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
