"""Measure how long one core takes to decode a JPEG at each reduction, and to scale what is left to a model's input.

    python -m benchmarks.decode_rate --out docs/results/decode_rate.json

Pillow makes the pictures: smooth noise with fine noise in it, at quality 90, about as large as photos of cameras. Times
are those of the CPU, not of the clock, so that other work on the machine changes them little: the median of some
repetitions. The input is so large that the picture shrinks by 5/3 when it is scaled, as little as after any reduction.
`forclip plan` has the times in forclip.embedding.speed.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from open_clip.transform import PreprocessCfg
from PIL import Image

from benchmarks.command import command_line
from benchmarks.throughput import machine
from forclip.data.images.decode import decode_picture
from forclip.data.images.picture import LEAST_SCALING, REDUCTIONS, Picture
from forclip.models.preprocessing import Scaler
from forclip.models.tower_backbone import whole_image

SIZES = ((640, 480), (1632, 1224), (4000, 3000))  # 0.3, 2 and 12 megapixels
REPEATS = 9
_SMOOTHER, _FINE = 16, 0.04


def make_jpeg(size: tuple[int, int]) -> bytes:
    """Return a picture as a JPEG file."""
    width, height = size
    bands = [
        Image.effect_noise((width // _SMOOTHER, height // _SMOOTHER), 128).resize(size, Image.Resampling.BICUBIC)
        for _ in "RGB"
    ]
    fine = Image.effect_noise(size, 128)
    picture = Image.merge("RGB", [Image.blend(band, fine, _FINE) for band in bands])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the median of the CPU time of some calls, after one that is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return statistics.median(times[1:])


def measure(size: tuple[int, int]) -> dict[str, object]:
    """Measure one size of pictures."""
    content = make_jpeg(size)
    return {
        "megapixels": size[0] * size[1] / 1e6,
        "bytes": len(content),
        "reductions": [measure_reduction(content, reduction) for reduction in (1, *reversed(REDUCTIONS))],
    }


def measure_reduction(content: bytes, reduction: int) -> dict[str, float]:
    """Measure a JPEG that is decoded so that `reduction` pixels along a side become one."""

    def decode() -> Picture:
        return decode_picture(io.BytesIO(content), "made", lambda size: reduction)

    pixels = decode().pixels
    side = max(32, round(min(pixels.size) / LEAST_SCALING))
    scale = Scaler(whole_image(PreprocessCfg(), side, "squash"))
    return {
        "reduction": reduction,
        "megapixels_left": pixels.width * pixels.height / 1e6,
        "input_side": side,
        "decode_seconds": cpu_seconds(decode),
        "prepare_seconds": cpu_seconds(lambda: scale(pixels)),
    }


def main() -> None:
    """Print or write the times of each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    results = {"command": command_line(), **machine(), "sizes": [measure(size) for size in SIZES]}
    text = json.dumps(results, indent=1) + "\n"
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)


if __name__ == "__main__":
    main()
