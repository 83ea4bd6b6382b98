"""Read files of weights that other tools wrote: safetensors, PyTorch checkpoints and TorchScript archives.

Nothing in such a file is run: PyTorch's unpickler only rebuilds tensors and plain values.
"""

import argparse
import json
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from forclip.models.error_text import first_line
from forclip.placeholder import describe_placeholder
from forclip.progress import notify

_HEAD_BYTES = 1024
_LARGEST_HEADER = 100_000_000  # bytes of JSON that safetensors allows
_KNOWN_FORMATS = {  # first bytes of files that hold weights in a form that is not read
    b"GGUF": "a GGUF file of llama.cpp, not PyTorch or safetensors weights",
    b"\x89HDF": "an HDF5 file of Keras, not PyTorch or safetensors weights",
    b"<?xml": "an XML file, such as a server's error: download it again",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
}
# Plain values that training scripts put next to the weights. None of them runs anything when it is rebuilt.
_HARMLESS = [argparse.Namespace, pathlib.PosixPath, np.dtype, np.ndarray, np._core.multiarray.scalar]  # type: ignore[attr-defined]
_HARMLESS += [np._core.multiarray._reconstruct, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdUS")]  # type: ignore[attr-defined]
# What PyTorch and safetensors raise for damaged files.
_DAMAGE = (
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, SafetensorError),
)
_NOT_WEIGHTS = ("optim", "sched", "scaler", "loss", "rng", "args", "config")
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # torch.compile, FSDP


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file of weights, by name. is_openai: whether it is an archive as OpenAI published CLIP."""

    state: dict[str, Tensor]
    is_openai: bool = False


def check_is_no_placeholder(file: Path) -> None:
    """Refuse a file that stands for another one: a Git LFS or git-annex pointer, a web page, an empty file.

    Raises ValueError that says what to do.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except FileNotFoundError:
        target = f": it is a link to {file.readlink()}, which is not there" if file.is_symlink() else ""
        raise ValueError(f"{file}: no such file{target}") from None
    except OSError as error:
        raise ValueError(f"{file}: not readable: {error.strerror}") from None
    if not head:
        raise ValueError(f"{file}: is empty")
    if placeholder := describe_placeholder(head):
        raise ValueError(f"{file}: is {placeholder}")


def read_checkpoint(file: Path) -> Checkpoint:
    """Read the weights of a model, whatever a training script wrapped around them.

    Prefixes such as `module.` and `_orig_mod.` are removed, and of a checkpoint with several sets of weights the
    averaged one (EMA) is taken. Raises ValueError for a file that is missing, damaged, of another format, or that
    contains Python objects.
    """
    kind, is_openai = _format_of(file), False
    try:
        if kind == "safetensors":
            content: Any = load_file(file)
        elif kind == "torchscript":
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # PyTorch's advice to its authors
                content = torch.jit.load(file, map_location="cpu").state_dict()
            is_openai = "input_resolution" in content
            for key in ("input_resolution", "context_length", "vocab_size"):
                content.pop(key, None)
        else:
            with torch.serialization.safe_globals(_HARMLESS), file.open("rb") as opened:
                content = torch.load(opened, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        objects = re.findall(r"(?:GLOBAL|global|type) ([\w.]+)", str(error))
        if not objects or not isinstance(error, pickle.UnpicklingError):
            raise ValueError(f"{file}: is damaged or cut off: {first_line(error)}") from None
        raise ValueError(
            f"{file}: contains Python objects ({objects[0]}), which could run code;"
            " save its weights alone: torch.save(model.state_dict(), ...)"
        ) from None
    return Checkpoint(_unwrapped(file, content), is_openai)


def _format_of(file: Path) -> Literal["safetensors", "torchscript", "pickle"]:
    """Tell a file's format by its content. Raises ValueError for one that holds no weights in these formats."""
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; a model folder is given by --model {file}")
    check_is_no_placeholder(file)
    with file.open("rb") as opened:
        head = opened.read(16)
    for magic, name in _KNOWN_FORMATS.items():
        if head.startswith(magic):
            raise ValueError(f"{file}: is {name}")
    # The length of a JSON header and its first character.
    if head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= _LARGEST_HEADER:
        return "safetensors"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if any(name.split("/")[1:2] == ["code"] for name in names):
            return "torchscript"
        if not any(name.endswith("data.pkl") for name in names):
            holds = "of NumPy" if any(name.endswith(".npy") for name in names) else "without PyTorch weights"
            raise ValueError(f"{file}: is a zip archive {holds}, not PyTorch or safetensors weights")
    elif head.startswith(b"PK"):
        raise ValueError(f"{file}: is cut off; copy or download it again")
    elif not head.startswith(b"\x80"):  # a pickle's first byte
        raise ValueError(f"{file}: is not a file of PyTorch or safetensors weights")
    return "pickle"


def _unwrapped(file: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of the model in a checkpoint, with plain names. Raises ValueError if there are none."""
    while isinstance(content, Mapping) and not _is_state(content):
        nested = {
            key: value
            for key, value in content.items()
            if isinstance(value, Mapping) and value and not any(word in str(key).lower() for word in _NOT_WEIGHTS)
        }
        if not nested:
            break
        averaged = [key for key in nested if "ema" in re.split(r"[_.]", str(key).lower())]
        known = [key for key in ("state_dict", "model_state_dict", "model", "module", "net") if key in nested]
        key = [*averaged, *known, *nested][0]
        if averaged and len(nested) > len(averaged):
            notify(f"{file}: holds {' and '.join(map(str, nested))}; taking the averaged weights {key}")
        content = nested[key]
    if not _is_state(content):
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else ""
        raise ValueError(f"{file}: holds no weights of a model" + (f", only {keys}" if keys else ""))
    state = {_WRAPPERS.sub("", str(key)): value for key, value in content.items() if isinstance(value, Tensor)}
    # A CLIP has one temperature, whatever its layout: what precedes its name is the wrapper's.
    prefixes = sorted((key.removesuffix("logit_scale") for key in state if key.endswith("logit_scale")), key=len)
    prefix = prefixes[0] if prefixes else "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _is_state(content: Any) -> bool:
    """Whether an object is a state dict: several tensors, and few other values with them."""
    if not isinstance(content, Mapping):
        return False
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    return tensors > 1 and tensors >= len(content) / 2


def is_transformers_state(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names that Hugging Face's transformers gives them."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def first_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> str | None:
    """Describe the first difference between a file's tensors and those that the model `name` expects, or None."""
    for key, tensor in expected.items():
        if key not in state:
            return f"it has no {key}"
        if state[key].shape != tensor.shape:
            given, wanted = ("x".join(map(str, shape)) or "a scalar" for shape in (state[key].shape, tensor.shape))
            return f"{key} is {given} there, {wanted} in {name}"
    extra = [key for key in state if key not in expected]
    return f"it has {extra[0]}, which {name} has not" if extra else None


def read_json(file: Path) -> dict[str, Any]:
    """Read a model's configuration. Raises ValueError for a placeholder and for anything but a JSON object."""
    check_is_no_placeholder(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable as JSON: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: is not a JSON object")
    return content
