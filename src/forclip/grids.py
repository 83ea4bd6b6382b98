"""Result grids of a comparison: what each method brings up for a few text queries."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from forclip.comparison import Measured, Task
from forclip.embedding import embed_tokens, in_pictures
from forclip.evaluation.metrics import average_precision_at
from forclip.evaluation.report import GridHit, GridRow, QueryGrid
from forclip.index.exact import best_vectors, rank
from forclip.types import Floats, Ints

NUM_HITS = 8
Box = tuple[float, float, float, float]


def query_grids(task: Task, shown: Sequence[tuple[str, Measured]], names: Sequence[str]) -> tuple[QueryGrid, ...]:
    """A grid for each class name, a row in it for each method."""
    return tuple(_grid(task, shown, name) for name in names)


def pick_queries(task: Task, seed: int, count: int, min_relevant: int) -> list[str]:
    """Novel names drawn at random, so that nobody picks the flattering ones; base names where there is no novel one."""
    relevant = dict(zip(task.gallery.class_names, task.gallery.labels.sum(0), strict=True))
    names = [n for n in (task.split.novel or task.split.base) if relevant[n] >= min_relevant]
    rng = np.random.default_rng([seed, 11])
    return sorted(rng.choice(names, min(count, len(names)), replace=False).tolist()) if names else []


def _grid(task: Task, shown: Sequence[tuple[str, Measured]], name: str) -> QueryGrid:
    column = task.gallery.class_names.index(name)
    relevant = task.gallery.labels[:, column]
    rows = tuple(_row(task, method, measured, column, relevant) for method, measured in shown)
    return QueryGrid(name, name in task.split.novel, int(relevant.sum()), rows)


def _row(task: Task, method: str, measured: Measured, column: int, relevant: np.ndarray) -> GridRow:
    scores, winners = _best_of_texts(measured, np.flatnonzero(task.text_owners == column))
    best = rank(scores, measured.embeddings.image_ids, NUM_HITS)
    boxes = _places(task, method, measured, best, winners)
    hits = tuple(
        GridHit(task.gallery.paths[r], task.gallery.image_ids[r], float(scores[r]), bool(relevant[r]), box)
        for r, box in zip(best, boxes, strict=True)
    )
    return GridRow(method, 100 * average_precision_at(scores, relevant, 50), hits)


def _best_of_texts(measured: Measured, texts: Ints) -> tuple[Floats, Ints]:
    """As best_vectors, for the best of several texts. texts: rows of measured.texts."""
    found = [best_vectors(measured.embeddings, measured.texts[t].numpy()) for t in texts]
    scores, winners = (np.stack(parts) for parts in zip(*found, strict=True))
    best = scores.argmax(0)[None]
    return np.take_along_axis(scores, best, 0)[0], np.take_along_axis(winners, best, 0)[0]


def _places(task: Task, method: str, measured: Measured, rows: Ints, winners: Ints) -> list[Box | None]:
    """Where the winning vector of each of these images looked. The places of the few images shown are found anew."""
    if method == "global":
        return [None] * len(rows)  # a box round everything points at nothing
    tokens = task.gallery_images.tokens[rows]
    ids = [task.gallery.image_ids[r] for r in rows]
    sizes = [Image.open(task.gallery.paths[r]).size for r in rows]
    found = embed_tokens(measured.head, tokens, ids, task.backbone.device, with_boxes=True)
    found = in_pictures(found, task.backbone, sizes)
    assert found.boxes is not None
    within = winners[rows] - measured.embeddings.offsets[rows]  # which of the image's own vectors won
    x0, y0, x1, y1 = found.boxes[found.offsets[:-1] + within].T.tolist()
    return list(zip(x0, y0, x1, y1, strict=True))
