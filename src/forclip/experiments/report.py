"""Write report.html from the results of a comparison."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

import forclip
from forclip.config import RunConfig, config_to_json
from forclip.data.images.decode import image_size, read_image
from forclip.data.images.views import PLAIN
from forclip.embedding.embed import find_boxes
from forclip.embedding.regions import window_fractions
from forclip.evaluation.charts import Curve
from forclip.evaluation.methods import best_overall, best_training_free
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.report import ReportPage, write_report
from forclip.evaluation.result_grid import Box, GridHit, GridRow, QueryGrid
from forclip.experiments.comparison import MethodResult, Task
from forclip.types import Floats, ImageEmbeddings, Ints

_NUM_HITS = 8
_NUM_QUERIES = 6
_MIN_RELEVANT = 3  # images of a random query's class
_NUM_EXTREMES = 3  # classes ranked best, and as many ranked worst
_BLOCK_VECTORS = 1 << 18  # scored at once


@dataclass(frozen=True)
class Comparison:
    """Methods measured with one seed. results: by method; history: each objective's value at every training step."""

    task: Task
    config: RunConfig
    results: dict[str, MethodResult]
    history: list[dict[str, float]]

    @property
    def ranked_rows(self) -> Ints:
        """Rows of the gallery images that were ranked."""
        gallery = self.task.gallery
        if self.config.eval.distractors:
            return np.arange(len(gallery))
        return np.flatnonzero((gallery.labels & gallery.verified_mask).any(axis=1))


def write_comparison_report(path: Path, title: str, metrics: Metrics, comparison: Comparison) -> None:
    """Write the page. metrics: of all seeds; comparison: of the seed whose images and curves are shown."""
    queries = _draw_queries(comparison)
    best, worst = extreme_classes(metrics, comparison)
    method = best_overall(metrics) or ""
    # The Cluster-CLIP that is best on novel classes, or on all classes without novel ones.
    cluster_methods = {m: v for m, v in metrics["methods"].items() if m.startswith("cluster_")}
    clusters: Metrics = {**metrics, "methods": cluster_methods}
    best_cluster = best_training_free(clusters, "novel") or best_training_free(clusters, "all")
    history = comparison.history
    steps = tuple(float(step) for step in range(1, len(history) + 1))
    page = ReportPage(
        title=title,
        dataset=metrics["dataset"],
        metrics=metrics,
        curves=tuple(Curve(k, steps, tuple(terms[k] for terms in history), "step") for k in (history or [{}])[0]),
        queries=query_grids(comparison, ["global", *([best_cluster] if best_cluster else []), "for"], queries),
        details={
            "configuration": yaml.safe_dump(config_to_json(comparison.config), sort_keys=False),
            "model fingerprint": comparison.task.backbone.fingerprint,
            "base classes": ", ".join(comparison.task.split.base),
            "novel classes": ", ".join(comparison.task.split.novel),
            "versions": f"forclip {forclip.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        },
        best=query_grids(comparison, [method], best),
        worst=query_grids(comparison, [method], worst),
    )
    write_report(path, page)


def query_grids(comparison: Comparison, methods: Sequence[str], names: Sequence[str]) -> tuple[QueryGrid, ...]:
    """Return a grid for each class name, with a row for each method that was measured.

    Average precision is the evaluation's; images without a verified label are marked neither right nor wrong.
    """
    task, ranked, grids = comparison.task, comparison.ranked_rows, []
    for name in names:
        column = task.gallery.class_names.index(name)
        measured = [comparison.results[method] for method in methods if method in comparison.results]
        rows = tuple(_grid_row(task, result, name, column, ranked) for result in measured)
        grids.append(QueryGrid(name, name in task.split.novel, int(task.gallery.labels[ranked, column].sum()), rows))
    return tuple(grids)


def _grid_row(task: Task, result: MethodResult, name: str, column: int, ranked: Ints) -> GridRow:
    """Rank the images in the rows `ranked` by the best of the class's texts."""
    gallery = task.gallery
    texts = result.texts[np.flatnonzero(task.text_owners == column)].numpy()
    scored = [best_vectors(result.embeddings, text) for text in texts]
    all_scores, all_winners = (np.stack(parts) for parts in zip(*scored, strict=True))
    best_text = all_scores.argmax(0)[None]
    scores = np.take_along_axis(all_scores, best_text, 0)[0]
    winners = np.take_along_axis(all_winners, best_text, 0)[0]
    rows = ranked[rank(scores[ranked], tuple(gallery.image_ids[row] for row in ranked), _NUM_HITS)]
    hits = []
    for row, box in zip(rows, _winning_boxes(task, result, rows, winners), strict=True):
        relevant = bool(gallery.labels[row, column]) if gallery.verified_mask[row, column] else None
        hits.append(GridHit(gallery.paths[row], gallery.image_ids[row], float(scores[row]), relevant, box))
    evaluated = {c.name: c.average_precision for c in result.run.report.classes}
    return GridRow(result.run.method, evaluated.get(name), tuple(hits))


def best_vectors(embeddings: ImageEmbeddings, query: Floats) -> tuple[Floats, Ints]:
    """Score every image by its vector nearest to a unit query [dim].

    Returns the scores [images], cosines, and the winning rows of `embeddings.vectors` [images], the first of equal
    ones. Raises ValueError if the query has another dimension.
    """
    if query.shape != (embeddings.dim,):
        raise ValueError(f"the query has shape {query.shape}, the vectors have {embeddings.dim} dimensions")
    blocks = range(0, len(embeddings.vectors), _BLOCK_VECTORS)
    cosines = np.concatenate([embeddings.vectors[b : b + _BLOCK_VECTORS] @ query for b in blocks])
    scores = np.maximum.reduceat(cosines, embeddings.offsets[:-1])
    owner = np.repeat(np.arange(len(embeddings)), np.diff(embeddings.offsets))
    hits = np.flatnonzero(cosines == scores[owner])
    _, first = np.unique(owner[hits], return_index=True)
    return scores, hits[first]


def rank(scores: Floats, image_ids: tuple[str, ...], k: int) -> Ints:
    """Return the positions of the best k images, best first, ties by image id. Raises ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    k = min(k, len(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    best = sorted(candidates.tolist(), key=lambda row: (-scores[row], image_ids[row]))
    return np.array(best[:k], np.int64)


def _winning_boxes(task: Task, result: MethodResult, rows: Ints, winners: Ints) -> list[Box | None]:
    """Return the region of the best vector of each image in `rows`. winners: that vector's index, of every image.

    A vector of plain CLIP comes from everything that it was shown: a tile, or the whole image, which is no region.
    """
    return [vector_box(task, result, row, int(winners[row] - result.embeddings.offsets[row])) for row in rows.tolist()]


@torch.inference_mode()
def vector_box(task: Task, result: MethodResult, row: int, position: int) -> Box | None:
    """Return the region of one vector of an image, encoding only the part that it comes from."""
    of_part = int(result.embeddings.offsets[row + 1] - result.embeddings.offsets[row]) // len(result.views)
    view, backbone = result.views[position // of_part], task.backbone
    if result.run.method == "global":
        return None
    encoded = task.gallery_images.tokens
    if view == PLAIN and isinstance(encoded, Tensor):
        tokens, size = encoded[row][None], image_size(task.gallery.paths[row]) or (1, 1)
    else:
        image = read_image(task.gallery.paths[row])
        size = image.size
        if result.run.method.startswith("tiles_"):
            return window_fractions(view.window(row, size), size)
        tokens = backbone.encode_tokens(backbone.preprocess(view(row, image))[None].to(backbone.device))
    boxes = find_boxes(backbone, result.head, view, tokens, [size])
    x0, y0, x1, y1 = boxes[position % of_part].tolist()
    return x0, y0, x1, y1


def _draw_queries(comparison: Comparison) -> list[str]:
    """Draw novel classes, or base classes if there are no novel ones, at random, so that none is picked to flatter."""
    task = comparison.task
    relevant = dict(zip(task.gallery.class_names, task.gallery.labels[comparison.ranked_rows].sum(0), strict=True))
    names = [n for n in (task.split.novel or task.split.base) if relevant[n] >= _MIN_RELEVANT]
    rng = np.random.default_rng([comparison.config.train.seed, 11])
    return sorted(rng.choice(names, min(_NUM_QUERIES, len(names)), replace=False).tolist()) if names else []


def extreme_classes(metrics: Metrics, comparison: Comparison) -> tuple[list[str], list[str]]:
    """Return the classes that FOR, or else the best method, ranks best and worst. No class is in both."""
    method = best_overall(metrics)
    if method is None or method not in comparison.results:
        return [], []
    classes = comparison.results[method].run.report.classes
    best = sorted(classes, key=lambda c: (-c.average_precision, -c.num_relevant))[:_NUM_EXTREMES]
    worst = sorted(classes, key=lambda c: (c.average_precision, -c.num_relevant))
    return [c.name for c in best], [c.name for c in worst if c not in best][:_NUM_EXTREMES]
