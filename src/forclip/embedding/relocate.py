"""Change where the roots of a store are, after photos have moved."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from forclip.data.images.content import content_digest, file_state
from forclip.index.filter_values import begins_with
from forclip.index.image_index import Index
from forclip.index.roots import Roots
from forclip.index.store import ImageFile
from forclip.index.table import matching_addresses, take_rows
from forclip.location import Location, is_url, parse_location
from forclip.text.vocabulary import did_you_mean

_SAMPLE = 200  # images of a root that are looked for
_COMPARED = 8  # of them are compared by content


def relocate_roots(index: Index, assignments: Sequence[str]) -> None:
    """Give roots of a store other folders.

    assignments: `ROOT=FOLDER`. Raises ValueError, and changes nothing, for a text of another form, an unknown root, and
    a folder that does not exist or holds none of the root's images, or other pictures under their names.
    """
    roots = index.store.roots
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
        if is_url(folder):
            raise ValueError(
                f"{folder}: a root is a folder of this machine; index the pictures of a bucket by its URL, as new ones"
            )
        if not os.path.isdir(folder):
            raise ValueError(f"{folder}: no such folder")
        roots = roots.with_root(name, folder)
        images = _images_of_root(index, name)
        present = _present(roots, images)
        if images.count and not present:
            missing = roots.resolve(images.sample[0].uri)
            raise ValueError(f"{folder}: holds no image of the root {name!r}, for example {missing}")
        compared = _sample([file for file in present if file.content_hash], _COMPARED)
        if compared and not any(content_digest(_path(roots, file)) == file.content_hash for file in compared):
            other = roots.resolve(compared[0].uri)
            raise ValueError(f"{folder}: holds other pictures than the root {name!r}, for example {other}")
    index.store.write_roots(roots)


def describe_roots(index: Index) -> list[dict[str, Any]]:
    """Describe each root: its name, folder, number of images, and whether their files are there."""
    roots = index.store.roots
    described = []
    for name, folder in roots.folders.items():
        images = _images_of_root(index, name)
        present, sampled = len(_present(roots, images)), len(images.sample)
        state = "no images" if not images.count else "present" if present == sampled else "missing"
        if 0 < present < sampled:
            state = f"{sampled - present} of {sampled} sampled files missing"
        described.append({"root": name, "folder": folder, "images": images.count, "state": state})
    return described


@dataclass(frozen=True)
class _RootImages:
    """The images of a root: their number, and the files of a sample."""

    count: int
    sample: Sequence[ImageFile]


def _images_of_root(index: Index, name: str) -> _RootImages:
    table = index.store.table()
    addresses = matching_addresses(table, begins_with("uri", f"{name}/"))
    names = [f.name for f in fields(ImageFile)]
    rows = take_rows(table, addresses[:: max(1, len(addresses) // _SAMPLE)], names).to_pylist()
    return _RootImages(len(addresses), [ImageFile(**row) for row in rows])


def _sample(files: Sequence[ImageFile], count: int) -> Sequence[ImageFile]:
    return files[:: max(1, len(files) // count)]


def _path(roots: Roots, file: ImageFile) -> Location:
    return parse_location(roots.resolve(file.uri))


def _present(roots: Roots, images: _RootImages) -> list[ImageFile]:
    """Those of a sample of image files that exist."""
    return [file for file in images.sample if file_state(_path(roots, file)) != (-1, -1)]
