"""Shared value types. All are frozen dataclasses that check themselves when they are created."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from forclip.location import Location, as_location

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class SkippedEntry:
    """An entry of a label file that can't be used and is left out.

    entry: where it is, such as "labels/7.txt: line 3" or "a.json: annotation 12"; reason: its kind, equal for all
    entries of a kind, such as "the box is not finite"; value: the offending value, shortened. used_in_part: only what
    the reason names is left out, such as the box of a label.
    """

    entry: str
    reason: str
    value: str = ""
    used_in_part: bool = False


@dataclass(frozen=True)
class Annotations:
    """Labelled images: I images, C classes and B boxes.

    image_ids: I unique ids; rankings break ties in this order. paths: the file of each image. class_names: C unique
    names, one per column of `labels`.
    labels: [I, C], True where an image shows a class.
    boxes: [B, 4] xyxy in pixels. box_images, box_classes: [B], the row and column of `labels` that each box belongs
    to. A label may have no box.
    box_sizes: [I, 2], width and height of each image as the label file gives them, 0 where it gives none. They tell
    whether boxes refer to the stored pixels or to the upright image: `forclip.data.images.box_frames.upright_boxes`
    converts them. None: all boxes refer to the upright images.
    verified: [I, C], True where somebody has checked the label; elsewhere it is unknown, as in LVIS (a federated
    dataset, arXiv 1908.03195). None: all labels are verified.
    synonyms: other names of each class; frequencies: how common each class is, in the dataset's own terms (LVIS: r, c
    or f). Empty tuples if the dataset has none.
    skipped: entries of the label files that can't be used; everything else of those files is here.

    Raises ValueError if an image id or a class name occurs twice.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Location, ...]
    class_names: tuple[str, ...]
    labels: Bools
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    box_images: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    box_classes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    verified: Bools | None = None
    synonyms: tuple[tuple[str, ...], ...] = ()
    frequencies: tuple[str, ...] = ()
    skipped: tuple[SkippedEntry, ...] = ()
    box_sizes: Ints | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(map(as_location, self.paths)))
        _refuse_repeated("image id", self.image_ids)
        _refuse_repeated("class name", self.class_names)
        assert len(self.paths) == len(self.image_ids)
        assert self.labels.shape == (len(self.image_ids), len(self.class_names))
        assert self.boxes.shape == (len(self.box_images), 4)
        assert len(self.box_images) == len(self.box_classes)
        assert self.box_sizes is None or self.box_sizes.shape == (len(self.image_ids), 2)
        assert self.verified is None or self.verified.shape == self.labels.shape
        assert len(self.synonyms) in (0, len(self.class_names))
        assert len(self.frequencies) in (0, len(self.class_names))

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def verified_mask(self) -> Bools:
        """[I, C]. True where a label is verified."""
        return np.ones_like(self.labels) if self.verified is None else self.verified

    def take(self, rows: Ints) -> "Annotations":
        """Select images by row, in the given order."""
        new_row = np.full(len(self), -1, np.int64)
        new_row[rows] = np.arange(len(rows))
        kept = new_row[self.box_images] >= 0
        return replace(
            self,
            image_ids=tuple(self.image_ids[r] for r in rows),
            paths=tuple(self.paths[r] for r in rows),
            labels=self.labels[rows],
            boxes=self.boxes[kept],
            box_images=new_row[self.box_images[kept]],
            box_classes=self.box_classes[kept],
            box_sizes=None if self.box_sizes is None else self.box_sizes[rows],
            verified=None if self.verified is None else self.verified[rows],
        )

    def with_classes(self, names: Sequence[str], add_missing: bool = False) -> "Annotations":
        """Select classes by name, in the given order; all images stay.

        With add_missing, an unknown name becomes a class that no image shows; its labels are unverified unless all
        labels are verified. Raises ValueError for an unknown name otherwise.
        """
        column = {name: k for k, name in enumerate(self.class_names)}
        missing = [name for name in names if name not in column]
        if missing and not add_missing:
            raise ValueError(f"no class is named {missing[0]!r}")
        columns = np.array([column.get(name, -1) for name in names], np.int64)
        new_column = np.full(len(self.class_names), -1, np.int64)
        new_column[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        kept = new_column[self.box_classes] >= 0
        # Column -1 of these is the empty one, for missing classes.
        no_label = np.zeros((len(self), 1), bool)
        return replace(
            self,
            class_names=tuple(names),
            labels=np.hstack([self.labels, no_label])[:, columns],
            boxes=self.boxes[kept],
            box_images=self.box_images[kept],
            box_classes=new_column[self.box_classes[kept]],
            verified=None if self.verified is None else np.hstack([self.verified, no_label])[:, columns],
            synonyms=tuple((*self.synonyms, ())[c] for c in columns) if self.synonyms else (),
            frequencies=tuple((*self.frequencies, "")[c] for c in columns) if self.frequencies else (),
        )


@dataclass(frozen=True)
class ImageEmbeddings:
    """Embeddings of images: one or more unit vectors per image, stored flat, without padding.

    vectors: [total, dim] float32, unit length. offsets: [images + 1]; image i owns vectors[offsets[i]:offsets[i + 1]].
    image_ids: one unique id per image. boxes: [total, 4] xyxy, fractions of the upright image's width and height: the
    region that each vector comes from, or None.

    Raises ValueError for an image without a vector, a vector that is not finite or not of unit length, a repeated
    image id, or arrays whose lengths don't match.
    """

    vectors: Floats
    offsets: Ints
    image_ids: tuple[str, ...]
    boxes: Floats | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.image_ids) + 1:
            raise ValueError(f"{len(self.image_ids)} image ids need one more offset than that, not {len(self.offsets)}")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.vectors):
            first, last = self.offsets[0], self.offsets[-1]
            raise ValueError(f"offsets must run from 0 to {len(self.vectors)}, not {first} to {last}")
        empty = np.flatnonzero(np.diff(self.offsets) <= 0)
        if len(empty):
            raise ValueError(f"image {self.image_ids[empty[0]]!r} has no vector")
        _refuse_repeated("image id", self.image_ids)
        lengths = np.linalg.norm(self.vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))  # written so that NaN is wrong too
        if len(wrong):
            owner = self.image_ids[np.searchsorted(self.offsets, wrong[0], side="right") - 1]
            raise ValueError(f"a vector of image {owner!r} has length {lengths[wrong[0]]:.3g}, not 1")
        if self.boxes is not None and self.boxes.shape != (len(self.vectors), 4):
            raise ValueError(f"{len(self.vectors)} vectors need as many boxes, not {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def dim(self) -> int:
        """The length of each vector."""
        return int(self.vectors.shape[1])


@dataclass(frozen=True)
class SearchResult:
    """One image in a ranked list.

    rank: position in the list, from 1. image_id: the image's id in the store. uri: where the image file is. score: the
    largest cosine between the query and the image's vectors, in [-1, 1]. box: xyxy, fractions of the upright image's
    width and height: the region of the best vector, or None. key: the image's unique key in its store, never reused.
    """

    rank: int
    image_id: str
    uri: str
    score: float
    box: tuple[float, float, float, float] | None
    key: int = field(compare=False)


@dataclass(frozen=True)
class SkippedImage:
    """An image file that could not be read, and the reason.

    is_unreachable: it could not be fetched, which says nothing of the file.
    """

    image_id: str
    path: Location
    reason: str
    is_unreachable: bool = False


@dataclass(frozen=True)
class ClassSplit:
    """The division of class names into base classes (labelled in finetuning) and novel classes (never labelled).

    Raises ValueError if there is no base class, or if a name occurs twice.
    """

    base: tuple[str, ...]
    novel: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.base:
            raise ValueError("a split needs at least one base class")
        both = [name for name in self.base if name in set(self.novel)]
        if both:
            raise ValueError(f"class {both[0]!r} is both base and novel")
        _refuse_repeated("class name", (*self.base, *self.novel))


def _refuse_repeated(noun: str, values: Sequence[str]) -> None:
    for value, count in Counter(values).items() if len(set(values)) < len(values) else ():
        if count > 1:
            raise ValueError(f"the {noun} {value!r} occurs twice")
