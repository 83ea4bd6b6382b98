"""Labels of a store's images, and what they say about a ranked list or about all classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

import numpy as np

from forclip.config import NamedSplit, SourceConfig
from forclip.data.formats.recognise import describe_class_folders
from forclip.data.sources import load_source, with_all_splits
from forclip.data.splits import SPLIT_FILE, published_split, read_split
from forclip.data.training_images import describe_training_images, read_training_images
from forclip.evaluation.metrics import AP_DEPTH, max_sim, ranked_average_precision, ranked_precision
from forclip.evaluation.protocol import ClassGroup, ClassResult, LeftOut, evaluate_scores
from forclip.index.protocol import SearchIndex
from forclip.location import Location
from forclip.progress import Advance, silent
from forclip.text.vocabulary import normalise_word
from forclip.types import Annotations, ClassSplit, Floats, Ints, SearchResult


@dataclass(frozen=True)
class StoreLabels:
    """Labels by the store's image ids. images: all annotated images, in the store or not; groups: by class name;
    training: ids of the stored images that trained the store's model, None if its run does not say."""

    images: Annotations
    groups: dict[str, ClassGroup]
    training: frozenset[str] | None = None

    @property
    def num_training(self) -> int | None:
        """How many labelled images of the store trained its model."""
        return None if self.training is None else len(self.training.intersection(self.images.image_ids))

    def class_of(self, text: str) -> int | None:
        """The column of the class that a text names, by its name or by a synonym of no other class, or None.

        Case, underscores and kinds of white space are ignored.
        """
        return self._columns.get(normalise_word(text))

    def checked(self, column: int, shows: bool | None = None) -> list[str]:
        """Ids of the images that were checked for a class; `shows`: only those that show it, or that do not."""
        kept = self.images.verified_mask[:, column]
        kept = kept if shows is None else kept & (self.images.labels[:, column] == shows)
        return [self.images.image_ids[row] for row in np.flatnonzero(kept)]

    def shows(self, image_id: str, column: int) -> bool | None:
        """Whether an image shows a class; None where that was not checked."""
        row = self.rows.get(image_id)
        if row is None or not (self.images.verified is None or self.images.verified[row, column]):
            return None
        return bool(self.images.labels[row, column])

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each image."""
        return {image_id: row for row, image_id in enumerate(self.images.image_ids)}

    @cached_property
    def _columns(self) -> dict[str, int]:
        names = {normalise_word(name): column for column, name in enumerate(self.images.class_names)}
        synonyms = [{normalise_word(s) for s in of_class} for of_class in self.images.synonyms]
        counts = Counter(synonym for of_class in synonyms for synonym in of_class)
        unique = {s: column for column, of_class in enumerate(synonyms) for s in of_class if counts[s] == 1}
        return unique | names


def load_store_labels(index: SearchIndex, source: SourceConfig, split: str | None = None) -> StoreLabels:
    """Load labels of a store's images, matched by path, or by id where the store uses the annotations' ids.

    Args:
        split: a run's folder or the name of a published split; None: the split of the run that wrote the store.

    Raises:
        ValueError: for unreadable annotations, annotations without a class, and where no image is in the store.
    """
    annotations = load_source(with_all_splits(source))
    if not annotations.class_names:
        folders = describe_class_folders(source.annotations)
        problem = "pictures without any label: there is nothing to compare with"
        raise ValueError(f"{source.annotations}: {problem}{folders and f'; {folders}'}")
    names = annotations.class_names
    class_split: ClassSplit | None
    if split in get_args(NamedSplit):
        base, novel = published_split(cast(NamedSplit, split), names, source.annotations)
        class_split = ClassSplit(tuple(n for n in names if n not in novel) if base is None else base, novel)
    else:
        class_split = read_split(index.store.model_folder if split is None else Path(split))
    if class_split is None and split is not None:
        known = ", ".join(get_args(NamedSplit))
        raise ValueError(f"{split}: no run's folder with a {SPLIT_FILE}, and no published split; published: {known}")
    groups: dict[str, ClassGroup] = {}
    if class_split is not None:
        groups = {name: "base" for name in names if name in class_split.base}
        groups |= {name: "novel" for name in names if name in class_split.novel}
    annotations = _merge_same_files(annotations)
    by_path = [index.store.id_of(path) for path in annotations.paths]
    stored = index.store.known_ids([*annotations.image_ids, *by_path])
    pairs = zip(annotations.image_ids, by_path, strict=True)
    ids = [own if own in stored and of_path not in stored else of_path for own, of_path in pairs]
    if stored.isdisjoint(ids):
        raise ValueError(
            f"{source.annotations}: none of its {len(ids)} images is in the store {index.name}; "
            f"the first is {ids[0]}, the store's first {index.store.first_id() or 'nothing'}"
            + ("" if source.images else "; --images says which folder its names are relative to")
        )
    return StoreLabels(replace(annotations, image_ids=tuple(ids)), groups, _training_images(index))


def _training_images(index: SearchIndex) -> frozenset[str] | None:
    """Return the ids of the stored images that trained the store's model, by content; None if its run does not say."""
    digests = read_training_images(index.store.model_folder)
    if digests is None:
        return None
    return index.store.ids_with_content(frozenset(digests))


def _merge_same_files(images: Annotations) -> Annotations:
    """Join the rows of each file: an annotation file may list a picture under several ids."""
    first: dict[Location, int] = {}
    for row, path in enumerate(images.paths):
        first.setdefault(path, row)
    if len(first) == len(images):
        return images
    kept = np.array(list(first.values()))
    rows = np.array([first[path] for path in images.paths])
    labels, verified = images.labels.copy(), images.verified_mask.copy()
    np.logical_or.at(labels, rows, images.labels)
    np.logical_or.at(verified, rows, images.verified_mask)
    merged = replace(images, labels=labels, box_images=rows[images.box_images])
    merged = merged if images.verified is None else replace(merged, verified=verified)
    return merged.take(kept)


def describe_matches(labels: StoreLabels, index: SearchIndex) -> str:
    """Say in one or two sentences how many images have labels and how many classes there are."""
    names, matched = labels.images.class_names, len(index.store.known_ids(labels.images.image_ids))
    counts = Counter(labels.groups.get(name, "in neither group") for name in names)
    groups = ", ".join(f"{counts[g]} {g}" for g in ("base", "novel", "in neither group") if counts[g])
    training = f" {describe_training_images(labels.num_training)}." if labels.num_training else ""
    return (
        f"Labels for {matched} of the store's {len(index)} images; {len(labels.images)} are annotated. "
        f"{len(names)} classes: {groups if labels.groups else 'no split says which are base'}.{training}"
    )


@dataclass(frozen=True)
class Relevance:
    """A list compared with the labels of a class.

    images: how many of the searched images show the class (R). precision_at_10, average_precision: in percent, of
    the list without unchecked images, AP@50 over min(50, R); None where no image shows the class. missed: ids of the
    images that show the class and are not among the first 50 of the whole list, best first.
    """

    images: int
    precision_at_10: float | None
    average_precision: float | None
    missed: tuple[str, ...]


def evaluate_list(
    index: SearchIndex, labels: StoreLabels, column: int, query: Floats, where: str | None = None, exact: bool = False
) -> Relevance:
    """Compare the list of a text's vector, unit [dim], with the labels of a class."""
    right = index.search_among(labels.checked(column, shows=True), query, where=where)
    first = {r.image_id for r in index.search(query, AP_DEPTH, where, exact)}
    missed = tuple(r.image_id for r in right if r.image_id not in first)
    if not right:
        return Relevance(0, None, None, missed)
    checked = index.search_among(labels.checked(column), query, AP_DEPTH, where)
    best = np.array([labels.shows(r.image_id, column) for r in checked], bool)
    # Both metrics count all relevant images, so those beyond the depth are appended. The store may change meanwhile.
    ranked = np.concatenate([best, np.ones(max(0, len(right) - int(best.sum())), bool)])
    precision, average = ranked_precision(ranked, 10), ranked_average_precision(ranked, AP_DEPTH)
    return Relevance(len(right), 100 * precision, 100 * average, missed)


def rank_in_whole_list(
    index: SearchIndex, image_ids: Sequence[str], query: Floats, k: int | None = None, where: str | None = None
) -> list[SearchResult]:
    """Return the best k of some images, or all, with their ranks in the whole list, first among equals."""
    if not (results := index.search_among(image_ids, query, k, where)):
        return []
    scores = np.sort(index.scores(query, where=where))
    better = len(scores) - np.searchsorted(scores, np.array([r.score for r in results], np.float32), "right")
    # Each result gets a rank of its own, so that a rank names one image.
    ranks = np.maximum.accumulate(better - np.arange(len(results))) + np.arange(len(results)) + 1
    return [replace(r, rank=int(rank)) for r, rank in zip(results, ranks, strict=True)]


@dataclass(frozen=True)
class ClassEvaluation:
    """How well the names of all classes find their images.

    images: images of the store that have labels; relevant: [C], how many of them show each class; classes, left_out:
    the evaluated classes and the others, as in RetrievalReport but without groups (StoreLabels has those).
    """

    images: int
    relevant: Ints
    classes: tuple[ClassResult, ...]
    left_out: tuple[LeftOut, ...]

    def means(self, groups: Mapping[str, ClassGroup]) -> dict[str, float]:
        """mAP@50 in percent of base, novel and all evaluated classes; a group without classes is absent."""
        members = {g: [c for c in self.classes if groups.get(c.name) == g] for g in ("base", "novel")}
        members["all"] = list(self.classes)
        return {g: float(np.mean([c.average_precision for c in of_g])) for g, of_g in members.items() if of_g}


def evaluate_classes(
    index: SearchIndex, labels: StoreLabels, texts: Floats, advance: Advance = silent
) -> ClassEvaluation:
    """Evaluate all classes as `forclip eval` does, each over the stored images that were checked for it.

    Args:
        texts: [C, dim] unit vectors of the labels' classes.
        advance: is called with the number of images done.
    """
    images = labels.images
    scores = np.full((len(images), len(texts)), np.nan, np.float32)
    for part in index.read_images(images.image_ids):
        rows = [labels.rows[i] for i in part.images["id"].to_pylist()]
        scores[rows] = max_sim(index.store.header.decode(part.codes), part.offsets, texts)
        advance(len(rows))
    scored = np.flatnonzero(~np.isnan(scores).any(1))
    evaluated = images.take(scored)
    one_group = ClassSplit(images.class_names, ())  # each class is evaluated by itself, whatever its group
    labelled = (evaluated.labels, images.class_names, one_group)
    report = evaluate_scores(scores[scored], *labelled, verified=evaluated.verified)
    relevant = (evaluated.labels & evaluated.verified_mask).sum(0)
    return ClassEvaluation(len(scored), relevant, report.classes, report.left_out)
