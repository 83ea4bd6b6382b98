"""open_clip's models as backbones: built-in names, files, local folders, the Hugging Face hub, and the mini CLIP."""

import copy
import difflib
import json
import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from forclip.models.backbone import weights_fingerprint
from forclip.models.mini_clip import MINI_NAME, MINI_WEIGHTS, register_mini
from forclip.models.pools import Pool
from forclip.models.tower import Tower
from forclip.models.towers import cut_tower

ResizeMode = Literal["squash", "letterbox"]
RANDOM = "random"  # as `pretrained`: weights drawn from a fixed seed
_SMALLEST_IMAGE = 32  # a patch of the coarsest tower
_TEXTS_AT_ONCE = 256
# What open_clip and the readers under it raise for weights or configs that are damaged, foreign or out of reach.
_LOAD_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    SafetensorError,
)


class OpenClipBackbone:
    """A frozen open_clip model behind the `Backbone` protocol. Built by `load_open_clip`."""

    def __init__(
        self, name: str, model: Any, tower: Tower, preprocessing: PreprocessCfg, is_random: bool = False
    ) -> None:
        """name: as open_clip's tokenizer factory takes it; preprocessing: of the whole image, size (rows, columns);
        is_random: the weights are, so that any tokenizer is as good as its own."""
        self.is_random = is_random
        self.name, self.model = name, model
        self.device = next(model.parameters()).device
        self._tower, self._preprocessing = tower, preprocessing
        self._transform: Callable[[Image.Image], Tensor] = image_transform_v2(preprocessing, is_train=False)

    @cached_property
    def fingerprint(self) -> str:
        cut = "; cut a stage earlier" if self._tower.pool.stage_parameters() else ""
        preprocessing = json.dumps(asdict(self._preprocessing), sort_keys=True)
        return weights_fingerprint(self.model.state_dict(), preprocessing + cut)

    def preprocess(self, image: Image.Image) -> Tensor:
        rgb = image.convert("RGB")
        if self._preprocessing.resize_mode == "longest":
            rgb = _thick_enough(rgb, self._preprocessing.size)
        return self._transform(rgb)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        if self._preprocessing.resize_mode == "squash":
            return 0.0, 0.0, 1.0, 1.0
        rows, columns = self._preprocessing.size
        ratio = max(width / columns, height / rows)
        x, y = (columns * ratio / width - 1) / 2, (rows * ratio / height - 1) / 2
        return -x, -y, 1 + x, 1 + y

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        return self._tower.tokens(pixels)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Raises ValueError if the model's tokenizer can't be had, as when the hub is out of reach."""
        batches = [self._encode_batch(texts[i : i + _TEXTS_AT_ONCE]) for i in range(0, len(texts), _TEXTS_AT_ONCE)]
        return torch.cat(batches) if batches else torch.empty(0, self._tower.pool.dim, device=self.device)

    def _encode_batch(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._tokenizer(list(texts)).to(self.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        # Late, because some tokenizers come from the hub, and images alone don't need them.
        try:
            tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(self.name)
        except _LOAD_ERRORS as error:
            if self.is_random:
                stand_in: Callable[[list[str]], Tensor] = open_clip.SimpleTokenizer(
                    context_length=self.model.context_length
                )
                return stand_in
            raise ValueError(f"{self.name}: cannot load its tokenizer: {error}") from error
        return tokenizer

    def new_pool(self) -> Pool:
        return copy.deepcopy(self._tower.pool).requires_grad_(True)


def load_open_clip(
    name: str,
    pretrained: str | None,
    image_size: int | None = None,
    resize_mode: ResizeMode = "squash",
    device: str = "cpu",
    last_stage: bool = False,
) -> OpenClipBackbone:
    """A frozen backbone from what open_clip can load.

    name, pretrained: a built-in architecture with a tag, a file of weights, or None or "random" for weights drawn
    from a fixed seed; `forclip-mini` with its own weights (None), a file or "random"; `local-dir:PATH` or
    `hf-hub:ORG/NAME` with their own weights (None) or "random". image_size: pixels a side, or None for the model's
    own. last_stage: it belongs to the pool, to be finetuned with it. Raises ValueError naming what is unknown, missing
    or of no known family. The global random state is kept.
    """
    place = _device(device)
    if image_size is not None and image_size < _SMALLEST_IMAGE:
        raise ValueError(f"image_size {image_size}: must be at least {_SMALLEST_IMAGE} pixels")
    name, weights, load = _source(name, pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed accelerators too
        model = _create(name, weights, load, quiet=pretrained == RANDOM).eval().requires_grad_(False).to(place)
        tower = cut_tower(model.visual, image_size, last_stage)
        tower.pool.eval().requires_grad_(False)
    preprocessing = _whole_image(model, image_size, resize_mode)
    return OpenClipBackbone(name, model, tower, preprocessing, is_random=pretrained == RANDOM)


def _device(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(f"device {device!r} is unknown or not available: {str(error).splitlines()[0]}") from None


def _source(name: str, pretrained: str | None) -> tuple[str, str | None, bool]:
    """The name and weights as open_clip takes them, and whether weights are loaded at all."""
    register_mini()
    if name.startswith((LOCAL_DIR_PREFIX, HF_HUB_PREFIX)):
        if pretrained not in (None, RANDOM):
            raise ValueError(f"{name} carries its own weights: pretrained {pretrained!r} has no place")
        return name, None, pretrained is None
    name = name.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    if name not in open_clip.list_models():
        raise ValueError(f"model {name!r} is unknown to open_clip{_suggestion(name, open_clip.list_models())}")
    if name == MINI_NAME and pretrained is None:
        pretrained = str(MINI_WEIGHTS)
        if not MINI_WEIGHTS.is_file():
            raise ValueError(f"{name}: no weights at {MINI_WEIGHTS}; forclip.toyworld.pretraining trains them")
    if pretrained in (None, RANDOM):
        return name, None, False
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not open_clip.is_pretrained_cfg(name, pretrained) and not Path(pretrained).is_file():
        raise ValueError(f"pretrained {pretrained!r} is no tag of {name} and no file{_suggestion(pretrained, tags)}")
    return name, pretrained, True


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _create(name: str, weights: str | None, load: bool, quiet: bool) -> Any:
    """The whole model on the CPU. Raises ValueError for whatever keeps it from being built or loaded."""
    tag = open_clip.get_pretrained_cfg(name, weights) if weights else {}
    try:
        with _unwarned("No pretrained weights loaded") if quiet else nullcontext():
            return open_clip.create_model(
                name,
                pretrained=weights,
                load_weights=load,
                require_pretrained=load,
                pretrained_text=False,
                # ViT-B-32 with OpenAI's weights is the QuickGELU model, whatever the name says.
                force_quick_gelu=bool(tag.get("quick_gelu")),
            )
    except _LOAD_ERRORS as error:
        raise ValueError(f"{name}: cannot load {weights or 'it'}: {error}") from error


@contextmanager
def _unwarned(beginning: str) -> Iterator[None]:
    """Keeps open_clip, which logs to the root logger, from warning of what was asked for."""

    def passes(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    root = logging.getLogger()
    root.addFilter(passes)
    try:
        yield
    finally:
        root.removeFilter(passes)


def _whole_image(model: Any, image_size: int | None, resize_mode: ResizeMode) -> PreprocessCfg:
    """The model's own preprocessing, at the size in use, its crop replaced by a squash or a letterbox."""
    modes = {"squash": "squash", "letterbox": "longest"}
    if resize_mode not in modes:
        raise ValueError(f"resize_mode {resize_mode!r}: must be squash or letterbox")
    own = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    size = own.input_size[1:] if image_size is None else (image_size, image_size)
    return replace(own, size=size, mean=tuple(own.mean), std=tuple(own.std), resize_mode=modes[resize_mode])


def _thick_enough(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture so thin that a letterbox would round its short side to nothing, made just thick enough for a pixel."""
    ratio = max(image.width / size[1], image.height / size[0])
    wanted = (max(image.width, math.ceil(ratio)), max(image.height, math.ceil(ratio)))
    return image if wanted == image.size else image.resize(wanted)
