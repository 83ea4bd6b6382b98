"""Which files are pictures: by the ending of the name and by the first bytes."""

import os
from contextlib import suppress
from functools import cache

from PIL import Image

# Formats that Pillow names but that are no pictures, that only another program can draw (EPS starts Ghostscript), or
# that it recognises so loosely that other files pass for them.
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IMT", "IPTC", "MCIDAS", "MPEG", "SPIDER", "WMF", "XVTHUMB"})
HEIC_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
HEIC_HINT = "HEIC pictures need pillow-heif: pip install 'forclip[heic]'"
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
SIGNATURE_BYTES = 32  # as many as `has_signature` and `is_heic` look at


@cache
def _register_plugins() -> None:
    """Load all of Pillow's plugins, and pillow-heif's where it is installed."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


@cache
def picture_formats() -> tuple[str, ...]:
    """Names of the formats that are decoded, in the order in which Pillow tries them."""
    _register_plugins()
    return tuple(name for name in Image.ID if name not in _NO_PICTURES)


@cache
def picture_suffixes() -> frozenset[str]:
    """Endings of picture files, in lower case: all that Pillow opens, but none of what is no picture."""
    formats = {*picture_formats(), "MPO"}  # JPEG's plugin opens those
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def is_picture_name(name: str) -> bool:
    """Whether a file's ending is that of pictures, HEIC's among them even where it can't be decoded."""
    return os.path.splitext(name)[1].lower() in picture_suffixes() | HEIC_SUFFIXES


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    return ".heic" in picture_suffixes()


def is_heic(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a HEIC or HEIF picture."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def has_signature(start: bytes, with_tiff: bool = False) -> bool:
    """Whether a file that starts with these bytes is a picture of a common format, whatever its name.

    with_tiff: TIFF is one, although most camera raw files start like it.
    """
    if with_tiff and start.startswith((b"II*\0", b"MM\0*")):
        return True
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  ")):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start[4:8] == b"ftyp" and (start[8:12] in (b"avif", b"avis") or is_heic(start))
