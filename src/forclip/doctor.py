"""Check an installation: what is there, what is missing and what is broken, one sentence each."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from forclip import __version__
from forclip.cpu import usable_cores
from forclip.facts import size_text

State = Literal["ok", "note", "broken"]  # a note: something is missing that not everybody needs

_HUB_SECONDS = 3.0
_LITTLE_DISK = 2e9  # bytes: less than a pretrained model and its working copy
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "pylance", "faiss-cpu", "pillow", "av")
# What they are for, by their distribution's name; the extra of forclip that installs them.
_OPTIONAL = {
    "pillow-heif": ("heic", "pillow_heif", "HEIC pictures of iPhones"),
    "ray": ("ray", "ray", "indexing on a cluster"),
    "pymilvus": ("milvus", "pymilvus", "search on a Milvus cluster"),
}


@dataclass(frozen=True)
class Check:
    """One thing that was checked. text: what was found and, if it is not ok, what to do."""

    name: str
    state: State
    text: str


def check_all(reach_hub: bool = True) -> list[Check]:
    """Check everything. reach_hub: also try the model hub, which takes up to three seconds without a network."""
    checks = [Check("forclip", "ok", f"{__version__}, {Path(__file__).parent}"), _python()]
    checks += [_attempt(name, partial(_package, name)) for name in _PACKAGES]
    checks += [_attempt("devices", _devices), _attempt("threads", _threads), _attempt("memory", _memory)]
    checks += [_disk("disk", Path.cwd()), _disk("temporary files", Path(tempfile.gettempdir()))]
    checks += [_folder("model cache", _hub_cache()), _folder("segment cache", _segment_cache())]
    checks.append(_attempt("default model", _default_model))
    if reach_hub:
        checks.append(_hub())
    return [*checks, *_optional()]


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    """Run a check. An error that it raises is reported as broken."""
    try:
        return check()
    except Exception as error:  # an installation may be broken in any way
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        return Check(name, "broken", f"{first}. Install forclip again into a new environment")


def _python() -> Check:
    text = f"{platform.python_version()}, {sys.executable}, {platform.platform()}"
    return Check("python", "ok" if sys.version_info >= (3, 11) else "broken", text)


_MODULES = {"open_clip_torch": "open_clip", "pylance": "lance", "faiss-cpu": "faiss", "pillow": "PIL"}


def _package(name: str) -> Check:
    importlib.import_module(_MODULES.get(name, name))
    return Check(name, "ok", metadata.version(name))


def _devices() -> Check:
    import torch

    found = [f"cuda:{k} {torch.cuda.get_device_name(k)}" for k in range(torch.cuda.device_count())]
    found += ["mps"] if torch.backends.mps.is_available() else []
    if found:
        return Check("devices", "ok", f"{', '.join(found)}; give one with --device")
    has_card = shutil.which("nvidia-smi") is not None
    if has_card and torch.version.cuda is None:
        return Check("devices", "note", "cpu; there is an NVIDIA driver, but this PyTorch was built without CUDA")
    reason = ": there is an NVIDIA driver, but PyTorch can't use the card; see nvidia-smi" if has_card else ""
    return Check("devices", "note" if has_card else "ok", f"cpu{reason}")


def _threads() -> Check:
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    text = f"{threads} of PyTorch on {cores} cores"
    if threads > cores:
        return Check("threads", "note", f"{text}: more threads than cores are slow; set OMP_NUM_THREADS={cores}")
    return Check("threads", "ok", text)


def _memory() -> Check:
    from forclip.index.memory import available_memory

    return Check("memory", "ok", f"{size_text(available_memory())} available")


def _disk(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{size_text(free)} free in {folder}"
    return Check(name, "note" if free < _LITTLE_DISK else "ok", text)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _segment_cache() -> Path:
    from forclip.index.local_cache import cache_folder

    return cache_folder()


def _folder(name: str, folder: Path) -> Check:
    """Whether a cache folder can be written, or made."""
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        return Check(name, "note", f"{folder} can't be written: set HF_HOME or FORCLIP_CACHE to a folder that can")
    return Check(name, "ok", str(folder))


def _default_model() -> Check:
    from forclip.models.registry import DEFAULT, is_cached

    if is_cached(DEFAULT):
        return Check("default model", "ok", f"{DEFAULT.name} is on this disk")
    return Check("default model", "note", f"{DEFAULT.name} is downloaded on first use: {DEFAULT.megabytes:,} MB")


def _hub() -> Check:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Check("model hub", "note", "HF_HUB_OFFLINE is set: only models on this disk can be used")
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_HUB_SECONDS).close()
    except HTTPError:
        pass  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        text = f"{constants.ENDPOINT} can't be reached ({reason}): only models on this disk can be used"
        return Check("model hub", "note", text)
    return Check("model hub", "ok", f"{constants.ENDPOINT} answers")


def _optional() -> Iterator[Check]:
    for name, (extra, module, purpose) in _OPTIONAL.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, "note", f"not installed; needed for {purpose}: pip install 'forclip[{extra}]'")
            continue
        yield _attempt(name, partial(_imported, name, module, found))


def _imported(name: str, module: str, version: str) -> Check:
    importlib.import_module(module)
    return Check(name, "ok", version)
