"""That the benchmark's files are what the loaders take for the real ones, on a thousandth of their size."""

from pathlib import Path

import pytest

from benchmarks.load_annotations import LIMITS, SHAPES, measure, write_annotations
from forclip.config import SourceConfig
from forclip.data.sources import format_of, load_source


@pytest.mark.parametrize("kind", SHAPES)
def test_files_are_of_the_kind_and_count_that_they_are_said_to_be(tmp_path: Path, kind: str) -> None:
    file, shape = tmp_path / "file.json", SHAPES[kind].scaled(0.001)
    write_annotations(file, kind, shape)
    source = SourceConfig(file, tmp_path)
    assert format_of(source) == kind
    found = load_source(source)
    assert (len(found), len(found.class_names)) == (shape.images, shape.classes)
    assert 0 < len(found.boxes) == shape.boxes
    assert (found.verified is not None) == (kind == "lvis")


def test_each_load_has_its_limit_and_a_process_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    write_annotations(file, "coco", SHAPES["coco"].scaled(0.001))
    read, copied = (measure("coco", source, file, 2) for source in ("annotation file", "cache"))
    assert len(list((tmp_path / "coco.cache").iterdir())) == 1
    assert (read.limit, copied.limit) == (LIMITS["coco", "annotation file"], LIMITS["coco", "cache"])
    assert len(read.seconds) == len(copied.seconds) == 2
    assert 0 < read.peak_gigabytes < 4
