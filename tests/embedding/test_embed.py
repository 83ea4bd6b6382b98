"""Boxes of embedded images are fractions of the image, whatever the preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.embedding.embed import embed_images
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.summary_head import SummaryHead
from tests.tiny import TinyEyes, tiny_pool


class Letterbox(TinyEyes):
    """For images twice as wide as high: pads a quarter of grey above and below."""

    def preprocess(self, image: Image.Image) -> Tensor:
        padded = Image.new("RGB", (image.width, 2 * image.height), "grey")
        padded.paste(image, (0, image.height // 2))
        return super().preprocess(padded)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return 0.0, -0.5, 1.0, 1.5


def looking_at(position: int) -> SummaryHead:
    """One query token that attends to one of 3 x 3 positions."""
    bias = torch.zeros(1, 10)
    bias[0, 1 + position] = 50.0
    return SummaryHead(tiny_pool((3, 3)), torch.zeros(1, 8), bias)


def test_a_box_in_a_letterbox_is_relative_to_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    squashed, boxed = (
        embed_images(RetrievalModel("tiny", eyes, looking_at(4), ""), [tmp_path / "a.png"])[0].boxes
        for eyes in (TinyEyes(), Letterbox())
    )
    assert squashed is not None
    assert boxed is not None
    reach = 0.9 / 3  # from the middle's centre to where the weight falls to a tenth
    np.testing.assert_allclose(squashed, [[0.5 - reach, 0.5 - reach, 0.5 + reach, 0.5 + reach]], atol=1e-3)
    np.testing.assert_allclose(boxed, [[0.5 - reach, 0, 0.5 + reach, 1]], atol=1e-3)


@pytest.mark.parametrize("position", [0, 8])
def test_a_box_in_the_padding_is_clipped_to_the_image(tmp_path: Path, position: int) -> None:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    found = embed_images(RetrievalModel("tiny", Letterbox(), looking_at(position), ""), [tmp_path / "a.png"])[0].boxes
    assert found is not None
    assert ((found >= 0) & (found <= 1)).all()
    assert found[0, 1] == 0 if position == 0 else found[0, 3] == 1
