"""open_clip's models as backbones: built-in names, files, local folders, the Hugging Face hub, and the mini CLIP."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants as hub_constants
from open_clip.convert import convert_state_dict, load_big_vision_weights
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from torch import Tensor

from forclip.image_size import ImageSize
from forclip.models.checkpoint import first_mismatch, is_transformers_state, read_checkpoint, read_json
from forclip.models.download import HUB, NotReachable, hub_file, hub_folder
from forclip.models.error_text import first_line
from forclip.models.mini_clip import MINI_NAME, MINI_WEIGHTS
from forclip.models.model_folder import (
    OPEN_CLIP_CONFIG,
    PREPROCESSING_FILES,
    TOKENIZER_FILES,
    TRANSFORMERS_CONFIG,
    TRANSFORMERS_WEIGHTS,
    folder_layout,
    open_clip_weights,
    transformers_weights,
)
from forclip.models.references import RANDOM, model_folder
from forclip.models.registry import is_architecture, suggest_model, weights_on_hub
from forclip.models.tower_backbone import ResizeMode, TowerBackbone, checked_device, whole_image
from forclip.models.tower_parts import Tower
from forclip.models.towers import cut_tower
from forclip.models.transformers_backbone import load_transformers
from forclip.progress import notify
from forclip.text.vocabulary import did_you_mean

_BESIDE_TOKENIZER = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("merges.txt", "config.json"),
)
# The positional embeddings of image towers, the weights whose last dimension is the patch size (a ResNet's is 32), and
# the number of tokens without a position.
_POSITIONS = (
    ("visual.attnpool.positional_embedding", None, 1),
    ("visual.positional_embedding", "visual.conv1.weight", 1),
    ("visual.trunk.pos_embed", "visual.trunk.patch_embed.proj.weight", 0),
)
# What open_clip and the libraries under it raise for configurations that are damaged, foreign or out of reach.
_LOAD_ERRORS = (AssertionError, AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


class OpenClipBackbone(TowerBackbone):
    """A frozen open_clip model behind the `Backbone` protocol. Built by `load_open_clip`."""

    def __init__(
        self,
        name: str,
        model: Any,
        tower: Tower,
        preprocessing: PreprocessCfg,
        is_random: bool = False,
        source: str | None = None,
    ) -> None:
        """is_random: whether the weights are random, so that another tokenizer may replace a missing one; source: the
        model as open_clip's tokenizer factory names it; by default, `name`."""
        super().__init__(name, model, tower, preprocessing)
        self.is_random, self._source = is_random, source or name

    def _encode_batch(self, texts: list[str]) -> Tensor:
        return self.model.encode_text(self._tokenizer(texts).to(self.device))

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        try:
            return _load_tokenizer(self._source)
        except _LOAD_ERRORS as error:
            if self.is_random:
                return open_clip.SimpleTokenizer(context_length=self.model.context_length)
            raise ValueError(f"{self.name}: cannot load its tokenizer: {first_line(error)}") from None


@dataclass(frozen=True)
class _Source:
    """What a model is built from.

    name: as open_clip's factory takes it; weights: a file, or None for random ones; preprocessing, quick_gelu: what
    the published weights need, beyond the architecture.
    """

    name: str
    weights: Path | None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    quick_gelu: bool = False


def load_open_clip(
    name: str,
    pretrained: str | None,
    image_size: ImageSize | None = None,
    resize_mode: ResizeMode = "squash",
    device: str = "cpu",
    last_stage: bool = False,
) -> TowerBackbone:
    """Load a frozen backbone.

    name: one of these, with the values of `pretrained` that it takes (besides "random", for weights drawn from a
    fixed seed):

    - a built-in architecture: a tag, or a file of weights; None is refused (`complete_reference` chooses a tag);
    - `forclip-mini`: None for its bundled weights, or a file;
    - a model folder in open_clip's or Hugging Face's layout, also as `local-dir:PATH`, or a hub model,
      `hf-hub:ORG/NAME`: None, as they carry their own weights.

    image_size: pixels per side, or (rows, columns), each at least 32; None is the model's own. resize_mode: squash the
    whole image to this size, or letterbox it. last_stage: give the tower's last stage to the pool, so that it can be
    finetuned.

    Raises ValueError naming what is unknown, missing, damaged or of an unsupported family. The global random state is
    unchanged.
    """
    target = checked_device(device)
    whole_image(PreprocessCfg(), image_size, resize_mode)
    is_random, folder = pretrained == RANDOM, _folder_of(name, pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed accelerators too
        if folder is not None and folder[1] == "transformers":
            return load_transformers(folder[0], name, image_size, resize_mode, target, last_stage, is_random)
        source = _resolve(name, pretrained, folder and folder[0])
        model = _create(name, source).eval().requires_grad_(False).to(target)
        tower = cut_tower(model.visual, image_size, last_stage)
        tower.pool.eval().requires_grad_(False)
    own = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    shown = source.name if is_architecture(name) else name
    backbone = OpenClipBackbone(
        shown, model, tower, whole_image(own, image_size, resize_mode), is_random, source=source.name
    )
    if not is_random:
        with contextlib.suppress(ValueError):
            backbone.encode_text(["a"])  # loads the tokenizer now, while there is a network; searches report errors
    return backbone


def _folder_of(name: str, pretrained: str | None) -> tuple[Path, str] | None:
    """Return a local or hub model's folder and its layout; None for an architecture."""
    folder = model_folder(name)
    if folder is None and not name.startswith(HF_HUB_PREFIX):
        return None
    if pretrained not in (None, RANDOM):
        raise ValueError(f"{name} carries its own weights: pretrained {pretrained!r} cannot be combined with it")
    if folder is not None:
        if name == LOCAL_DIR_PREFIX:
            raise ValueError("local-dir: needs a folder")
        return folder_layout(folder)
    return _hub_folder(name.removeprefix(HF_HUB_PREFIX))


def _hub_folder(repository: str) -> tuple[Path, str]:
    """Fetch a hub model's files, in open_clip's or in Hugging Face's layout; return their folder and the layout."""
    try:
        config = hub_file(repository, (OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG))
        if config.name == OPEN_CLIP_CONFIG:
            hub_file(repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
            if read_json(config).get("model_cfg", {}).get("text_cfg", {}).get("hf_tokenizer_name"):
                hub_folder(repository, TOKENIZER_FILES, _BESIDE_TOKENIZER)
        else:
            optional = (*PREPROCESSING_FILES, *TOKENIZER_FILES, *_BESIDE_TOKENIZER)
            weights = hub_folder(repository, TRANSFORMERS_WEIGHTS, optional)
            for part in transformers_weights(weights):
                hub_file(repository, (part,))
    except NotReachable as error:
        raise ValueError(
            f"hf-hub:{repository}: is not on this machine, and {error}; download {HUB}/{repository} elsewhere into a"
            " folder and give it with --model FOLDER"
        ) from None
    return folder_layout(config.parent)


def _resolve(name: str, pretrained: str | None, folder: Path | None) -> _Source:
    """Find the architecture and the weights of a model in open_clip's layout."""
    if folder is not None:
        weights = None if pretrained == RANDOM else open_clip_weights(folder)
        return _Source(f"{LOCAL_DIR_PREFIX}{folder}", weights)
    if not is_architecture(name):
        if Path(name).is_file():
            raise ValueError(
                f"model {name!r} is a file: give it with its architecture, --model ViT-B-32 --pretrained FILE"
            )
        raise ValueError(f"model {name!r} is no folder, and unknown to open_clip{suggest_model(name)}")
    given, name = name, name.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    if name == MINI_NAME and pretrained is None:
        if not MINI_WEIGHTS.is_file():
            raise ValueError(f"{name}: no weights at {MINI_WEIGHTS}; forclip.toyworld.pretraining trains them")
        return _Source(name, MINI_WEIGHTS)
    if pretrained is None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "a file of weights"
        raise ValueError(f"model {name!r} needs pretrained weights: {tags}")
    if pretrained == RANDOM:
        return _Source(name, None)
    if open_clip.is_pretrained_cfg(name, pretrained):
        tag = get_pretrained_cfg(name, pretrained)
        # ViT-B-32 with OpenAI's weights is the QuickGELU model, whatever the name says.
        return _Source(name, _download(name, pretrained), tag, bool(tag.get("quick_gelu")))
    file = Path(pretrained)
    if pretrained.strip() and file.is_dir():
        raise ValueError(f"pretrained {pretrained!r} is a folder; give it with --model {pretrained}")
    if not file.is_file() and not file.is_symlink():
        suggestion = did_you_mean(pretrained, open_clip.list_pretrained_tags_by_model(name))
        raise ValueError(f"pretrained {pretrained!r} is no tag of {given} and no file{suggestion}")
    config_file = file.parent / OPEN_CLIP_CONFIG
    if config_file.is_file():  # as a hub model's files lie together
        config = read_json(config_file)
        quick_gelu = bool(config.get("model_cfg", {}).get("quick_gelu"))
        return _Source(name, file, config.get("preprocess_cfg", {}), quick_gelu)
    return _Source(name, file, _usual_preprocessing(name))


def _usual_preprocessing(name: str) -> dict[str, Any]:
    """Return the preprocessing of an architecture's published weights if all share it, else open_clip's default."""
    tags = [get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    usual = [{key: tag[key] for key in ("mean", "std", "interpolation")} for tag in tags]
    return usual[0] if usual and all(other == usual[0] for other in usual) else {}


def _download(name: str, tag: str) -> Path:
    """Return the file of published weights, from the hub's cache or downloaded once."""
    repository, files = weights_on_hub(name, tag)
    try:
        return hub_file(repository, files)
    except NotReachable as error:
        text = _model_config(name)["text_cfg"]
        todo = f"copy {hub_constants.HF_HUB_CACHE} from a machine where the command ran"
        if not {"hf_tokenizer_name", "hf_model_name"} & text.keys():
            quick = f"{name}-quickgelu"
            exact = quick if get_pretrained_cfg(name, tag).get("quick_gelu") and is_architecture(quick) else name
            todo = (
                f"download {HUB}/{repository}/resolve/main/{files[0]} elsewhere and give it with"
                f" --model {exact} --pretrained FILE, or {todo}"
            )
        raise ValueError(f"{name}: its weights {tag} are not on this machine, and {error}; {todo}") from None


def _create(name: str, source: _Source) -> Any:
    """Create the whole model on the CPU and load its weights."""
    file, config = source.weights, _model_config(source.name)
    checkpoint = None if file is None or file.suffix == ".npz" else read_checkpoint(file)
    size = None if checkpoint is None else _image_size(checkpoint.state, config)
    options: dict[str, Any] = {}
    text = config.get("text_cfg", {})
    if "hf_model_name" in text:
        try:
            folder = hub_file(text["hf_model_name"], ("config.json",)).parent
        except ValueError as error:
            raise ValueError(f"{name}: the config of its text tower is not on this machine: {error}") from None
        options["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    try:
        with _silent_open_clip():
            model = open_clip.create_model(
                source.name,
                load_weights=False,
                pretrained_text=False,
                force_image_size=size,
                force_quick_gelu=source.quick_gelu or (checkpoint is not None and checkpoint.is_openai),
                force_preprocess_cfg=source.preprocessing,
                **options,
            )
    except _LOAD_ERRORS as error:
        raise ValueError(f"{name}: cannot be built: {first_line(error)}") from None
    if file is not None:
        _fill(model, None if checkpoint is None else checkpoint.state, file, source.name.removeprefix(LOCAL_DIR_PREFIX))
    if size is not None:
        notify(f"{file}: its weights are for images of {size} pixels, and are used so")
    return model


def _model_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = open_clip.get_model_config(name) or {}
    return config


def _image_size(state: dict[str, Tensor], config: dict[str, Any]) -> int | None:
    """Return the image size that weights are for, if it is another one than the architecture's."""
    size = config.get("vision_cfg", {}).get("image_size", 224)
    for positions, patches, prefix in _POSITIONS:
        if positions in state and state[positions].ndim > 1 and patches in (None, *state) and isinstance(size, int):
            patch = 32 if patches is None else state[patches].shape[-1]
            count = state[positions].shape[-2] - prefix
            side = math.isqrt(count)
            return side * patch if side * side == count and side != size // patch else None
    return None


def _fill(model: Any, state: dict[str, Tensor] | None, file: Path, name: str) -> None:
    """Load all weights of a file into a model. Raises ValueError that names the first one that does not fit.

    state: the file's content; None for an archive of big_vision.
    """
    if state is not None and is_transformers_state(state):
        has_config = (file.parent / TRANSFORMERS_CONFIG).exists()
        todo = f"give {file.parent}" if has_config else "put its config.json next to it and give the folder"
        raise ValueError(f"{file}: has the layout of Hugging Face's models; {todo} with --model")
    try:
        with _silent_open_clip():
            if state is None:
                load_big_vision_weights(model, str(file))
                return
            state = convert_state_dict(model, state)
    except _LOAD_ERRORS as error:
        raise ValueError(f"{file}: no weights of {name}: {first_line(error)}") from None
    is_custom = not hasattr(model, "positional_embedding")
    if is_custom and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    elif not is_custom and "text.positional_embedding" in state:
        state = {key.removeprefix("text."): value for key, value in state.items()}
    expected = model.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in expected and state[key].numel() == 1:
            state[key] = state[key].reshape(expected[key].shape)
    if "logit_bias" in expected and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(expected["logit_bias"])
    for key in ("logit_bias", "attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids"):
        if key not in expected:
            state.pop(key, None)  # says nothing about images or texts
    if mismatch := first_mismatch(state, expected, name):
        raise ValueError(f"{file}: does not fit {name}: {mismatch}{_resembling(state, name)}")
    model.load_state_dict(state)


def _resembling(state: dict[str, Tensor], name: str) -> str:
    """Name the open_clip architecture whose image and text tower have the sizes of these weights, if one has them."""
    conv, projection = state.get("visual.conv1.weight"), state.get("visual.proj")
    is_coca = any(key.startswith("text_decoder.") for key in state)
    words = state.get("token_embedding.weight", state.get("text.token_embedding.weight"))
    if conv is None or projection is None or words is None or conv.ndim != 4:
        return ""
    layers = len({key.split(".")[3] for key in state if key.startswith("visual.transformer.resblocks.")})
    sizes = (conv.shape[0], conv.shape[-1], layers, projection.shape[1], words.shape[1], words.shape[0])
    for other in open_clip.list_models():
        config = _model_config(other)
        vision, text = config["vision_cfg"], config["text_cfg"]
        if ("multimodal_cfg" in config) != is_coca or "timm_model_name" in vision or "hf_model_name" in text:
            continue
        known = (vision.get("width", 768), vision.get("patch_size", 16), vision.get("layers", 12), config["embed_dim"])
        if (*known, text.get("width", 512), text.get("vocab_size", 49408)) == sizes and other != name:
            return f"; it looks like {other}"
    return ""


def _load_tokenizer(source: str) -> Callable[[list[str]], Tensor]:
    """Load a model's tokenizer: from its folder, or from the hub's cache, or the hub."""
    text = _model_config(source).get("text_cfg", {})
    wanted = text.get("hf_tokenizer_name")
    if not wanted:
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(source)
        return tokenizer
    folder = Path(source.removeprefix(LOCAL_DIR_PREFIX))
    if not source.startswith(LOCAL_DIR_PREFIX) or not any([*folder.glob("tokenizer*"), *folder.glob("*.model")]):
        folder = hub_folder(wanted, TOKENIZER_FILES, _BESIDE_TOKENIZER)
    loaded: Callable[[list[str]], Tensor] = HFTokenizer(
        str(folder),
        context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )
    return loaded


@contextlib.contextmanager
def _silent_open_clip() -> Iterator[None]:
    """Keep open_clip, which logs to the root logger, from warnings about weights: forclip reports on them itself."""
    root = logging.getLogger()
    root.addFilter(_is_error)
    try:
        yield
    finally:
        root.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
