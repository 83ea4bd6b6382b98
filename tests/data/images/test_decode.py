import io
import re
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.data.images import decode
from forclip.data.images.decode import UnreadableImage, read_image

GRADIENT = np.add.outer(np.arange(0, 24, dtype=np.uint8) * 4, np.arange(0, 32, dtype=np.uint8) * 5)


def saved(folder: Path, image: Image.Image, name: str = "picture.png") -> Path:
    image.save(folder / name)
    return folder / name


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(saved(tmp_path, Image.fromarray(colours))), colours)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(pixels(saved(tmp_path, Image.fromarray(GRADIENT))), GRADIENT[..., None].repeat(3, 2))


def test_other_modes_are_converted(tmp_path: Path) -> None:
    assert pixels(saved(tmp_path, Image.new("1", (8, 8), 1), "bits.png"))[0, 0].tolist() == [255] * 3
    yellow = np.array([255, 255, 0])
    converted = Image.new("RGB", (8, 8), (255, 255, 0)).convert("YCbCr")
    np.testing.assert_allclose(pixels(saved(tmp_path, converted, "ycbcr.tif"))[0, 0], yellow, atol=3)
    # CIE L*a*b* of the yellow of sRGB: 97, -22, 94. Pillow scales L to 255 and adds 128 to a and b.
    lab = Image.new("LAB", (8, 8), (247, 128 - 22, 128 + 94))
    np.testing.assert_allclose(pixels(saved(tmp_path, lab, "lab.tif"))[0, 0], yellow, atol=25)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_and_not_clipped_to_white(tmp_path: Path, name: str) -> None:
    deep = (GRADIENT.astype(np.uint16) << 8) | 255
    found = pixels(saved(tmp_path, Image.fromarray(deep), name))
    np.testing.assert_array_equal(found, GRADIENT[..., None].repeat(3, 2))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    row = [[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]
    found = pixels(saved(tmp_path, Image.fromarray(np.array([row], np.uint8))))
    np.testing.assert_allclose(found, [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]], atol=1)


def test_grey_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.merge("LA", [Image.new("L", (2, 2), 10), Image.fromarray(np.array([[0, 255]] * 2, np.uint8))])
    assert pixels(saved(tmp_path, image))[0].tolist() == [[255] * 3, [10] * 3]


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_a_palettes_transparent_colour_is_white(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 150, 0, 0, 0, 100])
    image.save(tmp_path / name, transparency=1)
    white = [255, 255, 255]
    assert pixels(tmp_path / name).tolist() == [[[200, 0, 0], white], [white, [0, 0, 100]]]


def test_a_png_with_one_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8))
    image.save(tmp_path / "picture.png", transparency=(1, 2, 3))
    assert pixels(tmp_path / "picture.png").tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(pixels(saved(tmp_path, image, "print.tif")).mean((0, 1)), [255, 0, 0], atol=3)
    image.save(tmp_path / "print.jpg", quality=95)
    np.testing.assert_allclose(pixels(tmp_path / "print.jpg").mean((0, 1)), [255, 0, 0], atol=6)


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableImage, match=re.escape(str(path))) as raised:
        read_image(path)
    return str(raised.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("kept", [0.6, 0.1])
def test_truncated_pictures_are_refused(tmp_path: Path, kind: str, kept: float) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / "cut"
    path.write_bytes(whole.getvalue()[: int(kept * len(whole.getvalue()))])
    refusal(path)


def test_a_file_that_is_no_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("dear diary")
    (tmp_path / "empty.png").touch()
    assert "not an image that Pillow can read" in refusal(tmp_path / "notes.jpg")
    assert "empty" in refusal(tmp_path / "empty.png")
    assert "no such file" in refusal(tmp_path / "missing.jpg")
    refusal(tmp_path)


def test_what_stands_for_a_picture_is_recognised(tmp_path: Path) -> None:
    """Large files that were not downloaded, and a link that git wrote where the file system has none."""
    saved(tmp_path, Image.new("RGB", (4, 4)))
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n")
    (tmp_path / "annex.png").write_text("/annex/objects/SHA256E-s12--0123.png\n")
    (tmp_path / "link.png").write_text("../" + tmp_path.name + "/picture.png")
    assert "git lfs pull" in refusal(tmp_path / "lfs.png")
    assert "git annex get" in refusal(tmp_path / "annex.png")
    assert f"../{tmp_path.name}/picture.png" in refusal(tmp_path / "link.png")


def test_any_error_of_a_decoder_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged AVIF files gave RuntimeError, damaged DDS files NotImplementedError."""
    path = saved(tmp_path, Image.new("RGB", (4, 4)))

    def fail(image: Image.Image) -> None:
        raise RuntimeError("Failed to decode frame 0")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    assert "Failed to decode frame 0" in refusal(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size, with hardly any data in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [60_000, 13_360])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    """The second is one that Pillow itself only warns of."""
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    start = time.perf_counter()
    assert "pixels" in refusal(tmp_path / "bomb.png")
    assert time.perf_counter() - start < 0.3


def test_the_limit_is_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 60)
    assert read_image(saved(tmp_path, Image.new("RGB", (6, 10)))).size == (6, 10)
    assert refusal(saved(tmp_path, Image.new("RGB", (61, 1)))).endswith("61 x 1 is over 60 pixels")


def test_decoding_in_threads_leaves_the_warnings_of_the_process_alone(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_image, [tmp_path / "a.png"] * 200))
        warnings.warn("still shown", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["still shown"]
