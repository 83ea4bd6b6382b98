"""When and with which camera an image was taken, from the metadata in its file (EXIF)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from forclip.data.images.decode import load_late_metadata, open_picture

_CHARACTERS = 100  # of a text that are kept
# Tags of a time, and of its distance from UTC. The first that holds a time counts.
_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime),
)
# EXIF separates a date by colons; some programs write it in another way.
_TIME = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


@dataclass(frozen=True)
class Capture:
    """How an image was taken; None for what is not known.

    time: in ISO 8601, by the camera's clock, with the distance from UTC where the file has it; camera: make and model.
    """

    time: str | None = None
    camera: str | None = None


def read_capture(file: BinaryIO) -> Capture:
    """Read how an image was taken, without decoding it. Metadata that are damaged or cut off count as missing."""
    # For damaged files Pillow's plugins raise struct.error, SyntaxError and others.
    with suppress(Exception), open_picture(file) as image:
        with suppress(Exception):
            load_late_metadata(image)
        exif, inner = Image.Image.getexif(image), dict[int, Any]()
        with suppress(Exception):
            inner = exif.get_ifd(ExifTags.IFD.Exif)
        return Capture(_time(exif, inner), _camera(exif))
    return Capture()


def _time(exif: Mapping[int, Any], inner: Mapping[int, Any]) -> str | None:
    """inner: the tags of the part of EXIF that is about the picture's taking."""
    for tag, offset_tag in _TIMES:
        for tags in (inner, exif):
            if match := _TIME.match(_text(tags, tag)):
                year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
                with suppress(ValueError):  # such as 0000:00:00 00:00:00
                    time = datetime(year, month, day, hour, minute, second)
                    offset = _OFFSET.fullmatch(_text(inner, offset_tag) or _text(exif, offset_tag))
                    return time.isoformat() + (offset[0] if offset else "")
    return None


def _camera(exif: Mapping[int, Any]) -> str | None:
    """Most models name their make: "NIKON D750" of NIKON CORPORATION."""
    make, model = _text(exif, ExifTags.Base.Make), _text(exif, ExifTags.Base.Model)
    if make and model and not model.lower().startswith(make.split()[0].lower()):
        return f"{make} {model}"
    return model or make or None


def _text(tags: Mapping[int, Any], tag: int) -> str:
    """A tag's text in one line, empty if it has none."""
    with suppress(Exception):
        value = tags.get(tag)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            text = value.partition("\0")[0]
            return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_CHARACTERS]
    return ""
