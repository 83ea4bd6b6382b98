"""Pictures are upright: the orientation in their metadata is applied, and broken metadata never fail one."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from forclip.data.images.decode import decode_picture, image_size, picture_needs_reindex, read_header, read_image
from forclip.data.images.picture import in_full

ORIENTATION = 0x0112
# 30 x 20 with four different corners.
UPRIGHT = np.kron(
    np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[250, 250, 0], [0, 250, 250], [120, 120, 120]]], np.uint8),
    np.ones((10, 10, 1), np.uint8),
)
# How a picture that is stored with an orientation becomes upright, by hand: EXIF 2.3, table of tag 274.
BY_HAND = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
# Options that keep colours exact or nearly so.
FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"quality": 95, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
    "tiff": {"compression": "tiff_deflate"},
    "avif": {"quality": 95, "subsampling": "4:4:4"},
    "mpo": {"quality": 95, "subsampling": 0},
}


def with_orientation(value: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def stored_like_a_phone(path: Path, orientation: int, **options: Any) -> Path:
    """Save a picture whose stored pixels are turned so that the orientation undoes it."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    turned = np.ascontiguousarray(BY_HAND[inverse](UPRIGHT))
    Image.fromarray(turned).save(path, exif=with_orientation(orientation), **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", FORMATS)
def test_every_orientation_of_every_format_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    path = stored_like_a_phone(tmp_path / f"picture.{ending}", orientation, **FORMATS[ending])
    image = read_image(path)
    assert image.size == image_size(path) == (30, 20)
    np.testing.assert_allclose(np.asarray(image).astype(int), UPRIGHT, atol=40)
    with path.open("rb") as stream:
        assert decode_picture(stream, "upload", in_full).pixels.tobytes() == image.tobytes()
    header = read_header(path)
    assert header is not None
    assert header.stored_size == ((20, 30) if orientation >= 5 else (30, 20))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_picture_is_upright(tmp_path: Path, orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    turned = Image.fromarray(np.ascontiguousarray(BY_HAND[inverse](UPRIGHT).repeat(4, 0).repeat(4, 1)))
    exif = with_orientation(orientation)
    pillow_heif.from_pillow(turned).save(tmp_path / "IMG_1.HEIC", quality=95, exif=exif.tobytes())
    image = read_image(tmp_path / "IMG_1.HEIC")
    assert image.size == image_size(tmp_path / "IMG_1.HEIC") == (120, 80)
    assert np.abs(np.asarray(image).astype(int) - UPRIGHT.repeat(4, 0).repeat(4, 1)).mean() < 12


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_pillow_turns_pictures_alike(tmp_path: Path, ending: str) -> None:
    for orientation in range(1, 9):
        path = stored_like_a_phone(tmp_path / f"{orientation}.{ending}", orientation)
        with Image.open(path) as image:
            peer = ImageOps.exif_transpose(image).convert("RGB")
        assert read_image(path).tobytes() == peer.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt"])
def test_a_png_may_have_its_metadata_after_the_pixels(tmp_path: Path, kind: bytes) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(UPRIGHT))).save(whole, "PNG")
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'
    data = with_orientation(6).tobytes().removeprefix(b"Exif\0\0") if kind == b"eXIf" else xmp
    end = png_chunk(b"IEND", b"")
    path = tmp_path / "late.png"
    path.write_bytes(whole.getvalue().removesuffix(end) + png_chunk(kind, data) + end)
    assert image_size(path) == (30, 20)
    np.testing.assert_array_equal(np.asarray(read_image(path)), UPRIGHT)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "avif", "tif"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_without_meaning_changes_nothing(tmp_path: Path, ending: str, value: object) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / f"odd.{ending}", exif=with_orientation(value))
    path = tmp_path / f"odd.{ending}"
    assert read_image(path).size == image_size(path) == (30, 20)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0XX*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"\0"],
)
def test_broken_exif_never_fails_a_picture(tmp_path: Path, ending: str, exif: bytes) -> None:
    path = tmp_path / f"broken.{ending}"
    Image.fromarray(UPRIGHT).save(path, exif=exif)
    assert read_image(path).size == image_size(path) == (30, 20)


def test_exif_that_is_cut_anywhere_never_fails_a_picture(tmp_path: Path) -> None:
    whole = with_orientation(6).tobytes()
    for end in range(6, len(whole)):
        Image.fromarray(UPRIGHT).save(tmp_path / "cut.jpg", exif=whole[:end])
        size = read_image(tmp_path / "cut.jpg").size
        assert size == image_size(tmp_path / "cut.jpg")
        assert size in ((30, 20), (20, 30))


def test_pictures_that_an_earlier_version_read_otherwise(tmp_path: Path) -> None:
    """Turned ones and those of more than 8 bits; Pillow has always turned TIFFs itself."""
    plain, deep = Image.fromarray(UPRIGHT), Image.fromarray(UPRIGHT[..., 0].astype(np.uint16) * 16)
    plain.save(tmp_path / "plain.jpg")
    plain.save(tmp_path / "one.jpg", exif=with_orientation(1))
    plain.save(tmp_path / "turned.jpg", exif=with_orientation(6))
    plain.save(tmp_path / "turned.tif", exif=with_orientation(6))
    deep.save(tmp_path / "deep.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = [p.name for p in sorted(tmp_path.iterdir()) if picture_needs_reindex(p)]
    assert found == ["deep.png", "turned.jpg"]


def test_the_header_of_a_picture_is_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [stored_like_a_phone(tmp_path / f"picture.{ending}", 6) for ending in ("jpg", "png", "tif", "webp")]
    Image.fromarray(UPRIGHT).save(tmp_path / "plain.png")

    def fail(image: Image.Image) -> None:
        raise AssertionError("decoded")

    for plugin in ("PngImagePlugin.PngImageFile", "JpegImagePlugin.JpegImageFile", "TiffImagePlugin.TiffImageFile"):
        monkeypatch.setattr(f"PIL.{plugin}.load", fail)
    assert {image_size(path) for path in [*paths, tmp_path / "plain.png"]} == {(30, 20)}
