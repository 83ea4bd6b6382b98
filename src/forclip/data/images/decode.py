"""Decode untrusted image files to upright RGB; failures are reported, never fatal."""

import io
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from forclip.data.images.deep_colour import combine_bytes, lower_bytes_layout, set_layout
from forclip.data.images.depth import to_eight_bits
from forclip.data.images.fetch import read_bytes
from forclip.data.images.frame_location import split_frame
from forclip.data.images.picture import ChooseReduction, Picture, corner_of, in_full
from forclip.data.images.picture_types import HEIC_HINT, has_signature, is_heic, picture_formats, reads_heic
from forclip.file_systems import Unreachable
from forclip.location import Location, Uri
from forclip.placeholder import describe_placeholder

# Pillow warns of large images and broken metadata; our own limit is lower. The filter is set once: pictures are decoded
# in threads, and `catch_warnings` in threads may leave all warnings of the process ignored.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")

# A larger image is refused from its header, before decoding. Pillow itself refuses those of 179 million.
MAX_PIXELS = 178_000_000

# Of the pixels that decoding gives. Version 1 (forclip 0.1 and 0.2) did not turn pictures. Version 2 decoded all pixels
# of JPEGs, version 3 decodes as many as the model needs. Their vectors agree, so a store may hold both.
DECODING, FIRST_UPRIGHT = 3, 2

_TRANSPOSE = Image.Transpose
# How stored pixels become upright, by the value of EXIF's Orientation; 1 and all other values change nothing.
_TURNS = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_HEADER_BYTES = 1 << 18  # hold the metadata in front of nearly all pictures
_POINTER_BYTES = 1024  # what stands for a file is shorter
_PNG_METADATA = frozenset({b"eXIf", b"iTXt", b"tEXt", b"zTXt"})
# Tags of TIFF: BitsPerSample, PhotometricInterpretation, and SampleFormat, which is 1 for whole numbers without a sign.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO = 0


class UnreadableImage(ValueError):
    """An image file can't be decoded; the message names the file and the reason."""


class UnreachableImage(UnreadableImage):
    """An image could not be fetched, which says nothing of the image: the network failed."""


def read_image(path: Location) -> Image.Image:
    """Decode an image file to upright RGB: the orientation in its metadata (EXIF) is applied.

    The location of a video frame, such as `clip.mp4#t=12.500`, is decoded as that frame.
    Of an animation or a file of several pages it is the first. Transparency becomes white. Pixels of more than 8 bits
    are scaled as `to_eight_bits` says. Raises UnreadableImage.
    """
    return read_picture(path, in_full).pixels


def read_picture(path: Location, choose_reduction: ChooseReduction) -> Picture:
    """As `read_image`, and decode a JPEG at a reduced size. choose_reduction: as `decode_picture` takes it."""
    if frame := split_frame(path):
        from forclip.data.images.video import read_frame  # loads FFmpeg, for videos alone

        return Picture.whole(read_frame(*frame))
    if isinstance(path, Uri):
        return decode_picture(io.BytesIO(fetch(path)), str(path), choose_reduction)
    return decode_picture(path, str(path), choose_reduction)


def fetch(path: Location) -> bytes:
    """Read the bytes of an image. Raises UnreadableImage, and UnreachableImage if the network fails."""
    try:
        return read_bytes(path)
    except Unreachable as error:
        raise UnreachableImage(str(error)) from None
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"{path}: {error}") from None


def decode_picture(file: Path | BinaryIO, name: str, choose_reduction: ChooseReduction) -> Picture:
    """Decode an image like `read_image`, from a file or a stream, and a JPEG at a reduced size.

    JPEG's blocks allow it, at a part of the time. name: what the error message calls the image; choose_reduction: takes
    the size of the upright image in the file, and returns 1, 2, 4 or 8: how many pixels along a side become one. Other
    formats are decoded in full.
    """
    try:
        with open_picture(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} is over {MAX_PIXELS} pixels")
            if isinstance(image, JpegImageFile):
                return _load_jpeg(image, choose_reduction)
            layout = lower_bytes_layout(image)
            image.load()
            turn = _TURNS.get(orientation_of(image))
            # Values that fill 16 bits lose nothing in Pillow's 8; for 10 or 12 bits in 16 the lower bytes are needed.
            is_dark = layout is not None and np.asarray(image)[..., :3].max() < 128
            rgb = _to_rgb(_read_lower_bytes(image, file, layout) if layout and is_dark else image)
            return Picture.whole(rgb if turn is None else rgb.transpose(turn))
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: {_why_unidentified(file)}") from None
    # For damaged data Pillow's decoders raise SyntaxError, struct.error, RuntimeError (AVIF) and others.
    except Exception as error:
        raise UnreadableImage(f"{name}: {error}") from None


def _load_jpeg(image: JpegImageFile, choose_reduction: ChooseReduction) -> Picture:
    stored, orientation = image.size, orientation_of(image)
    size = stored[::-1] if orientation >= 5 else stored
    if (reduction := choose_reduction(size)) > 1:
        image.draft(None, (stored[0] // reduction, stored[1] // reduction))
    image.load()
    rgb, turn = _to_rgb(image), _TURNS.get(orientation)
    corner = corner_of(stored, reduction, orientation)
    return Picture(rgb if turn is None else rgb.transpose(turn), size, reduction, corner)


@dataclass(frozen=True)
class ImageHeader:
    """What an image file's header says.

    width, height: in pixels, of the upright image. orientation: EXIF's value, 1 to 8, from the stored pixels to the
    upright image. orientation_in_exif: whether EXIF itself has the orientation, not only XMP. is_deep: whether pixels
    have more than 8 bits per channel. format: Pillow's name of it.
    """

    width: int
    height: int
    orientation: int
    orientation_in_exif: bool
    is_deep: bool
    format: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the pixels as they are stored, before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(file: Location | BinaryIO) -> ImageHeader | None:
    """Read an image's header without decoding it, or None for an image that can't be read."""
    if isinstance(file, Uri):
        return _read_header_at(file)
    try:
        # Nothing is decoded here, so a large image does no harm.
        with open_picture(file) as image:
            # Its size is that of the upright image already, if the orientation is in a tag.
            tags = getattr(image, "tag_v2", {})
            is_turned = image.format == "TIFF" and tags.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
            is_deep = image.mode[0] in "IF" or lower_bytes_layout(image) is not None
            orientation = orientation_of(image)
            width, height = image.size[::-1] if orientation >= 5 and not is_turned else image.size
            in_exif = _exif_value(image.info.get("exif")) == orientation
            return ImageHeader(width, height, orientation, in_exif, is_deep, image.format or "")
    # For damaged headers Pillow's plugins raise struct.error, SyntaxError and others.
    except Exception:
        return None


def _read_header_at(uri: Uri) -> ImageHeader | None:
    """As `read_header`, from the first bytes where they are enough."""
    try:
        start = read_bytes(uri, _HEADER_BYTES)
        if (header := read_header(io.BytesIO(start))) is None and len(start) == _HEADER_BYTES:
            header = read_header(io.BytesIO(read_bytes(uri)))
        return header
    except (OSError, ValueError):
        return None


def image_size(path: Location) -> tuple[int, int] | None:
    """Width and height in pixels of the upright image, from the file's header, or None if it can't be read.

    The size of a video's frame is known when it is decoded.
    """
    if split_frame(path):
        with suppress(UnreadableImage):
            return read_image(path).size
        return None
    header = read_header(path)
    return None if header is None else (header.width, header.height)


def picture_needs_reindex(path: Location) -> bool:
    """Whether version 1 decoded this image in another way: turned, or of more than 8 bits. Reads the header only."""
    header = read_header(path)
    # Pillow has always turned TIFFs itself.
    return header is not None and (header.is_deep or (header.orientation != 1 and header.format != "TIFF"))


def orientation_of(image: ImageFile.ImageFile) -> int:
    """EXIF's Orientation of an opened image, 1 to 8; 1 where there is none, or its metadata are broken.

    In a TIFF that is loaded it is 1, because Pillow turns those itself.
    """
    with suppress(Exception):
        load_late_metadata(image)
        # Not PngImageFile's own method, which decodes the image.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        return value if isinstance(value, int) and value in _TURNS else 1
    return 1


def _exif_value(exif: bytes | None) -> int | None:
    """The orientation in these bytes of EXIF."""
    parsed = Image.Exif()
    with suppress(Exception):
        parsed.load(exif or b"")
    return parsed.get(ExifTags.Base.Orientation)


def load_late_metadata(image: ImageFile.ImageFile) -> None:
    """Load an opened PNG whose metadata follow the pixels; Pillow finds them only then."""
    if image.format != "PNG" or "exif" in image.info or image.fp is None or not image.fp.seekable():
        return
    before, is_after, late = image.fp.tell(), False, False
    try:
        image.fp.seek(8)
        while not late and len(start := image.fp.read(8)) == 8:
            length, kind = int.from_bytes(start[:4]), start[4:]
            is_after = is_after or kind == b"IDAT"
            late = is_after and kind in _PNG_METADATA
            image.fp.seek(length + 4, 1)  # the data and the checksum
    finally:
        image.fp.seek(before)
    if late:
        image.load()


def open_picture(file: Path | BinaryIO) -> ImageFile.ImageFile:
    """Open an image of a format that forclip reads, without decoding it. Raises what Pillow's plugins raise."""
    return Image.open(file, formats=picture_formats())


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode, as it is stored."""
    if image.mode[0] in "IF":  # I, I;16, I;16B and F
        values, tags = np.asarray(image), getattr(image, "tag_v2", {})
        if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
            values = values.view(np.uint32)  # Pillow has no mode for it
        grey = to_eight_bits(values)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _read_lower_bytes(image: Image.Image, file: Path | BinaryIO, layout: str) -> Image.Image:
    """Decode a colour picture of 16 bits again, and scale it by all of them."""
    if not isinstance(file, Path):
        file.seek(0)
    with open_picture(file) as second:
        set_layout(second, layout)
        second.load()
        return combine_bytes(image, second, layout)


def _why_unidentified(file: Path | BinaryIO) -> str:
    """Why Pillow does not know a file's format."""
    with suppress(OSError, ValueError):
        if isinstance(file, Path):
            with file.open("rb") as opened:
                start = opened.read(_POINTER_BYTES)
        else:
            file.seek(0)
            start = file.read(_POINTER_BYTES)
        if not start:
            return "the file is empty"
        if is_heic(start) and not reads_heic():
            return HEIC_HINT
        if placeholder := describe_placeholder(start):
            return placeholder
        if has_signature(start, with_tiff=True):
            return "damaged, or of a kind that Pillow can't decode"
        # Git writes links like this where the file system has none.
        if isinstance(file, Path) and len(start) < _POINTER_BYTES and (file.parent / os.fsdecode(start)).is_file():
            return f"a link that was saved as text; the picture is {os.fsdecode(start)}"
    return "not an image that Pillow can read"
