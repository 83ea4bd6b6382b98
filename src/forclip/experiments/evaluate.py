"""Compare all methods on one dataset, from a run's configuration to metrics.json and report.html."""

import json
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
from forclip.experiments.interpolation_curve import curve_table, measure_curve, read_way, write_curve
from forclip.experiments.report import ReportContents, tell
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
from forclip.types import Annotations, ClassSplit


def load_task(
    config: RunConfig, backbone: Backbone, track: Track, console: Console, only_measured: bool = False
) -> Task:
    """Everything that a comparison needs, from files.

    only_measured: nothing will be trained on the task, so the training pictures are encoded only if queries are seeded
    from them. Raises ValueError as loaders, choose_classes and encode_set do, and for a gallery without labels.
    """
    train, gallery = load_sets(config.data)
    if not gallery.class_names:
        place = gallery_source(config.data).annotations
        raise ValueError(
            f"{place}: pictures without any label: there is nothing to measure; forclip index searches them"
        )
    split, wording = choose_classes_and_prompts(config.data, train, gallery)
    encoded = [
        _not_encoded(train)
        if only_measured and config.head.seeding != "clusters"
        else encode_training_images(config, backbone, train, track, console),
        encode_set(backbone, gallery, "gallery images", track, console, config.data.cache),
    ]
    return new_task(
        source_name(config.data.train),
        backbone,
        (train, encoded[0]),
        (gallery, encoded[1]),
        split,
        wording,
        config.data.allow_unlabelled_base,
    )


def _not_encoded(images: Annotations) -> EncodedImages:
    return EncodedImages(torch.empty(len(images), 0, 0), np.arange(len(images)), (), 0.0)


def evaluate_run(
    config: RunConfig, model: Path | None, out: Path, console: Console, interpolate: bool = False
) -> Metrics:
    """All methods on the gallery, FOR among them where a trained run is given. Writes metrics.json and report.html.

    interpolate: also write interpolation.json and .png, and print what each share of the run's way is worth. Raises
    ValueError where the run is missing or damaged, or has no way to measure.
    """
    if interpolate and model is None:
        raise ValueError("--interpolate needs --model: the way is the one of a trained run")
    create_folder(out)
    backbone = load_backbone(config)
    # A missing or damaged run should be told before the pictures are encoded.
    trained = None if model is None else from_pretrained(model, config.device, backbone)
    way = read_way(model, backbone) if interpolate and model is not None else None
    with tracking(console) as track:
        task = load_task(config, backbone, track, console, only_measured=True)
        if model is not None:
            _refuse_trained_on(model, task.split)
        measured = measure_training_free(task, config.head, config.eval, config.train.seed, track)
        if trained is not None:
            text_side = trained.class_vectors
            measured["for"] = measure(
                task, "for", trained.head, config.train.seed, config.eval, text_side, trained.calibration
            )
            if way is not None:
                points = measure_curve(task, way, text_side, config.eval, config.train.seed, track)
                write_curve(out, points)
                console.print(curve_table(points))
    metrics = summarise_runs(task.name, [m.run for m in measured.values()])
    metrics["gallery"] = gallery_digest(task.gallery)  # two runs compare only on the same one
    write_metrics(out / "metrics.json", metrics)
    history_file = None if model is None else model / "history.json"
    history = json.loads(history_file.read_text()) if history_file and history_file.exists() else []
    tell(out / "report.html", f"{task.name}: all methods", metrics, ReportContents(task, config, measured, history))
    return metrics


def _refuse_trained_on(model: Path, split: ClassSplit) -> None:
    """Raises ValueError where a class is novel here that the model was trained with: its number would say nothing."""
    trained = read_split(model)
    for name in split.novel:
        if trained is not None and name in set(trained.base):
            raise ValueError(f"{model}: was trained with labels of {name!r}, which is novel here")
