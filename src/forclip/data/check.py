"""What a configuration's data holds, and what is wrong with it, before hours are spent on it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from forclip.config import DataConfig
from forclip.data.images.content import find_identical_files
from forclip.data.sets import load_sets
from forclip.data.splits import check_classes_and_prompts, choose_classes
from forclip.progress import Advance, Track, silent
from forclip.text.prompt_options import read_prompt_options
from forclip.types import Annotations, ClassSplit

_SHOWN = 5  # of each kind of finding, in the terminal; the JSON has them all
_ROWS = 40  # classes of each group in the table
_SLACK = 1.0  # pixels that a box may stick out: annotation tools round


@dataclass(frozen=True)
class OddBox:
    """box: xyxy in pixels of the stored image."""

    image_id: str
    class_name: str
    box: tuple[float, float, float, float]
    reason: str


@dataclass(frozen=True)
class SetCheck:
    """One set. missing: paths that are not there; unreadable: those whose header is no picture's; duplicates: ids of
    images with the same content."""

    images: int
    without_label: int
    labels: int
    boxes: int
    missing: list[str]
    unreadable: list[str]
    odd_boxes: list[OddBox]
    duplicates: list[list[str]]


@dataclass(frozen=True)
class ClassCheck:
    """How many images show a class, and in how many someone has looked for it."""

    name: str
    group: str
    train: int
    train_verified: int
    gallery: int
    gallery_verified: int


@dataclass(frozen=True)
class DataCheck:
    """in_both: ids in training and gallery of images with the same content; not_in_both: classes of one set alone."""

    train: SetCheck
    gallery: SetCheck
    in_both: list[tuple[str, str]]
    not_in_both: list[str]
    classes: list[ClassCheck]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        return asdict(self)

    @property
    def problems(self) -> list[str]:
        """What should be mended, one sentence each."""
        found = []
        for name, one in (("training", self.train), ("gallery", self.gallery)):
            for what, count in (
                ("pictures are not there", len(one.missing)),
                ("files are no pictures", len(one.unreadable)),
                ("boxes are odd", len(one.odd_boxes)),
                ("groups of pictures have the same content", len(one.duplicates)),
            ):
                if count:
                    found.append(f"{name}: {count} {what}")
        if self.in_both:
            found.append(f"{len(self.in_both)} gallery pictures are in training as well: the result would flatter")
        for group, where in (("base", "training"), ("novel", "gallery")):
            unseen = [c.name for c in self.classes if c.group == group and not (c.train, c.gallery)[group == "novel"]]
            if unseen:
                more = f" and {len(unseen) - _SHOWN} more" if len(unseen) > _SHOWN else ""
                found.append(f"{group} classes in no {where} image: {', '.join(unseen[:_SHOWN])}{more}")
        return found


def check_data(data: DataConfig, track: Track) -> DataCheck:
    """Reads annotations, stats every picture and reads its header. Raises ValueError as the loaders do."""
    train, gallery = load_sets(data)
    split = choose_classes(data, train, gallery)
    check_classes_and_prompts(train, split, read_prompt_options(data, train, split), allow_unlabelled_base=True)
    everything = [*train.paths, *gallery.paths]
    groups = find_identical_files(everything, track("comparing contents", len(everything)))
    first = len(train)
    # One training image for each doubled gallery image: all pairs of a placeholder picture would be millions.
    both = [(group[0], b - first) for group in groups for b in group if group[0] < first <= b]
    one_sided = sorted(set(train.class_names) ^ set(gallery.class_names))
    return DataCheck(
        _check_set(train, [[r for r in g if r < first] for g in groups], track("reading headers: training", first)),
        _check_set(
            gallery,
            [[r - first for r in g if r >= first] for g in groups],
            track("reading headers: gallery", len(gallery)),
        ),
        [(train.image_ids[a], gallery.image_ids[b]) for a, b in both],
        one_sided,
        _check_classes(train, gallery, split),
    )


def _check_set(images: Annotations, groups: list[list[int]], advance: Advance = silent) -> SetCheck:
    sizes = np.full((len(images), 2), np.inf)
    missing, unreadable = [], []
    for row, path in enumerate(images.paths):
        try:
            with Image.open(path) as picture:
                sizes[row] = picture.size
        except FileNotFoundError:
            missing.append(str(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            unreadable.append(str(path))
        advance(1)
    return SetCheck(
        images=len(images),
        without_label=int((~images.labels.any(1)).sum()) if images.labels.shape[1] else len(images),
        labels=int(images.labels.sum()),
        boxes=len(images.boxes),
        missing=missing,
        unreadable=unreadable,
        odd_boxes=list(_odd_boxes(images, sizes)),
        duplicates=[[images.image_ids[r] for r in group] for group in groups if len(group) > 1],
    )


def _odd_boxes(images: Annotations, sizes: np.ndarray) -> Iterator[OddBox]:
    """sizes: [I, 2] width and height, infinite where unknown."""
    boxes, limits = images.boxes, sizes[images.box_images]
    no_area = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    outside = (boxes[:, :2] < -_SLACK).any(1) | (boxes[:, 2:] > limits + _SLACK).any(1)
    for k in np.flatnonzero(no_area | outside):
        reason = "has no area" if no_area[k] else f"leaves the picture of {limits[k][0]:.0f} x {limits[k][1]:.0f}"
        x0, y0, x1, y1 = (float(v) for v in boxes[k])
        image, name = images.image_ids[images.box_images[k]], images.class_names[images.box_classes[k]]
        yield OddBox(image, name, (x0, y0, x1, y1), reason)


def _check_classes(train: Annotations, gallery: Annotations, split: ClassSplit) -> list[ClassCheck]:
    """All classes, the training set's first."""
    names = (*train.class_names, *(n for n in gallery.class_names if n not in set(train.class_names)))
    sides = [images.with_classes(names, add_missing=True) for images in (train, gallery)]
    counts = [((side.labels & side.verified_mask).sum(0), side.verified_mask.sum(0)) for side in sides]
    groups = {**dict.fromkeys(split.base, "base"), **dict.fromkeys(split.novel, "novel")}
    return [
        ClassCheck(name, groups.get(name, "neither"), *(int(part[k]) for side in counts for part in side))
        for k, name in enumerate(names)
    ]


def print_check(found: DataCheck, console: Console) -> None:
    """A table of the sets, one of the classes, and the findings, the first few of each kind."""
    console.print(_sets_table(found))
    console.print(_classes_table(found))
    for message in found.problems:
        console.print(f"[yellow]{message}[/]", highlight=False)
    for example in _examples(found):
        console.print(f"  {example}", markup=False, highlight=False)
    if not found.problems:
        console.print("[green]nothing odd was found[/]")


def _sets_table(found: DataCheck) -> Table:
    table = Table("set", box=None)
    for column in ("images", "without a label", "labels", "boxes", "not there", "no picture", "odd boxes", "doubles"):
        table.add_column(column, justify="right")
    for name, one in (("training", found.train), ("gallery", found.gallery)):
        numbers = (one.images, one.without_label, one.labels, one.boxes)
        findings = (len(one.missing), len(one.unreadable), len(one.odd_boxes), len(one.duplicates))
        table.add_row(name, *(f"{n:,}" for n in (*numbers, *findings)))
    return table


def _classes_table(found: DataCheck) -> Table:
    groups = [(group, [c for c in found.classes if c.group == group]) for group in ("base", "novel", "neither")]
    told = ", ".join(f"{len(members)} {group}" for group, members in groups)
    table = Table("class", "group", title=f"{told}; images that show each", box=None, title_justify="left")
    table.add_column("training", justify="right")
    table.add_column("gallery", justify="right")
    for group, members in groups:
        for one in sorted(members, key=lambda c: (-c.train, c.name))[:_ROWS]:
            table.add_row(one.name, one.group, f"{one.train:,}", f"{one.gallery:,}")
        if len(members) > _ROWS:
            table.add_row(f"and {len(members) - _ROWS} more", group)
    return table


def _examples(found: DataCheck) -> Iterator[str]:
    for one in (found.train, found.gallery):
        yield from (f"not there: {path}" for path in one.missing[:_SHOWN])
        yield from (f"no picture: {path}" for path in one.unreadable[:_SHOWN])
        yield from (f"image {b.image_id}: the box of {b.class_name!r} {b.reason}" for b in one.odd_boxes[:_SHOWN])
        yield from (f"the same content: {', '.join(group)}" for group in one.duplicates[:_SHOWN])
    yield from (f"in training as {a}, in the gallery as {b}" for a, b in found.in_both[:_SHOWN])
    yield from (f"a class of one set alone: {name}" for name in found.not_in_both[:_SHOWN])
