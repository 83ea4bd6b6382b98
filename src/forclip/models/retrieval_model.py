"""A backbone and a head together: the model that embeds images and texts, loaded from and saved to a run's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.calibration.model import Calibration, read_calibration, write_calibration
from forclip.config import ComputeChoice, HeadConfig, ModelConfig
from forclip.data.images.tiles import Tiles, parse_tiles, views_of
from forclip.data.images.views import View
from forclip.image_size import describe_image_size
from forclip.index.schema import Precision, StoreHeader
from forclip.location import with_urls
from forclip.models.backbone import Backbone, weights_fingerprint
from forclip.models.baselines import Head, training_free_head
from forclip.models.checkpoint import check_is_no_placeholder, read_json
from forclip.models.compute import compute_of, resolve_compute
from forclip.models.encoder import Encoder
from forclip.models.model_copy import local_model
from forclip.models.model_folder import is_run_config
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.pools import Pool, upgrade_key
from forclip.models.references import (
    absolute_reference,
    complete_reference,
    names_local_files,
    reference_to_json,
    written_reference,
)
from forclip.models.summary_head import SummaryHead
from forclip.models.tower_backbone import checked_device
from forclip.text.prompt_options import SINGLE_TEMPLATE
from forclip.text.prompts import encode_classes

SAME_WORD = 0.999  # cosine of a text with itself: rounding takes it below 1, synonyms stay below this


class ClassVectors(nn.Module):
    """Shifts the text vectors of labelled classes and leaves all others unchanged.

    The class's own text gets the whole shift. For other texts the shift falls linearly with their cosine to it; it is 0
    from half the distance to the nearest other word on. So a novel class keeps its vector, however similar its name.
    """

    texts: Tensor
    shifts: Tensor
    nearest: Tensor

    def __init__(self, texts: Tensor, shifts: Tensor, nearest: Tensor) -> None:
        """texts: [C, D] unit, of the classes; shifts: [C, D]; nearest: [C], the cosine of the nearest other word."""
        super().__init__()
        self.register_buffer("texts", texts)
        self.register_buffer("shifts", shifts)
        self.register_buffer("nearest", nearest)

    def forward(self, texts: Tensor) -> Tensor:
        """[T, D] unit -> [T, D] unit, on the device of the texts."""
        classes, shifts = self.texts.to(texts.device), self.shifts.to(texts.device)
        half_way = (1 + self.nearest.to(texts.device)) / 2
        strength = ((texts @ classes.T - half_way) / (1 - half_way).clamp(min=1e-6)).clamp(0, 1)
        return F.normalize(texts + strength @ shifts, dim=-1)


def no_class_vectors(dim: int) -> ClassVectors:
    """Return class vectors without a class, which leave every text unchanged. dim: D."""
    return ClassVectors(torch.zeros(0, dim), torch.zeros(0, dim), torch.zeros(0))


FORMAT_VERSION = 2
_CONFIG_FILE, _WEIGHTS_FILE, _CALIBRATION_FILE = "config.json", "model.safetensors", "calibration.json"
_TEXT_SIDE = "class_vectors."


@dataclass(frozen=True)
class RetrievalModel:
    """Embeds images to several vectors each, and text queries to one vector, in one space of `dim` dimensions.

    name: the open_clip name or the run's folder. fingerprint: hexadecimal, of weights, preprocessing and head; equal
    fingerprints mean equal vectors. class_vectors: only a trained run has them. calibration: turns scores into
    probabilities; None without labels to learn it from, as for every pretrained model. tiles: the parts of an image
    that are embedded besides the whole.
    """

    name: str
    backbone: Backbone
    head: Head
    fingerprint: str
    templates: tuple[str, ...] = SINGLE_TEMPLATE
    class_vectors: ClassVectors | None = None
    calibration: Calibration | None = None
    tiles: Tiles | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """The P parts of an image that are embedded: the whole image, then its tiles."""
        return views_of(self.tiles)

    def with_tiles(self, tiles: Tiles | None) -> "RetrievalModel":
        """Return the model with other tiles, which is another model to a store.

        Its calibration is left out: scores of more vectors are higher.
        """
        if tiles == self.tiles:
            return self
        fingerprint = self.fingerprint.removesuffix(_tiles_suffix(self.tiles)) + _tiles_suffix(tiles)
        return replace(self, tiles=tiles, fingerprint=fingerprint, calibration=None)

    def encode_query(self, text: str) -> Tensor:
        """Encode a text query through the prompt templates and, in a trained run, the class vectors. [dim], unit."""
        return self.encode_queries([text])[0]

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """Encode one or more text queries at once: [T, dim], unit, float32 on the CPU."""
        vectors = encode_classes(self.backbone, texts, self.templates)
        return vectors if self.class_vectors is None else self.class_vectors(vectors)

    @torch.inference_mode()
    def encode_image(self, image: Image.Image) -> Tensor:
        """Embed one image: all its vectors, [P * N, dim], unit, float32 on the backbone's device, part by part."""
        pixels = torch.stack([self.backbone.preprocess(view(0, image)) for view in self.views])
        (vectors,) = Encoder(self.backbone).embed(self.head, pixels).wait()
        return vectors.flatten(0, 1).to(self.backbone.device)

    @property
    def dim(self) -> int:
        return self.backbone.new_pool().dim


def _tiles_suffix(tiles: Tiles | None) -> str:
    return "" if tiles is None else f"-tiles_{tiles.name}_{tiles.overlap:g}"


def configured_tiles(model: ModelConfig) -> Tiles | None:
    """Return the tiles of a configuration. Raises ValueError for `auto`, which has to be resolved before."""
    if model.tiles == "auto":
        raise ValueError(
            "tiles auto needs pictures to choose by; `forclip index` and a training choose, else name them"
        )
    return parse_tiles(model.tiles, model.tile_overlap)


def configured_backbone(model: ModelConfig, device: str) -> Backbone:
    """Load the backbone of a configuration; an architecture without weights gets its best-known ones.

    Raises ValueError as `load_open_clip` and `complete_reference` do.
    """
    model = complete_reference(model)
    backbone = load_open_clip(
        model.name, model.pretrained, model.image_size, model.resize_mode, device, model.train_last_stage
    )
    return backbone.with_compute(resolve_compute(model.compute, device), model.compile)


def is_trained_run(name: str) -> bool:
    """Whether a model's name is the folder of a finished run, and not another tool's model folder."""
    return is_run_config(Path(name) / _CONFIG_FILE)


def as_model_config(model: ModelConfig | str | Path) -> ModelConfig:
    """The configuration of a model that may be given by its name or folder alone, on this machine.

    Raises ValueError as `local_model` does.
    """
    return local_model(model if isinstance(model, ModelConfig) else ModelConfig(name=with_urls(str(model))))


def load_model(
    model: ModelConfig | str | Path,
    device: str = "cpu",
    head: str | None = None,
    num_query_tokens: int | None = None,
) -> RetrievalModel:
    """Load a trained run, or a pretrained model with a head that needs no training.

    model: a name alone, or a ModelConfig with one: the folder that `train` wrote, or a pretrained model as
    `load_open_clip` takes it. head: `sum`
    (the default: the untrained summary head), `global` (plain CLIP, one vector per image), `dense` (one per position)
    or `cluster_K` (K per image). num_query_tokens: vectors per image of the head `sum`; by default those of
    `HeadConfig`. A trained run has its own head, so omit both for a run. It has its own tiles too, unless the
    configuration names others (`none` and `auto` do not).

    The model is in eval mode on `device`, such as "cpu" or "cuda". Raises ValueError for an unknown model, head or
    device, for a damaged run, for a head or number of query tokens that a trained run does not have, and for tiles
    `auto` of a pretrained model.
    """
    model = as_model_config(model)
    if is_trained_run(model.name):
        run = from_pretrained(Path(model.name), device, compute=model.compute, compiled=model.compile)
        _check_head(run, head, num_query_tokens)
        return run if model.tiles in ("none", "auto") else run.with_tiles(configured_tiles(model))
    tiles = configured_tiles(model)
    head = "sum" if head is None else head
    num_query_tokens = HeadConfig.num_query_tokens if num_query_tokens is None else num_query_tokens
    backbone = configured_backbone(model, device)
    fingerprint = f"{backbone.fingerprint}-{head}-{num_query_tokens}"
    built = training_free_head(backbone, head, num_query_tokens)
    return RetrievalModel(model.name, backbone, built, fingerprint).with_tiles(tiles)


def _check_head(run: RetrievalModel, head: str | None, num_query_tokens: int | None) -> None:
    """Raise ValueError for another head or number of query tokens than a trained run's own."""
    actual = {"head": "sum", "num_query_tokens": cast(SummaryHead, run.head).num_query_tokens}
    for name, value in (("head", head), ("num_query_tokens", num_query_tokens)):
        if value not in (None, actual[name]):
            raise ValueError(f"{run.name}: is a trained run with {name} {actual[name]}, not {value}")


def save_pretrained(
    folder: Path,
    head: SummaryHead,
    class_vectors: ClassVectors,
    backbone: Backbone,
    model: ModelConfig,
    templates: tuple[str, ...],
    calibration: Calibration | None = None,
) -> None:
    """Write a trained run that `from_pretrained` reads, without the backbone's own weights.

    model: its tiles are those that the run embeds images with. Raises ValueError for tiles `auto`.

    Writes model.safetensors, calibration.json if there is a calibration, and at last config.json: its presence means
    that the run is complete.
    """
    configured_tiles(model)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (_CONFIG_FILE, _CALIBRATION_FILE):
        (folder / old).unlink(missing_ok=True)
    if calibration is not None:
        write_calibration(folder / _CALIBRATION_FILE, calibration)
    state = head.state_dict() | {f"{_TEXT_SIDE}{k}": v for k, v in class_vectors.state_dict().items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / _WEIGHTS_FILE)
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "backbone": reference_to_json(absolute_reference(model)),
        "backbone_fingerprint": backbone.fingerprint,
        "num_query_tokens": head.num_query_tokens,
        "templates": list(templates),
    }
    (folder / _CONFIG_FILE).write_text(json.dumps(content, indent=1) + "\n")


def read_run_config(folder: Path) -> dict[str, Any]:
    """Read a run's config.json: its backbone, the backbone's fingerprint, and the head. Raises ValueError."""
    file = folder / _CONFIG_FILE
    try:
        content = read_json(file)
    except ValueError:
        if file.exists():
            raise
        raise ValueError(f"{folder}: no {_CONFIG_FILE}, so no finished run") from None
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{file}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
    return content


def from_pretrained(
    folder: Path,
    device: str = "cpu",
    backbone: Backbone | None = None,
    *,
    compute: ComputeChoice = "auto",
    compiled: bool = False,
) -> RetrievalModel:
    """Load a run that `save_pretrained` wrote.

    compute, compiled: as `ModelConfig` has `compute` and `compile`. backbone: one that open_clip cannot load, or whose
    weights are elsewhere now; `device`, `compute` and `compiled` are then ignored. Raises
    ValueError for a missing or damaged file, another format version, and a backbone with other weights or preprocessing
    than the run's.
    """
    content = read_run_config(folder)
    config = written_reference(content["backbone"])
    if backbone is None:
        backbone = configured_backbone(replace(config, compute=compute, compile=compiled), device)
    if backbone.fingerprint != content["backbone_fingerprint"]:
        size = "no image_size" if config.image_size is None else f"image_size {describe_image_size(config.image_size)}"
        raise ValueError(
            f"{folder}: was trained on other weights or preprocessing than {backbone.name!r} has now; the run has "
            f"{size} and resize_mode {config.resize_mode}, as in its run.yaml"
        )
    check_is_no_placeholder(folder / _WEIGHTS_FILE)
    try:
        state = load_file(folder / _WEIGHTS_FILE)
        text_side = {k.removeprefix(_TEXT_SIDE): v for k, v in state.items() if k.startswith(_TEXT_SIDE)}
        class_vectors = ClassVectors(text_side["texts"], text_side["shifts"], text_side["nearest"])
        head = read_head(backbone, {k: v for k, v in state.items() if not k.startswith(_TEXT_SIDE)})
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{folder / _WEIGHTS_FILE}: damaged or of another model: {str(error)[:200]}") from None
    fingerprint = weights_fingerprint(state, backbone.fingerprint)  # of the keys in the file, as stores remember it
    file = folder / _CALIBRATION_FILE
    calibration = read_calibration(file) if file.exists() else None
    templates, tiles = tuple(content["templates"]), configured_tiles(config)
    fingerprint += _tiles_suffix(tiles)
    return RetrievalModel(str(folder), backbone, head, fingerprint, templates, class_vectors, calibration, tiles)


def read_head(backbone: Backbone, state: Mapping[str, Tensor]) -> SummaryHead:
    """Rebuild a frozen summary head from its state dict, on the backbone's device.

    Raises RuntimeError or KeyError if the tensors do not fit the backbone's pool.
    """
    state = {upgrade_key(key): tensor for key, tensor in state.items()}
    # Heads of forclip 0.3 and earlier have no share of plain CLIP's embedding.
    state.setdefault("pooled_share", torch.tensor(0.0))

    def new_pool(name: str) -> Pool:
        pool = backbone.new_pool()
        if f"{name}.output.weight" in state:
            pool.output = nn.Linear(pool.dim, pool.dim)
        return pool

    pooled = new_pool("pooled") if any(key.startswith("pooled.") for key in state) else None
    head = SummaryHead(new_pool("pool"), torch.zeros_like(state["offsets"]), torch.zeros_like(state["bias"]), pooled)
    head.load_state_dict(state)
    return head.to(backbone.device).eval().requires_grad_(False)


def load_store_model(
    folder: Path,
    header: StoreHeader,
    device: str = "cpu",
    override: ModelConfig | None = None,
    head: str | None = None,
    num_query_tokens: int | None = None,
    *,
    compute: ComputeChoice | None = None,
    compiled: bool | None = None,
) -> RetrievalModel:
    """Load the model that wrote a store.

    folder: the store's copy of the trained run, which does not exist if the head needed no training; override: where
    the weights are now, if not where the header says: a trained run, or a pretrained model as `load_open_clip` takes
    it; head, num_query_tokens: as `load_model` takes them, None for the store's. The tiles are the store's. compute,
    compiled: as `ModelConfig` has `compute` and `compile`, None for those of `override`, or their defaults. Raises
    ValueError, naming `--model`, if the weights are missing, and if a trained run was trained on others.
    """
    here = override or ModelConfig()
    compute, compiled = compute or here.compute, here.compile if compiled is None else compiled
    config, stored_head, stored_count = stored_model(header, override)
    config = replace(config, compute=compute, compile=compiled)
    if override is not None:
        override = replace(override, compute=compute, compile=compiled)
    tiles = configured_tiles(config)
    # A model that everybody has, without the store's trained head, is another one.
    is_other = is_trained_run(str(folder)) and override is not None and not names_local_files(override)
    if override is not None and (is_trained_run(override.name) or is_other):
        return load_model(override, device, head, num_query_tokens).with_tiles(tiles)
    checked_device(device)
    try:
        if not is_trained_run(str(folder)):
            count = stored_count if num_query_tokens is None else num_query_tokens
            return load_model(config, device, head or stored_head, count)
        run = from_pretrained(folder, backbone=configured_backbone(config, device))
    except ValueError as error:
        if override is not None:
            raise
        raise ValueError(f"{folder.parent}: its model can't be loaded; --model says where it is now: {error}") from None
    _check_head(run, head, num_query_tokens)
    return run.with_tiles(tiles)


def stored_model(header: StoreHeader, override: ModelConfig | None = None) -> tuple[ModelConfig, str, int]:
    """Return the configuration, head and number of query tokens of a store's model, for `load_model`.

    override: replaces the name and the weights, and keeps the preprocessing.
    """
    description = {k: v for k, v in header.model.items() if k != "run"}
    head, count = description.pop("head"), description.pop("num_query_tokens")
    config = written_reference(description)
    if override is not None:
        weights, size = complete_reference(override), override.image_size or config.image_size
        config = replace(config, name=weights.name, pretrained=weights.pretrained, image_size=size)
    return config, head, count


def describe_model(
    model: RetrievalModel, config: ModelConfig, head: str | None = None, num_query_tokens: int | None = None
) -> dict[str, Any]:
    """Describe a model for `StoreHeader.model`. config, head and num_query_tokens: as `load_model` took them.

    Of a trained run it has the backbone, and the run's name under `run`.
    """
    description: dict[str, Any] = {}
    if is_trained_run(config.name):
        run = Path(config.name)
        num_query_tokens = cast(SummaryHead, model.head).num_query_tokens
        config, description["run"] = written_reference(read_run_config(run)["backbone"]), run.resolve().name
    tiles = (
        {"tiles": "none"} if model.tiles is None else {"tiles": model.tiles.name, "tile_overlap": model.tiles.overlap}
    )
    return {
        **reference_to_json(absolute_reference(complete_reference(config, announce=False))),
        **tiles,
        "head": head or "sum",
        "num_query_tokens": num_query_tokens or HeadConfig.num_query_tokens,
        **description,
    }


def store_header(
    model: RetrievalModel,
    config: ModelConfig,
    head: str | None = None,
    num_query_tokens: int | None = None,
    precision: Precision = "fp16",
    code_range: float = 1.0,
    merge: float | None = None,
    max_vectors: int | None = None,
) -> StoreHeader:
    """Describe a new store and the model that fills it, as `describe_model`."""
    description = describe_model(model, config, head, num_query_tokens)
    return StoreHeader(
        model.fingerprint,
        model.dim,
        description,
        precision,
        code_range,
        merge,
        max_vectors,
        compute=[compute_of(model.backbone)],
    )
