"""Files of the Hugging Face hub: found in its cache without a network, or downloaded once."""

import contextlib
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

from forclip.models.error_text import first_line
from forclip.progress import notify

HUB = constants.ENDPOINT  # https://huggingface.co, or a mirror
_TIMEOUT = 10.0  # seconds for the hub to answer; huggingface_hub's own retries take half a minute for each file


class NotReachable(ValueError):
    """A file is not in the cache, and the hub cannot be reached."""


def cached_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """Return the first of these files of a hub repository that is in the cache. No network is used."""
    for name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_file(repository: str, names: tuple[str, ...]) -> Path:
    """Return the first of these files that a hub repository has: from the cache, or downloaded with its size shown.

    Raises NotReachable without a network or in offline mode, and ValueError if the repository is not there, not public,
    or has none of the files.
    """
    found = cached_file(repository, names)
    if found is not None:
        return found
    for name in names:
        size = _size(repository, name)
        if size is None:
            continue
        if size >= 1e6:
            notify(f"downloading {HUB}/{repository}, {name}: {size / 1e6:,.0f} MB, once")
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except Exception as error:
            raise NotReachable(f"{HUB}/{repository}: the download of {name} failed: {first_line(error)}") from None
    raise ValueError(f"{HUB}/{repository}: has no {' or '.join(names)}")


def hub_folder(repository: str, required: tuple[str, ...], optional: tuple[str, ...]) -> Path:
    """Return a folder with files of a hub repository: the first of `required`, and those of `optional` that it has.

    Errors are those of `hub_file`. Without a network the optional files are those in the cache.
    """
    folder = hub_file(repository, required).parent
    for name in optional:
        if huggingface_hub.try_to_load_from_cache(repository, name) is not None:
            continue  # there, or known to be missing
        try:
            _size(repository, name)  # fails at once without a network
        except NotReachable:
            break
        with contextlib.suppress(Exception):  # remembers what is missing
            huggingface_hub.hf_hub_download(repository, name)
    return folder


def _size(repository: str, name: str) -> int | None:
    """Ask the hub for a file's size in bytes; None if the repository has no such file."""
    try:
        url = huggingface_hub.hf_hub_url(repository, name)
        return huggingface_hub.get_hf_file_metadata(url, timeout=_TIMEOUT).size or 0
    except GatedRepoError:
        raise ValueError(
            f"{HUB}/{repository}: asks for an agreement; accept it there and run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(f"{HUB}/{repository}: no such public model") from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # each version of the hub's client has its own network errors
        raise NotReachable(f"{HUB} cannot be reached: {first_line(error)}") from None
