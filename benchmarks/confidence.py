"""How far FOR's probabilities are off on the toy world, as they are learned and asked, and otherwise.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.confidence --demo runs/demo --out docs/results/confidence_toyworld.json

Reads what the demo left: each seed's world and model. The cases differ in one thing from `as it is`: base classes asked
for without their class vectors, as a novel class is; a calibration learned from the scores of the photos that the head
was trained on, for the classes that it was trained with; classes that are a quarter as common in the gallery as in the
training photos, with three in four of their images left out of the count.

`verdicts`: what someone who looks at a novel text's ten best images changes. The error is over its ranks 11 to 50, the
number of images its whole list's; again with three in four of the images that show it taken out of the gallery.
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
from forclip.evaluation.confidence import ConfidenceReport, evaluate_confidence, summarise_confidence
from forclip.evaluation.reliability import reliability
from forclip.experiments.comparison import Task
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.retrieval_model import RetrievalModel, from_pretrained
from forclip.progress import untracked
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.training.class_holdout import score_images
from forclip.types import Bools, Doubles, Floats

Verdicts = dict[str, dict[str, float]]
COMMON = 0.25
LOOKED_AT = 10
COMMAND = "forclip demo --out runs/demo --seeds 3 && python -m benchmarks.confidence --demo runs/demo --out FILE"


def main() -> None:
    given = demo_arguments(__doc__)
    seeds = given.seeds
    by_seed = [cases(given.demo, seed) for seed in seeds]
    summed = {case: summarise_confidence([found[case] for found, _ in by_seed]) for case in by_seed[0][0]}
    looked = _mean_verdicts([found for _, found in by_seed])
    content = {"command": COMMAND, "seeds": seeds, "cases": summed, "verdicts": looked}
    write_text_atomically(given.out, json.dumps(content, indent=1) + "\n")
    Console().print(_table(summed))
    Console().print_json(data=looked)


def cases(demo: Path, seed: int) -> tuple[dict[str, ConfidenceReport], Verdicts]:
    """Raises ValueError for a model without a calibration."""
    backbone = load_open_clip("forclip-mini", None)
    config = toyworld_config(ToyWorld(demo / f"world-{seed}", novel_names(seed)), seed)
    config = replace(config, train=replace(config.train, views=1))  # only the photos as they are
    task = load_task(config, backbone, untracked, Console(stderr=True))
    model = from_pretrained(demo / f"model-{seed}", backbone=backbone)
    if model.calibration is None or model.class_vectors is None:
        raise ValueError(f"{demo / f'model-{seed}'}: has no calibration")
    plain = _gallery_scores(model, task, with_class_vectors=False)
    asked = _gallery_scores(model, task, with_class_vectors=True)
    labels = task.gallery.labels
    rarer = ~labels | (np.random.default_rng([seed, 17]).random(labels.shape) < COMMON)
    found = {
        "as it is": _evaluated(model.calibration, asked, task),
        "without class vectors": _evaluated(model.calibration, plain, task),
        "learned from photos trained on": _evaluated(_on_trained_photos(model, task, seed), asked, task),
        "classes a quarter as common": _evaluated(model.calibration, asked, task, rarer),
    }
    novel = [task.gallery.class_names.index(name) for name in task.split.novel]
    return found, {
        what: _verdicts(model.calibration, asked[:, novel], labels[:, novel], kept[:, novel])
        for what, kept in (("as it is", np.ones_like(labels)), ("a quarter as common", rarer))
    }


def _verdicts(calibration: Calibration, scores: Floats, labels: Bools, kept: Bools) -> dict[str, float]:
    """Before and after someone looked at each class's LOOKED_AT best images, of those kept for it. [I, C] each."""
    sure: dict[str, list[Doubles]] = {"before": [], "after": []}
    factors: dict[str, list[float]] = {"before": [], "after": []}
    right: list[Bools] = []
    for asked, label, rows in zip(scores.T, labels.T, kept.T, strict=True):
        order = np.flatnonzero(rows)[np.argsort(-asked[rows], kind="stable")]
        ranked, hits = asked[order], label[order]
        if not hits.any():
            continue
        right.append(hits[LOOKED_AT:50])
        told = update_with_verdicts(calibration, ranked[:LOOKED_AT], hits[:LOOKED_AT], ranked)
        for when, known in (("before", calibration), ("after", told)):
            judged = estimate_confidence(known, ranked, ranked, len(ranked))
            assert judged is not None
            sure[when].append(judged.probabilities[LOOKED_AT:50])
            expected = hits[:LOOKED_AT].sum() + judged.probabilities[LOOKED_AT:].sum()
            factors[when].append(float(np.exp(abs(np.log(max(expected, 1) / hits.sum())))))
    found: dict[str, float] = {}
    for when in ("before", "after"):
        error = reliability(np.concatenate(sure[when]), np.concatenate(right)).error
        assert error is not None
        found |= {f"ece_{when}": error, f"count_factor_{when}": float(np.median(factors[when]))}
    return found


def _mean_verdicts(by_seed: list[Verdicts]) -> dict[str, dict[str, float]]:
    """With sample standard deviations over seeds."""
    found: dict[str, dict[str, float]] = {}
    for what in by_seed[0]:
        values = {name: [verdicts[what][name] for verdicts in by_seed] for name in by_seed[0][what]}
        found[what] = {name: float(np.mean(v)) for name, v in values.items()}
        if len(by_seed) > 1:
            found[what] |= {f"{name}_std": float(np.std(v, ddof=1)) for name, v in values.items()}
    return found


def _gallery_scores(model: RetrievalModel, task: Task, with_class_vectors: bool) -> Floats:
    texts = task.texts if model.class_vectors is None or not with_class_vectors else model.class_vectors(task.texts)
    tokens = task.gallery_images.tokens
    found: Floats = score_images(model.head, tokens, torch.arange(len(tokens)), texts).numpy()
    return found


def _on_trained_photos(model: RetrievalModel, task: Task, seed: int) -> Calibration:
    known, tokens = task.supervision, task.train_images.tokens[0]
    scores = score_images(model.head, tokens, torch.arange(len(tokens)), known.texts).numpy()
    found = fit_calibration(scores, known.labels, known.verified, seed)
    assert found is not None
    return found


def _evaluated(calibration: Calibration, scores: Floats, task: Task, verified: Bools | None = None) -> ConfidenceReport:
    return evaluate_confidence(calibration, scores, task.gallery.labels, task.gallery.class_names, task.split, verified)


def _table(summed: dict[str, dict[str, Any] | None]) -> Table:
    table = Table("case", "classes", "ECE top 50", "ECE above 0.05", "Brier top 50 (of the rate)", title="toy world")
    for case, found in summed.items():
        for side in ("base", "novel"):
            pairs = (found or {})[side]["pairs"]
            top, likely = pairs["top 50"], pairs["above 0.05"]
            errors = [f"{kind['ece']:.3f} ± {kind['ece_std']:.3f}" for kind in (top, likely)]
            table.add_row(case, side, *errors, f"{top['brier']:.3f} ({top['brier_of_rate']:.3f})")
    return table


if __name__ == "__main__":
    main()
