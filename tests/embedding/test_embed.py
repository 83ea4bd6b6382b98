"""Boxes of embedded images are fractions of the image, whatever the preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.embedding.embed import embed_images, merge_near_duplicates
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.summary_head import SummaryHead
from forclip.types import ImageEmbeddings
from tests.index.made import names, some
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


def at(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_near_duplicates_are_merged_by_hand() -> None:
    """0 takes 10 and 20 with it, but not 40; 40 takes 55. The second image's vectors are alone."""
    boxes = np.arange(28, dtype=np.float32).reshape(7, 4)
    given = ImageEmbeddings(at(0, 10, 40, 20, 55, 0, 90), np.array([0, 5, 7]), ("a", "b"), boxes)
    merged = merge_near_duplicates(given, float(np.cos(np.deg2rad(21))))
    np.testing.assert_allclose(merged.vectors, at(10, 47.5, 0, 90), atol=1e-6)
    assert merged.offsets.tolist() == [0, 2, 4]
    assert merged.image_ids == ("a", "b")
    assert merged.boxes is not None
    assert merged.boxes.tolist() == boxes[[0, 2, 5, 6]].tolist()


def test_merging_nothing_everything_and_wrong_cosines() -> None:
    given = some(names(30))
    none = merge_near_duplicates(given, 1.0)
    np.testing.assert_allclose(none.vectors, given.vectors, atol=1e-6)
    twice = ImageEmbeddings(np.repeat(given.vectors, 2, 0), given.offsets * 2, given.image_ids)
    np.testing.assert_allclose(merge_near_duplicates(twice, 0.999).vectors, given.vectors, atol=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"not {wrong}"):
            merge_near_duplicates(given, wrong)
