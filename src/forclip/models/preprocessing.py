"""Scale an image to a tower's input and normalise it, as open_clip does, with NumPy and Pillow alone.

In threads that decode, PyTorch would start a team of threads for each of them.
"""

import numpy as np
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from torch import Tensor

from forclip.types import Floats

Box = tuple[float, float, float, float]  # xyxy in pixels of an image, whole or not
# An image that shrinks by more is first averaged over blocks of pixels, down to this times the result. Vectors have a
# cosine over 0.999 with those of the filter alone (docs/development/measurements.md), at a fifth of the time.
_GAP = 2.5
_LEVELS = 256


class Scaler:
    """Scales images, or parts of them, to [3, rows, columns], squashed or padded, and normalises them."""

    def __init__(self, preprocessing: PreprocessCfg) -> None:
        """preprocessing: with size (rows, columns) and resize_mode "squash" or "longest", a letterbox."""
        self._rows, self._columns = preprocessing.size
        self._pads = preprocessing.resize_mode == "longest"
        self._fill = preprocessing.fill_color
        is_linear = preprocessing.interpolation == "bilinear"
        self._filter = Image.Resampling.BILINEAR if is_linear else Image.Resampling.BICUBIC
        self._table = _normalised_levels(preprocessing)

    def __call__(self, image: Image.Image, box: Box | None = None) -> Tensor:
        """box: the part that is shown, None for the whole image."""
        rgb = image.convert("RGB")
        box = (0, 0, *rgb.size) if box is None else box
        size = self._scaled_size(box[2] - box[0], box[3] - box[1])
        # Pillow copies an image that keeps its size.
        scaled = rgb.resize(size, self._filter, box, reducing_gap=_GAP)
        if size != (self._columns, self._rows):
            padded = Image.new("RGB", (self._columns, self._rows), (self._fill,) * 3)
            padded.paste(scaled, ((self._columns - size[0]) // 2, (self._rows - size[1]) // 2))
            scaled = padded
        levels = np.asarray(scaled)
        return torch.from_numpy(np.stack([of_level[levels[..., c]] for c, of_level in enumerate(self._table)]))

    def shrinkage(self, width: float, height: float) -> float:
        """Return how many pixels of an image become one of the input, along the side where they are fewest."""
        columns, rows = self._scaled_size(width, height)
        return min(width / columns, height / rows)

    def _scaled_size(self, width: float, height: float) -> tuple[int, int]:
        """(width, height) in pixels of an image in the input, without what pads it."""
        if not self._pads:
            return self._columns, self._rows
        ratio = max(width / self._columns, height / self._rows)
        # A thin image is stretched to one pixel.
        return max(1, round(width / ratio)), max(1, round(height / ratio))


def _normalised_levels(preprocessing: PreprocessCfg) -> Floats:
    """Return what each of the 256 levels of a colour becomes: [3, 256] float32, rounded as torchvision does."""
    levels = np.arange(_LEVELS, dtype=np.float32) / np.float32(_LEVELS - 1)
    mean, std = (np.array(values, np.float32)[:, None] for values in (preprocessing.mean, preprocessing.std))
    normalised: Floats = (levels - mean) / std
    return normalised
