"""Evaluate all methods on one dataset: from a run's configuration to metrics.json and report.html."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from forclip.config import RunConfig
from forclip.data.sets import gallery_source, load_sets
from forclip.data.sources import source_name
from forclip.data.splits import read_split
from forclip.embedding.embed import EncodedImages
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics
from forclip.experiments.comparison import Task, gallery_digest, measure, measure_training_free, new_task
from forclip.experiments.interpolation_curve import curve_table, measure_curve, read_ends, write_curve
from forclip.experiments.report import Comparison, write_comparison_report
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import from_pretrained
from forclip.progress import Track, tracking
from forclip.training.runs import (
    choose_classes_and_prompts,
    create_folder,
    encode_set,
    encode_training_images,
    load_backbone,
)
from forclip.types import ClassSplit


def evaluate_run(
    config: RunConfig, model: Path | None, out: Path, console: Console, interpolate: bool = False
) -> Metrics:
    """Measure all methods on the gallery, with FOR if a trained run is given. Writes metrics.json and report.html.

    model: folder of a trained run. interpolate: also measure heads between its untuned and tuned head, write
    interpolation.json and .png, and print them. Raises ValueError if the run is missing, damaged, trained with labels
    of a class that is novel here, or has nothing to interpolate.
    """
    if interpolate and model is None:
        raise ValueError("--interpolate needs --model, a trained run")
    create_folder(out)
    backbone = load_backbone(config)
    # Read before encoding, so that a missing or damaged run is reported at once.
    trained = None if model is None else from_pretrained(model, config.device, backbone)
    ends = read_ends(model, backbone) if interpolate and model is not None else None
    seed, history = config.train.seed, []
    with tracking(console) as track:
        task = load_task(config, backbone, track, console, will_train=False)
        if model is not None:
            _refuse_if_trained_on_novel_classes(model, task.split)
        results = measure_training_free(task, config.head, config.eval, seed, track)
        if trained is not None and model is not None:
            class_vectors, calibration = trained.class_vectors, trained.calibration
            results["for"] = measure(task, "for", trained.head, seed, config.eval, class_vectors, calibration)
            if (model / "history.json").exists():
                history = json.loads((model / "history.json").read_text())
            if ends is not None:
                points = measure_curve(task, ends, class_vectors, config.eval, seed, track)
                write_curve(out, points)
                console.print(curve_table(points))
    metrics = summarise_runs(task.name, [result.run for result in results.values()])
    metrics["gallery"] = gallery_digest(task.gallery)  # runs are comparable only on the same gallery
    write_metrics(out / "metrics.json", metrics)
    comparison = Comparison(task, config, results, history)
    write_comparison_report(out / "report.html", f"{task.name}: all methods", metrics, comparison)
    return metrics


def load_task(config: RunConfig, backbone: Backbone, track: Track, console: Console, will_train: bool = True) -> Task:
    """Read and encode everything that a comparison needs.

    will_train: if False, training images are encoded only if query tokens are seeded from them. Raises ValueError for a
    gallery without labels, and for data that cannot be read or trained on.
    """
    train, gallery = load_sets(config.data)
    if not gallery.class_names:
        file = gallery_source(config.data).annotations
        raise ValueError(f"{file}: images without labels cannot be evaluated; search them with `forclip index`")
    split, prompts = choose_classes_and_prompts(config.data, train, gallery)
    if will_train or config.head.seeding == "clusters":
        train_encoded = encode_training_images(config, backbone, train, track, console)
    else:
        train_encoded = EncodedImages(torch.empty(1, len(train), 0, 0), np.arange(len(train)), (), 0.0)
    gallery_encoded = encode_set(backbone, gallery, "gallery images", track, console, config.data.cache)
    return new_task(
        source_name(config.data.train),
        backbone,
        (train, train_encoded),
        (gallery, replace(gallery_encoded, tokens=gallery_encoded.tokens[0])),
        split,
        prompts,
        config.data.allow_unlabelled_base,
    )


def _refuse_if_trained_on_novel_classes(model: Path, split: ClassSplit) -> None:
    trained = read_split(model)
    for name in split.novel:
        if trained is not None and name in set(trained.base):
            raise ValueError(f"{model}: was trained with labels of {name!r}, which is novel here")
