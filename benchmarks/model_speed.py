"""Measure how long one core takes for an image with the models of `forclip models`, with random weights.

    python -m benchmarks.model_speed clip-b16 clip-b32 openai-rn50

The fastest of five runs of the image tower and its own pool on one random image. `cpu_ms` in forclip.models.registry.
"""

import argparse
import timeit

import torch
from PIL import Image

from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.registry import KNOWN_MODELS


@torch.inference_mode()
def milliseconds(architecture: str) -> float:
    """Return the time of one image in the tower and its pool, in one thread."""
    torch.set_num_threads(1)
    backbone = load_open_clip(architecture, "random")
    pixels = backbone.preprocess(Image.effect_noise((300, 300), 64))[None]
    backbone.model.encode_image(pixels)  # the first run allocates memory
    return 1000 * min(timeit.repeat(lambda: backbone.model.encode_image(pixels), number=1, repeat=5))


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="short names; default: all")
    names = parser.parse_args().names
    for model in KNOWN_MODELS:
        if model.name in names or not names:
            print(f"{model.name:20s} {milliseconds(model.architecture):6.0f} ms")


if __name__ == "__main__":
    main()
