"""Copy models at URLs to this machine's cache."""

import json
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

from forclip.bucket_errors import endpoint_of
from forclip.config import ModelConfig
from forclip.file_systems import ListedFile, Unreachable, file_info, list_files, read_file
from forclip.index.local_cache import cache_folder
from forclip.location import canonical_url, is_url


def local_model(model: ModelConfig) -> ModelConfig:
    """Return a model whose folder and file of weights are on this machine; those at URLs are copied to the cache.

    A model that changes at its URL is copied again. Raises ValueError for a URL where nothing is, or that can't be
    fetched.
    """
    name, pretrained = model.name, model.pretrained
    name = str(_copy(name)) if is_url(name) else name
    pretrained = str(_copy(pretrained)) if pretrained is not None and is_url(pretrained) else pretrained
    return replace(model, name=name, pretrained=pretrained)


def _copy(url: str) -> Path:
    url = canonical_url(url.rstrip("/"))
    if not is_url(url):  # file://
        return Path(url)
    try:
        files = _list(url)
        if files is None:
            raise ValueError(f"{url}: no model is there")
        state = [[file.url, file.size, file.modified] for file in files]
        key = blake2b(json.dumps([endpoint_of(url.partition("://")[0]), state]).encode(), digest_size=16).hexdigest()
        folder = cache_folder() / "models" / key
        target = folder / url.rpartition("/")[2]
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _download(url, files, target)
    except Unreachable as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise ValueError(f"{url}: can't be copied to this machine: {error.strerror or error}") from None
    return target


def _list(url: str) -> list[ListedFile] | None:
    """The file at a URL, or those directly below it; None if there are none."""
    if file := file_info(url):
        return [file]
    try:
        return sorted(list_files(url, recursive=False), key=lambda file: file.url) or None
    except FileNotFoundError:
        return None


def _download(url: str, files: list[ListedFile], target: Path) -> None:
    """Nothing is at the target until all files are."""
    with TemporaryDirectory(dir=target.parent) as temporary:
        copy = Path(temporary, "copy")
        for file in files:
            path = copy if file.url == url else copy / file.url.rpartition("/")[2]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(read_file(file.url))
        try:
            copy.rename(target)
        except OSError:
            if not target.exists():  # another process was not faster
                raise
