"""Labels of views agree with naive loops over boxes, and with cases worked by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forclip.data.images.tiles import Tiles
from forclip.data.images.views import FLIP, PLAIN, View, Window, make_views
from forclip.progress import Notice
from forclip.training import view_labels
from forclip.training.view_labels import label_views
from forclip.types import Annotations

Box = tuple[float, float, float, float]
SIZE = (100, 80)
QUARTERS = Tiles(2, 2, overlap=0).views()
CROP = View("crop of 60 %", lambda row, size: Window((0, 0, size[0] * 6 // 10, size[1])))


def annotations(
    boxes: list[tuple[int, int, Box]],
    boxless: list[tuple[int, int]] = (),  # type: ignore[assignment]  # none
    images: int = 1,
    classes: int = 3,
    unverified: list[tuple[int, int]] = (),  # type: ignore[assignment]  # none
    paths: list[Path] | None = None,
) -> Annotations:
    labels, verified = np.zeros((images, classes), bool), np.ones((images, classes), bool)
    for i, c in [*((i, c) for i, c, _ in boxes), *boxless]:
        labels[i, c] = True
    for i, c in unverified:
        verified[i, c] = False
    ids = tuple(map(str, range(images)))
    return Annotations(
        ids,
        tuple(paths or map(Path, ids)),
        tuple(f"class {c}" for c in range(classes)),
        labels,
        np.array([box for _, _, box in boxes], np.float32).reshape(-1, 4),
        np.array([i for i, _, _ in boxes], np.int64),
        np.array([c for _, c, _ in boxes], np.int64),
        verified,
    )


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """All images have one size, without files."""
    if "tmp_path" not in request.fixturenames:
        monkeypatch.setattr(view_labels, "image_size", lambda path: SIZE)


CASES = {  # box of one label, or None; shown and verified in the whole image and in the four quarters of 50 x 40
    "inside one": ((5, 5, 20, 20), "+ + - - -"),
    "half in each of two": ((40, 5, 60, 20), "+ + + - -"),
    "mostly in one": ((35, 5, 55, 20), "+ + ? - -"),
    "a quarter in each": ((40, 30, 60, 50), "+ ? ? ? ?"),
    "around everything": ((0, 0, 100, 80), "+ ? ? ? ?"),
    "touching the border": ((10, 0, 50, 40), "+ + - - -"),
    "without area": ((70, 60, 70, 60), "+ - - - +"),
    "no box": (None, "+ ? ? ? ?"),
    "half inside": ((80, 60, 130, 100), "+ - - - +"),
    "around the image and more": ((-50, -50, 200, 200), "+ ? ? ? ?"),
}


@pytest.mark.parametrize(("box", "expected"), CASES.values(), ids=CASES.keys())
def test_tiles_by_hand(box: tuple[float, float, float, float] | None, expected: str) -> None:
    given = annotations([], [(0, 1)]) if box is None else annotations([(0, 1, box)])
    labels, verified = label_views(given, QUARTERS)
    signs = ["+" if shown else "-" for shown in labels[:, 0, 1]]
    assert " ".join(s if known else "?" for s, known in zip(signs, verified[:, 0, 1], strict=True)) == expected
    assert not labels[:, 0, [0, 2]].any()
    assert verified[:, 0, [0, 2]].all()


@pytest.mark.parametrize("box", [(120, 10, 150, 30), (100, 80, 100, 90), (-30, 10, -5, 30)])
def test_a_box_outside_counts_as_no_box_with_a_notice(box: Box) -> None:
    inside = (0, 2, (5.0, 5.0, 20.0, 20.0))
    with pytest.warns(Notice, match=r"1 of 2 boxes .*'class 1' of 0"):
        found = label_views(annotations([(0, 1, box), inside]), QUARTERS)
    expected = label_views(annotations([inside], [(0, 1)]), QUARTERS)
    np.testing.assert_array_equal(found, expected)


def test_a_label_without_a_box_stays_on_a_crop_of_most_of_the_image() -> None:
    labels, verified = label_views(annotations([], [(0, 1)]), (PLAIN, FLIP, CROP))
    assert labels[:, 0].tolist() == [[False, True, False]] * 3
    assert verified.all()


def test_one_object_of_a_class_that_is_shown_is_enough() -> None:
    """One inside, one cut: shown. One outside, one cut: unknown."""
    boxes: list[tuple[int, int, Box]] = [
        (0, 0, (5, 5, 20, 20)),
        (0, 0, (35, 5, 90, 20)),
        (0, 1, (60, 50, 90, 70)),
        (0, 1, (45, 5, 60, 20)),
    ]
    labels, verified = label_views(annotations(boxes), QUARTERS)
    assert (labels[1, 0, 0], verified[1, 0, 0]) == (True, True)
    assert (labels[1, 0, 1], verified[1, 0, 1]) == (False, False)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_views_agree_with_a_loop_over_pixels(seed: int) -> None:
    """Whole-pixel boxes, whole images among them, image-level and unverified labels, crops, mirror images and tiles."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(rng.integers(0, 12)):
        x, y = np.sort(rng.choice(101, 2, replace=False)), np.sort(rng.choice(81, 2, replace=False))
        x0, y0, x1, y1 = (0, 0, *SIZE) if rng.random() < 0.1 else (x[0], y[0], x[1], y[1])
        box: Box = (float(x0), float(y0), float(x1), float(y1))
        boxes.append((int(rng.integers(3)), int(rng.integers(4)), box))
    pairs = [(int(i), int(c)) for i, c in rng.integers((3, 4), size=(6, 2))]
    made = annotations(boxes, pairs[:3], 3, 4, pairs[3:])
    views = (*make_views(4, seed % 50), *Tiles(2, 2, 0.5).tile_views())
    labels, verified = label_views(made, views)
    for v, view in enumerate(views):
        for i in range(3):
            window = np.zeros(SIZE, bool)
            x0, y0, x1, y1 = view.window(i, SIZE).box
            window[x0:x1, y0:y1] = True
            for c in range(4):
                own = [box for row, column, box in boxes if (row, column) == (i, c)]
                if not own and made.labels[i, c]:
                    own = [(0.0, 0.0, 100.0, 80.0)]
                shares = []
                for box in own:
                    pixels = np.zeros(SIZE, bool)
                    pixels[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])] = True
                    shares.append((pixels & window).sum() / pixels.sum())
                shown = any(share >= 0.5 for share in shares)
                cut = any(0 < share < 0.5 for share in shares)
                assert labels[v, i, c] == shown
                assert verified[v, i, c] == (made.verified_mask[i, c] and (shown or not cut))


def test_a_view_that_shows_all_of_the_first_image_only_has_labels_of_its_own() -> None:
    """Random crops can be as large as an image."""
    view = View("all, then a quarter", lambda row, size: Window((0, 0, *size) if row == 0 else (0, 0, 50, 40)))
    labels, _ = label_views(annotations([(0, 0, (60, 50, 90, 70)), (1, 0, (60, 50, 90, 70))], images=2), (view,))
    assert labels[0, :, 0].tolist() == [True, False]


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_boxes_of_turned_images_are_turned(tmp_path: Path, orientation: int) -> None:
    """Stored: 100 x 80, the object at the top left. Upright: top left, top right, bottom right."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=exif)
    made = annotations([(0, 0, (0, 0, 20, 20))], paths=[tmp_path / "a.jpg"])
    made = Annotations(**{**vars(made), "box_sizes": np.array([SIZE])})
    labels, verified = label_views(made, QUARTERS)
    assert labels[1:, 0, 0].tolist() == [k == {1: 0, 6: 1, 3: 3}[orientation] for k in range(4)]
    assert verified.all()


def test_an_image_that_cannot_be_read_keeps_its_labels(tmp_path: Path) -> None:
    made = annotations([(0, 0, (0, 0, 20, 20))], paths=[tmp_path / "gone.jpg"])
    labels, verified = label_views(made, QUARTERS)
    assert labels[:, 0, 0].all()
    assert verified.all()
