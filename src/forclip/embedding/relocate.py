"""Change where the roots of a store are, after photos have moved."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forclip.data.images.content import content_digest, file_state
from forclip.index.image_index import Index
from forclip.index.roots import Roots
from forclip.index.store import ImageFile
from forclip.path_text import text_to_path
from forclip.text.vocabulary import did_you_mean

_SAMPLE = 200  # images of a root that are looked for
_COMPARED = 8  # of them are compared by content


def relocate_roots(index: Index, assignments: Sequence[str]) -> None:
    """Give roots of a store other folders.

    assignments: `ROOT=FOLDER`. Raises ValueError, and changes nothing, for a text of another form, an unknown root, and
    a folder that does not exist or holds none of the root's images, or other pictures under their names.
    """
    roots, images = index.store.roots, _images_by_root(index)
    for assignment in assignments:
        name, equals, folder = assignment.partition("=")
        for known_name in roots.folders:  # which may have a =
            if assignment.startswith(f"{known_name}=") and len(known_name) > len(name):
                name, folder = known_name, assignment.removeprefix(f"{known_name}=")
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
        present = _present(roots, images[name])
        if images[name] and not present:
            missing = roots.resolve(images[name][0].uri)
            raise ValueError(f"{folder}: holds no image of the root {name!r}, for example {missing}")
        compared = _sample([file for file in present if file.content_hash], _COMPARED)
        if compared and not any(content_digest(_path(roots, file)) == file.content_hash for file in compared):
            other = roots.resolve(compared[0].uri)
            raise ValueError(f"{folder}: holds other pictures than the root {name!r}, for example {other}")
    index.store.write_roots(roots)


def describe_roots(index: Index) -> list[dict[str, Any]]:
    """Describe each root: its name, folder, number of images, and whether their files are there."""
    roots, images = index.store.roots, _images_by_root(index)
    described = []
    for name, folder in roots.folders.items():
        files = images[name]
        present, sampled = len(_present(roots, files)), len(_sample(files, _SAMPLE))
        state = "no images" if not files else "present" if present == sampled else "missing"
        if 0 < present < sampled:
            state = f"{sampled - present} of {sampled} sampled files missing"
        described.append({"root": name, "folder": folder, "images": len(files), "state": state})
    return described


def _images_by_root(index: Index) -> dict[str, list[ImageFile]]:
    by_root: dict[str, list[ImageFile]] = defaultdict(list)
    for file in index.store.files().values():
        by_root[file.uri.partition("/")[0]].append(file)
    return by_root


def _sample(files: Sequence[ImageFile], count: int) -> Sequence[ImageFile]:
    return files[:: max(1, len(files) // count)]


def _path(roots: Roots, file: ImageFile) -> Path:
    return text_to_path(roots.resolve(file.uri))


def _present(roots: Roots, files: Sequence[ImageFile]) -> list[ImageFile]:
    """Those of a sample of image files that exist."""
    return [file for file in _sample(files, _SAMPLE) if file_state(_path(roots, file)) != (-1, -1)]
