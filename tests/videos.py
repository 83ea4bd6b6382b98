"""Small videos whose every frame has its own colour, so that a test knows which frame it sees."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a frame; those of frames that follow each other are far apart."""
    return 37 * number % 256, 59 * number % 256, 83 * number % 256


def frame_number(image: Image.Image, count: int) -> int:
    """Which of `count` frames a picture is."""
    mean = np.asarray(image, np.float64).mean((0, 1))
    return int(np.abs(mean - [colour(k) for k in range(count)]).sum(1).argmin())


def write_video(
    path: Path,
    count: int = 50,
    *,
    rate: int | Fraction = 25,
    size: tuple[int, int] = (64, 48),
    codec: str = "h264",
    pixels: str = "yuv420p",
    key_every: int = 10,
    starts: Sequence[int] | None = None,
    picture: Image.Image | None = None,
    rotation: tuple[float, bool] | None = None,
    aspect: Fraction | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video.

    starts: of the frames, in milliseconds, where they don't follow `rate`. picture: every frame, instead of its colour.
    rotation: degrees counter-clockwise, and whether it is mirrored then. aspect: of a pixel. options: of the container.
    """
    with av.open(path, "w", container_options=dict(options or {})) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
        stream.width, stream.height = size if picture is None else picture.size
        stream.pix_fmt, stream.gop_size = pixels, key_every
        if codec.startswith("libvpx"):
            stream.options = {"deadline": "realtime", "cpu-used": "8"}
        if rotation is not None:
            cast(Any, stream).set_display_rotation(rotation[0], hflip=rotation[1])
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture or Image.new("RGB", size, colour(k))), "rgb24")
            if starts is not None:
                frame.pts, frame.time_base = starts[k], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write one second of silence."""
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
