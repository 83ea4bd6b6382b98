"""From a run's configuration to its parts: the model, the images, the classes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import yaml
from rich.console import Console

from forclip.comparison import Task, measure, measure_training_free, new_task
from forclip.config import DataConfig, RunConfig, config_to_json, read_names
from forclip.data.coco import load_coco
from forclip.data.views import make_views
from forclip.embedding import EncodedImages, encode_views
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics, write_whole
from forclip.evaluation.protocol import ClassSplit, split_classes
from forclip.finetuning import Finetuned, TrainingImages, finetune
from forclip.interpolation import save_ends
from forclip.interpolation_curve import curve_table, measure_curve, read_way, write_curve
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import configured_backbone, from_pretrained, save_pretrained
from forclip.progress import Track, tracking
from forclip.reporting import Story, tell
from forclip.supervision import supervise
from forclip.token_cache import cached_tokens
from forclip.types import Annotations


def load_sets(data: DataConfig) -> tuple[Annotations, Annotations]:
    """Training and gallery images. Raises ValueError as the loader does."""
    train = load_coco(data.train.annotations, data.train.images)
    if data.gallery is not None:
        return train, load_coco(data.gallery.annotations, data.gallery.images)
    rows = np.arange(len(train))
    if len(rows) < 2:
        raise ValueError(f"{data.train.annotations}: {len(rows)} image(s) can't be split into training and gallery")
    return train.take(rows[::2]), train.take(rows[1::2])


def choose_classes(data: DataConfig, train: Annotations, gallery: Annotations) -> ClassSplit:
    """Raises ValueError for a name that is no class, a class in both groups, or no base class at all."""
    in_both = set(gallery.class_names)
    names = [n for n in train.class_names if n in in_both]
    novel = cast(tuple[str, ...], data.novel)  # files of names were read with the config
    split = split_classes(names, novel)
    if data.base is None:
        return split
    base = cast(tuple[str, ...], data.base)
    split_classes(names, base)  # each must be a class
    return ClassSplit(base, novel)


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


def load_task(config: RunConfig, backbone: Backbone, track: Track, console: Console) -> Task:
    """Everything that a comparison needs, from files."""
    train, gallery = load_sets(config.data)
    split = choose_classes(config.data, train, gallery)
    encoded = [
        encode_set(
            backbone, train, "training images", track, console, config.data.cache, config.train.views, config.train.seed
        ),
        encode_set(backbone, gallery, "gallery images", track, console, config.data.cache),
    ]
    return new_task(
        config.data.train.annotations.stem,
        backbone,
        (train, encoded[0]),
        (gallery, encoded[1]),
        split,
        config.data.templates,
        _vocabulary(config.data),
        config.data.allow_unlabelled_base,
    )


def _vocabulary(data: DataConfig) -> tuple[str, ...]:
    return read_names(data.vocabulary) if data.vocabulary else ()


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
        train, _ = load_sets(config.data)
        split = choose_classes(config.data, train, train)
        encoded = encode_set(
            backbone, train, "training images", track, console, config.data.cache, config.train.views, config.train.seed
        )
        readable = train.take(encoded.rows)
        supervision = supervise(
            backbone,
            readable,
            split,
            config.data.templates,
            _vocabulary(config.data),
            config.data.allow_unlabelled_base,
        )
        (out / "run.yaml").write_text(yaml.safe_dump(config_to_json(config), sort_keys=False))
        images = TrainingImages.encoded(encoded.tokens, readable.paths)
        tuned = finetune(backbone, images, supervision, config.head, config.train, checkpoint, track)
    skipped = [{"image_id": s.image_id, "reason": s.reason} for s in encoded.skipped]
    write_whole(out / "skipped.json", json.dumps(skipped, indent=1))
    save_run(out, tuned, backbone, config)
    console.print(f"The model: [bold]{out}[/]")


def save_run(out: Path, tuned: Finetuned, backbone: Backbone, config: RunConfig) -> None:
    """The model, the ends that it lies between, its training curves, and what was chosen on which evidence."""
    made_folder(out)
    write_whole(out / "history.json", json.dumps(tuned.history))
    write_whole(out / "choices.json", json.dumps(tuned.choices.to_json(), indent=1))
    save_ends(out / "ends.safetensors", tuned.untuned, tuned.tuned)
    save_pretrained(out, tuned.head, tuned.class_vectors, backbone, config.model, config.data.templates)


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
        task = load_task(config, backbone, track, console)
        measured = measure_training_free(task, config.head, config.eval, config.train.seed, track)
        if trained is not None:
            text_side = trained.class_vectors
            measured["for"] = measure(task, "for", trained.head, config.train.seed, config.eval, text_side)
            if way is not None:
                points = measure_curve(task, way, text_side, config.eval, config.train.seed, track)
                write_curve(out, points)
                console.print(curve_table(points))
    metrics = summarise_runs(task.name, [m.run for m in measured.values()])
    write_metrics(out / "metrics.json", metrics)
    history_file = None if model is None else model / "history.json"
    history = json.loads(history_file.read_text()) if history_file and history_file.exists() else []
    tell(out / "report.html", f"{task.name}: all methods", metrics, Story(task, config, measured, history))
    return metrics


def load_backbone(config: RunConfig) -> Backbone:
    """The pretrained model that a configuration names."""
    return configured_backbone(config.model, config.device)
