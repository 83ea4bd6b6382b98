"""`forclip duplicates`: groups, and ids that `forclip delete` takes."""

import json
from pathlib import Path

import numpy as np

from forclip.index.image_index import Index
from forclip.types import ImageEmbeddings
from tests.cli.test_cli import assert_one_line, run
from tests.index.made import DIM, HEADER, files, names, unit


def test_repeats_are_listed_and_can_be_deleted(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0), 3, DIM)[[0, 1, 0, 2, 0]]
    index = Index.create(tmp_path / "s", HEADER)
    index.add(ImageEmbeddings(vectors, np.arange(6), tuple(names(5))), files(names(5)))
    found = run("duplicates", tmp_path / "s", "--json", "--ids-to", tmp_path / "ids.txt")
    ((first, *others),) = json.loads(found.stdout)
    assert first["image_id"] == "image 00000"
    assert [image["image_id"] for image in others] == ["image 00002", "image 00004"]
    assert "1 groups; 2 images" in run("duplicates", tmp_path / "s").stdout
    assert "2 deleted, 3 left" in run("delete", tmp_path / "s", "--ids", tmp_path / "ids.txt", "--yes").stdout
    assert "0 groups" in run("duplicates", tmp_path / "s").stdout
    assert_one_line(run("duplicates", tmp_path / "s", "--threshold", "1.2"), "1.2")
