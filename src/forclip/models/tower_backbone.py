"""A backbone made of a cut image tower, a text encoder and preprocessing: what all pretrained models share."""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from forclip.config import Compute
from forclip.image_size import ImageSize, describe_image_size, rows_and_columns
from forclip.models.backbone import weights_fingerprint
from forclip.models.compile import compile_or_not
from forclip.models.compute import autocast
from forclip.models.cpu_bf16 import in_bf16
from forclip.models.pools import Pool
from forclip.models.preprocessing import Box, Scaler
from forclip.models.tower_parts import Tower

ResizeMode = Literal["squash", "letterbox"]
_MODES = {"squash": "squash", "letterbox": "longest"}  # in open_clip's words
_MIN_IMAGE_SIZE = 32  # a patch of the coarsest tower
_TEXT_BATCH_SIZE = 256


class TowerBackbone(ABC):
    """A frozen pretrained model behind the `Backbone` protocol."""

    def __init__(self, name: str, model: Any, tower: Tower, preprocessing: PreprocessCfg) -> None:
        """preprocessing: of the whole image, with size (rows, columns)."""
        self.name, self.model = name, model
        self.device = next(model.parameters()).device
        self._tower, self._preprocessing = tower, preprocessing
        self._encode: Callable[[Tensor], Tensor] = tower.tokens
        self.compute: Compute = "float32"
        self.is_reentrant = True  # whether several threads may encode at the same time
        self._scaler = Scaler(preprocessing)

    @cached_property
    def fingerprint(self) -> str:
        cut = "; cut a stage earlier" if self._tower.pool.tower_stage is not None else ""
        preprocessing = json.dumps(asdict(self._preprocessing), sort_keys=True)
        return weights_fingerprint(self.model.state_dict(), preprocessing + cut)

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._scaler(image)

    def preprocess_part(self, image: Image.Image, box: Box) -> Tensor:
        """As `preprocess`, of the part of an image in a box: xyxy in pixels, whole or not."""
        return self._scaler(image, box)

    def shrinkage(self, width: int, height: int) -> float:
        """Return how many pixels of an image become one of the input, along the side where they are fewest.

        An image with fewer pixels, shrunk by nearly as much before, gives nearly the same input.
        """
        return self._scaler.shrinkage(width, height)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        if self._preprocessing.resize_mode == "squash":
            return 0.0, 0.0, 1.0, 1.0
        rows, columns = self._preprocessing.size
        ratio = max(width / columns, height / rows)
        x, y = (columns * ratio / width - 1) / 2, (rows * ratio / height - 1) / 2
        return -x, -y, 1 + x, 1 + y

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """Images whose tokens overflow in fp16 are encoded again in float32, with the whole batch."""
        with autocast(self.device, self.compute):
            tokens = self._encode(pixels)
        if self.compute == "fp16" and not bool(tokens.isfinite().all()):
            return self._encode(pixels)
        return tokens

    def with_compute(self, compute: Compute, compiled: bool = False) -> Self:
        """Return the same backbone, which shares its weights, with an image tower in another number format.

        In bf16 on a CPU it has a copy of the tower's weights. compiled: run the image tower through torch.compile.
        """
        backbone = copy.copy(self)
        backbone.compute, backbone.is_reentrant = compute, not compiled
        encode = self._tower.tokens
        if compute == "bf16" and self.device.type == "cpu":
            encode = in_bf16(encode)
        backbone._encode = compile_or_not(encode, self.name) if compiled else encode
        return backbone

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Raises ValueError if the model's tokenizer cannot be loaded, for example without access to the hub."""
        if not texts:
            return torch.empty(0, self._tower.pool.dim, device=self.device)
        batches = (list(texts[i : i + _TEXT_BATCH_SIZE]) for i in range(0, len(texts), _TEXT_BATCH_SIZE))
        return torch.cat([F.normalize(self._encode_batch(batch).float(), dim=-1) for batch in batches])

    @abstractmethod
    def _encode_batch(self, texts: list[str]) -> Tensor:
        """Encode texts. Returns [T, D], not normalised."""

    def new_pool(self) -> Pool:
        return copy.deepcopy(self._tower.pool).requires_grad_(True)


def checked_device(device: str) -> torch.device:
    """Return a device that PyTorch can use. Raises ValueError for one that it can't."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(f"device {device!r} is unknown or not available: {str(error).splitlines()[0]}") from None


def whole_image(own: PreprocessCfg, image_size: ImageSize | None, resize_mode: str) -> PreprocessCfg:
    """Change a model's preprocessing to show it the whole image: a squash or a letterbox instead of its crop.

    Raises ValueError for an image size with a side below 32 pixels and an unknown mode.
    """
    size = rows_and_columns(own.size if image_size is None else image_size)
    if image_size is not None and min(size) < _MIN_IMAGE_SIZE:
        raise ValueError(f"image_size {describe_image_size(image_size)}: must be at least {_MIN_IMAGE_SIZE} pixels")
    if resize_mode not in _MODES:
        raise ValueError(f"resize_mode {resize_mode!r}: must be squash or letterbox")
    return replace(own, size=size, mean=tuple(own.mean), std=tuple(own.std), resize_mode=_MODES[resize_mode])
