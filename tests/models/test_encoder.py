"""Images in parts that fit into memory: by measurement, and halved when memory runs out."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.encoder import Encoder, largest_batch
from forclip.models.summary_head import window_seeded_head
from forclip.progress import Notice
from tests.tiny import TinyEyes, tiny_pool


class SmallMemory(TinyEyes):
    """Has no memory for more than a number of images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_tokens(pixels)


def test_a_batch_is_halved_until_it_fits_and_nothing_is_lost() -> None:
    head, eyes = window_seeded_head(tiny_pool((3, 3)), 4), SmallMemory(5)
    pixels = torch.randn(37, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    encoder = Encoder(eyes, 16)
    with pytest.warns(Notice, match="no memory for 16 images"):
        vectors, weights = encoder.embed(head, pixels, with_weights=True).wait()
    expected = Encoder(TinyEyes()).embed(head, pixels, with_weights=True).wait()
    torch.testing.assert_close(vectors, expected[0])
    torch.testing.assert_close(weights, expected[1])
    assert eyes.sizes[:4] == [16, 8, 4, 4]
    assert encoder.batch_size == 4  # what was learned stays


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.warns(Notice), pytest.raises(ValueError, match="one image"):
        Encoder(SmallMemory(0), 4).encode(torch.zeros(4, 3, 6, 6))


def test_tokens_are_half_precision_and_embed_as_pixels_do() -> None:
    head = window_seeded_head(tiny_pool((3, 3)), 4)
    pixels = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    encoder = Encoder(TinyEyes(), 2)
    (tokens,) = encoder.encode(pixels).wait()
    assert tokens.dtype == torch.float16
    (found,), (expected,) = encoder.embed_tokens(head, tokens).wait(), encoder.embed(head, pixels).wait()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("free", "expected"), [(10**9, 256), (1100, 64), (150, 5), (60, 1), (0, 1)])
def test_the_batch_takes_most_of_the_free_memory(free: int, expected: int) -> None:
    """50 bytes at any number of images, and 12 for each."""
    assert largest_batch(lambda count: 50 + 12 * count, free, 256) == expected


def test_a_device_without_memory_for_the_measurement_takes_one_image() -> None:
    def measure(count: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_batch(measure, 10**9, 256) == 1


def test_a_head_needs_only_the_protocol() -> None:
    class Plain:
        grid = (3, 3)

        def __call__(self, tokens: Tensor) -> Tensor:
            return F.normalize(tokens[:, :2], dim=-1)

        def position_weights(self, tokens: Tensor) -> Tensor:
            return torch.ones(len(tokens), 2, 9)

    vectors, weights = Encoder(TinyEyes()).embed(Plain(), torch.ones(3, 3, 6, 6), with_weights=True).wait()
    assert vectors.shape == (3, 2, 8)
    assert weights.shape == (3, 2, 9)
