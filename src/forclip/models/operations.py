"""Count the operations of embedding an image: of a known architecture without its weights, of other models loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from open_clip.model import _build_vision_tower
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from forclip.config import HeadConfig, ModelConfig
from forclip.data.images.tiles import Tiles
from forclip.data.images.views import Size
from forclip.image_size import ImageSize, rows_and_columns
from forclip.models.error_text import first_line
from forclip.models.registry import BY_NAME, is_architecture
from forclip.models.retrieval_model import is_trained_run, load_model
from forclip.models.summary_head import SummaryHead


@dataclass(frozen=True)
class ModelSize:
    """What embedding an image with a model takes.

    name: of the model; operations: for one view, a multiplication and an addition counted as two; dim: of a vector;
    num_query_tokens: vectors of one view; input_size: (width, height) in pixels; tiles: of the model itself.
    """

    name: str
    operations: int
    dim: int
    num_query_tokens: int
    input_size: Size
    tiles: Tiles | None = None


def model_size(name: str, image_size: ImageSize | None = None, num_query_tokens: int | None = None) -> ModelSize:
    """Measure a model by its name, as `ModelConfig.name`.

    A short name and an architecture of open_clip are built without weights, and nothing is downloaded. A trained run
    and other models are loaded, with their head. num_query_tokens: None for a run's own, else the default. Raises
    ValueError for an unknown model and for a size that it can't encode.
    """
    known = BY_NAME.get(name)
    architecture = name.replace("/", "-") if known is None else known.architecture
    if not is_architecture(architecture):
        return _size_of_loaded(ModelConfig(name, image_size=image_size), num_query_tokens)
    count = HeadConfig.num_query_tokens if num_query_tokens is None else num_query_tokens
    config = open_clip.get_model_config(architecture)
    assert config is not None
    try:
        operations, input_size = _count_tower(config, image_size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: the operations of its image tower can't be counted: {first_line(error)}") from None
    return ModelSize(architecture, operations, config["embed_dim"], count, input_size)


def _count_tower(config: dict[str, Any], image_size: ImageSize | None) -> tuple[int, Size]:
    """Count an image tower with its own pool on the meta device, which has shapes and no values. Also returns the size
    of its input."""
    vision = dict(config["vision_cfg"])
    if image_size is not None:
        vision["image_size"] = image_size if isinstance(image_size, int) else list(image_size)
    with torch.device("meta"):
        tower = _build_vision_tower(config["embed_dim"], vision, bool(config.get("quick_gelu"))).eval()
        tower.requires_grad_(False)
        rows, columns = rows_and_columns(vision.get("image_size", 224))
        pixels = torch.empty(1, 3, rows, columns)
        return count_operations(lambda: tower(pixels)), (columns, rows)


def _size_of_loaded(config: ModelConfig, num_query_tokens: int | None) -> ModelSize:
    if config.image_size is not None and is_trained_run(config.name):
        raise ValueError(f"{config.name}: a trained run has its own image size, so omit --image-size")
    model = load_model(config, num_query_tokens=num_query_tokens)
    pixels: Tensor = model.backbone.preprocess(Image.new("RGB", (64, 64)))[None]
    operations = count_operations(lambda: model.head(model.backbone.encode_tokens(pixels)))
    head = model.head
    assert isinstance(head, SummaryHead)
    rows, columns = pixels.shape[2:]
    return ModelSize(config.name, operations, model.dim, head.num_query_tokens, (columns, rows), model.tiles)


def count_operations(call: Callable[[], object]) -> int:
    """Count the operations of matrix products, convolutions and attention, as PyTorch knows them.

    Fused kernels that PyTorch can't count are taken apart meanwhile.
    """
    counter, fused = FlopCounterMode(display=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())
