"""Pictures into a store, part by part: what is written stays, whatever stops the job."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from forclip.config import ModelConfig
from forclip.data.folder import list_images
from forclip.data.sources import format_of, load_source
from forclip.data_config import SourceConfig
from forclip.embedding_parts import embed_parts
from forclip.image_ids import as_id
from forclip.image_metadata import ImageMetadata
from forclip.index.image_index import Index
from forclip.index.schema import Precision, StoreHeader
from forclip.index.store import Metadata, require_model
from forclip.index_plan import BadPicture, IndexPlan, plan_index, read_bad, write_bad
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.progress import tracking
from forclip.search import store_header, stored_model
from forclip.types import Floats, ImageEmbeddings
from forclip.vocabulary import load_vocabulary

_IMAGES_A_PART = 1024
_HEADROOM = 1.25  # of int8's range over what the first images need
_SAMPLE_QUERIES = 64
_TOLD = 20
_MOST_PROCESSES = 8
_HEAD, _QUERY_TOKENS = "sum", 25


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
    delete_vanished: take out those that are not there any more; processes: as stream_prepared takes them."""

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


def _made_with(options: StoreOptions, index: Index | None) -> tuple[ModelConfig, str, int]:
    """The model, its head and number of query tokens: as told, else as the store has them, else the defaults."""
    there = (ModelConfig(), _HEAD, _QUERY_TOKENS) if index is None else stored_model(index.store.header)
    return options.model or there[0], options.head or there[1], options.num_query_tokens or there[2]


def _require_options(index: Index, options: StoreOptions) -> None:
    """Raises ValueError where a store was made with another precision or merging than is asked for."""
    for name in ("precision", "merge"):
        has, asked = getattr(index.store.header, name), getattr(options, name)
        if asked is not None and asked != has:
            raise ValueError(f"{index.store.folder}: was made with {name} {has}, not {asked}")


def _header(
    model: RetrievalModel, made: tuple[ModelConfig, str, int], options: StoreOptions, first: ImageEmbeddings
) -> StoreHeader:
    precision = options.precision or "fp16"
    code_range = float(np.abs(first.vectors).max()) * _HEADROOM if precision == "int8" else 1.0
    return store_header(model, *made, precision, code_range, options.merge)


def _columns(job: IndexJob, image_ids: Sequence[str]) -> Metadata | None:
    return None if job.metadata is None else job.metadata.of(image_ids)


def _finish(index: Index, model: RetrievalModel, job: IndexJob, plan: IndexPlan) -> None:
    """What comes after the pictures: metadata of those that were there, vanished ones, the index in step."""
    if job.metadata is not None:
        there = sorted((index.store.ids() & job.metadata.row_of.keys()) - plan.todo.keys())
        if there:
            index.store.annotate(there, job.metadata.of(there))
    if job.delete_vanished:
        index.delete_ids(plan.vanished)
    if index.worth_optimizing():
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
