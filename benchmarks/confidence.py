"""Measure the calibration error of FOR's probabilities on the toy world, in the usual setting and in variations.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.confidence --demo runs/demo --out docs/results/confidence_toyworld.json

Uses the world and the model of each seed of the demo. Each case changes one thing of the case `as it is`:

- without class vectors: base classes are searched by their plain text vectors, as novel classes are;
- learned from photos trained on: the calibration is fitted to the training images and classes of the head itself;
- classes a quarter as common: three in four of the gallery images of each class are left out.

`verdicts` measures the effect of a user who marks the ten best images of a novel text as right or wrong. The error is
that of ranks 11 to 50, the number of images that of the whole list. It is measured with all images, and with three in
four of the class's images removed from the gallery.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.demo_runs import demo_arguments
from forclip.atomic_write import write_text_atomically
from forclip.calibration.fit import fit_calibration
from forclip.calibration.model import Calibration, estimate_confidence, update_with_verdicts
from forclip.embedding.row_shards import one_view
from forclip.evaluation.confidence import ConfidenceReport, evaluate_confidence, reliability, summarise_confidence
from forclip.experiments.comparison import Task
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.retrieval_model import RetrievalModel, from_pretrained
from forclip.progress import untracked
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.training.score_images import score_images
from forclip.types import Bools, Doubles, Floats

Verdicts = dict[str, dict[str, float]]
_KEPT_FRACTION = 0.25
_NUM_VERDICTS = 10
COMMAND = "forclip demo --out runs/demo --seeds 3 && python -m benchmarks.confidence --demo runs/demo --out FILE"


def main() -> None:
    runs = demo_arguments(__doc__)
    by_seed = [measure(runs.demo, seed) for seed in runs.seeds]
    summed = {case: summarise_confidence([reports[case] for reports, _ in by_seed]) for case in by_seed[0][0]}
    verdicts = _mean_verdicts([verdicts for _, verdicts in by_seed])
    content = {"command": COMMAND, "seeds": runs.seeds, "cases": summed, "verdicts": verdicts}
    write_text_atomically(runs.out, json.dumps(content, indent=1) + "\n")
    Console().print(_table(summed))
    Console().print_json(data=verdicts)


def measure(demo: Path, seed: int) -> tuple[dict[str, ConfidenceReport], Verdicts]:
    """Measure one seed: the report of each case, and the effect of verdicts.

    Raises ValueError if the seed's model has no calibration.
    """
    backbone = load_open_clip("forclip-mini", None)
    config = toyworld_config(ToyWorld(demo / f"world-{seed}", novel_names(seed)), seed)
    config = replace(config, train=replace(config.train, views=1))  # only the plain images
    task = load_task(config, backbone, untracked, Console(stderr=True))
    model = from_pretrained(demo / f"model-{seed}", backbone=backbone)
    if model.calibration is None or model.class_vectors is None:
        raise ValueError(f"{demo / f'model-{seed}'}: has no calibration")
    plain = _gallery_scores(model, task, with_class_vectors=False)
    scores = _gallery_scores(model, task, with_class_vectors=True)
    labels = task.gallery.labels
    rarer = ~labels | (np.random.default_rng([seed, 17]).random(labels.shape) < _KEPT_FRACTION)
    reports = {
        "as it is": _evaluate(model.calibration, scores, task),
        "without class vectors": _evaluate(model.calibration, plain, task),
        "learned from photos trained on": _evaluate(_fit_on_training_images(model, task, seed), scores, task),
        "classes a quarter as common": _evaluate(model.calibration, scores, task, rarer),
    }
    novel = [task.gallery.class_names.index(name) for name in task.split.novel]
    return reports, {
        case: _measure_verdicts(model.calibration, scores[:, novel], labels[:, novel], kept[:, novel])
        for case, kept in (("as it is", np.ones_like(labels)), ("a quarter as common", rarer))
    }


def _measure_verdicts(calibration: Calibration, scores: Floats, labels: Bools, kept: Bools) -> dict[str, float]:
    """Calibration error and error factor of the count, before and after verdicts on the best images of each class.

    scores, labels, kept: [I, C]; kept: images that are in the gallery of a class.
    """
    probabilities: dict[str, list[Doubles]] = {"before": [], "after": []}
    factors: dict[str, list[float]] = {"before": [], "after": []}
    right: list[Bools] = []
    for class_scores, label, rows in zip(scores.T, labels.T, kept.T, strict=True):
        order = np.flatnonzero(rows)[np.argsort(-class_scores[rows], kind="stable")]
        ranked, hits = class_scores[order], label[order]
        if not hits.any():
            continue
        right.append(hits[_NUM_VERDICTS:50])
        updated = update_with_verdicts(calibration, ranked[:_NUM_VERDICTS], hits[:_NUM_VERDICTS], ranked)
        for when, current in (("before", calibration), ("after", updated)):
            confidence = estimate_confidence(current, ranked, ranked, len(ranked))
            assert confidence is not None
            probabilities[when].append(confidence.probabilities[_NUM_VERDICTS:50])
            expected = hits[:_NUM_VERDICTS].sum() + confidence.probabilities[_NUM_VERDICTS:].sum()
            factors[when].append(float(np.exp(abs(np.log(max(expected, 1) / hits.sum())))))
    measures: dict[str, float] = {}
    for when in ("before", "after"):
        error = reliability(np.concatenate(probabilities[when]), np.concatenate(right)).error
        assert error is not None
        measures |= {f"ece_{when}": error, f"count_factor_{when}": float(np.median(factors[when]))}
    return measures


def _mean_verdicts(by_seed: list[Verdicts]) -> dict[str, dict[str, float]]:
    """Means over seeds, and sample standard deviations as `_std` if there are several."""
    means: dict[str, dict[str, float]] = {}
    for case, measures in by_seed[0].items():
        values = {name: [verdicts[case][name] for verdicts in by_seed] for name in measures}
        means[case] = {name: float(np.mean(v)) for name, v in values.items()}
        if len(by_seed) > 1:
            means[case] |= {f"{name}_std": float(np.std(v, ddof=1)) for name, v in values.items()}
    return means


def _gallery_scores(model: RetrievalModel, task: Task, with_class_vectors: bool) -> Floats:
    texts = task.texts if model.class_vectors is None or not with_class_vectors else model.class_vectors(task.texts)
    tokens = task.gallery_images.tokens
    scores: Floats = score_images(model.head, tokens, torch.arange(len(tokens)), texts).numpy()
    return scores


def _fit_on_training_images(model: RetrievalModel, task: Task, seed: int) -> Calibration:
    supervision, tokens = task.supervision, one_view(task.train_tokens, 0)
    scores = score_images(model.head, tokens, torch.arange(len(tokens)), supervision.texts).numpy()
    calibration = fit_calibration(scores, supervision.labels, supervision.verified, seed)
    assert calibration is not None
    return calibration


def _evaluate(calibration: Calibration, scores: Floats, task: Task, verified: Bools | None = None) -> ConfidenceReport:
    return evaluate_confidence(calibration, scores, task.gallery.labels, task.gallery.class_names, task.split, verified)


def _table(summed: dict[str, dict[str, Any] | None]) -> Table:
    table = Table("case", "classes", "ECE top 50", "ECE above 0.05", "Brier top 50 (of the rate)", title="toy world")
    for case, report in summed.items():
        for side in ("base", "novel"):
            pairs = (report or {})[side]["pairs"]
            top, likely = pairs["top 50"], pairs["above 0.05"]
            errors = [f"{kind['ece']:.3f} ± {kind['ece_std']:.3f}" for kind in (top, likely)]
            table.add_row(case, side, *errors, f"{top['brier']:.3f} ({top['brier_of_rate']:.3f})")
    return table


if __name__ == "__main__":
    main()
