"""The oracle benchmark: its regions, crops and means."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.oracle_boxes import Gallery, Result, measure, padded_crop, regions, summarise
from forclip.models.backbone import Backbone
from forclip.types import Annotations, ClassSplit
from tests.tiny import TinyBackbone

BOXES = ((10.0, 20.0, 30.0, 60.0), (0.0, 0.0, 5.0, 5.0), (50.0, 50.0, 60.0, 60.0))


@pytest.fixture
def images(tmp_path: Path) -> Annotations:
    """Three images of noise; the last has no label. Boxes are unsorted, as in COCO files."""
    paths = tuple(tmp_path / f"{k}.png" for k in range(3))
    rng = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(path)
    labels = np.array([[True, True], [False, True], [False, False]])
    owners, classes = np.array([1, 0, 0]), np.array([1, 0, 1])
    return Annotations(("a", "b", "c"), paths, ("cup", "dog"), labels, np.array(BOXES, np.float32), owners, classes)


def test_regions_are_the_whole_image_and_then_its_boxes(images: Annotations) -> None:
    owners, boxes = regions(images)
    assert owners.tolist() == [0, 0, 0, 1, 1, 2]
    assert np.isinf(boxes[:, 2]).tolist() == [True, False, False, True, False, True]
    assert boxes[[1, 2, 4]].tolist() == [list(BOXES[k]) for k in (1, 2, 0)]


@pytest.mark.parametrize(
    ("box", "padding", "size"),
    [
        ((10.0, 20.0, 30.0, 60.0), 0.0, (20, 40)),
        ((10.0, 20.0, 30.0, 60.0), 0.25, (30, 60)),  # 5 and 10 pixels more on each side
        ((10.0, 20.0, 30.0, 60.0), 1.0, (50, 80)),  # cut to the image
        ((0.0, 0.0, np.inf, np.inf), 0.5, (100, 80)),
        ((30.0, 30.0, 30.0, 30.0), 0.5, (1, 1)),
        ((150.0, 90.0, 170.0, 95.0), 0.5, (1, 1)),
    ],
)
def test_a_crop_is_the_padded_box_inside_the_image(
    box: tuple[float, float, float, float], padding: float, size: tuple[int, int]
) -> None:
    assert padded_crop(Image.new("RGB", (100, 80)), box, padding).size == size


def test_a_crop_shows_the_pixels_of_the_padded_box() -> None:
    pixels = np.arange(80 * 100, dtype=np.uint16).reshape(80, 100)
    cropped = np.asarray(padded_crop(Image.fromarray(pixels), (10.0, 20.0, 30.0, 60.0), 0.25))
    assert np.array_equal(cropped, pixels[10:70, 5:35])


def test_boxes_add_vectors_to_that_of_the_whole_image(images: Annotations) -> None:
    backbone: Backbone = TinyBackbone()
    gallery = Gallery("noise", backbone, images, ClassSplit(("cup",), ("dog",)), ["{}"], 1)
    whole, boxes = measure(gallery, None), measure(gallery, 0.1)
    assert whole.vectors_per_image == 1
    assert boxes.vectors_per_image == 2
    assert whole.base is not None
    assert boxes.novel is not None


def test_means_are_over_galleries_and_a_group_without_classes_has_no_mean() -> None:
    rows = summarise([Result("x", 0.1, 10.0, None, 10.0, 2.0), Result("y", 0.1, 14.0, None, 14.0, 4.0)])
    assert rows == [
        {
            "padding": 0.1,
            "galleries": 2,
            "base": 12.0,
            "base_std": pytest.approx(2.8284, abs=1e-4),
            "novel": None,
            "novel_std": 0.0,
            "all": 12.0,
            "all_std": pytest.approx(2.8284, abs=1e-4),
            "vectors_per_image": 3.0,
        }
    ]
