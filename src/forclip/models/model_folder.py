"""Recognise model folders: open_clip's layout, Hugging Face's, a run of forclip, and what is none of them."""

from pathlib import Path
from typing import Literal

from forclip.models.checkpoint import check_is_no_placeholder, read_json

OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"
# Model types of Hugging Face's transformers with the class that reads them.
TRANSFORMERS_MODELS = {
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}
_OPEN_CLIP_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "vocab.json", "vocab.txt"),
)
PREPROCESSING_FILES = ("preprocessor_config.json", "processor_config.json")
TRANSFORMERS_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_OTHER_FILES = {  # a file, and what a folder with it is
    "model_index.json": "a pipeline of diffusers",
    "adapter_config.json": "an adapter of PEFT: merge it into its base model and save that",
    "modules.json": "a model of sentence-transformers",
    "images.lance": "a store of forclip: search it, or index with the model that filled it",
}

Layout = Literal["open_clip", "transformers"]


def folder_layout(folder: Path) -> tuple[Path, Layout]:
    """Return where a model folder's files are, and in which layout. A folder of the hub's cache means its snapshot.

    Raises ValueError that says in a sentence what the folder is instead, if it is no model that is read.
    """
    if not folder.exists():
        raise ValueError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: is a file; give weights with their architecture: --model ViT-B-32 --pretrained FILE"
        )
    folder = _snapshot(folder)
    if (folder / OPEN_CLIP_CONFIG).exists():
        if "model_cfg" not in read_json(folder / OPEN_CLIP_CONFIG):
            raise ValueError(f"{folder / OPEN_CLIP_CONFIG}: has no model_cfg")
        return folder, "open_clip"
    config = folder / TRANSFORMERS_CONFIG
    content = read_json(config) if config.exists() else {}
    kind = content.get("model_type")
    if kind in TRANSFORMERS_MODELS:
        return folder, "transformers"
    for file, other in _OTHER_FILES.items():
        if (folder / file).exists():
            configs = sorted(folder.glob("*/config.json"))
            inner = [config for config in configs if read_json(config).get("model_type") in TRANSFORMERS_MODELS]
            suggestion = f"; it has a model in {inner[0].parent}" if inner else ""
            raise ValueError(f"{folder}: is {other}{suggestion}")
    if not config.exists():
        raise ValueError(f"{folder}: {_without_config(folder)}")
    if "pretrained_cfg" in content and "architecture" in content:
        raise ValueError(f"{folder}: is an image model of timm, {content['architecture']}, without a text tower")
    if kind is None:
        raise ValueError(f"{config}: names no model_type, so it is no model that forclip reads")
    classes = ", ".join(TRANSFORMERS_MODELS.values())
    raise ValueError(f"{folder}: is a model of type {kind!r}; of Hugging Face's models, forclip reads {classes}")


def open_clip_weights(folder: Path) -> Path:
    """Return the file of weights in a folder of open_clip's layout. Raises ValueError if there is none."""
    for name in _OPEN_CLIP_WEIGHTS:
        if (folder / name).exists():
            return folder / name
    others = sorted(file for ending in ("safetensors", "bin", "pt", "pth") for file in folder.glob(f"*.{ending}"))
    if len(others) == 1:
        return others[0]
    if others:
        raise ValueError(f"{folder}: has several files of weights, {others[0].name} and {others[1].name}; keep one")
    raise ValueError(f"{folder}: has no file of weights, such as {_OPEN_CLIP_WEIGHTS[0]}")


def check_transformers_weights(folder: Path) -> None:
    """Check that the weights in a folder of Hugging Face's layout are there, all parts of them, and no placeholders.

    Raises ValueError that names the missing file.
    """
    names = transformers_weights(folder)
    for name in names:
        check_is_no_placeholder(folder / name)
    if not names:
        endings = (".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")
        others = sorted(file.name for file in folder.iterdir() if file.suffix in endings)
        other = f"; {others[0]} is not read" if others else ""
        raise ValueError(f"{folder}: has no weights: model.safetensors or pytorch_model.bin is missing{other}")


def transformers_weights(folder: Path) -> list[str]:
    """Return the names of a model's files of weights: one file, or an index and the parts that it lists."""
    for name in TRANSFORMERS_WEIGHTS:
        if (folder / name).exists() or (folder / name).is_symlink():
            parts = read_json(folder / name).get("weight_map", {}) if name.endswith(".json") else {}
            return [name, *sorted(set(parts.values()))]
    return []


def is_run_config(file: Path) -> bool:
    """Whether a config.json is that of a forclip run, not of Hugging Face or timm. A damaged one counts as a run's."""
    if not file.exists() or (file.parent / OPEN_CLIP_CONFIG).exists():
        return False
    try:
        content = read_json(file)
    except ValueError:
        return True
    return "format_version" in content or not {"model_type", "architectures", "architecture"} & content.keys()


def _snapshot(folder: Path) -> Path:
    """Return the snapshot in a folder of the hub's cache, `models--ORG--NAME`; other folders stay as they are."""
    main = folder / "refs" / "main"
    if main.is_file() and (snapshot := folder / "snapshots" / main.read_text().strip()).is_dir():
        return snapshot
    return folder


def _without_config(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "is an empty folder"
    for name in names:
        inner = folder / name
        if (inner / TRANSFORMERS_CONFIG).exists() or (inner / OPEN_CLIP_CONFIG).exists():
            return f"is no model folder; did you mean {inner}?"
    weights = next((n for n in names if n.endswith((".safetensors", ".bin", ".pt", ".pth"))), None)
    if weights:
        return f"has no config; give weights with their architecture: --model ViT-B-32 --pretrained {folder / weights}"
    return f"is no model folder: it has neither {TRANSFORMERS_CONFIG} nor {OPEN_CLIP_CONFIG}"
