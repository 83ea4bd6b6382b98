"""References to models: the names, folders and files by which a model is chosen."""

from dataclasses import replace
from pathlib import Path

import open_clip
from open_clip.factory import LOCAL_DIR_PREFIX

from forclip.config import ModelConfig
from forclip.models.mini_clip import register_mini


def absolute_reference(model: ModelConfig) -> ModelConfig:
    """Make a model's local paths absolute, so that it is found from every working directory.

    Names of architectures, tags and hub models stay as they are, and so does what is not there.
    """
    name, pretrained = model.name, model.pretrained
    if name.startswith(LOCAL_DIR_PREFIX):
        name = LOCAL_DIR_PREFIX + str(Path(name.removeprefix(LOCAL_DIR_PREFIX)).absolute())
    elif not is_architecture(name) and Path(name).is_dir():
        name = str(Path(name).absolute())
    if pretrained is not None and not open_clip.is_pretrained_cfg(name, pretrained) and Path(pretrained).is_file():
        pretrained = str(Path(pretrained).absolute())
    return replace(model, name=name, pretrained=pretrained)


def is_architecture(name: str) -> bool:
    """Whether open_clip has an architecture of this name, in its own spelling (ViT-B-32) or OpenAI's (ViT-B/32)."""
    register_mini()
    return name.replace("/", "-") in open_clip.list_models()
