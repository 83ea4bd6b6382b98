"""Choose the frames of videos that are indexed, and remember which, so that unchanged videos are not read again."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
from filelock import FileLock

from forclip.atomic_write import write_text_atomically
from forclip.bucket_path import BucketPath, StorePath
from forclip.data.images.content import file_state, is_missing
from forclip.data.images.decode import UnreadableImage
from forclip.data.images.frame_location import frame_path, split_frame
from forclip.index.roots import Roots
from forclip.location import Location, is_absolute, location_text, parse_location
from forclip.progress import Advance

VIDEOS_FILE = "videos.json"
DEFAULT_EVERY = 1.0  # seconds
_LOCK = "videos.lock"
_LOCK_SECONDS = 60.0
FRAME_COLUMNS = {"video": pa.string(), "time": pa.float64()}


@dataclass(frozen=True)
class IndexedVideo:
    """A video as it was read: its size in bytes and time of change (ns), seconds between frames, and their number.

    problem: why it can't be read or its end is missing, or None.
    """

    size: int
    modified: int
    every: float
    frames: int
    problem: str | None


def choose_frames(
    videos: Sequence[Location],
    every: float | None,
    roots: Roots,
    ids_below: Callable[[str], Iterable[str]],
    records: Mapping[str, IndexedVideo],
    advance: Advance,
) -> tuple[list[Location], dict[Location, IndexedVideo]]:
    """Choose a frame every so many seconds of each video. Returns the frames' locations, and each video by its path.

    every: None for what the video was indexed with before, or DEFAULT_EVERY. ids_below: returns the ids of images that
    the store has or could not read, and that begin with a text; records: of earlier jobs, by id. A video that has not
    changed is not read, also if it has moved.
    """
    moved = {(record.size, record.modified): i for i, record in records.items() if _is_gone(roots, i)} if videos else {}
    paths: list[Location] = []
    found: dict[Location, IndexedVideo] = {}
    for video in videos:
        video_id, state = roots.id_of(video), file_state(video)
        if video_id not in records:
            video_id = moved.get(state, video_id)
        record = records.get(video_id)
        step = every or (record.every if record else DEFAULT_EVERY)
        texts = {image_id.removeprefix(f"{video_id}#t=") for image_id in ids_below(f"{video_id}#t=")}
        indexed = [float(text) for text in texts if text.replace(".", "", 1).isdigit()]
        times = sorted(time for time in indexed if abs(time - step * round(time / step)) < 0.001)
        if record is None or replace(record, problem=None) != IndexedVideo(*state, step, len(times), None):
            from forclip.data.images.video import scan_video  # loads FFmpeg, for videos alone

            try:
                scan = scan_video(video)
                times, problem = scan.sample(step), scan.problem
            except UnreadableImage as error:
                times, problem = [], str(error)
            record = IndexedVideo(*state, step, len(times), problem)
        found[video] = record
        paths += [frame_path(video, time) for time in times]
        advance(1)
    return paths, found


def _is_gone(roots: Roots, video_id: str) -> bool:
    return is_missing(parse_location(roots.resolve(video_id)))


def frame_columns(image_ids: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of frames: the video's path in its root and the time in seconds; None for pictures."""
    frames = [split_frame(parse_location(image_id)) for image_id in image_ids]
    videos = [None if frame is None else location_text(frame[0]) for frame in frames]
    return {
        "video": [video and (video if is_absolute(video) else video.partition("/")[2]) for video in videos],
        "time": [None if frame is None else frame[1] for frame in frames],
    }


def check_frame_columns(schema: pa.Schema, store: StorePath) -> None:
    """Raise ValueError if a store's own columns have the names but not the types of the columns of frames."""
    for name, kind, fits in (("video", "text", pa.types.is_string), ("time", "seconds", pa.types.is_floating)):
        position = schema.get_field_index(name)
        if position >= 0 and not fits(schema.field(position).type):
            problem = f"its column {name!r} holds {schema.field(position).type}, and that of frames holds {kind}"
            raise ValueError(f"{store}: {problem}; index videos into another store")


def read_videos(store: StorePath) -> dict[str, IndexedVideo]:
    """Read the records of earlier jobs, by the video's id. Without them, videos are read again."""
    try:
        content = json.loads((store / VIDEOS_FILE).read_text())
        return {video_id: IndexedVideo(**record) for video_id, record in content.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def add_videos(store: StorePath, records: Mapping[str, IndexedVideo]) -> None:
    """Add records, by the video's id, to those that other jobs have written, also while this job ran.

    In a bucket, where nothing can be locked, two jobs that end in the same moment may lose a record.
    """
    lock = nullcontext() if isinstance(store, BucketPath) else FileLock(store / _LOCK, timeout=_LOCK_SECONDS)
    with lock:
        content = {video_id: asdict(record) for video_id, record in {**read_videos(store), **records}.items()}
        write_text_atomically(store / VIDEOS_FILE, json.dumps(content, indent=1))
