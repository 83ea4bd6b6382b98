"""Check a configuration's data for mistakes before training on it."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from forclip.config import DataConfig, SourceConfig
from forclip.data.formats.file_names import NOT_FOUND
from forclip.data.images.box_frames import convert_boxes
from forclip.data.images.content import find_identical_files
from forclip.data.images.decode import read_header
from forclip.data.images.fetch import is_there
from forclip.data.left_out import LeftOutWarning, describe_left_out
from forclip.data.sources import load_sets, load_source, with_all_splits
from forclip.data.splits import check_prompts, choose_classes
from forclip.progress import Advance, Track
from forclip.text.prompt_options import read_prompt_options
from forclip.types import Annotations, SkippedEntry

_EXAMPLES = 5  # of each kind of finding in the terminal; the JSON has all
_ROWS = 40  # classes of each group in the table
_SLACK = 1.0  # pixels that a box may stick out, because annotation tools round


@dataclass(frozen=True)
class OddBox:
    """A box without area, smaller than a pixel, or outside its image. box: xyxy in pixels of the upright image."""

    image_id: str
    class_name: str
    box: tuple[float, float, float, float]
    reason: str


@dataclass(frozen=True)
class SetCheck:
    """Findings in one set.

    missing, unreadable: paths; duplicates: groups of ids of images with the same content; left_out: entries of the
    label files that can't be used. A gallery from the same files as the training set has none, so that each is listed
    once.
    """

    images: int
    without_label: int
    labels: int
    boxes: int
    missing: list[str]
    unreadable: list[str]
    odd_boxes: list[OddBox]
    duplicates: list[list[str]]
    left_out: list[SkippedEntry]

    @property
    def pictures_missing(self) -> bool:
        """Whether a picture that a label file names is not there, whatever the kind of its name."""
        return bool(self.missing) or any(entry.reason == NOT_FOUND for entry in self.left_out)

    def problems(self, name: str) -> list[str]:
        """What should be corrected, one sentence each. name: of the set."""
        counts = {
            ("image is missing", "images are missing"): len(self.missing),
            ("file is not readable as an image", "files are not readable as images"): len(self.unreadable),
            ("box is odd", "boxes are odd"): len(self.odd_boxes),
            ("group of images has the same content", "groups of images have the same content"): len(self.duplicates),
        }
        left_out = [describe_left_out(name, self.left_out)] if self.left_out else []
        return [f"{name}: {count} {problem[count > 1]}" for problem, count in counts.items() if count] + left_out

    def examples(self) -> Iterator[str]:
        """The first findings of each kind."""
        yield from (f"missing: {path}" for path in self.missing[:_EXAMPLES])
        yield from (f"unreadable: {path}" for path in self.unreadable[:_EXAMPLES])
        boxes = self.odd_boxes[:_EXAMPLES]
        yield from (f"image {b.image_id}: the box of {b.class_name!r} {b.reason}: {_numbers(b.box)}" for b in boxes)
        yield from (f"same content: {', '.join(group)}" for group in self.duplicates[:_EXAMPLES])
        yield from _examples_left_out(self.left_out)


@dataclass(frozen=True)
class ClassCheck:
    """How many images of each set show a class, and for how many the label is verified."""

    name: str
    group: str
    train: int
    train_verified: int
    gallery: int
    gallery_verified: int


@dataclass(frozen=True)
class DataCheck:
    """All findings. in_both: ids in training and gallery of images with the same content; not_in_both: classes that
    only one of the sets has."""

    train: SetCheck
    gallery: SetCheck
    in_both: list[tuple[str, str]]
    not_in_both: list[str]
    classes: list[ClassCheck]

    @property
    def pictures_missing(self) -> bool:
        """Whether a picture of one of the sets is missing."""
        return self.train.pictures_missing or self.gallery.pictures_missing

    @property
    def problems(self) -> list[str]:
        """What should be corrected, one sentence each."""
        problems = self.train.problems("training") + self.gallery.problems("gallery")
        if self.in_both:
            images = "image is" if len(self.in_both) == 1 else "images are"
            problems.append(f"{len(self.in_both)} gallery {images} also in training, so results would be too good")
        for group, where in (("base", "training"), ("novel", "gallery")):
            unseen = [c.name for c in self.classes if c.group == group and not (c.train, c.gallery)[group == "novel"]]
            if unseen:
                more = f" and {len(unseen) - _EXAMPLES} more" if len(unseen) > _EXAMPLES else ""
                problems.append(f"{group} classes in no {where} image: {', '.join(unseen[:_EXAMPLES])}{more}")
        return problems


def check_data(data: DataConfig, track: Track) -> DataCheck:
    """Read annotations, compare file contents and read image headers. Raises ValueError as the loaders do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOutWarning)  # the check lists what is left out
        train, gallery = load_sets(data)
    split = choose_classes(data, train, gallery)
    check_prompts(train, split, read_prompt_options(data, train, split))
    paths = [*train.paths, *gallery.paths]
    groups = find_identical_files(paths, track("comparing contents", len(paths)))
    first = len(train)  # the first row of the gallery
    # One training image for each gallery image: all pairs of a placeholder image would be millions.
    both = [(group[0], row - first) for group in groups for row in group if group[0] < first <= row]
    train_groups = [[row for row in group if row < first] for group in groups]
    gallery_groups = [[row - first for row in group if row >= first] for group in groups]
    names = (*train.class_names, *(n for n in gallery.class_names if n not in set(train.class_names)))
    sets = [images.with_classes(names, add_missing=True) for images in (train, gallery)]
    counts = [((images.labels & images.verified_mask).sum(0), images.verified_mask.sum(0)) for images in sets]
    group_of = {**dict.fromkeys(split.base, "base"), **dict.fromkeys(split.novel, "novel")}
    classes = [
        ClassCheck(name, group_of.get(name, "neither"), *(int(part[k]) for pair in counts for part in pair))
        for k, name in enumerate(names)
    ]
    in_train = set(train.skipped)
    own_skipped = [entry for entry in gallery.skipped if entry not in in_train]
    return DataCheck(
        _check_set(train, train.skipped, train_groups, track("reading headers: training", len(train))),
        _check_set(gallery, own_skipped, gallery_groups, track("reading headers: gallery", len(gallery))),
        [(train.image_ids[a], gallery.image_ids[b]) for a, b in both],
        sorted(set(train.class_names) ^ set(gallery.class_names)),
        classes,
    )


def _check_set(
    images: Annotations, skipped: Sequence[SkippedEntry], groups: list[list[int]], advance: Advance
) -> SetCheck:
    sizes = np.full((len(images), 2), np.inf)  # width and height, infinite if unknown
    missing: list[str] = []
    unreadable: list[str] = []
    headers = []
    for row, path in enumerate(images.paths):
        headers.append(header := read_header(path))
        if header is not None:
            sizes[row] = header.width, header.height
        else:
            (unreadable if is_there(path) else missing).append(str(path))
        advance(1)
    boxes, limits = convert_boxes(images, headers).boxes, sizes[images.box_images]
    no_area = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    outside = np.atleast_1d((boxes[:, :2] < -_SLACK).any(1) | (boxes[:, 2:] > limits + _SLACK).any(1))
    tiny = (boxes[:, 2:] - boxes[:, :2] < 1).all(1)  # perhaps fractions of the width and height
    odd_boxes = []
    for k in np.flatnonzero(no_area | outside | tiny):
        leaves = f"leaves the image of {limits[k][0]:.0f} x {limits[k][1]:.0f}"
        reason = "has no area" if no_area[k] else leaves if outside[k] else "is smaller than a pixel"
        x0, y0, x1, y1 = (float(v) for v in boxes[k])
        image, name = images.image_ids[images.box_images[k]], images.class_names[images.box_classes[k]]
        odd_boxes.append(OddBox(image, name, (x0, y0, x1, y1), reason))
    return SetCheck(
        images=len(images),
        without_label=int((~images.labels.any(1)).sum()),
        labels=int(images.labels.sum()),
        boxes=len(images.boxes),
        missing=missing,
        unreadable=unreadable,
        odd_boxes=odd_boxes,
        duplicates=[[images.image_ids[r] for r in group] for group in groups if len(group) > 1],
        left_out=list(skipped),
    )


def check_labels(source: SourceConfig, track: Track) -> SetCheck:
    """Check one label file or folder by itself, as `check_data` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOutWarning)
        images = load_source(with_all_splits(source))
    groups = find_identical_files(images.paths, track("comparing contents", len(images)))
    return _check_set(images, images.skipped, groups, track("reading headers", len(images)))


def print_set(name: str, check: SetCheck, console: Console) -> None:
    """Print what was found in one set, as `print_check` does for two."""
    console.print(_table_of_sets({name: check}))
    _print_findings(check.problems(name), list(check.examples()), console)


def _table_of_sets(sets: Mapping[str, SetCheck]) -> Table:
    counts = ("images", "no label", "labels", "boxes", "missing", "corrupt", "odd boxes", "same content")
    table = Table("set", *(Column(name, justify="right") for name in counts), box=None)
    for name, one in sets.items():
        found = (len(one.missing), len(one.unreadable), len(one.odd_boxes), len(one.duplicates))
        table.add_row(name, *(f"{n:,}" for n in (one.images, one.without_label, one.labels, one.boxes, *found)))
    return table


def _print_findings(problems: Sequence[str], examples: Sequence[str], console: Console) -> None:
    for message in problems:
        console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for example in examples:
        console.print(f"  {example}", markup=False, highlight=False, soft_wrap=True)
    if not problems:
        console.print("no problem was found", style="green")


def print_check(check: DataCheck, console: Console) -> None:
    """Print a table of the sets, one of the classes, the problems, and examples of each finding."""
    console.print(_table_of_sets({"training": check.train, "gallery": check.gallery}))
    groups = {group: [c for c in check.classes if c.group == group] for group in ("base", "novel", "neither")}
    title = ", ".join(f"{len(members)} {group}" for group, members in groups.items()) + "; images that show each"
    numbers = (Column(name, justify="right") for name in ("training", "gallery"))
    table = Table("class", "group", *numbers, title=title, box=None, title_justify="left")
    for group, members in groups.items():
        for row in sorted(members, key=lambda c: (-c.train, c.name))[:_ROWS]:
            table.add_row(Text(row.name), row.group, f"{row.train:,}", f"{row.gallery:,}")
        if len(members) > _ROWS:
            table.add_row(f"and {len(members) - _ROWS} more", group)
    console.print(table)
    examples = [*check.train.examples(), *check.gallery.examples()]
    examples += (f"in training as {a}, in the gallery as {b}" for a, b in check.in_both[:_EXAMPLES])
    examples += (f"a class of only one set: {name}" for name in check.not_in_both[:_EXAMPLES])
    _print_findings(check.problems, examples, console)


def _numbers(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _examples_left_out(skipped: Sequence[SkippedEntry]) -> Iterator[str]:
    """The first entries of each reason."""
    by_reason: dict[str, list[SkippedEntry]] = defaultdict(list)
    for entry in skipped:
        by_reason[entry.reason].append(entry)
    for reason, entries in by_reason.items():
        for entry in entries[:_EXAMPLES]:
            value = f": {entry.value}" if entry.value else ""
            yield f"{'used in part' if entry.used_in_part else 'left out'}: {entry.entry}: {reason}{value}"
