"""What a backbone is: the pretrained towers, seen as forclip needs them. Any object of this shape can be plugged in."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from forclip.models.pools import Pool


class Backbone(Protocol):
    """Images to tokens, tokens to a pretrained pool, texts to vectors of the same space.

    B images, T tokens of width W, D dimensions of the text space. A backbone is in eval mode and frozen; whether
    gradients are tracked around it is the caller's choice.
    """

    name: str

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; equal for two backbones exactly if their weights and their preprocessing are equal."""
        ...

    @property
    def device(self) -> torch.device:
        """Where pixels and tokens live."""
        ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """The whole image, never a crop, as the towers want it. Returns float32 [3, H, W] on the CPU."""
        ...

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Where the edges of what `preprocess` returns lie in a picture of this size: xyxy as fractions of its width
        and height. (0, 0, 1, 1) for one that is squashed; beyond 0..1 where it is padded."""
        ...

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """What the pool reads. pixels: [B, 3, H, W], as from `preprocess`, on `device`. Returns [B, T, W]."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Returns float32 [T, D] of unit length on `device`, a row per text."""
        ...

    def new_pool(self) -> Pool:
        """A fresh, trainable copy of the pretrained head on `device`: training it never touches the backbone."""
        ...


def weights_fingerprint(state: Mapping[str, Tensor], preprocessing: str) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes, in the order of names, and over `preprocessing`.

    Reads one tensor at a time, at over a gigabyte per second.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    digest.update(f"preprocessing\0{preprocessing}".encode())
    return digest.hexdigest()
