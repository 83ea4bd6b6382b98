"""The values that parts hand to each other: frozen, and valid once they exist."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Annotations:
    """A set of images and what is known to be in them.

    image_ids: opaque, in the order that breaks ties; paths: one per image; class_names: one per column of labels.
    labels: [images, classes], whether an image shows a class. boxes: [B, 4] xyxy in pixels of the stored image, with
    box_images and box_classes [B] as row and column of labels; may be fewer than the labels.
    verified: [images, classes], which labels someone has checked (LVIS is federated, arXiv 1908.03195), or None: all.
    synonyms: other names of each class, or nothing at all; frequencies: the dataset's own word for how common each
    class is (LVIS: r, c or f), or nothing at all.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    class_names: tuple[str, ...]
    labels: Bools
    boxes: Floats
    box_images: Ints
    box_classes: Ints
    verified: Bools | None = None
    synonyms: tuple[tuple[str, ...], ...] = ()
    frequencies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        repeated = _first_repeated(self.image_ids)
        if repeated is not None:
            raise ValueError(f"two images have the id {repeated!r}")
        repeated = _first_repeated(self.class_names)
        if repeated is not None:
            raise ValueError(f"two classes have the name {repeated!r}")
        assert len(self.paths) == len(self.image_ids)
        assert self.labels.shape == (len(self.image_ids), len(self.class_names))
        assert self.boxes.shape == (len(self.box_images), 4)
        assert len(self.box_images) == len(self.box_classes)
        assert self.verified is None or self.verified.shape == self.labels.shape
        assert len(self.synonyms) in (0, len(self.class_names))
        assert len(self.frequencies) in (0, len(self.class_names))

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def verified_mask(self) -> Bools:
        """Which labels count: [images, classes]."""
        return np.ones_like(self.labels) if self.verified is None else self.verified

    def take(self, rows: Ints) -> "Annotations":
        """The images of these rows, in this order, with their labels and boxes."""
        new_row = np.full(len(self), -1, np.int64)
        new_row[rows] = np.arange(len(rows))
        kept = new_row[self.box_images] >= 0
        return Annotations(
            image_ids=tuple(self.image_ids[r] for r in rows),
            paths=tuple(self.paths[r] for r in rows),
            class_names=self.class_names,
            labels=self.labels[rows],
            boxes=self.boxes[kept],
            box_images=new_row[self.box_images[kept]],
            box_classes=self.box_classes[kept],
            verified=None if self.verified is None else self.verified[rows],
            synonyms=self.synonyms,
            frequencies=self.frequencies,
        )

    def covering(self, names: Sequence[str]) -> "Annotations":
        """As with_classes, where a class that is not known here has no label in any image."""
        unknown = tuple(name for name in names if name not in set(self.class_names))
        nothing = np.zeros((len(self), len(unknown)), bool)
        wider = replace(
            self,
            class_names=(*self.class_names, *unknown),
            labels=np.concatenate([self.labels, nothing], 1),
            verified=None if self.verified is None else np.concatenate([self.verified, nothing], 1),
            synonyms=(*self.synonyms, *((),) * len(unknown)) if self.synonyms else (),
            frequencies=(*self.frequencies, *("",) * len(unknown)) if self.frequencies else (),
        )
        return wider.with_classes(names)

    def with_classes(self, names: Sequence[str]) -> "Annotations":
        """The same images, labelled with these classes only, in this order. Raises ValueError for a name not there."""
        column = {name: k for k, name in enumerate(self.class_names)}
        for name in names:
            if name not in column:
                raise ValueError(f"no class is named {name!r}")
        columns = np.array([column[name] for name in names], np.int64)
        new_column = np.full(len(self.class_names), -1, np.int64)
        new_column[columns] = np.arange(len(columns))
        kept = new_column[self.box_classes] >= 0
        return Annotations(
            image_ids=self.image_ids,
            paths=self.paths,
            class_names=tuple(names),
            labels=self.labels[:, columns],
            boxes=self.boxes[kept],
            box_images=self.box_images[kept],
            box_classes=new_column[self.box_classes[kept]],
            verified=None if self.verified is None else self.verified[:, columns],
            synonyms=tuple(self.synonyms[c] for c in columns) if self.synonyms else (),
            frequencies=tuple(self.frequencies[c] for c in columns) if self.frequencies else (),
        )


@dataclass(frozen=True)
class ImageEmbeddings:
    """Some unit vectors for each image, flat.

    vectors: [total, dim] float32, unit length; offsets: [images + 1], image i owns vectors[offsets[i]:offsets[i + 1]];
    boxes: [total, 4] xyxy as fractions of width and height, the place each vector comes from, or None.
    Raises ValueError for an image with no vector, a vector that is not finite or not of unit length, or an id twice.
    """

    vectors: Floats
    offsets: Ints
    image_ids: tuple[str, ...]
    boxes: Floats | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.image_ids) + 1:
            raise ValueError(
                f"{len(self.image_ids)} image ids need as many offsets and one more, not {len(self.offsets)}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.vectors):
            raise ValueError(
                f"offsets must run from 0 to {len(self.vectors)}, not {self.offsets[0]} to {self.offsets[-1]}"
            )
        empty = np.flatnonzero(np.diff(self.offsets) <= 0)
        if len(empty):
            raise ValueError(f"image {self.image_ids[empty[0]]!r} has no vector")
        repeated = _first_repeated(self.image_ids)
        if repeated is not None:
            raise ValueError(f"two images have the id {repeated!r}")
        lengths = np.linalg.norm(self.vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))
        if len(wrong):
            owner = self.image_ids[np.searchsorted(self.offsets, wrong[0], side="right") - 1]
            raise ValueError(f"a vector of image {owner!r} has length {lengths[wrong[0]]:.3g}, not 1")
        if self.boxes is not None and self.boxes.shape != (len(self.vectors), 4):
            raise ValueError(f"{len(self.vectors)} vectors need as many boxes, not {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


@dataclass(frozen=True)
class SearchResult:
    """One image found. score: cosine in [-1, 1]; box: xyxy as fractions of width and height, or None; rank from 1;
    key: the image's in its store, which no other image ever has."""

    rank: int
    image_id: str
    uri: str
    score: float
    box: tuple[float, float, float, float] | None
    key: int = field(compare=False)


@dataclass(frozen=True)
class SkippedImage:
    """A picture that could not be read, and why."""

    image_id: str
    path: Path
    reason: str


@dataclass(frozen=True)
class ClassSplit:
    """Class names. base: labelled in finetuning; novel: never labelled, never named in training, may be none.

    Raises ValueError for a class in both or twice in one, and where there is no base class.
    """

    base: tuple[str, ...]
    novel: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.base:
            raise ValueError("a split needs at least one base class")
        both = [name for name in self.base if name in set(self.novel)]
        if both:
            raise ValueError(f"class {both[0]!r} is both base and novel")
        for names in (self.base, self.novel):
            repeated = [name for k, name in enumerate(names) if name in names[:k]]
            if repeated:
                raise ValueError(f"class {repeated[0]!r} is in the split twice")


def _first_repeated(values: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
