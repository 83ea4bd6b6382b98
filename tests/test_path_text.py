"""File names as text, and back."""

import os
from pathlib import Path

from forclip.path_text import path_to_text, printable, text_to_path


def test_names_that_are_not_utf8_are_found_again(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \xff.jpg"))
    file.write_bytes(b"x")
    text = path_to_text(file)
    text.encode("utf-8")  # can be stored
    assert text.endswith(r"caf\xe9 \xff.jpg")
    assert text_to_path(text) == file
    assert text_to_path(path_to_text(tmp_path / "é.jpg")) == tmp_path / "é.jpg"


def test_a_name_that_holds_an_escape_is_itself(tmp_path: Path) -> None:
    file = tmp_path / r"a\xe9.jpg"
    file.write_bytes(b"x")
    assert text_to_path(path_to_text(file)) == file


def test_a_name_stays_on_one_line_of_the_terminal_and_changes_nothing_there() -> None:
    assert printable("a\nb\x1b[31m\t\u202egpj.exe") == r"a\nb\x1b[31m\t\u202egpj.exe"
    for name in ("שלום עולם.jpg", "emoji 😀👨‍👩‍👧.jpg", r"C:\new\x.jpg", "é ü.jpg"):
        assert printable(name) == name
