"""Pictures of more than 8 bits look like their copies in 8 bits, however they are stored."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.data.images.decode import decode_picture, read_image
from forclip.data.images.depth import to_eight_bits
from forclip.data.images.picture import in_full

# A picture that uses most of its range, as photos do.
GREY = np.random.default_rng(0).integers(3, 250, (24, 32), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(3, 250, (24, 32, 3), dtype=np.uint8)


def written(folder: Path, values: np.ndarray, ending: str) -> Path:
    Image.fromarray(values).save(folder / f"deep.{ending}")
    return folder / f"deep.{ending}"


def read(path: Path) -> np.ndarray:
    image = np.asarray(read_image(path)).astype(int)
    assert (image == image[..., :1]).all()
    return image[..., 0]


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_any_number_of_bits_in_sixteen(tmp_path: Path, bits: int, ending: str) -> None:
    deep = (GREY.astype(np.uint16) << (bits - 8)) + 2 ** (bits - 8) // 2
    np.testing.assert_array_equal(read(written(tmp_path, deep, ending)), GREY)


@pytest.mark.parametrize("bits", [8, 12, 20, 30])
def test_whole_numbers_of_32_bits(tmp_path: Path, bits: int) -> None:
    deep = GREY.astype(np.int32) << (bits - 8)
    np.testing.assert_array_equal(read(written(tmp_path, deep, "tif")), GREY)


def test_the_highest_of_32_bits_is_no_sign(tmp_path: Path) -> None:
    """Pillow reads such a file as numbers with a sign, and writes it only as such."""
    path = written(tmp_path, (GREY.astype(np.uint32) << 24).view(np.int32), "tif")
    signed, unsigned = struct.pack("<HHIHH", 339, 3, 1, 2, 0), struct.pack("<HHIHH", 339, 3, 1, 1, 0)
    assert path.read_bytes().count(signed) == 1
    path.write_bytes(path.read_bytes().replace(signed, unsigned))
    np.testing.assert_array_equal(read(path), GREY)


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 16.0, 256.0])
def test_fractions_of_any_scale(tmp_path: Path, scale: float) -> None:
    """0..1, 0..255, and what was read from 12 or 16 bits."""
    values = GREY.astype(np.float32) * np.float32(scale)
    np.testing.assert_allclose(read(written(tmp_path, values, "tif")), GREY, atol=1)


def test_a_dark_picture_of_fractions_stays_dark(tmp_path: Path) -> None:
    values = (GREY // 8).astype(np.float32) / 255
    np.testing.assert_allclose(read(written(tmp_path, values, "tif")), GREY // 8, atol=1)


def test_a_resized_picture_keeps_its_scale(tmp_path: Path) -> None:
    """Averages are no whole numbers, and overshoot at edges is clipped."""
    dark = GREY.astype(np.float32) / 4
    values = dark + np.float32(0.25)
    values[0, 0] = -1.5
    found = read(written(tmp_path, values, "tif"))
    np.testing.assert_allclose(found.ravel()[1:], dark.ravel()[1:], atol=2)
    assert found[0, 0] == 0


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_change_no_others(tmp_path: Path, missing: float) -> None:
    values = GREY.astype(np.float32) / 255
    values[:2] = missing
    found = read(written(tmp_path, values, "tif"))
    np.testing.assert_allclose(found[2:], GREY[2:], atol=1)
    assert set(found[:2].ravel()) == {255 if missing == np.inf else 0}
    assert not read(written(tmp_path, np.full((4, 4), np.nan, np.float32), "tif")).any()


def test_fractions_from_minus_one(tmp_path: Path) -> None:
    """What networks take."""
    values = GREY.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(read(written(tmp_path, values, "tif")), GREY, atol=1)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_other_negative_values_are_stretched(tmp_path: Path, kind: type) -> None:
    """Elevations and computed tomography."""
    found = read(written(tmp_path, (GREY.astype(np.int32) * 16 - 1024).astype(kind), "tif"))
    assert np.corrcoef(found.ravel(), GREY.ravel())[0, 1] > 0.999
    assert (found.min(), found.max()) == (0, 255)


def test_a_narrow_range_is_stretched(tmp_path: Path) -> None:
    """A thermal camera's hundredths of a kelvin, which would all be the same grey."""
    found = read(written(tmp_path, 29_500 + 6 * GREY.astype(np.uint16), "png"))
    assert np.corrcoef(found.ravel(), GREY.ravel())[0, 1] > 0.999
    assert (found.min(), found.max()) == (0, 255)


def test_a_uniform_picture_is_no_error(tmp_path: Path) -> None:
    for value, expected in ((0, 0), (255, 255), (65535, 255), (2048, 128)):
        assert set(read(written(tmp_path, np.full((4, 4), value, np.uint16), "png")).ravel()) == {expected}


def test_a_hot_pixel_does_not_darken_the_rest(tmp_path: Path) -> None:
    deep = np.full((100, 100), 60, np.uint16) + np.arange(100, dtype=np.uint16) * 40
    expected = read(written(tmp_path, deep, "png"))
    deep[50, 50] = 65535
    found = read(written(tmp_path, deep, "png"))
    found[50, 50] = expected[50, 50]
    np.testing.assert_array_equal(found, expected)


def test_equal_content_at_equal_scale_looks_equal() -> None:
    deep = GREY.astype(np.uint16) * 16
    np.testing.assert_array_equal(to_eight_bits(deep)[:, ::-1], to_eight_bits(np.ascontiguousarray(deep[:, ::-1])))
    np.testing.assert_array_equal(to_eight_bits(deep), to_eight_bits(deep.astype(np.int32)))
    np.testing.assert_array_equal(to_eight_bits(deep), to_eight_bits(deep.astype(np.float64)))


def test_white_is_zero_in_some_tiffs(tmp_path: Path) -> None:
    deep = (GREY.astype(np.uint16) << 4) | 8
    Image.fromarray(deep).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(read(tmp_path / "inverted.tif"), 255 - GREY)


def deep_png(path: Path, values: np.ndarray, extra: bytes = b"") -> Path:
    """Write a PNG of 16 bits per channel, which Pillow cannot: grey and alpha, RGB or RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_colours_of_any_number_of_bits_in_sixteen(tmp_path: Path, bits: int) -> None:
    path = deep_png(tmp_path / "deep.png", COLOUR.astype(np.uint16) << (bits - 8))
    np.testing.assert_array_equal(np.asarray(read_image(path)), COLOUR)
    with path.open("rb") as stream:
        stream.seek(5)
        np.testing.assert_array_equal(np.asarray(decode_picture(stream, "upload", in_full).pixels), COLOUR)


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_colours_with_transparency_are_laid_on_white(tmp_path: Path, bits: int) -> None:
    opaque = np.full((24, 32, 1), 2**bits - 1, np.uint16)
    opaque[:12] = 0
    values = np.dstack([COLOUR.astype(np.uint16) << (bits - 8), opaque])
    found = np.asarray(read_image(deep_png(tmp_path / "deep.png", values)))
    np.testing.assert_array_equal(found[12:], COLOUR[12:])
    assert (found[:12] == 255).all()
    grey = np.dstack([GREY.astype(np.uint16) << (bits - 8), opaque])
    found = np.asarray(read_image(deep_png(tmp_path / "grey.png", grey)))[..., 0]
    np.testing.assert_array_equal(found[12:], GREY[12:])
    assert (found[:12] == 255).all()


def deep_tiff(path: Path, values: np.ndarray, order: str, deflate: bool) -> Path:
    """Write a TIFF of 16 bits per channel in RGB, which Pillow cannot."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflate else data
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, None), (259, 3, 1, 8 if deflate else 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, None), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))]
    bits_at = 8 + 2 + 12 * len(tags) + 4
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        given = {258: bits_at, 273: bits_at + 6}.get(tag, value)
        packed = struct.pack(f"{order}HH", given, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", given)
        content += struct.pack(f"{order}HHI", tag, kind, count) + packed
    path.write_bytes(content + struct.pack(f"{order}I3H", 0, 16, 16, 16) + data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_colours_in_a_tiff(tmp_path: Path, order: str, deflate: bool, bits: int) -> None:
    path = deep_tiff(tmp_path / "deep.tif", COLOUR.astype(np.uint16) << (bits - 8), order, deflate)
    np.testing.assert_array_equal(np.asarray(read_image(path)), COLOUR)
