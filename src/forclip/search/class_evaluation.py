"""How well the names of a store's classes find their images: forclip's own evaluation, on stored vectors."""

from collections.abc import Mapping
from dataclasses import dataclass

import lance
import numpy as np

from forclip.evaluation.metrics import max_sim
from forclip.evaluation.protocol import ClassResult, LeftOut, evaluate_scores
from forclip.index.schema import StoreHeader
from forclip.index.store import read_vectors
from forclip.progress import Advance, silent
from forclip.search.labels import ClassGroup, StoreLabels
from forclip.types import ClassSplit, Floats, Ints


@dataclass(frozen=True)
class ClassEvaluation:
    """images: of the store, that have labels; relevant: [C], how many of them show each class; classes, left_out: those
    evaluated and the others, as in RetrievalReport, but for the group, which is for the labels to say."""

    images: int
    relevant: Ints
    classes: tuple[ClassResult, ...]
    left_out: tuple[LeftOut, ...]

    def means(self, groups: Mapping[str, ClassGroup]) -> dict[str, float]:
        """mAP@50 in percent of base and of novel classes, where there are any, and of all that were evaluated."""
        members = {g: [c for c in self.classes if groups.get(c.name) == g] for g in ("base", "novel")}
        members["all"] = list(self.classes)
        return {g: float(np.mean([c.average_precision for c in of_g])) for g, of_g in members.items() if of_g}


def evaluate_classes(
    table: lance.LanceDataset, header: StoreHeader, labels: StoreLabels, texts: Floats, advance: Advance = silent
) -> ClassEvaluation:
    """As `forclip eval` does it, of the images that both the store and the labels have, each class over those that are
    verified for it.

    table: one version of the store; texts: [C, dim] unit, of the labels' classes; advance: told of images.
    """
    images = labels.images
    row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
    scores = np.full((len(images), len(texts)), np.nan, np.float32)
    for part in read_vectors(table, header.dim, _annotated(table, row_of)):
        rows = [row_of[i] for i in part.images["id"].to_pylist()]
        scores[rows] = max_sim(header.decode(part.codes), part.offsets, texts)
        advance(len(rows))
    there = np.flatnonzero(~np.isnan(scores).any(1))
    found = images.take(there)
    # Each class is evaluated by itself, whatever group it is in.
    all_of_them = ClassSplit(images.class_names, ())
    report = evaluate_scores(scores[there], found.labels, images.class_names, all_of_them, verified=found.verified)
    relevant = (found.labels & found.verified_mask).sum(0)
    return ClassEvaluation(len(there), relevant, report.classes, report.left_out)


def _annotated(table: lance.LanceDataset, row_of: dict[str, int]) -> Ints:
    """Keys of the images that have labels."""
    known = table.to_table(["number", "id"])
    chosen = [i in row_of for i in known["id"].to_pylist()]
    keys: Ints = known["number"].to_numpy()[np.array(chosen, bool)]
    return keys
