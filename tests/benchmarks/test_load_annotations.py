"""The annotation benchmark, at a thousandth of its size."""

from pathlib import Path

import pytest

from benchmarks.load_annotations import LIMITS, SHAPES, measure, write_annotations
from forclip.config import SourceConfig
from forclip.data.source_format import format_of
from forclip.data.sources import load_source


@pytest.mark.parametrize("kind", SHAPES)
def test_generated_files_have_the_stated_format_and_counts(tmp_path: Path, kind: str) -> None:
    file, shape = tmp_path / "file.json", SHAPES[kind].scaled(0.001)
    write_annotations(file, kind, shape)
    source = SourceConfig(file, tmp_path)
    assert format_of(source) == kind
    annotations = load_source(source)
    assert (len(annotations), len(annotations.class_names)) == (shape.images, shape.classes)
    assert 0 < len(annotations.boxes) == shape.boxes
    assert (annotations.verified is not None) == (kind == "lvis")


def test_each_load_has_a_limit_and_its_own_process(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    write_annotations(file, "coco", SHAPES["coco"].scaled(0.001))
    read, copied = (measure("coco", source, file, 2) for source in ("annotation file", "cache"))
    assert len(list((tmp_path / "coco.cache").iterdir())) == 1
    assert (read.limit, copied.limit) == (LIMITS["coco", "annotation file"], LIMITS["coco", "cache"])
    assert len(read.seconds) == len(copied.seconds) == 2
    assert 0 < read.peak_gigabytes < 4
