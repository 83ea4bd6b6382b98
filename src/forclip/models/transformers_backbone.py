"""Model folders of Hugging Face's transformers as backbones: CLIP, MetaCLIP 2, SigLIP and SigLIP 2."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.image_size import ImageSize
from forclip.models.attention import attend
from forclip.models.checkpoint import read_json
from forclip.models.error_text import first_line
from forclip.models.model_folder import (
    PREPROCESSING_FILES,
    TOKENIZER_FILES,
    TRANSFORMERS_CONFIG,
    TRANSFORMERS_MODELS,
    check_transformers_weights,
)
from forclip.models.pools import Block, ClassTokenPool, LatentPool, split_linear
from forclip.models.tower_backbone import TowerBackbone, whole_image
from forclip.models.tower_parts import Tower, resize_positions
from forclip.progress import notify

_CLIPS = ("clip", "metaclip_2")  # the others are SigLIPs
_CLIP_VOCABULARY = 49408
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


class TransformersBackbone(TowerBackbone):
    """A frozen CLIPModel or SiglipModel behind the `Backbone` protocol. Built by `load_transformers`."""

    def __init__(self, name: str, model: Any, tower: Tower, preprocessing: PreprocessCfg, folder: Path) -> None:
        super().__init__(name, model, tower, preprocessing)
        self._folder = folder

    def _encode_batch(self, texts: list[str]) -> Tensor:
        inputs = {name: value.to(self.device) for name, value in self._tokenizer(texts).items()}
        features = self.model.get_text_features(**inputs)
        return features if isinstance(features, Tensor) else features.pooler_output

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], dict[str, Tensor]]:
        """The folder's tokenizer, or CLIP's own. An attention mask is among its outputs where it says so."""
        text = self.model.config.text_config
        if not any((self._folder / name).exists() for name in TOKENIZER_FILES):
            clips_own = open_clip.SimpleTokenizer(context_length=text.max_position_embeddings)
            return lambda texts: {"input_ids": clips_own(texts)}
        from transformers import AutoTokenizer

        try:
            with _quiet():
                tokenizer: Any = AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
        except Exception as error:  # each tokenizer has its own errors
            raise ValueError(f"{self._folder}: cannot load its tokenizer: {first_line(error)}") from None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

        def tokenize(texts: list[str]) -> dict[str, Tensor]:
            length = text.max_position_embeddings
            encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            return {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}

        return tokenize


def load_transformers(
    folder: Path,
    name: str,
    image_size: ImageSize | None,
    resize_mode: str,
    device: torch.device,
    last_stage: bool = False,
    random: bool = False,
) -> TransformersBackbone:
    """Load a frozen backbone from a folder in Hugging Face's layout.

    name: what errors call it; random: weights drawn from the global random state instead of the folder's; other
    arguments as in `load_open_clip`. Raises ValueError for weights that are missing, damaged, in part or of another
    model, and for a folder without a tokenizer whose vocabulary is not CLIP's.
    """
    config = read_json(folder / TRANSFORMERS_CONFIG)
    kind = str(config["model_type"])
    if not random:
        check_transformers_weights(folder)
    model = _load(folder, TRANSFORMERS_MODELS[kind], random).eval().requires_grad_(False).float().to(device)
    text = model.config.text_config
    has_clips_words = kind == "clip" and text.vocab_size >= _CLIP_VOCABULARY
    if not has_clips_words and not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ValueError(f"{folder}: has no tokenizer: copy tokenizer.json from the model that it was trained from")
    vision = model.config.vision_config
    # SigLIP 2 with flexible resolution names the number of patches alone.
    size = vision.image_size if hasattr(vision, "image_size") else math.isqrt(vision.num_patches) * vision.patch_size
    whole = whole_image(_preprocessing(folder, kind, size), image_size, resize_mode)
    cut = _cut_clip if kind in _CLIPS else _cut_siglip
    rows, columns = whole.size
    tower = cut(model, (rows // vision.patch_size, columns // vision.patch_size), last_stage)
    tower.pool.eval().requires_grad_(False)
    return TransformersBackbone(name, model, tower, whole, folder)


def _load(folder: Path, class_name: str, random: bool) -> Any:
    import transformers

    with _quiet():
        try:
            model_class = getattr(transformers, class_name)
            if random:
                return model_class(model_class.config_class.from_pretrained(str(folder), local_files_only=True))
            model, info = model_class.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
        except Exception as error:  # each version of transformers has its own errors
            raise ValueError(f"{folder}: cannot load its {class_name}: {first_line(error)}") from None
    missing, mismatched = sorted(info["missing_keys"]), sorted(map(str, info.get("mismatched_keys", ())))
    for tower in ("text", "vision"):
        if {key for key in model.state_dict() if key.startswith(f"{tower}_model.")} <= set(missing):
            raise ValueError(f"{folder}: its weights have no {tower} tower")
    if missing:
        raise ValueError(f"{folder}: its weights are not those of its config: {missing[0]} is missing")
    if mismatched:
        raise ValueError(f"{folder}: its weights are not those of its config: {mismatched[0]} has another shape")
    return model


def _preprocessing(folder: Path, kind: str, size: int) -> PreprocessCfg:
    """Read mean, standard deviation and interpolation; what the folder does not say is the family's."""
    is_clip = kind in _CLIPS
    content: dict[str, Any] = {}
    for name in PREPROCESSING_FILES:
        if (folder / name).exists():
            content = read_json(folder / name)
            content = content.get("image_processor", content)
            break
    mean = content.get("image_mean") or (OPENAI_DATASET_MEAN if is_clip else INCEPTION_MEAN)
    std = content.get("image_std") or (OPENAI_DATASET_STD if is_clip else INCEPTION_STD)
    if content.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = content.get("rescale_factor", 1 / 255)
    if content.get("do_rescale", True) and abs(factor - 1 / 255) > 1e-6:
        raise ValueError(f"{folder}: rescale_factor {factor} is not supported, only 1 / 255")
    resample = content.get("resample", 2 if kind == "siglip2" else 3)
    if resample not in _INTERPOLATIONS:
        notify(f"{folder}: pictures are resized bicubically; the model's resample {resample} is not supported")
    interpolation = _INTERPOLATIONS.get(resample, "bicubic")
    return PreprocessCfg(size=(size, size), mean=tuple(mean), std=tuple(std), interpolation=interpolation)


class _Block(nn.Module):
    """A transformer layer, [B, T, W] -> [B, T, W]; the same parts make up all four families."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        attention, x = self.layer.self_attn, self.layer.layer_norm1(tokens)
        mixed = attend(attention.q_proj(x), attention.k_proj(x), attention.v_proj(x), attention.num_heads)
        tokens = tokens + attention.out_proj(mixed)
        return tokens + self.layer.mlp(self.layer.layer_norm2(tokens))


def _cut_clip(model: Any, grid: tuple[int, int], last_stage: bool) -> Tower:
    """CLIP's ViT, cut before its last block. grid: (rows, columns) of patches."""
    vision = model.vision_model
    embeddings = vision.embeddings
    _resize_embeddings(embeddings, grid, prefix=1)
    *before, last = [_Block(layer) for layer in vision.encoder.layers]
    attention = last.layer.self_attn
    block = Block(
        norm=last.layer.layer_norm1,
        q_proj=attention.q_proj,
        k_proj=attention.k_proj,
        v_proj=attention.v_proj,
        out_proj=attention.out_proj,
        after_attention=nn.Identity(),
        mlp=nn.Sequential(last.layer.layer_norm2, last.layer.mlp),
        num_heads=attention.num_heads,
    )
    dim = model.visual_projection.out_features
    head = ClassTokenPool(block, vision.post_layernorm, model.visual_projection, grid, dim)
    if last_stage:
        head.tower_stage = before.pop()
    blocks = nn.Sequential(*before)

    def tokens(pixels: Tensor) -> Tensor:
        patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        classes = embeddings.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([classes, patches], 1) + embeddings.position_embedding.weight
        return blocks(vision.pre_layrnorm(x))

    return Tower(tokens, head)


def _cut_siglip(model: Any, grid: tuple[int, int], last_stage: bool) -> Tower:
    """SigLIP's ViT, cut before its attention pool. grid: (rows, columns) of patches."""
    vision = model.vision_model
    if getattr(vision, "head", None) is None:
        raise ValueError("a SigLIP without its attention pool is not supported")
    embeddings, pool = vision.embeddings, vision.head
    positions = _siglip_positions(embeddings, grid)
    layers: list[nn.Module] = [*(_Block(layer) for layer in vision.encoder.layers), vision.post_layernorm]
    width = pool.attention.embed_dim
    fused, biases = pool.attention.in_proj_weight, pool.attention.in_proj_bias
    parts = SimpleNamespace(
        latent=pool.probe,
        q=split_linear([fused[:width]], biases[:width])[0],
        kv=SimpleNamespace(weight=fused[width:], bias=biases[width:]),
        q_norm=nn.Identity(),
        k_norm=nn.Identity(),
        num_heads=pool.attention.num_heads,
        proj=pool.attention.out_proj,
        norm=pool.layernorm,
        mlp=pool.mlp,
    )

    head = LatentPool(parts, None, nn.Identity(), grid, width)
    if last_stage:
        head.tower_stage = nn.Sequential(*layers[-2:])
        del layers[-2:]
    blocks = nn.Sequential(*layers)

    def tokens(pixels: Tensor) -> Tensor:
        return blocks(_siglip_patches(embeddings.patch_embedding, pixels, grid) + positions)

    return Tower(tokens, head)


def _siglip_patches(embedding: nn.Module, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Embed patches. [B, 3, H, W] -> [B, P, W]. SigLIP 2's embedding is linear over a patch's pixels, colours last."""
    if isinstance(embedding, nn.Conv2d):
        return embedding(pixels).flatten(2).transpose(1, 2)
    patch = math.isqrt(embedding.in_features // 3)  # type: ignore[operator]
    rows, columns = grid
    whole = pixels[:, :, : rows * patch, : columns * patch]
    cut = whole.unflatten(2, (rows, patch)).unflatten(4, (columns, patch))
    return embedding(cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))


def _siglip_positions(embeddings: Any, grid: tuple[int, int]) -> Tensor:
    """Return positional embeddings for the grid, [P, W]. SigLIP 2 interpolates them linearly, for every image."""
    weight = embeddings.position_embedding.weight
    old = math.isqrt(len(weight))
    if isinstance(embeddings.patch_embedding, nn.Conv2d):
        _resize_embeddings(embeddings, grid, prefix=0)
        return embeddings.position_embedding.weight
    image = weight.detach().T.reshape(1, -1, old, old)
    resized = F.interpolate(image, grid, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].flatten(1).T


def _resize_embeddings(embeddings: Any, grid: tuple[int, int], prefix: int) -> None:
    """Interpolate a tower's positional embeddings to another grid, in place."""
    weight = embeddings.position_embedding.weight
    old = math.isqrt(len(weight) - prefix)
    if (old, old) != grid:
        resized = resize_positions(weight.detach(), (old, old), grid, prefix)
        embeddings.position_embedding = nn.Embedding.from_pretrained(resized)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from writing progress bars and warnings: what matters is raised."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
