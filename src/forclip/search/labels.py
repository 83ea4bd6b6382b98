"""Labels of a store's images: annotations of the same pictures, and which classes the model was finetuned with."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from forclip.config import NamedSplit, SourceConfig
from forclip.data.sources import load_source
from forclip.data.splits import SPLIT_FILE, published_split, read_split
from forclip.embedding.ingest import path_to_id
from forclip.evaluation.metrics import ranked_average_precision, ranked_precision
from forclip.index.image_index import Index
from forclip.text.vocabulary import normalise_word
from forclip.types import Annotations, Bools, ClassSplit, Floats, SearchResult

ClassGroup = Literal["base", "novel"]


@dataclass(frozen=True)
class StoreLabels:
    """images: all that are annotated, by the store's ids, whether the store has them or not; groups: by class, of those
    that the split names."""

    images: Annotations
    groups: dict[str, ClassGroup]

    def class_of(self, text: str) -> int | None:
        """The column of the class that a text names, by its name or a synonym of no other class; case, underscores and
        the kind of space don't count."""
        return self._columns.get(normalise_word(text))

    def verdicts(self, column: int) -> tuple[list[str], Bools]:
        """Ids of the images that someone has checked for a class, and whether they show it."""
        images = self.images
        rows = np.arange(len(images)) if images.verified is None else np.flatnonzero(images.verified[:, column])
        return [images.image_ids[row] for row in rows], images.labels[rows, column]

    def shows(self, image_id: str, column: int) -> bool | None:
        """Whether an image shows a class; None where nobody has checked it."""
        row = self._rows.get(image_id)
        known = row is not None and (self.images.verified is None or self.images.verified[row, column])
        return bool(self.images.labels[row, column]) if known else None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.images.image_ids)}

    @cached_property
    def _columns(self) -> dict[str, int]:
        names = {normalise_word(name): column for column, name in enumerate(self.images.class_names)}
        others = [{normalise_word(s) for s in synonyms} for synonyms in self.images.synonyms]
        times = Counter(synonym for of_class in others for synonym in of_class)
        synonyms = {s: column for column, of_class in enumerate(others) for s in of_class if times[s] == 1}
        return synonyms | names


def load_store_labels(index: Index, source: SourceConfig, split: str | None = None) -> StoreLabels:
    """Of a store that `forclip index` made, or one whose ids are those of the annotations.

    split: a run's folder, or a published split's name; None: that of the run which the store's model is, if it is one.
    Raises ValueError as the format's loader does, and for annotations without a class or of none of the store's images.
    """
    annotations = load_source(source)
    if not annotations.class_names:
        raise ValueError(f"{source.annotations}: pictures without any label: there is nothing to compare with")
    groups = _groups(index, annotations, source.annotations, split)
    there = index.store.ids()
    ids = tuple(_id_in(there, path, i) for path, i in zip(annotations.paths, annotations.image_ids, strict=True))
    if there.isdisjoint(ids):
        raise ValueError(
            f"{source.annotations}: none of its {len(ids)} images is in the store {index.store.folder}; "
            f"the first is {ids[0]}, the store's first {min(there, default='nothing')}"
        )
    return StoreLabels(replace(annotations, image_ids=ids), groups)


def tell_matches(labels: StoreLabels, index: Index) -> str:
    """How many of each side have found each other, and how many classes there are, in one sentence."""
    there, names = index.store.ids(), labels.images.class_names
    both = len(there.intersection(labels.images.image_ids))
    counts = Counter(labels.groups.get(name, "in neither group") for name in names)
    told = ", ".join(f"{counts[g]} {g}" for g in ("base", "novel", "in neither group") if counts[g])
    return (
        f"Labels for {both} of the store's {len(there)} images; {len(labels.images)} are annotated. "
        f"{len(names)} classes: {told if labels.groups else 'no split says which are base'}."
    )


def _id_in(there: Set[str], path: Path, image_id: str) -> str:
    by_path = path_to_id(path)
    return image_id if image_id in there and by_path not in there else by_path


def _groups(index: Index, annotations: Annotations, place: Path, split: str | None) -> dict[str, ClassGroup]:
    found = _split(index, annotations.class_names, place, split)
    if found is None:
        return {}
    named: dict[str, ClassGroup] = {**dict.fromkeys(found.base, "base"), **dict.fromkeys(found.novel, "novel")}
    return {name: named[name] for name in annotations.class_names if name in named}


def _split(index: Index, names: tuple[str, ...], place: Path, split: str | None) -> ClassSplit | None:
    if split in get_args(NamedSplit):
        base, novel = published_split(cast(NamedSplit, split), names, place)
        return ClassSplit(tuple(n for n in names if n not in novel) if base is None else base, novel)
    found = read_split(Path(index.store.header.model["name"] if split is None else split))
    if found is None and split is not None:
        known = ", ".join(get_args(NamedSplit))
        raise ValueError(f"{split}: no run's folder with a {SPLIT_FILE}, and no published split; published: {known}")
    return found


DEPTH = 50  # ranks that count


@dataclass(frozen=True)
class Relevance:
    """column: of the class that the text names; relevant: of the images searched, how many show it (R).

    precision_at_10, average_precision: in percent, of the list without the images that nobody has checked, AP@50 over
    min(50, R); None where no image shows the class. missed: ids of those that show it and are not among the first 50 of
    the whole list, best first.
    """

    column: int
    relevant: int
    precision_at_10: float | None
    average_precision: float | None
    missed: tuple[str, ...]


def judge_by_labels(
    index: Index, labels: StoreLabels, column: int, query: Floats, where: str | None = None, exact: bool = False
) -> Relevance:
    """query: unit [dim], the text's; where, exact: as Index.search takes them."""
    ids, shows = labels.verdicts(column)
    right = index.search_among([i for i, s in zip(ids, shows, strict=True) if s], query, where=where)
    first = {r.image_id for r in index.search(query, DEPTH, where, exact)}
    missed = tuple(r.image_id for r in right if r.image_id not in first)
    if not right:
        return Relevance(column, 0, None, None, missed)
    checked = index.search_among(ids, query, DEPTH, where)
    best = np.array([labels.shows(r.image_id, column) for r in checked], bool)
    # Both count all that are relevant, so those beyond the depth are put behind; the store may change meanwhile.
    ranked = np.concatenate([best, np.ones(max(0, len(right) - int(best.sum())), bool)])
    precision, average = ranked_precision(ranked, 10), ranked_average_precision(ranked, DEPTH)
    return Relevance(column, len(right), 100 * precision, 100 * average, missed)


def missed_images(index: Index, relevance: Relevance, query: Floats, where: str | None = None) -> list[SearchResult]:
    """Those, with their rank in the whole list."""
    return _placed(index, query, index.search_among(relevance.missed, query, where=where), where)


def wrong_images(
    index: Index, labels: StoreLabels, column: int, query: Floats, k: int, where: str | None = None
) -> list[SearchResult]:
    """The best k images that were checked and don't show the class, with their rank in the whole list."""
    ids, shows = labels.verdicts(column)
    wrong = [i for i, s in zip(ids, shows, strict=True) if not s]
    return _placed(index, query, index.search_among(wrong, query, k, where), where)


def _placed(index: Index, query: Floats, results: Sequence[SearchResult], where: str | None) -> list[SearchResult]:
    """Ranked as in the whole list. Of equal scores these come first."""
    if not results:
        return []
    every = np.sort(index.scores(query, where=where))
    better = len(every) - np.searchsorted(every, np.array([r.score for r in results], np.float32), "right")
    # Each of its own, so that a rank names one image.
    ranks = np.maximum.accumulate(better - np.arange(len(results))) + np.arange(len(results)) + 1
    return [replace(r, rank=int(rank)) for r, rank in zip(results, ranks, strict=True)]
