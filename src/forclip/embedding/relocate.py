"""Change where the roots of a store are, after photos have moved."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forclip.data.images.content import file_state
from forclip.index.image_index import Index
from forclip.index.roots import Roots
from forclip.path_text import text_to_path
from forclip.text.vocabulary import did_you_mean

_SAMPLE = 200  # images of a root that are looked for


def relocate_roots(index: Index, assignments: Sequence[str]) -> None:
    """Give roots of a store other folders.

    assignments: `ROOT=FOLDER`. Raises ValueError, and changes nothing, for a text of another form, an unknown root, and
    a folder that does not exist or holds none of the root's images.
    """
    roots, images = index.store.roots, _images_by_root(index)
    for assignment in assignments:
        name, equals, folder = assignment.partition("=")
        if not equals or not folder:
            raise ValueError(f"{assignment!r}: write ROOT=FOLDER; the roots are {', '.join(roots.folders) or 'none'}")
        if name not in roots.folders:
            known = f"; the roots are {', '.join(roots.folders) or 'none'}"
            raise ValueError(
                f"{index.store.folder}: has no root {name!r}{did_you_mean(name, list(roots.folders)) or known}"
            )
        if not os.path.isdir(folder):
            raise ValueError(f"{folder}: no such folder")
        roots = roots.with_root(name, folder)
        if images[name] and not _count_present(roots, images[name]):
            missing = roots.resolve(images[name][0])
            raise ValueError(f"{folder}: holds no image of the root {name!r}, for example {missing}")
    index.store.write_roots(roots)


def describe_roots(index: Index) -> list[dict[str, Any]]:
    """Describe each root: its name, folder, number of images, and whether their files are there."""
    roots, images = index.store.roots, _images_by_root(index)
    described = []
    for name, folder in roots.folders.items():
        uris = images[name]
        present, sampled = _count_present(roots, uris), len(_sample(uris))
        state = "no images" if not uris else "present" if present == sampled else "missing"
        if 0 < present < sampled:
            state = f"{sampled - present} of {sampled} sampled files missing"
        described.append({"root": name, "folder": folder, "images": len(uris), "state": state})
    return described


def _images_by_root(index: Index) -> dict[str, list[str]]:
    by_root: dict[str, list[str]] = defaultdict(list)
    for file in index.store.files().values():
        by_root[file.uri.partition("/")[0]].append(file.uri)
    return by_root


def _sample(uris: Sequence[str]) -> Sequence[str]:
    return uris[:: max(1, len(uris) // _SAMPLE)]


def _count_present(roots: Roots, uris: Sequence[str]) -> int:
    """How many of a sample of image files exist."""
    paths: list[Path] = [text_to_path(roots.resolve(uri)) for uri in _sample(uris)]
    return sum(file_state(path) != (-1, -1) for path in paths)
