"""From a run's configuration to its parts: the model, the images, the classes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console

from forclip.class_choice import choose_classes
from forclip.comparison import Task, gallery_digest, measure, measure_training_free, new_task
from forclip.confidence import Calibration
from forclip.config import RunConfig, config_to_json
from forclip.data.sets import gallery_source, load_sets
from forclip.data.sources import source_name
from forclip.data.verdicts import read_verdicts, tell_verdicts
from forclip.data.views import make_views, planned_views
from forclip.data_config import DataConfig
from forclip.embedding import EncodedImages, encode_views
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics, write_whole
from forclip.evaluation.protocol import ClassSplit
from forclip.evaluation.split_file import read_split, write_split
from forclip.finetuning import Finetuned, TrainingImages, finetune
from forclip.interpolation import save_ends
from forclip.interpolation_curve import curve_table, measure_curve, read_way, write_curve
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import configured_backbone, from_pretrained, save_pretrained
from forclip.progress import Track, tracking
from forclip.reporting import Story, tell
from forclip.supervision import refuse_unlearnable, supervise
from forclip.text_cache import CachedTexts
from forclip.token_cache import cached_tokens
from forclip.types import Annotations
from forclip.wording import Wording, read_wording, templates_of


def encode_set(
    backbone: Backbone,
    images: Annotations,
    what: str,
    track: Track,
    console: Console,
    cache: Path | None = None,
    views: int = 1,
    seed: int = 0,
) -> EncodedImages:
    """Encodes, or reads what was encoded, and says which pictures could not be read.

    cache: as in DataConfig; views: as make_views counts them, and if there are several, tokens have the axis in front;
    seed: of the views' crops. Raises ValueError where no picture can be read, or the cache can't be used.
    """
    advance = track(f"encoding {what}", len(images))
    seen = make_views(views, seed)
    if cache is None:
        encoded = encode_views(backbone, images.image_ids, images.paths, seen, advance)
    else:
        encoded = cached_tokens(
            cache,
            backbone,
            images.image_ids,
            images.paths,
            seen,
            advance,
            lambda message: console.print(f"{what}: {message}", markup=False, highlight=False),
        )
    if views == 1:
        encoded = replace(encoded, tokens=encoded.tokens[0])
    _tell_skipped(encoded, len(images), what, console)
    return encoded


def _tell_skipped(encoded: EncodedImages, count: int, what: str, console: Console) -> None:
    """Raises ValueError where all were skipped."""
    if encoded.skipped:
        console.print(f"[yellow]{len(encoded.skipped)} of {count} {what} could not be read and were skipped:[/]")
        for skipped in encoded.skipped[:10]:
            console.print(f"  {skipped.reason}", markup=False)
    if not len(encoded.rows):
        first = f"; the first: {encoded.skipped[0].reason}" if encoded.skipped else ""
        raise ValueError(f"none of {count} {what} can be read{first}")


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
    split = choose_classes(config.data, train, gallery)
    wording = _wording(config.data, train, split)
    encoded = [
        _not_encoded(train)
        if only_measured and config.head.seeding != "clusters"
        else encode_training(config, backbone, train, track, console),
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


def _wording(data: DataConfig, train: Annotations, split: ClassSplit) -> Wording:
    """Refuses what training would refuse, while nothing has been encoded yet."""
    wording = read_wording(data, train, split)
    refuse_unlearnable(train, split, wording, data.allow_unlabelled_base)
    return wording


def _not_encoded(images: Annotations) -> EncodedImages:
    return EncodedImages(torch.empty(len(images), 0, 0), np.arange(len(images)), (), 0.0)


def encode_training(
    config: RunConfig, backbone: Backbone, train: Annotations, track: Track, console: Console
) -> EncodedImages:
    """As encode_set, in as many views as the configuration plans for so many images."""
    views, cache = planned_views(config.train.views, len(train)), config.data.cache
    what = "training images" if views == 1 else f"training images in {views} views"
    return encode_set(backbone, train, what, track, console, cache, views, config.train.seed)


def made_folder(folder: Path) -> Path:
    """The folder, made where needed. Raises ValueError where a file is in its place."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_run(config: RunConfig, out: Path, resume: bool, console: Console) -> None:
    """Finetunes and writes out: config.json and model.safetensors, the run's YAML, history.json and skipped.json.

    Raises ValueError where out holds a run already, unless it is to be resumed.
    """
    checkpoint = made_folder(out) / "checkpoint.safetensors"
    if not resume and (checkpoint.exists() or (out / "config.json").exists()):
        raise ValueError(f"{out}: holds a run already; --resume goes on with it, or choose another folder")
    backbone = load_backbone(config)
    with tracking(console) as track:
        train, gallery = load_sets(config.data)
        if config.data.verdicts is not None:
            verdicts = read_verdicts(config.data.verdicts, config.data.train.image_folder)
            console.print(tell_verdicts(verdicts, train, gallery), markup=False, highlight=False)
        split = choose_classes(config.data, train, gallery)
        wording = _wording(config.data, train, split)
        encoded = encode_training(config, backbone, train, track, console)
        readable = train.take(encoded.rows)
        supervision = supervise(backbone, readable, split, wording, config.data.allow_unlabelled_base)
        (out / "run.yaml").write_text(yaml.safe_dump(config_to_json(config), sort_keys=False))
        images = TrainingImages.encoded(encoded.tokens, readable.paths)
        tuned = finetune(backbone, images, supervision, config.head, config.train, checkpoint, track)
    skipped = [{"image_id": s.image_id, "reason": s.reason} for s in encoded.skipped]
    write_whole(out / "skipped.json", json.dumps(skipped, indent=1))
    save_run(out, tuned, backbone, config, split)
    console.print(_told_sure(tuned.calibration))
    console.print(f"The model: [bold]{out}[/]")


def _told_sure(calibration: Calibration | None) -> str:
    if calibration is None:
        return "It gives scores but no probabilities: too little was held back to learn them from."
    error = calibration.held_out_errors["top 50"]
    learned = f"Its probabilities were learned from {calibration.classes} base classes held back"
    return f"{learned}." if error is None else f"{learned}; ECE {error:.3f} over the 50 best images of unseen ones."


def save_run(out: Path, tuned: Finetuned, backbone: Backbone, config: RunConfig, split: ClassSplit) -> None:
    """The model, the ends that it lies between, its training curves, what was chosen on which evidence, and the split
    that it was trained with."""
    made_folder(out)
    write_split(out, split)
    write_whole(out / "history.json", json.dumps(tuned.history))
    write_whole(out / "choices.json", json.dumps(tuned.choices.to_json(), indent=1))
    templates = templates_of(config.data)
    save_ends(out / "ends.safetensors", tuned.untuned, tuned.tuned)
    save_pretrained(out, tuned.head, tuned.class_vectors, backbone, config.model, templates, tuned.calibration)


def evaluate_run(
    config: RunConfig, model: Path | None, out: Path, console: Console, interpolate: bool = False
) -> Metrics:
    """All methods on the gallery, FOR among them where a trained run is given. Writes metrics.json and report.html.

    interpolate: also write interpolation.json and .png, and print what each share of the run's way is worth. Raises
    ValueError where the run is missing or damaged, or has no way to measure.
    """
    if interpolate and model is None:
        raise ValueError("--interpolate needs --model: the way is the one of a trained run")
    made_folder(out)
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
    tell(out / "report.html", f"{task.name}: all methods", metrics, Story(task, config, measured, history))
    return metrics


def _refuse_trained_on(model: Path, split: ClassSplit) -> None:
    """Raises ValueError where a class is novel here that the model was trained with: its number would say nothing."""
    trained = read_split(model)
    for name in split.novel:
        if trained is not None and name in set(trained.base):
            raise ValueError(f"{model}: was trained with labels of {name!r}, which is novel here")


def load_backbone(config: RunConfig) -> Backbone:
    """The pretrained model that a configuration names, its text vectors kept where there is a cache."""
    backbone = configured_backbone(config.model, config.device)
    return backbone if config.data.cache is None else CachedTexts(backbone, config.data.cache / "texts")
