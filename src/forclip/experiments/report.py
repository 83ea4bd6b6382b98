"""From what a comparison measured to report.html."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

import forclip
from forclip.config import RunConfig, config_to_json
from forclip.embedding.embed import embed_tokens, with_boxes_in_images
from forclip.evaluation.methods import best_overall, best_training_free
from forclip.evaluation.metrics import average_precision_at
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import ClassResult
from forclip.evaluation.report import Curve, GridHit, GridRow, QueryGrid, ReportPage, write_report
from forclip.experiments.comparison import Measured, Task
from forclip.index.in_memory import best_vectors, rank
from forclip.types import Floats, ImageEmbeddings, Ints

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
    found = with_boxes_in_images(found, task.backbone, sizes)
    assert found.boxes is not None
    within = winners[rows] - measured.embeddings.offsets[rows]  # which of the image's own vectors won
    x0, y0, x1, y1 = found.boxes[found.offsets[:-1] + within].T.tolist()
    return list(zip(x0, y0, x1, y1, strict=True))


NUM_QUERIES = 6
NUM_EXTREMES = 3  # classes ranked best, and as many ranked worst
_MIN_RELEVANT = 3  # a query with fewer right answers makes a poor picture


@dataclass(frozen=True)
class ReportContents:
    """One seed's comparison. measured: by method name; history: each objective's value at every training step."""

    task: Task
    config: RunConfig
    measured: dict[str, Measured]
    history: list[dict[str, float]]


def tell(path: Path, title: str, metrics: Metrics, story: ReportContents) -> None:
    """Writes the page: the numbers of all seeds, the pictures and curves of this one."""
    if not story.config.eval.distractors:
        story = _without_distractors(story)
    queries = pick_queries(story.task, story.config.train.seed, NUM_QUERIES, _MIN_RELEVANT)
    best, worst = _extremes(metrics, story)
    page = ReportPage(
        title,
        metrics["dataset"],
        metrics,
        _curves(story.history),
        _grids(story, _shown(metrics, story), queries),
        _details(story),
        best,
        worst,
    )
    write_report(path, page)


def _extremes(metrics: Metrics, story: ReportContents) -> tuple[tuple[QueryGrid, ...], tuple[QueryGrid, ...]]:
    """What FOR, or the best method, finds for the classes that it ranks best and worst; no class is in both."""
    method = best_overall(metrics)
    if method is None or method not in story.measured:
        return (), ()
    classes = story.measured[method].run.report.classes
    best = [c.name for c in sorted(classes, key=lambda c: (-c.average_precision, -c.num_relevant))[:NUM_EXTREMES]]
    others = [c for c in classes if c.name not in best]
    worst = [c.name for c in sorted(others, key=lambda c: (c.average_precision, -c.num_relevant))[:NUM_EXTREMES]]
    shown = [(method, story.measured[method])]
    return _grids(story, shown, best), _grids(story, shown, worst)


def _grids(story: ReportContents, shown: list[tuple[str, Measured]], names: list[str]) -> tuple[QueryGrid, ...]:
    """Result grids whose average precision is the evaluation's own, and that don't call wrong what nobody checked."""
    results = {method: {c.name: c for c in m.run.report.classes} for method, m in shown}
    return tuple(_as_evaluated(story.task, grid, results) for grid in query_grids(story.task, shown, names))


def _as_evaluated(task: Task, grid: QueryGrid, results: dict[str, dict[str, ClassResult]]) -> QueryGrid:
    verified = task.gallery.verified_mask[:, task.gallery.class_names.index(grid.text)]
    unknown = {task.gallery.image_ids[row] for row in np.flatnonzero(~verified)}

    def hit(found: GridHit) -> GridHit:
        return replace(found, relevant=None) if found.image_id in unknown else found

    def row(given: GridRow) -> GridRow:
        result = results[given.method].get(grid.text)
        precision = None if result is None else result.average_precision
        return replace(given, average_precision=precision, hits=tuple(hit(h) for h in given.hits))

    return replace(grid, rows=tuple(row(r) for r in grid.rows))


def _without_distractors(story: ReportContents) -> ReportContents:
    """Only the images that were ranked, so that the pictures are those of the numbers. Copies their tokens."""
    task = story.task
    rows = np.flatnonzero((task.gallery.labels & task.gallery.verified_mask).any(axis=1))
    images = replace(task.gallery_images, tokens=task.gallery_images.tokens[rows], rows=task.gallery_images.rows[rows])
    measured = {
        method: replace(m, embeddings=_embeddings_of(m.embeddings, rows)) for method, m in story.measured.items()
    }
    return replace(story, task=replace(task, gallery=task.gallery.take(rows), gallery_images=images), measured=measured)


def _embeddings_of(embeddings: ImageEmbeddings, rows: Ints) -> ImageEmbeddings:
    counts = np.diff(embeddings.offsets)[rows]
    owners = np.repeat(np.arange(len(embeddings)), np.diff(embeddings.offsets))
    kept = np.isin(owners, rows)  # rows rise, so that the order stays
    boxes = None if embeddings.boxes is None else embeddings.boxes[kept]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ImageEmbeddings(embeddings.vectors[kept], offsets, tuple(embeddings.image_ids[r] for r in rows), boxes)


def _shown(metrics: Metrics, story: ReportContents) -> list[tuple[str, Measured]]:
    """Plain CLIP, the best Cluster-CLIP on novel classes (on all, where there is no novel one), and FOR."""
    clusters = {m: v for m, v in metrics["methods"].items() if m.startswith("cluster_")}
    best = best_training_free({**metrics, "methods": clusters}, "novel")
    best = best or best_training_free({**metrics, "methods": clusters}, "all")
    return [(m, story.measured[m]) for m in ("global", best, "for") if m in story.measured]


def _curves(history: list[dict[str, float]]) -> tuple[Curve, ...]:
    if not history:
        return ()
    steps = tuple(float(s) for s in range(1, len(history) + 1))
    return tuple(Curve(name, steps, tuple(h[name] for h in history), "step") for name in history[0])


def _details(story: ReportContents) -> dict[str, str]:
    return {
        "configuration": yaml.safe_dump(config_to_json(story.config), sort_keys=False),
        "model fingerprint": story.task.backbone.fingerprint,
        "base classes": ", ".join(story.task.split.base),
        "novel classes": ", ".join(story.task.split.novel),
        "versions": f"forclip {forclip.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
