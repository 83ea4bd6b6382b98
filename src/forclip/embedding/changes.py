"""Find what is new, changed, moved and gone between a source of images and a store."""

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forclip.data.images.content import content_digest, file_state
from forclip.data.images.decode import DECODING, picture_needs_reindex
from forclip.index.roots import Roots, common_folder, source_reference
from forclip.index.store import ImageFile
from forclip.path_text import text_to_path
from forclip.progress import Advance

_COMPARED = 8  # files that show that a root has moved


@dataclass(frozen=True)
class UnreadableImage:
    """An image file that could not be read: its size in bytes and time of change (ns) at that time, and why."""

    uri: str
    size: int
    modified: int
    reason: str


@dataclass(frozen=True)
class Changes:
    """What differs between a source and a store.

    roots: the store's, with a new or moved one; paths: the source's files by id; todo: new and changed images; skipped:
    images known to be unreadable that have not changed; moved: new id and file of stored images, by old id;
    moved_root: the root that has moved as a whole, or None; checked: stored images that an older version decoded, and
    equally; vanished: ids of stored images that are no longer in the source; compared: how many images of the source
    were compared.
    """

    roots: Roots
    paths: Mapping[str, Path]
    todo: Mapping[str, ImageFile]
    skipped: Mapping[str, UnreadableImage]
    moved: Mapping[str, tuple[str, ImageFile]]
    moved_root: str | None
    checked: Sequence[str]
    vanished: tuple[str, ...]
    compared: int

    @property
    def num_moved(self) -> int:
        """How many images of the source have moved and keep their vectors."""
        moved = {new_id for new_id, _ in self.moved.values()}
        if self.moved_root is not None:
            moved |= {image_id for image_id in self.paths if image_id.startswith(f"{self.moved_root}/")}
        return len(moved - self.todo.keys() - self.skipped.keys())


def find_changes(
    source: str,
    folder: Path | None,
    paths: Sequence[Path],
    roots: Roots,
    stored: Mapping[str, ImageFile],
    unreadable: Mapping[str, UnreadableImage],
    advance: Advance,
    takes: Callable[[str, Path], bool] | None = None,
) -> Changes:
    """Compare a source with a store.

    source: a folder, glob pattern or annotation file; folder: the image folder of an annotation file; paths: the
    source's images; roots, stored: of the store; unreadable: images that could not be read before; takes: whether this
    job takes an image, by id and path. One that takes a part compares that alone, and finds nothing moved or vanished.

    A file with the size and time of change that are stored is unchanged; others are compared by content. A new file
    with the content of a stored one that is gone has moved.
    """
    base, moved_root = _base_folder(source, folder, paths), None
    if paths:
        moved_root = _find_moved_root(roots, base, paths, stored)
        roots = roots.with_folder(base) if moved_root is None else roots.with_root(moved_root, base)
    by_id = {roots.id_of(path): path for path in paths}
    todo: dict[str, ImageFile] = {}
    skipped: dict[str, UnreadableImage] = {}
    checked: list[str] = []
    origins = {name: source_reference(roots, name, source) for name in roots.folders}
    compared = 0
    for image_id, path in by_id.items():
        advance(1)
        if takes is not None and not takes(image_id, path):
            continue
        compared += 1
        state, failed, file = file_state(path), unreadable.get(image_id), stored.get(image_id)
        if failed is not None and (failed.size, failed.modified) == state:
            skipped[image_id] = failed
            continue
        digest = None if file is not None and (file.size, file.modified) == state else content_digest(path) or ""
        if file is None or digest not in (None, file.content_hash):
            origin = origins[image_id.partition("/")[0]]
            todo[image_id] = ImageFile(image_id, 0, 0, digest or "", *state, origin, DECODING)
        elif _is_outdated(file):
            if picture_needs_reindex(path):
                todo[image_id] = ImageFile(image_id, 0, 0, file.content_hash, *state, file.source, DECODING)
            else:
                checked.append(image_id)
    if takes is not None:
        return Changes(roots, by_id, todo, skipped, {}, None, checked, (), compared)
    moved = _find_moved_files(roots, by_id, todo, stored)
    for old_id, (new_id, _) in moved.items():
        if not (_is_outdated(stored[old_id]) and picture_needs_reindex(by_id[new_id])):
            del todo[new_id]
    inside = os.path.join(os.path.abspath(base), "") if os.path.isdir(source) or not paths else None

    def is_gone(image_id: str, file: ImageFile) -> bool:
        if image_id in by_id or image_id in moved:
            return False
        if file.source and file.source == origins.get(file.uri.partition("/")[0]):
            return True
        path = roots.resolve(file.uri)
        return inside is not None and path.startswith(inside) and file_state(text_to_path(path)) == (-1, -1)

    vanished = tuple(image_id for image_id, file in stored.items() if is_gone(image_id, file))
    return Changes(roots, by_id, todo, skipped, moved, moved_root, checked, vanished, compared)


def _is_outdated(file: ImageFile) -> bool:
    """Whether an older version decoded the file. It is unknown for images that a program added."""
    return 0 < file.decoding < DECODING


def _base_folder(source: str, folder: Path | None, paths: Sequence[Path]) -> str:
    """Return the folder that a source's images are named relative to."""
    if not os.path.exists(source) and not glob.has_magic(source):
        return source
    if os.path.isdir(source):
        start = os.path.join(os.path.abspath(source), "")
        if all(os.path.abspath(path).startswith(start) for path in paths):
            return source
    elif not os.path.exists(source):
        parts = Path(source).parts
        return str(Path(*parts[: next(k for k, part in enumerate(parts) if glob.has_magic(part))]))
    common = common_folder(paths)
    # Pictures of an annotation file may lie outside its image folder.
    return str(folder) if folder is not None and Roots().with_folder(folder).reference(common) else common


def _find_moved_root(roots: Roots, base: str, paths: Sequence[Path], stored: Mapping[str, ImageFile]) -> str | None:
    """Return the root whose folder is gone and whose images are in the base folder now, compared by content."""
    if roots.reference(base) is not None:
        return None
    for name, folder in roots.folders.items():
        if os.path.isdir(folder):
            continue
        there = Roots({name: os.path.abspath(base)})
        same = [(path, image_id) for path in paths if (image_id := there.reference(path)) in stored]
        known = sum(image_id.startswith(f"{name}/") for image_id in stored)
        sample = same[:: max(1, len(same) // _COMPARED)]
        if 2 * len(same) >= known and all(content_digest(p) == stored[i].content_hash for p, i in sample if i):
            return name
    return None


def _find_moved_files(
    roots: Roots, paths: Mapping[str, Path], todo: Mapping[str, ImageFile], stored: Mapping[str, ImageFile]
) -> dict[str, tuple[str, ImageFile]]:
    """Return the new id and file of stored images whose content is in another file now, by old id."""
    new = [(image_id, file) for image_id, file in todo.items() if file.content_hash]
    by_hash: dict[str, list[str]] = defaultdict(list)
    wanted = {file.content_hash for _, file in new}
    for image_id, file in stored.items():
        if file.content_hash in wanted and (image_id in todo or image_id not in paths):
            by_hash[file.content_hash].append(image_id)
    moved: dict[str, tuple[str, ImageFile]] = {}
    for new_id, file in new:
        for old_id in by_hash[file.content_hash]:
            is_gone = old_id in todo or file_state(text_to_path(roots.resolve(stored[old_id].uri))) == (-1, -1)
            if old_id not in moved and is_gone and old_id != new_id:
                moved[old_id] = new_id, file
                break
    return moved


def in_parts(moved: Mapping[str, tuple[str, ImageFile]], size: int) -> Iterator[dict[str, tuple[str, ImageFile]]]:
    """Split moves into parts of about `size` that can be stored one after the other.

    An image leaves its id before another gets it, and images that exchange their ids are in one part.
    """
    part: dict[str, tuple[str, ImageFile]] = {}
    seen: set[str] = set()
    for first in moved:
        chain, image_id = list[str](), first
        while image_id in moved and image_id not in seen:
            seen.add(image_id)
            chain.append(image_id)
            image_id = moved[image_id][0]
        part |= {old_id: moved[old_id] for old_id in chain}
        if len(part) >= size:
            yield part
            part = {}
    if part:
        yield part
