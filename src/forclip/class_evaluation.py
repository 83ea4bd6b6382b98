"""How well the names of a store's classes find their images: forclip's own evaluation, on stored vectors."""

import lance
import numpy as np

from forclip.evaluation.metrics import max_sim
from forclip.evaluation.protocol import ClassSplit, evaluate_scores
from forclip.evaluation.result import ClassResult, LeftOut
from forclip.index.schema import StoreHeader
from forclip.index.store import read_vectors
from forclip.progress import Advance, silent
from forclip.store_labels import ClassGroup, StoreLabels
from forclip.types import Floats, Ints


def evaluate_classes(
    table: lance.LanceDataset, header: StoreHeader, labels: StoreLabels, texts: Floats, advance: Advance = silent
) -> tuple[tuple[ClassResult, ...], tuple[LeftOut, ...]]:
    """As `forclip eval` does it, of the images that both the store and the labels have, each class over those that are
    verified for it: the classes evaluated, and the others. Their group is for the labels to say.

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
    return report.classes, report.left_out


def group_means(classes: tuple[ClassResult, ...], groups: dict[str, ClassGroup]) -> dict[str, float]:
    """mAP@50 in percent of base and of novel classes, where there are any, and of all that were evaluated."""
    members = {"base": [c for c in classes if groups.get(c.name) == "base"]}
    members["novel"] = [c for c in classes if groups.get(c.name) == "novel"]
    members["all"] = list(classes)
    return {g: float(np.mean([c.average_precision for c in found])) for g, found in members.items() if found}


def _annotated(table: lance.LanceDataset, row_of: dict[str, int]) -> Ints:
    """Numbers of the images that have labels."""
    known = table.to_table(["number", "id"])
    chosen = [i in row_of for i in known["id"].to_pylist()]
    numbers: Ints = known["number"].to_numpy()[np.array(chosen, bool)]
    return numbers
