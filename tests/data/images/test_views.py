import numpy as np
import pytest
from PIL import Image, ImageOps

from forclip.data.images.views import FLIP, PLAIN, Window, crop_view, make_views, resolve_num_views

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
# Every pixel says where it is: red its column, green its row.
PLACES = Image.fromarray(
    np.stack([*np.broadcast_arrays(np.arange(200)[None], np.arange(100)[:, None]), np.zeros((100, 200))], -1).astype(
        np.uint8
    )
)


def test_the_first_views_are_the_picture_and_its_mirror_image() -> None:
    plain, flip, *crops = make_views(5, seed=1)
    np.testing.assert_array_equal(plain(3, NOISE), NOISE)
    np.testing.assert_array_equal(flip(3, NOISE), ImageOps.mirror(NOISE))
    np.testing.assert_array_equal(flip(3, NOISE), np.asarray(NOISE)[:, ::-1])
    assert len(crops) == 3
    assert len({view.name for view in make_views(5, seed=1)}) == 5
    assert [v.name for v in make_views(3, seed=1)] == [v.name for v in make_views(5, seed=1)][:3]


def test_a_crop_depends_on_seed_view_and_row_and_on_nothing_else() -> None:
    first = np.asarray(make_views(3, seed=1)[2](7, NOISE))
    np.random.default_rng().random()
    np.testing.assert_array_equal(first, make_views(4, seed=1)[2](7, NOISE))
    others = [
        make_views(3, seed=2)[2](7, NOISE),
        make_views(4, seed=1)[3](7, NOISE),
        make_views(3, seed=1)[2](8, NOISE),
    ]
    for other in map(np.asarray, others):
        assert other.shape != first.shape or (other != first).any()
    assert make_views(3, seed=1)[2].name != make_views(3, seed=2)[2].name


def test_crops_have_half_the_picture_or_more_and_nearly_its_aspect() -> None:
    areas, aspects, mirrored, corners = [], [], [], []
    for row in range(400):
        cropped = np.asarray(crop_view(2, seed=0)(row, PLACES)).astype(int)
        height, width, _ = cropped.shape
        columns, rows = cropped[0, :, 0], cropped[:, 0, 1]
        np.testing.assert_array_equal(np.diff(rows), 1)  # a piece of the picture, not resampled
        assert set(np.diff(columns)) in ({1}, {-1})
        areas.append(width * height / 20_000)
        aspects.append(width / height / 2)
        mirrored.append(columns[0] > columns[-1])
        corners.append((columns.min() / (200 - width + 1e-9), rows.min() / (100 - height + 1e-9)))
    assert 0.49 < min(areas) < 0.52
    assert 0.97 < max(areas) <= 1
    assert 0.74 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.36
    assert abs(np.mean(np.log(aspects))) < 0.03
    assert 0.4 < np.mean(mirrored) < 0.6
    assert np.abs(np.mean(corners, 0) - 0.5).max() < 0.1


def test_the_window_says_which_pixels_a_view_shows() -> None:
    assert PLAIN.window(0, (200, 100)) == Window((0, 0, 200, 100))
    assert FLIP.window(0, (200, 100)) == Window((0, 0, 200, 100), mirrored=True)
    for row in range(20):
        window, shown = crop_view(2, seed=0).window(row, PLACES.size), np.asarray(crop_view(2, seed=0)(row, PLACES))
        left, top, right, bottom = window.box
        assert (shown[..., 0].min(), shown[..., 0].max() + 1) == (left, right)
        assert (shown[..., 1].min(), shown[..., 1].max() + 1) == (top, bottom)
        assert window.mirrored == bool(shown[0, 0, 0] > shown[0, -1, 0])


def test_crops_are_those_that_cached_tokens_were_computed_from() -> None:
    assert [v.name for v in make_views(3, seed=5)] == ["plain", "flip", "crop 2 of seed 5"]
    assert crop_view(2, seed=5).window(7, (640, 480)) == Window((0, 8, 608, 476), mirrored=True)
    assert PLAIN(0, NOISE) is NOISE


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2)])
def test_the_smallest_pictures_can_be_cropped(size: tuple[int, int]) -> None:
    for row in range(20):
        assert min(crop_view(2, seed=0)(row, Image.new("RGB", size)).size) >= 1


def test_no_view_is_an_error() -> None:
    with pytest.raises(ValueError, match="views must be at least 1, not 0"):
        make_views(0, seed=0)


@pytest.mark.parametrize(
    ("given", "images", "expected"),
    [(None, 1, 4), (None, 10_000, 4), (None, 10_001, 3), (None, 118_000, 1), (6, 10**6, 6), (None, 0, 4)],
)
def test_large_sets_get_fewer_views(given: int | None, images: int, expected: int) -> None:
    assert resolve_num_views(given, images) == expected
