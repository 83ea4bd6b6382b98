"""JPEGs are decoded at a reduced size; what is where in the picture does not change."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from forclip.data.images.decode import UnreadableImage, decode_picture, read_image, read_picture
from forclip.data.images.picture import Picture, reduction_for
from forclip.data.images.views import Window
from forclip.types import Floats


def drawing(size: tuple[int, int]) -> Image.Image:
    """Ramps along both sides, and a bright box off the centre."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.dstack([x, y, (x + y) / 2]).astype(np.uint8))
    width, height = size
    ImageDraw.Draw(image).rectangle((width // 8, height // 3, width // 2, height // 2), fill="white")
    return image


def write_jpeg(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    drawing(size).save(path, "JPEG", quality=95, exif=exif)
    return path


def shown(picture: Picture, window: Window) -> Floats:
    pixels, box = picture.show(window)
    scaled: Floats = np.asarray(pixels.resize((16, 16), Image.Resampling.BICUBIC, box), np.float32)
    return scaled


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("size", "reduction"), [((203, 157), 2), ((406, 309), 4), ((801, 613), 8), ((640, 480), 8)])
def test_a_reduced_picture_shows_the_same(
    tmp_path: Path, size: tuple[int, int], reduction: int, orientation: int
) -> None:
    path = write_jpeg(tmp_path / "a.jpg", size, orientation)
    full = Picture.whole(read_image(path))
    reduced = read_picture(path, lambda asked: reduction if asked == full.size else 1)
    assert reduced.size == full.size
    assert reduced.reduction == reduction
    assert reduced.pixels.size == tuple(-(-side // reduction) for side in full.size)
    width, height = full.size
    for box in ((0, 0, width, height), (width // 3, 0, width, height // 2), (11, 13, width - 27, height - 9)):
        for mirrored in (False, True):
            difference = np.abs(shown(reduced, Window(box, mirrored)) - shown(full, Window(box, mirrored)))
            # A picture that is off by half a reduced pixel differs by 6 on average, where the white box ends by 60.
            assert difference.mean() < 1.5
            assert difference.max() < 40


def test_whole_pictures_are_not_copied() -> None:
    image = drawing((30, 20))
    pixels, box = Picture.whole(image).show(Window((0, 0, 30, 20)))
    assert pixels is image
    assert box == (0, 0, 30, 20)


def test_a_window_smaller_than_a_reduced_pixel_is_shown(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "a.jpg", (100, 90), 6)
    picture = read_picture(path, lambda size: 8)
    pixels, box = picture.show(Window((89, 99, 90, 100)))
    assert pixels.size == (1, 1)
    assert 0 <= box[0] < box[2] <= 1
    assert 0 <= box[1] < box[3] <= 1


@pytest.mark.parametrize("ending", ["png", "webp", "tiff", "bmp"])
def test_other_formats_are_decoded_in_full(tmp_path: Path, ending: str) -> None:
    drawing((80, 64)).save(tmp_path / f"a.{ending}")
    picture = read_picture(tmp_path / f"a.{ending}", lambda size: 8)
    assert (picture.reduction, picture.pixels.size, picture.size) == (1, (80, 64), (80, 64))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_reduced_to_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (64, 48), 200 if mode == "L" else (0, 255, 255, 0)).save(buffer, "JPEG")
    picture = decode_picture(buffer, "made", lambda size: 4)
    assert (picture.pixels.mode, picture.pixels.size) == ("RGB", (16, 12))
    colour = np.asarray(picture.pixels).mean((0, 1))
    np.testing.assert_allclose(colour, (200, 200, 200) if mode == "L" else (255, 0, 0), atol=4)


def test_a_truncated_jpeg_is_refused_at_every_size(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "a.jpg", (400, 300))
    path.write_bytes(path.read_bytes()[:-2000])
    for reduction in (1, 2, 8):
        with pytest.raises(UnreadableImage, match=r"a\.jpg"):
            read_picture(path, lambda size, reduction=reduction: reduction)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("shrinkage", "expected"), [(0.5, 1), (3.3, 1), (3.4, 2), (6.6, 2), (6.7, 4), (13.3, 4), (13.4, 8), (100, 8)]
)
def test_a_reduction_leaves_pixels_to_scale(shrinkage: float, expected: int) -> None:
    assert reduction_for(shrinkage) == expected
