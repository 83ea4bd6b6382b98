"""References to models: the names, folders and files by which a user chooses a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX

from forclip.config import ModelConfig, config_to_json
from forclip.models.mini_clip import MINI_NAME
from forclip.models.model_copy import local_model
from forclip.models.registry import BY_NAME, best_tag, describe_weights, is_architecture
from forclip.progress import notify

RANDOM = "random"  # as `pretrained`: weights drawn from a fixed seed


def absolute_reference(model: ModelConfig) -> ModelConfig:
    """Make a reference independent of the working directory and of later versions of forclip, to be stored.

    Local paths become absolute, a short name its architecture, and missing weights the best-known tag. Hub models and
    what is not there stay as they are.
    """
    model = complete_reference(model, announce=False)
    name, pretrained = model.name, model.pretrained
    if name.startswith(LOCAL_DIR_PREFIX):
        name = LOCAL_DIR_PREFIX + str(Path(name.removeprefix(LOCAL_DIR_PREFIX)).absolute())
    elif not is_architecture(name) and Path(name).exists():
        name = str(Path(name).absolute())
    if pretrained and not open_clip.is_pretrained_cfg(name, pretrained) and Path(pretrained).is_file():
        pretrained = str(Path(pretrained).absolute())
    return replace(model, name=name, pretrained=pretrained)


def reference_to_json(model: ModelConfig) -> dict[str, Any]:
    """Describe a model for a store or a run: all but how it runs on this machine."""
    return {key: value for key, value in config_to_json(model).items() if key not in ("compute", "compile")}


def complete_reference(model: ModelConfig, announce: bool = True) -> ModelConfig:
    """Resolve a short name, and choose an architecture's best-known weights if none are given.

    announce: say in a line which weights were chosen. Raises ValueError for an architecture without published weights.
    """
    model = local_model(model)
    known = BY_NAME.get(model.name)
    if known is not None:
        pretrained = known.tag if model.pretrained is None else model.pretrained
        model = replace(model, name=known.architecture, pretrained=pretrained)
    if model.pretrained is not None or model.name == MINI_NAME or not is_architecture(model.name):
        return model
    name = model.name.replace("/", "-")
    tag = best_tag(name)
    if announce:
        notify(f"{name}: taking the weights {describe_weights(name, tag)}; --pretrained chooses others")
    return replace(model, name=name, pretrained=tag)


def written_reference(content: dict[str, object]) -> ModelConfig:
    """Read a model's reference from a store or a run.

    Before 0.3, an architecture without weights had random ones: that is what such a store or run was made with.
    """
    model = ModelConfig(**content)  # type: ignore[arg-type]
    if model.pretrained is None and model.name != MINI_NAME and is_architecture(model.name):
        return replace(model, pretrained=RANDOM)
    return model


def model_folder(name: str) -> Path | None:
    """Return the folder that a model's name means, or None for an architecture, a short name and a hub model."""
    if name.startswith(LOCAL_DIR_PREFIX):
        return Path(name.removeprefix(LOCAL_DIR_PREFIX))
    if name in BY_NAME or is_architecture(name) or name.startswith(HF_HUB_PREFIX) or not name:
        return None
    return Path(name) if Path(name).is_dir() else None


def names_local_files(model: ModelConfig) -> bool:
    """Whether a model's weights are chosen by a folder or file, not by the names that everybody knows."""
    absolute = absolute_reference(model)
    return any(
        Path(part.removeprefix(LOCAL_DIR_PREFIX)).is_absolute() for part in (absolute.name, absolute.pretrained or "")
    )
