"""Index images: find the new and changed ones of a source, embed them part by part and store them."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig, SourceConfig
from forclip.data.images.content import content_digest, file_state
from forclip.data.images.listing import LeftOut, Listing, list_pictures
from forclip.data.images.views import PLAIN
from forclip.data.metadata import MetadataFile
from forclip.data.sources import format_of, load_source
from forclip.embedding.embed import (
    EncodedBatch,
    concatenate_embeddings,
    embed_batch,
    encode_batches,
    merge_near_duplicates,
)
from forclip.index.image_index import Index
from forclip.index.schema import Precision
from forclip.index.store import ImageFile, require_model
from forclip.models.mini_clip import warn_about_photos
from forclip.models.retrieval_model import RetrievalModel, is_trained_run, load_model, store_header, stored_model
from forclip.path_text import path_to_text
from forclip.progress import Advance, Track, untracked
from forclip.text.vocabulary import load_vocabulary
from forclip.types import Floats, ImageEmbeddings

SKIPPED_FILE = "skipped.json"
_IMAGES_PER_PART = 1024
_CODE_HEADROOM = 1.25  # of int8's range over the largest value of the first part
_SAMPLE_QUERIES = 64
_MAX_PROCESSES = 8


@dataclass(frozen=True)
class UnreadableImage:
    """An image file that could not be read: its size in bytes and time of change (ns) at that time, and why."""

    uri: str
    size: int
    modified: int
    reason: str


@dataclass(frozen=True)
class IndexSummary:
    """What `index_images` did.

    added, updated, unchanged: numbers of images; unreadable: images that could not be read, by id; skipped: images
    that could not be read before, have not changed and were not tried again; vanished: ids of stored images that are
    no longer in the source; metadata: what became of the rows of the metadata file, line by line; not_indexed: what
    else the source holds, by reason: how many files or folders, and examples.
    """

    added: int
    updated: int
    unchanged: int
    unreadable: dict[str, UnreadableImage]
    skipped: int
    vanished: tuple[str, ...]
    metadata: tuple[str, ...] = ()
    not_indexed: Mapping[str, LeftOut] = field(default_factory=dict)


def index_images(
    source: str,
    to: Path,
    *,
    model: ModelConfig | None = None,
    head: str | None = None,
    num_query_tokens: int | None = None,
    precision: Precision | None = None,
    merge: float | None = None,
    images: Path | None = None,
    metadata: MetadataFile | None = None,
    retry: bool = False,
    delete_vanished: bool = False,
    processes: int | None = None,
    device: str = "cpu",
    track: Track = untracked,
) -> IndexSummary:
    """Add the new images of a source to a store, and update those that changed. An image's id is its absolute path.

    Parts of about a thousand images are stored as soon as they are embedded, so a job that was stopped continues where
    it was. Files with the size and time of change that are stored count as unchanged; others are compared by content.

    source: a folder, a glob pattern, or an annotation file or folder of any known format; to: the store, created if
    there is none; model, head, num_query_tokens: as `load_model` takes them; precision: "fp16" or "int8"; merge: the
    cosine from which an image's vectors are merged. None for one of these five means what an existing store has, or
    the default. images: image folder of an annotation file; metadata: columns for the images of the store and of the
    source; retry: try images again that could not be read; delete_vanished: delete stored images that are no longer in
    the source; processes: that decode, 0 for threads, None
    to choose by device.

    Raises ValueError if the source has no image, or none that can be read; if an existing store was written by another
    model or with other options; and for a head or number of query tokens that a trained model does not have.
    """
    listing = find_images(source, images)
    if not listing.pictures:
        raise ValueError(listing.why_empty(source))
    paths = {path_to_id(path): path for path in listing.pictures}
    index = None if not to.exists() or (to.is_dir() and not any(to.iterdir())) else Index(to)
    chosen = _choose_model(index, model, head, num_query_tokens)
    loaded = load_model(chosen[0], device, *chosen[1:])
    stored: dict[str, ImageFile] = {}
    known: dict[str, UnreadableImage] = {}
    if index is not None:
        require_model(index.store, loaded.fingerprint)
        for name, wanted in (("precision", precision), ("merge", merge)):
            actual = getattr(index.store.header, name)
            if wanted not in (None, actual):
                raise ValueError(f"{to}: was created with {name} {actual}, not {wanted}")
        merge, stored, known = index.store.header.merge, index.store.files(), read_unreadable(to)
    columns = None
    if metadata is not None:
        places = {i: file.uri for i, file in stored.items()} | {
            i: path_to_text(os.path.abspath(p)) for i, p in paths.items()
        }
        folder = images or (Path(source) if os.path.isdir(source) else None)
        columns = metadata.match(places, folder, None if index is None else index.store.table().schema)
    types = {} if columns is None else columns.types
    if index is not None:
        index.store.make_columns(types)
    origin, advance = os.path.abspath(source), track("looking for changes", len(paths))
    todo, skipped = _find_changes(paths, stored, {} if retry else known, origin, advance)
    vanished = tuple(i for i, file in stored.items() if file.source == origin and i not in paths)
    # What is in a folder that can't be read at the moment has not vanished.
    vanished = tuple(i for i in vanished if not listing.may_hold(stored[i].uri))
    # Unreadable images of other sources stay listed.
    listed = {i: image for i, image in known.items() if i not in paths} | skipped
    unreadable: dict[str, UnreadableImage] = {}
    added = updated = 0
    if processes is None:  # a CPU's cores are the model's
        processes = 0 if device == "cpu" else min(_MAX_PROCESSES, os.cpu_count() or 1)
    advance, todo_paths = track("embedding", len(todo)), [paths[image_id] for image_id in todo]
    warn_about_photos(loaded.backbone.name, todo_paths)
    batches = encode_batches(loaded.backbone, list(todo), todo_paths, [PLAIN], advance, processes)
    for embeddings, files, failed in _embed_parts(loaded, todo, batches, merge):
        unreadable |= failed
        if embeddings is not None:
            if index is None:
                largest = float(np.abs(embeddings.vectors).max())
                code_range = largest * _CODE_HEADROOM if precision == "int8" else 1.0
                index = Index.create(to, store_header(loaded, *chosen, precision or "fp16", code_range, merge))
                index.store.make_columns(types)
            part = embeddings.image_ids
            index.put(embeddings, files, None if columns is None else columns.values_for(part))
            replaced = sum(i in stored for i in part)
            added, updated = added + len(part) - replaced, updated + replaced
        if index is not None:
            content = {image_id: vars(image) for image_id, image in (listed | unreadable).items()}
            write_text_atomically(to / SKIPPED_FILE, json.dumps(content, indent=1))
    if index is None or not len(index):
        first = next(iter((listed | unreadable).values())).reason
        raise ValueError(f"{source}: none of {len(paths)} images can be read; the first: {first}")
    report: list[str] = []
    if columns is not None:
        ids = index.store.ids()
        if columns.types and (others := sorted((ids & columns.row_of.keys()) - (todo.keys() - stored.keys()))):
            index.store.annotate(others, columns.values_for(others))
        report = columns.report(ids, paths.keys())
    if delete_vanished:
        index.delete_ids(vanished)
    if index.needs_optimizing():
        index.optimize(queries=sample_queries(loaded))
    unchanged = len(paths) - len(todo) - len(skipped)
    return IndexSummary(added, updated, unchanged, unreadable, len(skipped), vanished, tuple(report), listing.summary())


def _choose_model(
    index: Index | None, model: ModelConfig | None, head: str | None, num_query_tokens: int | None
) -> tuple[ModelConfig, str | None, int | None]:
    """Complete a user's choice with what the store has. Raises ValueError for options that would be ignored."""
    stored = (ModelConfig(), None, None) if index is None else stored_model(index.store.header)
    if model is not None and is_trained_run(model.name):
        for option, value in (("pretrained", model.pretrained), ("image_size", model.image_size)):
            if value is not None:
                raise ValueError(f"{model.name}: is a trained run with its own {option}, not {value}")
        return model, head, num_query_tokens
    head = head or stored[1]
    if num_query_tokens is not None and head not in (None, "sum"):
        raise ValueError(f"num_query_tokens {num_query_tokens} applies to the head sum, not to {head}")
    return model or stored[0], head, num_query_tokens or stored[2]


def path_to_id(path: Path) -> str:
    """Return an image's id: its absolute path, with the bytes of names that are not UTF-8 escaped."""
    return path_to_text(os.path.abspath(path))


def find_images(source: str, images: Path | None) -> Listing:
    """List the images of a folder, a glob pattern, or an annotation file or folder of any known format.

    images: image folder of an annotation file. Raises ValueError for a source that is missing, or annotations that
    can't be read. A folder without images gives an empty listing.
    """
    path = Path(source)
    is_pattern = glob.has_magic(source) and not path.exists()
    if is_pattern or (path.is_dir() and images is None and not _keeps_other_pictures(path)):
        return list_pictures(source)
    if not path.exists():
        raise ValueError(f"{source}: no such folder or file")
    return Listing(load_source(SourceConfig(path, images)).paths, {}, {})


def _keeps_other_pictures(folder: Path) -> bool:
    """Whether a folder has pictures that are not its images: nuImages' other frames, Pascal VOC's masks."""
    kind = format_of(SourceConfig(folder))
    return kind == "nuimages" or (
        kind == "voc" and any(any(folder.glob(pattern)) for pattern in ("JPEGImages", "*/JPEGImages"))
    )


def sample_queries(model: RetrievalModel) -> Floats:
    """Return typical text queries, names of everyday things, to measure an index with. Unit [Q, dim]."""
    names = load_vocabulary("lvis")
    return np.stack([model.encode_query(name).cpu().numpy() for name in names[:: len(names) // _SAMPLE_QUERIES]])


def read_unreadable(store: Path) -> dict[str, UnreadableImage]:
    """Read, by id, which images earlier jobs could not read. Raises ValueError for a damaged list."""
    file = store / SKIPPED_FILE
    if not file.exists():
        return {}
    try:
        return {image_id: UnreadableImage(**content) for image_id, content in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged: {error}. Delete it to try its images again") from None


def describe(path: Path) -> dict[str, Any]:
    """Describe a store or a run, as JSON values. Raises ValueError for anything else."""
    if is_trained_run(str(path)):
        model = load_model(ModelConfig(name=str(path)))
        return {"kind": "run", "fingerprint": model.fingerprint, "backbone": model.backbone.name, "dim": model.dim}
    index = Index(path)
    described = {f"model {key}": value for key, value in index.store.header.model.items()}
    return {"kind": "store", **index.info(), "could not be read": len(read_unreadable(path)), **described}


def _find_changes(
    paths: Mapping[str, Path],
    stored: Mapping[str, ImageFile],
    known: Mapping[str, UnreadableImage],
    source: str,
    advance: Advance,
) -> tuple[dict[str, ImageFile], dict[str, UnreadableImage]]:
    """Return the new and changed images of a source, by id, and those known to be unreadable that have not changed."""
    todo: dict[str, ImageFile] = {}
    skipped: dict[str, UnreadableImage] = {}
    for image_id, path in paths.items():
        advance(1)
        state = file_state(path)
        failed, file = known.get(image_id), stored.get(image_id)
        if failed is not None and (failed.size, failed.modified) == state:
            skipped[image_id] = failed
        elif file is None or (file.size, file.modified) != state:
            digest = content_digest(path) or ""
            if file is None or digest != file.content_hash:
                todo[image_id] = ImageFile(image_id, 0, 0, digest, *state, source)
    return todo, skipped


def _embed_parts(
    model: RetrievalModel, todo: Mapping[str, ImageFile], batches: Iterable[EncodedBatch], merge: float | None
) -> Iterator[tuple[ImageEmbeddings | None, list[ImageFile], dict[str, UnreadableImage]]]:
    """Yield each part's embeddings (None if no image can be read), their files, and the unreadable images by id."""
    ids = list(todo)
    embedded: list[ImageEmbeddings] = []
    files: list[ImageFile] = []
    unreadable: dict[str, UnreadableImage] = {}
    for batch in batches:
        for row, skipped in batch.skipped:
            file = todo[ids[row]]
            unreadable[ids[row]] = UnreadableImage(file.uri, file.size, file.modified, skipped.reason)
        if batch.rows:
            embeddings = embed_batch(model, batch, [ids[row] for row in batch.rows])
            embedded.append(embeddings if merge is None else merge_near_duplicates(embeddings, merge))
            for row, (width, height) in zip(batch.rows, batch.sizes, strict=True):
                files.append(replace(todo[ids[row]], width=width, height=height))
        if len(files) + len(unreadable) >= _IMAGES_PER_PART:
            yield concatenate_embeddings(embedded) if embedded else None, files, unreadable
            embedded, files, unreadable = [], [], {}
    if files or unreadable:
        yield concatenate_embeddings(embedded) if embedded else None, files, unreadable
