"""Pictures into a store, part by part: what is written stays, whatever stops the job."""

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig, SourceConfig
from forclip.data.formats.folder import list_images
from forclip.data.images.content import content_digest
from forclip.data.images.views import PLAIN
from forclip.data.metadata import ImageMetadata
from forclip.data.sources import format_of, load_source
from forclip.embedding.embed import EncodedBatch, concatenate_embeddings, embed_batch, encode_batches
from forclip.embedding.store_model import store_header, stored_model
from forclip.index.image_index import Index
from forclip.index.in_memory import merge_near_duplicates
from forclip.index.schema import Precision, StoreHeader
from forclip.index.store import ImageFile, Metadata, require_model
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.progress import Advance, silent, tracking
from forclip.text.vocabulary import load_vocabulary
from forclip.types import Floats, ImageEmbeddings


def as_id(path: Path) -> str:
    """The absolute path as text; bytes of a name that is not UTF-8 are escaped, so that no two names meet."""
    return os.path.abspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_FILE = "skipped.json"


@dataclass(frozen=True)
class BadPicture:
    """A picture that could not be read, as it was then, and why."""

    uri: str
    size: int
    modified: int
    reason: str


@dataclass(frozen=True)
class IndexPlan:
    """todo: by id, new pictures and changed ones; vanished: ids that were found in the same source and are not there
    any more; known_bad: not tried again."""

    todo: dict[str, ImageFile]
    changed: int
    unchanged: int
    vanished: tuple[str, ...]
    known_bad: dict[str, BadPicture]


def plan_index(
    found: Mapping[str, Path],
    present: Mapping[str, ImageFile],
    bad: Mapping[str, BadPicture],
    source: str,
    retry: bool,
    advance: Advance = silent,
) -> IndexPlan:
    """found: pictures of the source by id; present: those in the store. A file of the same size and time of change is
    taken to be the same, else its content decides. retry: try bad pictures again that have not changed."""
    todo: dict[str, ImageFile] = {}
    known_bad: dict[str, BadPicture] = {}
    changed = 0
    for image_id, path in found.items():
        advance(1)
        size, modified = _stat(path)
        failed = bad.get(image_id)
        if failed is not None and (failed.size, failed.modified) == (size, modified) and not retry:
            known_bad[image_id] = failed
            continue
        stored = present.get(image_id)
        if stored is not None and (stored.size, stored.modified) == (size, modified):
            continue
        digest = content_digest(path) or ""
        if stored is not None and digest == stored.content_hash:
            continue
        changed += stored is not None
        todo[image_id] = ImageFile(image_id, content_hash=digest, size=size, modified=modified, source=source)
    vanished = tuple(i for i, file in present.items() if file.source == source and i not in found)
    return IndexPlan(todo, changed, len(found) - len(todo) - len(known_bad), vanished, known_bad)


def read_bad(store: Path) -> dict[str, BadPicture]:
    """What earlier jobs could not read, by id. Raises ValueError for a damaged list."""
    file = store / _FILE
    if not file.exists():
        return {}
    try:
        return {image_id: BadPicture(**told) for image_id, told in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged: {error}; it can be deleted, the pictures are tried again then") from None


def write_bad(store: Path, bad: Mapping[str, BadPicture]) -> None:
    write_text_atomically(store / _FILE, json.dumps({image_id: vars(told) for image_id, told in bad.items()}, indent=1))


def _stat(path: Path) -> tuple[int, int]:
    """Bytes and time of change; (-1, -1) for a file that is not there any more."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class EmbeddedPart:
    """embeddings: None where no picture of the part can be read; files: what they are of, with sizes; bad: by id."""

    embeddings: ImageEmbeddings | None
    files: list[ImageFile]
    bad: dict[str, BadPicture]


def embed_parts(
    model: RetrievalModel,
    todo: Mapping[str, ImageFile],
    paths: Mapping[str, Path],
    images_a_part: int,
    merge: float | None = None,
    processes: int = 0,
    advance: Advance = silent,
) -> Iterator[EmbeddedPart]:
    """todo and paths: by id. merge: as merge_near_duplicates takes it, None keeps all vectors; processes: as
    stream_pixels takes them. Memory stays at one part and two batches of pixels."""
    ids = list(todo)
    embedded: list[tuple[ImageEmbeddings, list[ImageFile]]] = []
    bad: dict[str, BadPicture] = {}
    pending = 0
    for batch in encode_batches(model.backbone, ids, [paths[i] for i in ids], [PLAIN], advance, processes):
        for row, skipped in batch.skipped:
            file = todo[ids[row]]
            bad[ids[row]] = BadPicture(file.uri, file.size, file.modified, skipped.reason)
        if batch.rows:
            embedded.append(_embed(model, batch, ids, todo, merge))
        pending += len(batch.rows) + len(batch.skipped)
        if pending >= images_a_part:
            yield _part(embedded, bad)
            embedded, bad, pending = [], {}, 0
    if pending:
        yield _part(embedded, bad)


def _embed(
    model: RetrievalModel, batch: EncodedBatch, ids: Sequence[str], todo: Mapping[str, ImageFile], merge: float | None
) -> tuple[ImageEmbeddings, list[ImageFile]]:
    kept = [ids[row] for row in batch.rows]
    embeddings = embed_batch(model, batch, kept)
    sizes = zip(kept, batch.sizes, strict=True)
    files = [replace(todo[i], width=width, height=height) for i, (width, height) in sizes]
    return embeddings if merge is None else merge_near_duplicates(embeddings, merge), files


def _part(embedded: list[tuple[ImageEmbeddings, list[ImageFile]]], bad: dict[str, BadPicture]) -> EmbeddedPart:
    if not embedded:
        return EmbeddedPart(None, [], bad)
    found = concatenate_embeddings([embeddings for embeddings, _ in embedded])
    return EmbeddedPart(found, [file for _, files in embedded for file in files], bad)


_IMAGES_A_PART = 1024
_HEADROOM = 1.25  # of int8's range over what the first images need
_SAMPLE_QUERIES = 64
_TOLD = 20
_MOST_PROCESSES = 8


@dataclass(frozen=True)
class StoreOptions:
    """How a store is made; of one that is there, None takes what it has, and anything else must be that.

    model: None is the bundled one; head, num_query_tokens: as load_model takes them; merge: as merge_near_duplicates
    takes it, None keeps all vectors.
    """

    model: ModelConfig | None = None
    head: str | None = None
    num_query_tokens: int | None = None
    precision: Precision | None = None
    merge: float | None = None


@dataclass(frozen=True)
class IndexJob:
    """What to do with a source. images: folder of an annotation file's pictures; retry: try known bad pictures again;
    delete_vanished: take out those that are not there any more; processes: as stream_pixels takes them."""

    source: str
    images: Path | None = None
    metadata: ImageMetadata | None = None
    retry: bool = False
    delete_vanished: bool = False
    processes: int = 0


def index_images(job: IndexJob, to: Path, options: StoreOptions, device: str, console: Console) -> None:
    """Adds the pictures of a source that the store has not, and renews those that changed. Ids are absolute paths.

    Raises ValueError for a source without pictures, or none that can be read, and for a store of another model or
    other options.
    """
    found = {as_id(path): path for path in find_pictures(job.source, job.images)}
    index = _opened(to)
    made = _made_with(options, index)
    config, head, count = made
    model = load_model(config, device, head, count)
    if index is not None:
        require_model(index.store, model.fingerprint)
        _require_options(index, options)
    merge = options.merge if index is None else index.store.header.merge
    before = read_bad(to) if index else {}
    with tracking(console) as track:
        present = index.store.files() if index else {}
        checking = track("looking for changes", len(found))
        plan = plan_index(found, present, before, os.path.abspath(job.source), job.retry, checking)
        # What is known of other sources' pictures stays.
        bad = {i: told for i, told in before.items() if i not in found} | plan.known_bad
        newly_bad: dict[str, BadPicture] = {}
        advance = track("embedding", len(plan.todo))
        for part in embed_parts(model, plan.todo, found, _IMAGES_A_PART, merge, job.processes, advance):
            newly_bad |= part.bad
            if part.embeddings is not None:
                index = index or Index.create(to, _header(model, made, options, part.embeddings))
                index.put(part.embeddings, part.files, _columns(job, part.embeddings.image_ids))
            if index is not None:
                write_bad(to, bad | newly_bad)
    if index is None or not len(index):
        first = next(iter((bad | newly_bad).values())).reason
        raise ValueError(f"{job.source}: none of {len(found)} pictures can be read; the first: {first}")
    _finish(index, model, job, plan)
    _tell(console, to, job, plan, newly_bad)


def find_pictures(source: str, images: Path | None) -> Sequence[Path]:
    """Of a folder, a pattern, or an annotation file or folder of any format that is known. Raises ValueError where
    there are none."""
    place = Path(source)
    if glob.has_magic(source) and not place.exists():
        return list_images(source)
    if place.is_dir() and images is None and format_of(SourceConfig(place)) == "folder":
        return list_images(source)
    if not place.exists():
        raise ValueError(f"{source}: no such folder or file")
    return load_source(SourceConfig(place, images)).paths


def describe(place: Path) -> dict[str, Any]:
    """A store's or a run's contents, as plain values. Raises ValueError for anything else."""
    if (place / "config.json").exists():
        model = load_model(ModelConfig(name=str(place)))
        return {"kind": "run", "fingerprint": model.fingerprint, "backbone": model.backbone.name, "dim": model.dim}
    index = Index(place)
    bad = {"could not be read": len(read_bad(place))}
    header = index.store.header
    return {"kind": "store", **index.info(), **bad, **{f"model {key}": value for key, value in header.model.items()}}


def _opened(to: Path) -> Index | None:
    """The store that is there, if any. Raises ValueError where something else is."""
    return None if not to.exists() or (to.is_dir() and not any(to.iterdir())) else Index(to)


def _made_with(options: StoreOptions, index: Index | None) -> tuple[ModelConfig, str | None, int | None]:
    """The model, its head and number of query tokens: as told, else as the store has them, else the defaults."""
    there = (ModelConfig(), None, None) if index is None else stored_model(index.store.header)
    return options.model or there[0], options.head or there[1], options.num_query_tokens or there[2]


def _require_options(index: Index, options: StoreOptions) -> None:
    """Raises ValueError where a store was made with another precision or merging than is asked for."""
    for name in ("precision", "merge"):
        has, asked = getattr(index.store.header, name), getattr(options, name)
        if asked is not None and asked != has:
            raise ValueError(f"{index.store.folder}: was made with {name} {has}, not {asked}")


def _header(
    model: RetrievalModel,
    made: tuple[ModelConfig, str | None, int | None],
    options: StoreOptions,
    first: ImageEmbeddings,
) -> StoreHeader:
    precision = options.precision or "fp16"
    code_range = float(np.abs(first.vectors).max()) * _HEADROOM if precision == "int8" else 1.0
    return store_header(model, *made, precision, code_range, options.merge)


def _columns(job: IndexJob, image_ids: Sequence[str]) -> Metadata | None:
    return None if job.metadata is None else job.metadata.values_for(image_ids)


def _finish(index: Index, model: RetrievalModel, job: IndexJob, plan: IndexPlan) -> None:
    """What comes after the pictures: metadata of those that were there, vanished ones, the index in step."""
    if job.metadata is not None:
        there = sorted((index.store.ids() & job.metadata.row_of.keys()) - plan.todo.keys())
        if there:
            index.store.annotate(there, job.metadata.values_for(there))
    if job.delete_vanished:
        index.delete_ids(plan.vanished)
    if index.needs_optimizing():
        index.optimize(queries=sample_queries(model))


def decoding_processes(device: str) -> int:
    """Beside a GPU one for each core, up to eight; without one the model itself needs the cores."""
    return 0 if device == "cpu" else min(_MOST_PROCESSES, os.cpu_count() or 1)


def sample_queries(model: RetrievalModel) -> Floats:
    """Text queries such as may be asked, to measure an index with: names of everyday things, unit [Q, dim]."""
    names = load_vocabulary("lvis")
    return np.stack([model.encode_query(name).cpu().numpy() for name in names[:: len(names) // _SAMPLE_QUERIES]])


def _tell(console: Console, to: Path, job: IndexJob, plan: IndexPlan, bad: dict[str, BadPicture]) -> None:
    added = len(plan.todo) - plan.changed - len(bad)
    console.print(
        f"{added} added, {plan.changed} renewed, {plan.unchanged} were there, {len(bad)} could not be read: {to}",
        markup=False,
        highlight=False,
    )
    for picture in list(bad.values())[:_TOLD]:
        console.print(f"  {picture.reason}", markup=False)
    if len(bad) > _TOLD:
        console.print(f"  and {len(bad) - _TOLD} more: {to / 'skipped.json'}", markup=False)
    if plan.known_bad:
        console.print(f"{len(plan.known_bad)} could not be read before and have not changed (--retry tries them again)")
    if plan.vanished:
        done = "deleted from the store" if job.delete_vanished else "still in the store (--delete-vanished)"
        console.print(f"{len(plan.vanished)} are not there any more, {done}")
