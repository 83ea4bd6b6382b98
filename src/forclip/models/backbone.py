"""The backbone protocol: the pretrained towers as forclip uses them. Any object of this shape can be plugged in."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from forclip.models.pools import Pool


class Backbone(Protocol):
    """The frozen image and text towers of a CLIP model, and a copy of its pooling head.

    Shapes: B images, T tokens of width W, D dimensions of the text space. A backbone is in eval mode and none of its
    parameters requires a gradient. Whether autograd records its calls is up to the caller.
    """

    name: str

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; equal for two backbones exactly if their weights and their preprocessing are equal."""

    @property
    def device(self) -> torch.device:
        """The device of the towers, of `encode_tokens`' input and of all outputs but `preprocess`'."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """Convert a whole image, never a crop, to the towers' input: float32 [3, H, W], normalised, on the CPU."""

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return where the edges of the preprocessed input lie in an image of this size, in pixels.

        xyxy as fractions of the image's width and height: (0, 0, 1, 1) if the image is squashed; coordinates beyond
        0..1 where it is padded.
        """

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """Encode preprocessed images to the tokens that the pool reads. [B, 3, H, W] on `device` -> [B, T, W]."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, one row each: float32 [T, D] of unit length, on `device`."""

    def new_pool(self) -> Pool:
        """Return a trainable copy of the pretrained pooling head, on `device`; the backbone keeps its own."""


def weights_fingerprint(state: Mapping[str, Tensor], preprocessing: str) -> str:
    """Hash weights and preprocessing: SHA-256, hexadecimal, of each tensor's name, dtype, shape and bytes.

    Tensors are taken in the order of their names and moved to the CPU one at a time.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    digest.update(f"preprocessing\0{preprocessing}".encode())
    return digest.hexdigest()
