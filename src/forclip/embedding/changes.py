"""Find what is new, changed, moved and gone between a source of images and a store."""

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from forclip.data.images.content import content_digest, file_state, is_missing
from forclip.data.images.decode import DECODING, FIRST_UPRIGHT, picture_needs_reindex
from forclip.data.images.remote_listing import expand_braces
from forclip.embedding.stored_files import StoredFiles
from forclip.index.roots import Roots, common_folder, source_reference
from forclip.index.store import ImageFile
from forclip.location import Location, Uri, absolute, file_on_disk, is_shard, is_url, location_text, parse_location
from forclip.progress import Advance

_IDS_AT_ONCE = 4_096  # looked up in the store
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
    moved_root: the root that has moved as a whole, or None; checked: stored images that version 1 decoded, and equally;
    vanished: locations of stored images that are no longer in the source, by id; replaced: those of `todo` that are
    stored; compared: how many images of the source were compared.
    """

    roots: Roots
    paths: Mapping[str, Location]
    todo: Mapping[str, ImageFile]
    skipped: Mapping[str, UnreadableImage]
    moved: Mapping[str, tuple[str, ImageFile]]
    moved_root: str | None
    checked: Sequence[str]
    vanished: Mapping[str, str]
    replaced: frozenset[str]
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
    paths: Sequence[Location],
    roots: Roots,
    stored: StoredFiles,
    unreadable: Mapping[str, UnreadableImage],
    advance: Advance,
    takes: Callable[[str, Location], bool] | None = None,
) -> Changes:
    """Compare a source with a store.

    source: a folder, glob pattern or annotation file; folder: the image folder of an annotation file; paths: the
    source's images; roots, stored: of the store; unreadable: images that could not be read before; takes: whether this
    job takes an image, by id and path. One that takes a part compares that alone, and finds nothing moved or vanished.

    A file with the size and time of change that are stored is unchanged; others are compared by content. A new file
    with the content of a stored one that is gone has moved.
    """
    local = [path for path in paths if not _is_remote(path)]
    base, moved_root = "" if is_url(source) else _base_folder(source, folder, local), None
    if local:
        moved_root = _find_moved_root(roots, base, local, stored)
        roots = roots.with_folder(base) if moved_root is None else roots.with_root(moved_root, base)
    by_id = {roots.id_of(path): path for path in paths}
    # Pictures at URLs are in no root.
    from_urls = location_text(absolute(parse_location(source))).rstrip("/")
    origins = {} if is_url(source) else {name: source_reference(roots, name, source) for name in roots.folders}

    def origin_of(image_id: str) -> str | None:
        return from_urls if is_url(image_id) else origins.get(image_id.partition("/")[0])

    todo: dict[str, ImageFile] = {}
    skipped: dict[str, UnreadableImage] = {}
    checked: list[str] = []
    replaced: set[str] = set()
    ids = iter(by_id)
    compared = 0
    while listed := list(islice(ids, _IDS_AT_ONCE)):
        block = listed if takes is None else [image_id for image_id in listed if takes(image_id, by_id[image_id])]
        compared += len(block)
        advance(len(listed) - len(block))
        states, of_store = {image_id: file_state(by_id[image_id]) for image_id in block}, stored.states(block)
        same = of_store.known & (of_store.size == [s[0] for s in states.values()])
        same &= of_store.modified == [s[1] for s in states.values()]
        outdated = of_store.known & _is_outdated(of_store.decoding)
        # Of all others it is known that they have not changed.
        files = stored.files([i for k, i in enumerate(block) if of_store.known[k] and (not same[k] or outdated[k])])
        for k, image_id in enumerate(block):
            advance(1)
            path, state, failed = by_id[image_id], states[image_id], unreadable.get(image_id)
            if failed is not None and (failed.size, failed.modified) == state:
                skipped[image_id] = failed
                continue
            if same[k] and not outdated[k]:
                continue
            file = files.get(image_id)
            if file is not None and same[k]:
                digest = None
            else:  # what is new at a URL is read once, to be embedded
                digest = "" if file is None and _is_remote(path) else content_digest(path) or ""
            if file is None or digest not in (None, file.content_hash):
                origin = origin_of(image_id) or ""
                todo[image_id] = ImageFile(image_id, 0, 0, digest or "", *state, origin, DECODING)
                replaced.update([] if file is None else [image_id])
            elif _is_outdated(file.decoding):
                if picture_needs_reindex(path):
                    todo[image_id] = ImageFile(image_id, 0, 0, file.content_hash, *state, file.source, DECODING)
                    replaced.add(image_id)
                else:
                    checked.append(image_id)
    if takes is not None:
        return Changes(roots, by_id, todo, skipped, {}, None, checked, {}, frozenset(replaced), compared)
    moved, decoded = _find_moved_files(roots, by_id, todo, stored)
    for old_id, (new_id, _) in moved.items():
        if not (_is_outdated(decoded[old_id]) and picture_needs_reindex(by_id[new_id])):
            del todo[new_id]
    inside = from_urls if is_url(source) else os.path.abspath(base) if os.path.isdir(source) or not paths else None
    if inside is not None:
        inside = f"{inside}#" if is_shard(inside) and not os.path.isdir(inside) else os.path.join(inside, "")
    vanished = {}
    prefixes = [] if inside is None else roots.locations_below(inside)
    for image_id, uri, origin in stored.from_sources([*origins.values(), from_urls], prefixes, by_id):
        is_of_source = bool(origin) and origin == origin_of(uri)
        path_text = roots.resolve(uri)
        is_inside = inside is not None and path_text.startswith(inside)
        is_gone = is_of_source or (is_inside and is_missing(parse_location(path_text)))
        if image_id not in moved and is_gone:
            vanished[image_id] = uri
    still_todo = frozenset(replaced & todo.keys())
    return Changes(roots, by_id, todo, skipped, moved, moved_root, checked, vanished, still_todo, compared)


def _is_remote(path: Location) -> bool:
    return isinstance(path, Uri) and path.is_remote


def _is_outdated(decoding: Any) -> Any:
    """Whether a version decoded the files that did not turn them. It is unknown for images that a program added."""
    return (decoding > 0) & (decoding < FIRST_UPRIGHT)


def _base_folder(source: str, folder: Path | None, paths: Sequence[Location]) -> str:
    """Return the folder that a source's images are named relative to."""
    has_braces = len(expand_braces(source)) > 1
    if not os.path.exists(source) and not glob.has_magic(source) and not has_braces:
        return source
    if os.path.isdir(source):
        start = os.path.join(os.path.abspath(source), "")
        if all(os.path.abspath(file_on_disk(path)).startswith(start) for path in paths):
            return source
    elif not os.path.exists(source) and not has_braces:
        parts = Path(source).parts
        return str(Path(*parts[: next(k for k, part in enumerate(parts) if glob.has_magic(part))]))
    common = common_folder(map(file_on_disk, paths))
    # Pictures of an annotation file may lie outside its image folder.
    return str(folder) if folder is not None and Roots().with_folder(folder).reference(common) else common


def _find_moved_root(roots: Roots, base: str, paths: Sequence[Location], stored: StoredFiles) -> str | None:
    """Return the root whose folder is gone and whose images are in the base folder now, compared by content."""
    if roots.reference(base) is not None:
        return None
    for name, folder in roots.folders.items():
        if os.path.isdir(folder):
            continue
        there = Roots({name: os.path.abspath(base)})
        ids = [there.reference(path) for path in paths]
        present = stored.known([i for i in ids if i is not None])
        same = [(path, image_id) for path, image_id in zip(paths, ids, strict=True) if image_id in present]
        sample = same[:: max(1, len(same) // _COMPARED)]
        files = stored.files([image_id for _, image_id in sample if image_id is not None])
        if 2 * len(same) >= stored.count_below(f"{name}/") and all(
            content_digest(p) == files[i].content_hash for p, i in sample if i
        ):
            return name
    return None


def _find_moved_files(
    roots: Roots, paths: Mapping[str, Location], todo: Mapping[str, ImageFile], stored: StoredFiles
) -> tuple[dict[str, tuple[str, ImageFile]], dict[str, int]]:
    """Return the new id and file of stored images whose content is in another file now, and how they were decoded.

    Both are by old id.
    """
    new = [(image_id, file) for image_id, file in todo.items() if file.content_hash]
    by_hash: dict[str, list[str]] = defaultdict(list)
    old = stored.with_content(list({file.content_hash for _, file in new}))
    for image_id, file in old.items():
        if image_id in todo or image_id not in paths:
            by_hash[file.content_hash].append(image_id)
    moved: dict[str, tuple[str, ImageFile]] = {}
    for new_id, file in new:
        for old_id in by_hash[file.content_hash]:
            is_gone = old_id in todo or is_missing(parse_location(roots.resolve(old[old_id].uri)))
            if old_id not in moved and is_gone and old_id != new_id:
                moved[old_id] = new_id, file
                break
    return moved, {old_id: old[old_id].decoding for old_id in moved}


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
