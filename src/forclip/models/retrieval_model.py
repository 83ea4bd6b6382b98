"""A backbone and a head together: what embeds images and what a store remembers by its fingerprint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forclip.calibration.model import Calibration, read_calibration, write_calibration
from forclip.config import HeadConfig, ModelConfig
from forclip.models.backbone import Backbone, weights_fingerprint
from forclip.models.baselines import Head, training_free_head
from forclip.models.class_vectors import ClassVectors
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.pools import upgrade_key
from forclip.models.summary_head import SummaryHead
from forclip.text.prompts import encode_classes

FORMAT_VERSION = 2
_CONFIG_FILE, _WEIGHTS_FILE, _CALIBRATION_FILE = "config.json", "model.safetensors", "calibration.json"
_TEXT_SIDE = "class_vectors."


@dataclass(frozen=True)
class RetrievalModel:
    """name: what the user called it; fingerprint: of weights, preprocessing and head, hexadecimal; calibration: what
    its scores are worth, None where there were no labels to learn that from, as for every pretrained model."""

    name: str
    backbone: Backbone
    head: Head
    fingerprint: str
    templates: tuple[str, ...] = ("a photo of a {}",)
    class_vectors: ClassVectors | None = None
    calibration: Calibration | None = None

    def encode_query(self, text: str) -> Tensor:
        """A text as this model asks for it: through its templates and, once trained, its class vectors. [D] unit."""
        return self.encode_queries([text])[0]

    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """As encode_query, for at least one text, all at once: [T, D] unit."""
        vectors = encode_classes(self.backbone, texts, self.templates)
        return vectors if self.class_vectors is None else self.class_vectors(vectors)

    @torch.inference_mode()
    def encode_image(self, picture: Image.Image) -> Tensor:
        """All vectors of one picture, [N, D] unit, in single precision."""
        pixels = self.backbone.preprocess(picture)[None].to(self.backbone.device)
        vectors: Tensor = self.head(self.backbone.encode_tokens(pixels))[0].float()
        return vectors

    @property
    def dim(self) -> int:
        """Dimensions of the text space."""
        return self.backbone.new_pool().dim


def configured_backbone(model: ModelConfig, device: str) -> Backbone:
    """Raises ValueError as load_open_clip does."""
    return load_open_clip(
        model.name, model.pretrained, model.image_size, model.resize_mode, device, model.train_last_stage
    )


def load_model(
    model: ModelConfig, device: str = "cpu", head: str = "sum", num_query_tokens: int = HeadConfig.num_query_tokens
) -> RetrievalModel:
    """A trained run, where model.name is its folder; else a pretrained model with a training-free head.

    head: sum (the untrained summary head), global, dense, or cluster_K. Raises ValueError naming what is unknown.
    """
    folder = Path(model.name)
    if (folder / _CONFIG_FILE).exists():
        return from_pretrained(folder, device)
    backbone = configured_backbone(model, device)
    built = training_free_head(backbone, head, num_query_tokens)
    return RetrievalModel(model.name, backbone, built, f"{backbone.fingerprint}-{head}-{num_query_tokens}")


def save_pretrained(
    folder: Path,
    head: SummaryHead,
    class_vectors: ClassVectors,
    backbone: Backbone,
    model: ModelConfig,
    templates: tuple[str, ...],
    calibration: Calibration | None = None,
) -> None:
    """Writes model.safetensors, calibration.json where there is one, and then config.json, whose presence means that
    the model is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (_CONFIG_FILE, _CALIBRATION_FILE):
        (folder / old).unlink(missing_ok=True)
    if calibration is not None:
        write_calibration(folder / _CALIBRATION_FILE, calibration)
    state = head.state_dict() | {f"{_TEXT_SIDE}{k}": v for k, v in class_vectors.state_dict().items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / _WEIGHTS_FILE)
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "backbone": asdict(model),
        "backbone_fingerprint": backbone.fingerprint,
        "num_query_tokens": head.num_query_tokens,
        "templates": list(templates),
    }
    (folder / _CONFIG_FILE).write_text(json.dumps(content, indent=1) + "\n")


def from_pretrained(folder: Path, device: str = "cpu", backbone: Backbone | None = None) -> RetrievalModel:
    """A model that save_pretrained wrote. backbone: one that open_clip can't load, plugged in by the caller.

    Raises ValueError for a missing or damaged file, another format version, or a backbone with other weights. A run
    without a calibration has None.
    """
    content = _read_config(folder)
    if backbone is None:
        backbone = configured_backbone(ModelConfig(**content["backbone"]), device)
    if backbone.fingerprint != content["backbone_fingerprint"]:
        raise ValueError(f"{folder}: was trained on other weights or preprocessing than {backbone.name!r} has now")
    try:
        state = load_file(folder / _WEIGHTS_FILE)
        words = {k.removeprefix(_TEXT_SIDE): v for k, v in state.items() if k.startswith(_TEXT_SIDE)}
        class_vectors = ClassVectors(words["texts"], words["shifts"], words["nearest"])
        head = read_head(backbone, {k: v for k, v in state.items() if not k.startswith(_TEXT_SIDE)})
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{folder / _WEIGHTS_FILE}: damaged or of another model: {str(error)[:200]}") from None
    fingerprint = weights_fingerprint(state, backbone.fingerprint)
    file = folder / _CALIBRATION_FILE
    calibration = read_calibration(file) if file.exists() else None
    templates = tuple(content["templates"])
    return RetrievalModel(str(folder), backbone, head, fingerprint, templates, class_vectors, calibration)


def read_head(backbone: Backbone, state: Mapping[str, Tensor]) -> SummaryHead:
    """A summary head from its tensors, on the backbone's device. Raises RuntimeError or KeyError if they don't fit."""
    pool = backbone.new_pool()
    if "pool.output.weight" in state:
        pool.output = nn.Linear(pool.dim, pool.dim)
    head = SummaryHead(pool, torch.zeros_like(state["offsets"]), torch.zeros_like(state["bias"]))
    head.load_state_dict({upgrade_key(key): tensor for key, tensor in state.items()})
    return head.to(backbone.device).eval().requires_grad_(False)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG_FILE
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {_CONFIG_FILE}, so no finished run") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable: {error}") from None
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        version = content.get("format_version") if isinstance(content, dict) else None
        raise ValueError(f"{file}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
    return content
