"""Locations of video frames: the video's path and the time, such as `clip.mp4#t=12.500`.

The fragment is that of W3C Media Fragments (www.w3.org/TR/media-frags): the frame that is on screen so many seconds
after the start. A frame's location goes wherever a picture's path goes.
"""

import math
import os
import re
from dataclasses import replace

from forclip.location import Location, Uri, is_shard, is_url

# Containers, not codecs. TypeScript files end in .ts too, so these are recognised by their content.
VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m2v", ".m4v"),
        *(".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob"),
        *(".webm", ".wmv"),
    )
)
_TRANSPORT_PACKET, _TRANSPORT_START = 188, 0x47
_FRAGMENT = re.compile(r"#t=(?:npt:)?(\d+(?:\.\d*)?|\.\d+)s?")
_INTERVAL = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?)?\s*", re.IGNORECASE)
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}  # by the unit's first letter, but for ms


def is_video(path: Location) -> bool:
    """Whether a file's name, and for .ts its content, is that of a video. At a URL, .ts is no video."""
    suffix = os.path.splitext(path.name)[1].lower()
    if isinstance(path, Uri):
        return suffix in VIDEO_SUFFIXES - {".ts"}
    if suffix != ".ts":
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            start = file.read(_TRANSPORT_PACKET + 1)
    except OSError:
        return False
    return len(start) > _TRANSPORT_PACKET and start[0] == start[_TRANSPORT_PACKET] == _TRANSPORT_START


def frame_path(video: Location, seconds: float) -> Location:
    """The location of a frame. seconds: since the start; three decimals of them count."""
    if isinstance(video, Uri):
        return replace(video, member=f"t={seconds:.3f}")
    return video.with_name(f"{video.name}#t={seconds:.3f}")


def split_frame(path: Location) -> tuple[Location, float] | None:
    """Split a location into the video and the seconds since its start; None for a file's own path."""
    if isinstance(path, Uri):
        if not path.member.startswith("t=") or not is_url(path.container) or is_shard(path.container):
            return None
        match = _FRAGMENT.fullmatch(f"#{path.member}")
        return None if match is None else (path.whole(), float(match[1]))
    name, mark, time = path.name.rpartition("#t=")
    if not mark or not name or not (match := _FRAGMENT.fullmatch(mark + time)) or os.path.lexists(path):
        return None
    return path.with_name(name), float(match[1])


def file_of(path: Location) -> Location:
    """The file that holds a picture: the path itself, or a frame's video."""
    frame = split_frame(path)
    return path if frame is None else frame[0]


def parse_interval(text: str) -> float:
    """Parse a time such as `1s`, `0.5s`, `500ms`, `2min`, `1h` or `10`, which are seconds. Returns seconds.

    Raises ValueError for anything else, and for less than a millisecond.
    """
    match = _INTERVAL.fullmatch(text)
    unit = (match[2] or "").lower() if match else ""
    seconds = float(match[1]) * _UNITS[unit if unit == "ms" else unit[:1]] if match else math.nan
    if not seconds >= 0.001:  # written so that NaN fails too
        raise ValueError(f"{text!r} is no time between frames, such as 1s, 500ms or 2min, of a millisecond at least")
    return seconds
