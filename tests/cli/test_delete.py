"""`forclip delete` shows how many images it selects before it deletes them."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from forclip.index.image_index import Index
from tests.cli.test_cli import assert_one_line, run
from tests.index.made import HEADER, files, names, some


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three images of two cameras."""
    embeddings = some(names(3))
    index = Index.create(tmp_path / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids), {"Camera": ["front", "back", "back"]})
    return tmp_path / "s"


def test_a_script_must_say_yes(store: Path) -> None:
    where = "\"Camera\" != 'front'"
    assert_one_line(run("delete", store, "--where", where), "2 of 3 images", "--yes")
    assert_one_line(run("delete", store, "--where", "Camera = 'x') or (1=1", "--yes"), "or (1=1")
    assert len(Index(store)) == 3
    dry = run("delete", store, "--where", where, "--dry-run")
    assert (dry.exit_code, len(Index(store))) == (0, 3)
    assert "2 of 3 images" in dry.stdout
    assert "image 00001" in dry.stdout
    assert "image 00000" not in dry.stdout
    assert "2 deleted, 1 left" in run("delete", store, "--where", where, "--yes").stdout
    assert Index(store).store.ids() == {"image 00000"}
    assert "0 deleted, 1 left" in run("delete", store, "--where", where).stdout


def test_deletion_by_ids_names_unknown_ones(store: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("image 00001\nimage 99999\n")
    assert_one_line(run("delete", store, "--ids", ids, "--dry-run", "--where", "true"), "--where or --ids")
    deleted = run("delete", store, "--ids", ids, "--yes")
    assert "1 deleted, 2 left" in deleted.stdout
    assert "1 of 2 ids" in deleted.stderr
    assert "'image 99999'" in deleted.stderr


@pytest.mark.parametrize(("answer", "left"), [("y", 1), ("n", 3), ("", 3)])
def test_a_terminal_is_asked(store: Path, answer: str, left: int) -> None:
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "forclip", "delete", str(store), "--where", "Camera = 'back'"]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.write(mine, f"{answer}\n".encode())
        shown, _ = process.communicate(timeout=120)
    os.close(mine)
    os.close(theirs)
    assert "Delete 2 of 3 images" in shown
    assert len(Index(store)) == left
