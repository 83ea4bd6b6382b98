"""Pictures are scaled and normalised as open_clip does."""

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from forclip.models.preprocessing import Scaler


def noise(width: int, height: int, coarseness: int = 4) -> Image.Image:
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (height // coarseness + 1, width // coarseness + 1, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("image", [noise(90, 61), noise(61, 90), noise(32, 48), noise(20, 24), noise(100, 100)])
@pytest.mark.parametrize(
    "options",
    [
        {"resize_mode": "squash"},
        {"resize_mode": "longest"},
        {"resize_mode": "longest", "fill_color": 128},
        {"resize_mode": "squash", "interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.4, 0.3)},
    ],
)
def test_preprocessing_is_open_clips(image: Image.Image, options: dict[str, Any]) -> None:
    preprocessing = PreprocessCfg(size=(48, 32), **options)
    pixels = Scaler(preprocessing)(image)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, image_transform_v2(preprocessing, is_train=False)(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["squash", "longest"])
def test_large_pictures_are_averaged_first_with_nearly_the_same_result(mode: str) -> None:
    preprocessing, image = PreprocessCfg(size=(48, 32), resize_mode=mode), noise(700, 900, 40)
    pixels, theirs = Scaler(preprocessing)(image), image_transform_v2(preprocessing, is_train=False)(image)
    assert (pixels - theirs).abs().mean() < 0.02
    assert torch.corrcoef(torch.stack([pixels.flatten(), theirs.flatten()]))[0, 1] > 0.999


@pytest.mark.parametrize("mode", ["squash", "longest"])
def test_a_box_is_scaled_like_a_picture_of_its_own(mode: str) -> None:
    scaler, image = Scaler(PreprocessCfg(size=(48, 32), resize_mode=mode)), noise(80, 70)
    boxed, cropped = scaler(image, (10, 20, 60, 55)), scaler(image.crop((10, 20, 60, 55)))
    # At its edges, the filter looks beyond the box.
    torch.testing.assert_close(boxed[:, 16:32, 4:28], cropped[:, 16:32, 4:28], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("mode", "size", "expected"), [("squash", (320, 96), 2), ("longest", (320, 96), 10), ("longest", (32, 480), 10)]
)
def test_shrinkage_is_of_the_side_with_the_fewest_pixels(mode: str, size: tuple[int, int], expected: float) -> None:
    shrinkage = Scaler(PreprocessCfg(size=(48, 32), resize_mode=mode)).shrinkage(*size)
    assert shrinkage == pytest.approx(expected, rel=0.1)
