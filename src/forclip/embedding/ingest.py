"""Index images: find the new and changed ones of a source, embed them slice by slice and store them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forclip.bucket_path import BucketPath, store_path
from forclip.config import ComputeChoice, ModelConfig
from forclip.data.images.content import is_missing
from forclip.data.images.decode import DECODING
from forclip.data.images.frame_location import split_frame
from forclip.data.images.listing import LeftOut, Listing
from forclip.data.metadata import ImageMetadata, MetadataFile
from forclip.embedding.agreement import agree_on_compute
from forclip.embedding.changes import Changes, UnreadableImage, find_changes, in_parts
from forclip.embedding.embed_all import embed_all, plan_workers
from forclip.embedding.frames import (
    IndexedVideo,
    add_videos,
    check_frame_columns,
    choose_frames,
    frame_columns,
    read_videos,
)
from forclip.embedding.list_source import list_source
from forclip.embedding.orientation import warn_about_orientation
from forclip.embedding.run_options import IN_THIS_PROCESS, RunOptions
from forclip.embedding.shard import Shard
from forclip.embedding.skipped_list import read_unreadable, shorten_unreadable
from forclip.embedding.slice_writer import SliceWriter
from forclip.embedding.slices import Slice
from forclip.embedding.source_columns import SourceColumns, values_of_shards
from forclip.embedding.store_options import StoreOptions
from forclip.embedding.stored_files import StoredFiles
from forclip.index.create_store import has_store
from forclip.index.image_index import Index
from forclip.index.roots import Roots, to_json
from forclip.index.schema import Precision
from forclip.index.table import LOCK
from forclip.location import Location, Uri, canonical_url, file_on_disk, parse_location
from forclip.models.compute import resolve_compute
from forclip.models.mini_clip import warn_about_photos
from forclip.models.retrieval_model import (
    RetrievalModel,
    as_model_config,
    describe_model,
)
from forclip.progress import Track, silent, untracked
from forclip.text.vocabulary import load_vocabulary
from forclip.types import Floats

_IMAGES_PER_PART = 1024
_SAMPLE_QUERIES = 64


@dataclass(frozen=True)
class IndexSummary:
    """What `index_images` did.

    added, updated, unchanged, moved: numbers of images; unreadable: images that could not be read, by id; skipped:
    images that could not be read before, have not changed and were not tried again; vanished: ids of stored images that
    are no longer in the source; metadata: what became of the rows of the metadata file, line by line; not_indexed: what
    else the source holds, by reason: how many files or folders, and examples; videos: number of videos, whose frames
    are images.
    """

    added: int
    updated: int
    unchanged: int
    unreadable: dict[str, UnreadableImage]
    skipped: int
    vanished: tuple[str, ...]
    metadata: tuple[str, ...] = ()
    not_indexed: Mapping[str, LeftOut] = field(default_factory=dict)
    moved: int = 0
    videos: int = 0


def index_images(
    source: str | Path,
    to: str | os.PathLike[str] | BucketPath,
    *,
    model: ModelConfig | str | Path | None = None,
    head: str | None = None,
    num_query_tokens: int | None = None,
    precision: Precision | None = None,
    merge: float | None = None,
    max_vectors: int | None = None,
    tiles: str | None = None,
    tile_overlap: float | None = None,
    images: str | Path | None = None,
    metadata: MetadataFile | None = None,
    every: float | None = None,
    retry: bool = False,
    delete_vanished: bool = False,
    processes: int | None = None,
    device: str = "cpu",
    compute: ComputeChoice | None = None,
    compiled: bool | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    run: RunOptions = IN_THIS_PROCESS,
    loaded: RetrievalModel | None = None,
    track: Track = untracked,
) -> IndexSummary:
    """Add the new images of a source to a store, and update those that changed.

    An image's id is its location: the name of a root of the store, which is a folder, and its path there. Images that
    moved are recognised by their content and keep their vectors and metadata.

    Slices of about a thousand images are stored as soon as they are embedded, so a job that was stopped continues where
    it was. With many workers they are stored together, up to 16,384 images or a minute's. Files with the size and time
    of change that are stored count as unchanged; others are compared by content.

    source: a folder, picture, video, glob pattern, or annotation file or folder of any known format; to: the store,
    created if there is none; model, head, num_query_tokens: as `load_model` takes them; precision: "fp16" or "int8";
    merge: the cosine from which an image's vectors are merged; max_vectors: the largest number of vectors an image, to
    which more are merged. None for one of these six means what an existing store has, or the default. tiles: none,
    auto, or tiles such as 3x3, which overlap by tile_overlap; None means those of the store or the model. images: image
    folder of an annotation file; metadata: columns for the images of the store and of the source; every: seconds
    between the frames of a video, None for what it was indexed with before, or 1; retry: try images again that could
    not be read; delete_vanished: delete stored images that are no longer in the source; processes: that decode for each
    worker, 0 for threads, None to choose by device; run: how many workers embed, where, and which part of the source;
    compute, compiled: as `ModelConfig` has `compute` and `compile`, None for the model's; batch_size: images at once on
    a device, None for what it does well. A job that takes a part leaves moved and vanished images and the search index
    to a job for the whole; memory: bytes to build the search index with, by default half of what is free; loaded: an
    existing store's model, if it is loaded already.

    Raises ValueError if the source has no image, or none that can be read; if an existing store was written by another
    model or with other options, or in a number format whose vectors differ (forclip.embedding.agreement); and for a
    head or number of query tokens that a trained model does not have.
    """
    source, images = canonical_url(str(source)), None if images is None else Path(images)
    model = None if model is None else as_model_config(model)
    shard = run.shard
    if shard is not None and delete_vanished:
        raise ValueError(f"--shard {shard}: only a job for the whole source can delete what has vanished")
    to = store_path(to)
    index = Index(to) if has_store(to) else None
    listing, videos = list_source(source, images, index is not None and delete_vanished)
    given = model or ModelConfig()
    options = StoreOptions(
        to,
        model,
        head,
        num_query_tokens,
        precision,
        merge,
        max_vectors,
        tiles,
        tile_overlap,
        resolve_compute(compute or given.compute, device),
        given.compile if compiled is None else compiled,
        batch_size,
    )
    plan = plan_workers(run, device, processes)
    loaded = options.load(index, device if plan.is_this_process else "cpu", loaded)
    roots = Roots() if index is None else index.store.roots
    known = {} if index is None else read_unreadable(to)
    tried = {} if retry else known
    stored = StoredFiles(None if index is None else index.store, len(listing.pictures))
    if shard is not None:
        videos = [video for video in videos if shard.holds("", video)]
    records = read_videos(to)
    frames, read = _choose_frames(videos, every, roots, stored, tried, {} if retry else records, track)
    found = (*listing.pictures, *frames)
    has_frames = any(split_frame(path) for path in found)
    if index is not None and has_frames:
        check_frame_columns(index.store.table().schema, to)
    if videos and not found:
        first = next(iter(read.values())).problem
        raise ValueError(f"{source}: none of {len(videos)} videos can be read; the first: {first}")
    advance = track("looking for changes", len(found))
    takes = None if shard is None else shard.holds
    changes = find_changes(source, images, found, roots, stored, tried, advance, takes)
    paths, todo, skipped = changes.paths, changes.todo, changes.skipped
    video_records = {changes.roots.id_of(video): record for video, record in read.items()}
    vanished = _find_vanished(listing, changes, stored, video_records) if shard is None else ()
    if not found and not vanished:
        raise ValueError(f"{source}: no such folder or file, and no image of it is in {to}")
    folder = images or (Path(source) if os.path.isdir(source) else None)
    of_file = None
    if metadata is not None:
        of_file = _match_metadata(metadata, folder, index, changes, stored, video_records)
    left_out = () if of_file is None else of_file.types.keys()  # the file's columns come first
    of_shards = values_of_shards(listing, changes.roots, _schema(index), left_out)
    columns = SourceColumns(of_shards, of_file, has_frames)
    if index is not None:
        index.store.make_columns(columns.types)
        _record_changes(index, changes, {} if model is None else describe_model(loaded, model))
    listed = _still_unreadable(known, changes, video_records, takes)
    unreadable_videos = {
        i: UnreadableImage(i, video.size, video.modified, video.problem)
        for i, video in video_records.items()
        if video.problem
    }
    new = Slice.of(todo, paths)
    warn_about_photos(loaded.backbone.name, new.paths)
    warn_about_orientation(loaded.backbone, new.paths)
    if index is not None:
        agree_on_compute(index, loaded, new.paths)
    else:  # all parts of a source choose by the whole
        loaded = options.with_auto_tiles(loaded, new.paths if shard is None else found)

    def create(largest: float) -> Index:
        created = options.create(loaded, largest, changes.roots)
        created.store.make_columns(columns.types)
        return created

    moved_ids = {new_id for new_id, _ in changes.moved.values()}
    replaced = changes.replaced | (todo.keys() & moved_ids)
    if todo and isinstance(to, BucketPath):
        (to / LOCK).check_writable()  # before the embedding, which may take hours
    writer = SliceWriter(to, index, create, columns.values_for, replaced, listed | unreadable_videos, known)
    embed_all(new, loaded, options, writer, run, plan, device, track("embedding", len(todo)))
    if writer.index is None and shard is not None and has_store(to):
        writer.index = Index(to)  # of another job
    writer.write_unreadable()
    shorten_unreadable(to)
    index = writer.index
    if index is None and shard is not None and not todo and not writer.unreadable:
        return IndexSummary(0, 0, 0, {}, 0, (), (), listing.summary())
    if index is not None and videos:
        add_videos(to, video_records)
    if index is None or (found and not len(index)):
        first = next(iter(writer.unreadable.values())).reason
        raise ValueError(f"{source}: none of {len(paths)} images can be read; the first: {first}")
    report = list(columns.of_shards.notes)
    if of_file is not None:
        report += _annotate_others(index, of_file, changes, shard)
    if delete_vanished:
        index.delete_ids(vanished)
    if shard is None and index.needs_optimizing():
        advance = track("updating the search index", 1)
        index.optimize(queries=sample_queries(loaded), memory=memory)
        advance(1)
    skipped_videos = {i for i, video in unreadable_videos.items() if tried.get(i) == video}
    failed = {i: image for i, image in writer.unreadable.items() if i not in skipped_videos and i not in listed}
    return IndexSummary(
        added=writer.added,
        updated=writer.updated,
        unchanged=changes.compared - len(todo) - len(skipped) - changes.num_moved,
        unreadable=failed,
        skipped=len(skipped) + len(skipped_videos),
        vanished=vanished,
        metadata=tuple(report),
        not_indexed=listing.summary(),
        moved=changes.num_moved,
        videos=len(videos),
    )


def _choose_frames(
    videos: Sequence[Location],
    every: float | None,
    roots: Roots,
    stored: StoredFiles,
    tried: Mapping[str, UnreadableImage],
    records: Mapping[str, IndexedVideo],
    track: Track,
) -> tuple[list[Location], dict[Location, IndexedVideo]]:
    """Choose the frames of videos, as `choose_frames`. tried: images that could not be read, by id."""

    def ids_below(prefix: str) -> list[str]:
        return [*stored.below(prefix), *(image_id for image_id in tried if image_id.startswith(prefix))]

    advance = track("reading videos", len(videos)) if videos else silent
    return choose_frames(videos, every, roots, ids_below, records, advance)


def _find_vanished(
    listing: Listing, changes: Changes, stored: StoredFiles, videos: Mapping[str, IndexedVideo]
) -> tuple[str, ...]:
    """Return the ids of stored images that the source no longer has, and of frames at other times than those chosen.

    videos: those that were read, by id.
    """
    frames = [i for video_id in videos for i in stored.below(f"{video_id}#t=")]
    not_chosen = [
        i for i in frames if i.rpartition("#t=")[0] in videos and i not in changes.paths and i not in changes.moved
    ]
    gone = {**changes.vanished, **{i: file.uri for i, file in stored.files(not_chosen).items()}}
    # What is in a folder that can't be read at the moment has not vanished.
    return tuple(i for i, uri in gone.items() if not listing.may_hold(changes.roots.resolve(uri)))


def _match_metadata(
    metadata: MetadataFile,
    folder: Path | None,
    index: Index | None,
    changes: Changes,
    stored: StoredFiles,
    videos: Iterable[str],
) -> ImageMetadata:
    """Match a metadata file to the images of the store and of the source. videos: ids, whose frames get their row."""
    locations = {i: changes.roots.resolve(uri) for i, uri in stored.locations() if i not in changes.moved}
    locations |= {i: changes.roots.resolve(i) for i in (*changes.paths, *videos)}
    return metadata.match(locations, folder, _schema(index)).with_frames(changes.paths)


def _schema(index: Index | None) -> pa.Schema | None:
    return None if index is None else index.store.table().schema


def _still_unreadable(
    known: Mapping[str, UnreadableImage],
    changes: Changes,
    videos: Mapping[str, IndexedVideo],
    takes: Callable[[str, Location], bool] | None,
) -> dict[str, UnreadableImage]:
    """Return what stays listed as unreadable: files that have not changed, and those of other sources and shards.

    These stay listed while their disk is away, until they are deleted. known: the list so far; videos: read now, by id;
    takes: whether this job takes an image, as in `find_changes`.
    """

    def is_compared(image_id: str) -> bool:
        path = changes.paths.get(image_id)
        return image_id in videos or (path is not None and (takes is None or takes(image_id, path)))

    others = {
        i: image
        for i, image in known.items()
        if not is_compared(i) and not _is_deleted(changes.roots.resolve(image.uri))
    }
    return others | dict(changes.skipped)


def _annotate_others(index: Index, columns: ImageMetadata, changes: Changes, shard: Shard | None) -> list[str]:
    """Give the values of a metadata file to stored images that were not embedded now. Returns a report in lines.

    A job for a part of the source leaves images of other parts alone, and reports nothing.
    """
    ids = index.store.ids()
    others = sorted((ids & columns.row_of.keys()) - (changes.todo.keys() - changes.replaced))
    if shard is not None:
        others = [i for i in others if i in changes.paths and shard.holds(i, changes.paths[i])]
    if columns.types and others:
        index.store.annotate(others, columns.values_for(others))
    return columns.report(ids, changes.paths.keys()) if shard is None else []


def _record_changes(index: Index, changes: Changes, model: Mapping[str, Any]) -> None:
    """Store where images and the model's weights are now. model: as `describe_model`, or empty."""
    header = index.store.header
    weights = {name: model[name] for name in ("name", "pretrained") if name in model}
    header = replace(header, model={**header.model, **weights}, roots=to_json(changes.roots, index.store.folder))
    if header != index.store.header:
        index.store.write_header(header)
    for part in in_parts(changes.moved, _IMAGES_PER_PART):
        index.store.move(part)
        if frames := [new_id for new_id, _ in part.values() if split_frame(parse_location(new_id))]:
            index.store.annotate(frames, {"video": frame_columns(frames)["video"]})
    if changes.checked:
        index.store.set_decoding(changes.checked, DECODING)


def sample_queries(model: RetrievalModel) -> Floats:
    """Return typical text queries, names of everyday things, to measure an index with. Unit [Q, dim]."""
    names = load_vocabulary("lvis")
    return np.stack([model.encode_query(name).cpu().numpy() for name in names[:: len(names) // _SAMPLE_QUERIES]])


def _is_deleted(path: str) -> bool:
    """Whether a file is missing, but not its folder."""
    file = parse_location(path)
    is_remote = isinstance(file, Uri) and file.is_remote
    return is_missing(file) and (is_remote or file_on_disk(file).parent.is_dir())
