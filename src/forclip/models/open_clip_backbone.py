"""open_clip's models as backbones: built-in names, files, local folders, the Hugging Face hub, and the mini CLIP."""

import copy
import json
import logging
import math
import pickle
from collections.abc import Callable, Sequence
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
from forclip.models.towers import Tower, cut_tower
from forclip.text.vocabulary import did_you_mean

ResizeMode = Literal["squash", "letterbox"]
RANDOM = "random"  # as `pretrained`: weights drawn from a fixed seed
_MIN_IMAGE_SIZE = 32  # a patch of the coarsest tower
_TEXT_BATCH_SIZE = 256
# What open_clip and the readers under it raise for weights or configs that are damaged, foreign or out of reach.
_LOAD_ERRORS = (
    *(AssertionError, AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    pickle.UnpicklingError,
    SafetensorError,
)


class OpenClipBackbone:
    """A frozen open_clip model behind the `Backbone` protocol. Built by `load_open_clip`."""

    def __init__(
        self, name: str, model: Any, tower: Tower, preprocessing: PreprocessCfg, is_random: bool = False
    ) -> None:
        """name: for open_clip's tokenizer factory; preprocessing: of the whole image, with size (rows, columns);
        is_random: whether the weights are random, so that another tokenizer may replace a missing one."""
        self.name, self.model, self.is_random = name, model, is_random
        self.device = next(model.parameters()).device
        self._tower, self._preprocessing = tower, preprocessing
        self._transform: Callable[[Image.Image], Tensor] = image_transform_v2(preprocessing, is_train=False)

    @cached_property
    def fingerprint(self) -> str:
        cut = "; cut a stage earlier" if self._tower.pool.tower_stage is not None else ""
        preprocessing = json.dumps(asdict(self._preprocessing), sort_keys=True)
        return weights_fingerprint(self.model.state_dict(), preprocessing + cut)

    def preprocess(self, image: Image.Image) -> Tensor:
        rgb = image.convert("RGB")
        if self._preprocessing.resize_mode == "longest":
            # A letterbox would round the short side of a thin image to zero pixels: stretch it to just one.
            rows, columns = self._preprocessing.size
            least = math.ceil(max(rgb.width / columns, rgb.height / rows))
            if least > min(rgb.size):
                rgb = rgb.resize((max(rgb.width, least), max(rgb.height, least)))
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
        """Raises ValueError if the model's tokenizer cannot be loaded, for example without access to the hub."""
        if not texts:
            return torch.empty(0, self._tower.pool.dim, device=self.device)
        batches = self._tokenizer(list(texts)).to(self.device).split(_TEXT_BATCH_SIZE)
        return torch.cat([F.normalize(self.model.encode_text(batch).float(), dim=-1) for batch in batches])

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        # Loaded late: some tokenizers come from the hub, and embedding images does not need them.
        try:
            return open_clip.get_tokenizer(self.name)
        except _LOAD_ERRORS as error:
            if self.is_random:
                return open_clip.SimpleTokenizer(context_length=self.model.context_length)
            raise ValueError(f"{self.name}: cannot load its tokenizer: {error}") from error

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
    """Load a frozen backbone with open_clip.

    name: one of these, with the values of `pretrained` that it takes (besides "random", for weights drawn from a
    fixed seed):

    - a built-in architecture: a tag, a file of weights, or None for random weights;
    - `forclip-mini`: None for its bundled weights, or a file;
    - `local-dir:PATH` or `hf-hub:ORG/NAME`: None, as they carry their own weights.

    image_size: pixels per side, at least 32; None is the model's own. resize_mode: squash the whole image to a square,
    or letterbox it. last_stage: give the tower's last stage to the pool, so that it can be finetuned.

    Raises ValueError naming what is unknown, missing, damaged or of an unsupported family. The global random state is
    unchanged.
    """
    try:
        target = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(f"device {device!r} is unknown or not available: {str(error).splitlines()[0]}") from None
    if image_size is not None and image_size < _MIN_IMAGE_SIZE:
        raise ValueError(f"image_size {image_size}: must be at least {_MIN_IMAGE_SIZE} pixels")
    modes = {"squash": "squash", "letterbox": "longest"}
    if resize_mode not in modes:
        raise ValueError(f"resize_mode {resize_mode!r}: must be squash or letterbox")
    name, weights, load = _resolve(name, pretrained)
    is_random = pretrained == RANDOM
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed accelerators too
        model = _create(name, weights, load, quiet=is_random).eval().requires_grad_(False).to(target)
        tower = cut_tower(model.visual, image_size, last_stage)
        tower.pool.eval().requires_grad_(False)
    own = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    size = own.input_size[1:] if image_size is None else (image_size, image_size)
    # The whole image: a squash or a letterbox instead of the model's crop.
    whole = replace(own, size=size, mean=tuple(own.mean), std=tuple(own.std), resize_mode=modes[resize_mode])
    return OpenClipBackbone(name, model, tower, whole, is_random)


def _resolve(name: str, pretrained: str | None) -> tuple[str, str | None, bool]:
    """Return the name and weights for open_clip, and whether to load weights at all."""
    register_mini()
    if name.startswith((LOCAL_DIR_PREFIX, HF_HUB_PREFIX)):
        if pretrained not in (None, RANDOM):
            raise ValueError(f"{name} carries its own weights: pretrained {pretrained!r} cannot be combined with it")
        return name, None, pretrained is None
    name = name.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    if name not in open_clip.list_models():
        raise ValueError(f"model {name!r} is unknown to open_clip{did_you_mean(name, open_clip.list_models())}")
    if name == MINI_NAME and pretrained is None:
        pretrained = str(MINI_WEIGHTS)
        if not MINI_WEIGHTS.is_file():
            raise ValueError(f"{name}: no weights at {MINI_WEIGHTS}; forclip.toyworld.pretraining trains them")
    if pretrained in (None, RANDOM):
        return name, None, False
    if not open_clip.is_pretrained_cfg(name, pretrained) and not Path(pretrained).is_file():
        suggestion = did_you_mean(pretrained, open_clip.list_pretrained_tags_by_model(name))
        raise ValueError(f"pretrained {pretrained!r} is no tag of {name} and no file{suggestion}")
    return name, pretrained, True


def _create(name: str, weights: str | None, load: bool, quiet: bool) -> Any:
    """Create the whole model on the CPU. quiet: without a warning that the weights are random."""
    tag = open_clip.get_pretrained_cfg(name, weights) if weights else {}

    def passes(record: logging.LogRecord) -> bool:
        return not (quiet and record.getMessage().startswith("No pretrained weights loaded"))

    root = logging.getLogger()  # open_clip logs there
    root.addFilter(passes)
    try:
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
    finally:
        root.removeFilter(passes)
