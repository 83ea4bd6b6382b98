"""Evaluate all methods on one dataset: from a run's configuration to metrics.json and report.html."""

import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from forclip import distributed
from forclip.config import RunConfig, SourceConfig, load_config
from forclip.data.images.views import PLAIN
from forclip.data.sources import load_sets
from forclip.data.splits import read_split
from forclip.data.training_images import count_training_images
from forclip.embedding.encode_on_workers import Encoded, EncodedSet
from forclip.embedding.orientation import warn_about_orientation
from forclip.embedding.row_shards import one_view
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics
from forclip.experiments.comparison import Task, measure, measure_training_free, new_task
from forclip.experiments.interpolation_curve import curve_table, measure_curve, read_ends, write_curve
from forclip.experiments.report import Comparison, write_comparison_report
from forclip.models.backbone import Backbone
from forclip.models.mini_clip import warn_about_photos
from forclip.models.retrieval_model import as_model_config, from_pretrained
from forclip.progress import Planned, Track, console_for_results, expect, silent, tracking
from forclip.training import runs
from forclip.training.choose_tiles import resolve_tiles


def evaluate(
    config: RunConfig | str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    interpolate: bool = False,
    console: Console | None = None,
) -> Metrics:
    """Compare all methods on a dataset. Writes metrics.json and report.html, and returns the metrics.

    config: a RunConfig, or the path of its YAML file. out: output folder. model: folder of a trained run; without it
    only the baselines are measured. interpolate: also measure heads between the run's untuned and tuned head, write
    interpolation.json and .png, and print them. console: receives progress and messages; standard error by default.

    Raises ValueError if the config or the data is invalid, or if the run is missing, damaged, trained with labels of a
    class that is novel here, or has nothing to interpolate.

    Workers that torchrun started encode the images together; the first one prints and writes.
    """
    with distributed.joined():
        config = config if isinstance(config, RunConfig) else load_config(Path(config))
        return _evaluate(config, Path(out), model, interpolate, runs.first_console(console))


def _evaluate(config: RunConfig, out: Path, model: str | Path | None, interpolate: bool, console: Console) -> Metrics:
    run = None if model is None else Path(as_model_config(model).name)
    if interpolate and run is None:
        raise ValueError("--interpolate needs --model, a trained run")
    backbone = runs.load_backbone(config)
    # Read before encoding, so that a missing or damaged run is reported at once.
    trained = None if run is None else from_pretrained(run, config.device, backbone)
    ends = read_ends(run, backbone) if interpolate and run is not None else None
    if distributed.is_first():
        runs.create_folder(out)
    seed, history = config.train.seed, []
    with tracking(console) as track:
        task = load_task(config, backbone, track, console, will_train=False)
        if run is not None:
            trained_split = read_split(run)
            for name in task.split.novel:
                if trained_split is not None and name in trained_split.base:
                    raise ValueError(f"{run}: was trained with labels of {name!r}, which is novel here")
        results = measure_training_free(task, config.head, config.eval, seed, track, config.data.cache)
        if trained is not None and run is not None:
            class_vectors, calibration = trained.class_vectors, trained.calibration
            advance = silent if trained.tiles is None else track("embedding tiles with FOR", len(task.gallery))
            text_side, tiles = (class_vectors, calibration), trained.tiles
            results["for"] = measure(task, "for", trained.head, seed, config.eval, *text_side, tiles, advance)
            if (run / "history.json").exists():
                history = json.loads((run / "history.json").read_text())
            if ends is not None:
                points = measure_curve(task, ends, class_vectors, config.eval, seed, track, trained.tiles)
                if distributed.is_first():
                    write_curve(out, points)
                console_for_results(console).print(curve_table(points))
    metrics = summarise_runs(task.name, [result.run for result in results.values()])
    metrics["gallery"] = runs.annotations_digest(task.gallery)  # runs are comparable only on the same gallery
    if run is not None and (count := count_training_images(run, task.gallery.paths)):
        metrics["training_images"] = count
    if distributed.is_first():
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
    if distributed.is_first():
        warn_about_photos(backbone.name, gallery.paths)
        warn_about_orientation(backbone, gallery.paths)
    if not gallery.class_names:
        source = config.data.gallery if isinstance(config.data.gallery, SourceConfig) else config.data.train
        raise ValueError(
            f"{source.annotations}: images without labels cannot be evaluated; search them with `forclip index`"
        )
    split, prompts = runs.choose_classes_and_prompts(config.data, train, gallery)
    # Times relative to the encoding of one view.
    measuring = [
        Planned("encoding gallery images", len(gallery), 1),
        Planned("evaluating baselines", 3 + len(config.eval.clusters), 0.8 * len(gallery)),
    ]
    if config.eval.tiles != "none":
        measuring.append(Planned("embedding tiles", len(gallery), 9))
    if will_train:
        encoding, *training = runs.stages_of_training(config, train, len(split.base), None)
        measuring = [encoding, *measuring, *training]
    expect(*measuring)
    if will_train or config.head.seeding == "clusters":
        query_tokens = config.head.num_query_tokens
        settings = query_tokens, config.train, track, console
        tiles = resolve_tiles(config.model, backbone, train, split, prompts, *settings)
        if will_train:
            runs.check_works_with_tiles(config.train, tiles)
        train_encoded: Encoded = runs.encode_training_images(config, backbone, train, track, console, tiles)
    else:
        tiles = None
        empty = torch.empty(1, len(train), 0, 0)
        train_encoded = EncodedSet(empty, np.arange(len(train)), (), 0.0, (PLAIN,))
    gallery_encoded = runs.encode_set(backbone, gallery, "gallery images", track, console, config.data.cache)
    of_gallery = EncodedSet(**{**vars(gallery_encoded), "tokens": one_view(gallery_encoded.tokens, 0)})
    sets, data = ((train, train_encoded), (gallery, of_gallery)), config.data
    file = data.train.annotations
    name = file.name if file.is_dir() else file.stem
    return new_task(name, backbone, *sets, split, prompts, data.allow_unlabelled_base, tiles)
