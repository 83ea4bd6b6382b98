"""How fast images are embedded: from the model's operations, the hardware and the size of the pictures.

Measured on two cores of one machine, and scaled; docs/scale.md has the formulas. No GPU was measured.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forclip.config import Compute
from forclip.data.images.picture import reduction_for
from forclip.data.images.tiles import Tiles, views_of
from forclip.data.images.views import Size

# Of a GPU's peak that a tower reaches: assumed, not measured.
UTILISATION = 0.35
# ViT-B-32 on two cores: images per second (docs/results/throughput.json) and its operations.
MEASURED_IMAGES, MEASURED_OPERATIONS, MEASURED_CORES = 15.87, 8.818e9, 2
OPERATIONS_PER_CORE = MEASURED_IMAGES * MEASURED_OPERATIONS / MEASURED_CORES  # per second
# Seconds of one core (docs/results/decode_rate.json): to decode a JPEG of so many megapixels, by how many pixels along
# a side become one; and to scale what is left of a view, so many megapixels, to the model's input.
MEGAPIXELS = (0.3072, 1.997568, 12.0)
DECODE_SECONDS = {
    1: (0.00166, 0.00875, 0.0814),
    2: (0.00107, 0.00678, 0.03796),
    4: (0.00088, 0.00582, 0.03365),
    8: (0.00083, 0.0055, 0.03243),
}
MEGAPIXELS_LEFT = (0.1875, 0.75, 3.0, 12.0)
PREPARE_SECONDS = (0.00247, 0.00921, 0.03641, 0.17383)
CORES_PER_GPU = 8  # assumed where the number of cores is not given
# Search index of 2 million vectors of 512 numbers in 8,192 lists, on two cores (docs/results/search_growth.json).
INDEXED_VECTORS, INDEXED_DIM, INDEXED_LISTS, INDEX_SECONDS = 2_000_000, 512, 8_192, 165.4


@dataclass(frozen=True)
class Card:
    """A GPU. single, half: operations per second of dense matrices, in 10^12, by NVIDIA's data sheet: of single
    precision without tensor cores, and of bfloat16, or float16 where there is none."""

    name: str
    single: float
    half: float


CARDS = (
    Card("T4", 8.1, 65),
    Card("V100", 15.7, 125),
    Card("A10G", 35, 70),
    Card("L4", 30.3, 121),
    Card("L40S", 91.6, 362),
    Card("RTX4090", 82.6, 165),
    Card("A100", 19.5, 312),
    Card("H100", 67, 989),
    Card("H200", 67, 989),
)


@dataclass(frozen=True)
class Gpus:
    """Equal GPUs."""

    count: int
    card: Card


@dataclass(frozen=True)
class Rate:
    """Images per second. bound: what limits it; tower, decoding: what each of the two would reach alone, 0 if it was
    not estimated; tower_half, tower_single: what the tower would reach on GPUs in half and in single precision, one of
    which is `tower`."""

    images_per_second: float
    bound: Literal["tower", "decoding", "both", "measured"]
    tower: float = 0.0
    decoding: float = 0.0
    tower_half: float = 0.0
    tower_single: float = 0.0


def parse_gpus(text: str) -> Gpus:
    """Return the GPUs that a text such as 8xA100, or A100 for one, stands for. Raises ValueError for another."""
    match = re.fullmatch(r"(?:([1-9]\d{0,5})\s*[xX*]\s*)?([A-Za-z].*)", text.strip())
    if match is None:
        raise ValueError(f"--gpus is a number and a card, such as 8xA100, not {text!r}")
    # Nvidia's own names say the socket and the memory, too: A100-SXM4-80GB.
    bare = re.sub(r"[\s_-](SXM\d?|\d+GB|HBM\w+)\b|nvidia", "", match[2], flags=re.IGNORECASE)
    name = re.sub(r"[\s_-]", "", bare).upper()
    card = next((card for card in CARDS if card.name == name), None)
    if card is None:
        known = ", ".join(card.name for card in CARDS)
        raise ValueError(
            f"--gpus {text!r}: unknown card {match[2]!r}; known are {known}; --rate takes the images per second that "
            "you measured"
        )
    return Gpus(int(match[1] or 1), card)


def core_seconds(megapixels: float, input_size: Size, tiles: Tiles | None = None) -> float:
    """Return the seconds of one core to decode a JPEG, as far as the model needs it, and to scale it and its tiles.

    The picture is 4 pixels wide for 3 that it is high. input_size: (width, height) of the model's input.
    """
    picture = round(math.sqrt(megapixels * 1e6 * 4 / 3)), round(math.sqrt(megapixels * 1e6 * 3 / 4))
    sizes = [view.window(0, picture).size for view in views_of(tiles)]
    reduction = reduction_for(min(min(w / input_size[0], h / input_size[1]) for w, h in sizes))
    left = (w * h / 1e6 / reduction**2 for w, h in sizes)
    scaling = sum(_interpolate(view, MEGAPIXELS_LEFT, PREPARE_SECONDS) for view in left)
    return _interpolate(megapixels, MEGAPIXELS, DECODE_SECONDS[reduction]) + scaling


def estimate_rate(
    operations: float,
    views: int,
    cores: int,
    seconds_per_picture: float,
    gpus: Gpus | None = None,
    compute: Compute = "bf16",
) -> Rate:
    """Return how fast images are embedded.

    operations: of the image tower for one view; views: of an image; seconds_per_picture: of one core, to decode and
    scale it; compute: the number format on GPUs. With GPUs, the cores decode meanwhile; without, they do both in turn,
    in float32.
    """
    decoding = cores / seconds_per_picture
    work = operations * views
    if gpus is not None:
        single, half = (gpus.count * peak * 1e12 * UTILISATION / work for peak in (gpus.card.single, gpus.card.half))
        tower = single if compute == "float32" else half
        bound: Literal["tower", "decoding"] = "tower" if tower <= decoding else "decoding"
        return Rate(min(tower, decoding), bound, tower, decoding, half, single)
    tower = cores * OPERATIONS_PER_CORE / work
    return Rate(1 / (1 / tower + 1 / decoding), "both", tower, decoding)


def index_core_seconds(vectors: int, dim: int, lists: int) -> float:
    """Return the seconds of one core to build the search index: it compares each vector with the lists' centres."""
    measured = INDEX_SECONDS * MEASURED_CORES / (INDEXED_VECTORS * INDEXED_DIM)
    return measured * vectors * dim * max(1.0, lists / INDEXED_LISTS)


def _interpolate(megapixels: float, sizes: tuple[float, ...], seconds: tuple[float, ...]) -> float:
    """Return the time at a size, linear between the measured sizes, and beyond them as between the last two."""
    if megapixels > sizes[-1]:
        slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        return seconds[-1] + slope * (megapixels - sizes[-1])
    return float(np.interp(megapixels, sizes, seconds))
