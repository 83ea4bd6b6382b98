"""Train a run: from its configuration to a folder with the model."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from forclip import distributed
from forclip.atomic_write import write_text_atomically
from forclip.calibration.fit import NEEDED
from forclip.config import DataConfig, RunConfig, TrainConfig, config_to_json, load_config, read_yaml
from forclip.console import plain_console
from forclip.data.images.tiles import Tiles, views_of
from forclip.data.images.views import PLAIN, View, make_views, resolve_num_views
from forclip.data.sources import load_sets
from forclip.data.splits import check_classes_and_prompts, choose_classes, write_split
from forclip.data.training_images import write_training_images
from forclip.data.verdicts import describe_verdicts, read_verdicts
from forclip.embedding.encode_on_workers import Encoded, encode_on_workers
from forclip.embedding.orientation import warn_about_orientation
from forclip.models.backbone import Backbone
from forclip.models.mini_clip import warn_about_photos
from forclip.models.references import absolute_reference
from forclip.models.retrieval_model import RetrievalModel, configured_backbone, from_pretrained, save_pretrained
from forclip.models.text_cache import cache_texts, encode_texts_once
from forclip.progress import Planned, Track, expect, skipped, tracking
from forclip.text.prompt_options import PromptOptions, read_prompt_options, read_templates
from forclip.training.choose_tiles import resolve_tiles
from forclip.training.expected_stages import expected_stages
from forclip.training.finetune import Finetuned, finetune
from forclip.training.recorders import open_recorder
from forclip.training.supervision import supervise
from forclip.training.watch import NoRecorder, Recorder
from forclip.training.weight_interpolation import save_ends
from forclip.types import Annotations, ClassSplit

# Settings that may change before a run continues: where the weights are, and how it runs. Other weights have other
# vectors of texts, which the checkpoints refuse.
_CHANGES_NO_RESULT = {"name", "pretrained", "compute", "compile", "checkpoint_every"}


def train(
    config: RunConfig | str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    tensorboard: bool = False,
    wandb: str | None = None,
) -> RetrievalModel:
    """Finetune a model with FOR on the base labels of a dataset, write the run to a folder and load it.

    config: a RunConfig, or the path of its YAML file. out: folder for what `save_run` writes, the checkpoint, run.yaml
    and skipped.json; `forclip index` and load_model accept it as a model. resume: continue a run that was stopped.
    console: receives progress and messages; standard error by default. tensorboard: also write event files to
    out/tensorboard; wandb: a project of Weights & Biases to record to.

    A run continues with the settings that it started with, except for those that change no result; `tiles: auto` keeps
    the choice.

    Workers that torchrun started train together, each on cpu or on a GPU of its own; the first one prints and writes
    `out`. A run continues with any number of workers: bit for bit with the same one on CPUs, else but for rounding.

    Raises ValueError if the config or the data is invalid, if `out` already contains a run and resume is False, if a
    setting of the run to continue has changed, and if TensorBoard or wandb is not installed.
    """
    with distributed.joined(), ExitStack() as opened:
        config = config if isinstance(config, RunConfig) else load_config(Path(config))

        def record() -> Recorder | None:
            if not tensorboard and wandb is None:
                return None
            if not distributed.is_first():
                return NoRecorder()
            recorder = open_recorder(Path(out), config_to_json(config), tensorboard, wandb)
            opened.callback(recorder.close)
            return recorder

        return _train(config, Path(out), resume, first_console(console), record)


def first_console(console: Console | None) -> Console:
    """Return the console that the first worker prints to, and a silent one for the others."""
    return (console or plain_console(stderr=True)) if distributed.is_first() else plain_console(quiet=True)


def _train(
    config: RunConfig, out: Path, resume: bool, console: Console, record: Callable[[], Recorder | None]
) -> RetrievalModel:
    """record: opens what the run is recorded to, once it is known that `out` may be written."""
    checkpoint = out / "checkpoint.safetensors"
    if distributed.is_first():
        create_folder(out)
        # torchrun starts workers again if it is told to.
        resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        if not resume and (any(out.glob("checkpoint*.safetensors")) or (out / "config.json").exists()):
            raise ValueError(f"{out}: already holds a run; continue it with --resume, or choose another folder")
        if resume and (out / "run.yaml").exists():
            config = _as_started(config, out / "run.yaml")
    config = distributed.broadcast(config)
    recorder = record()
    with distributed.one_first():
        pretrained = configured_backbone(config.model, distributed.local_device(config.device))
    backbone = encode_texts_once(_with_text_cache(pretrained, config.data.cache))
    with tracking(console) as track:
        train, gallery = load_sets(config.data)
        check_same_images(train)
        if distributed.is_first():
            warn_about_photos(backbone.name, train.paths)
            warn_about_orientation(backbone, train.paths)
        if config.data.verdicts is not None:
            verdicts, _ = read_verdicts(config.data.verdicts, config.data.train.image_folder)
            console.print(describe_verdicts(verdicts, train, gallery), markup=False, highlight=False)
        split, prompts = choose_classes_and_prompts(config.data, train, gallery)
        query_tokens = config.head.num_query_tokens
        tiles = resolve_tiles(config.model, backbone, train, split, prompts, query_tokens, config.train, track, console)
        check_works_with_tiles(config.train, tiles)
        config = with_tiles(config, tiles)
        expect(*stages_of_training(config, train, len(split.base), tiles))
        encoded = encode_training_images(config, backbone, train, track, console, tiles)
        readable = train.take(encoded.rows)
        unlabelled = config.data.allow_unlabelled_base
        supervision = supervise(backbone, readable, split, prompts, unlabelled, encoded.views, encoded.rows)
        if not supervision.keep_labelled_fraction(config.train.labelled_fraction, config.train.seed).compares_images:
            message = (
                "no base class has both a labelled image that shows it and one that doesn't: the labels can't teach "
                "what to tell apart. Add labelled images that don't show it"
            )
            console.print(message, style="yellow", highlight=False)
        exact = replace(config, model=absolute_reference(config.model))
        # A run that is continued keeps its file until its checkpoints have been accepted.
        if distributed.is_first() and not (resume and (out / "run.yaml").exists()):
            _write_config(exact, out / "run.yaml")
        settings = (config.head, config.train, checkpoint, track)
        finetuned = finetune(
            backbone,
            encoded.tokens,
            readable.paths,
            supervision,
            *settings,
            num_parts=len(views_of(tiles)),
            recorder=recorder,
        )
    if distributed.is_first():
        left_out = [{"image_id": s.image_id, "reason": s.reason} for s in encoded.skipped]
        write_text_atomically(out / "skipped.json", json.dumps(left_out, indent=1))
        write_training_images(out, readable.paths)
        _write_config(exact, out / "run.yaml")
        save_run(out, finetuned, backbone, config, split)
    calibration = finetuned.calibration
    message = f"The model gives scores but no probabilities: {NEEDED}."
    if calibration is not None:
        error = calibration.held_out_errors["top 50"]
        measured = "" if error is None else f"; ECE over the 50 best images of unseen classes: {error:.3f}"
        message = f"Probabilities are calibrated on {calibration.classes} held-out base classes{measured}."
    console.print(message)
    console.print(f"The model: {out}", markup=False, highlight=False, soft_wrap=True)
    model = from_pretrained(out, backbone=pretrained) if distributed.is_first() else None
    # Other machines need not see the folder.
    described = distributed.broadcast(None if model is None else (model.fingerprint, model.templates))
    assert described is not None
    text_side, (fingerprint, templates) = finetuned.class_vectors, described
    return model or RetrievalModel(
        str(out), pretrained, finetuned.head, fingerprint, templates, text_side, calibration, tiles
    )


def _as_started(config: RunConfig, file: Path) -> RunConfig:
    """Return the configuration with the tiles that a run to continue has chosen. file: its run.yaml.

    Raises ValueError if another setting of the model, the head or the training differs from the run's.
    """
    before, unset = read_yaml(file, "configuration of the run"), RunConfig(config.data)
    before = before if isinstance(before, dict) else {}
    if config.model.tiles == "auto":
        tiles = (before.get("model") or {}).get("tiles", "none")
        config = replace(config, model=replace(config.model, tiles=tiles))
    now, default = (config_to_json(replace(c, model=absolute_reference(c.model))) for c in (config, unset))
    for section in ("model", "head", "train"):
        for key, value in now[section].items():
            started_with = (before.get(section) or {}).get(key, default[section][key])
            if key not in _CHANGES_NO_RESULT and value != started_with:
                raise ValueError(
                    f"{section}.{key} is {value!r}, but the run in {file.parent} started with {started_with!r}: "
                    "set it back to continue, or choose another folder"
                )
    return config


def _write_config(config: RunConfig, file: Path) -> None:
    """Write a configuration as YAML."""
    write_text_atomically(file, yaml.safe_dump(config_to_json(config), sort_keys=False))


def check_same_images(images: Annotations) -> None:
    """Raise ValueError if the workers read different labels. *Collective*."""
    digests = distributed.gather(annotations_digest(images))
    for number, digest in enumerate(digests):
        if digest != digests[0]:
            raise ValueError(f"worker {number} reads other labels than worker 0: all machines need the same files")


def annotations_digest(images: Annotations) -> str:
    """Return 16 hexadecimal digits, equal for the same images, classes and labels."""
    digest = hashlib.sha256(json.dumps([images.image_ids, images.class_names]).encode())
    digest.update(np.packbits(images.labels).tobytes() + np.packbits(images.verified_mask).tobytes())
    return digest.hexdigest()[:16]


def create_folder(folder: Path) -> Path:
    """Create a folder if it does not exist, and return it. Raises ValueError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_backbone(config: RunConfig) -> Backbone:
    """Load the configured pretrained model; its text vectors are cached if the run has a cache."""
    with distributed.one_first():
        backbone = configured_backbone(config.model, distributed.local_device(config.device))
    return encode_texts_once(_with_text_cache(backbone, config.data.cache))


def _with_text_cache(backbone: Backbone, cache: Path | None) -> Backbone:
    return backbone if cache is None else cache_texts(backbone, cache / "texts")


def choose_classes_and_prompts(
    data: DataConfig, train: Annotations, gallery: Annotations
) -> tuple[ClassSplit, PromptOptions]:
    """Choose base and novel classes and their prompts. What training would refuse is refused here, before encoding."""
    split = choose_classes(data, train, gallery)
    prompts = read_prompt_options(data, train, split)
    check_classes_and_prompts(train, split, prompts, data.allow_unlabelled_base)
    return split, prompts


def with_tiles(config: RunConfig, tiles: Tiles | None) -> RunConfig:
    """Name the tiles in the configuration, where it may say `auto`."""
    return replace(config, model=replace(config.model, tiles="none" if tiles is None else tiles.name))


def check_works_with_tiles(config: TrainConfig, tiles: Tiles | None) -> None:
    """Raise ValueError for settings that need a model without tiles."""
    needs_none = {"teacher: zoom": config.teacher == "zoom", "self_training: true": config.self_training is True}
    for setting, is_set in needs_none.items():
        if is_set and tiles is not None:
            raise ValueError(
                f"train.{setting} needs a model without tiles, and this one has {tiles.name}: "
                "set model.tiles to none, or leave the setting out"
            )


def stages_of_training(config: RunConfig, train: Annotations, classes: int, tiles: Tiles | None) -> list[Planned]:
    """Return what is to come of a training, with times relative to the encoding of one view. classes: base classes."""
    views, labelled = _training_views(config, train, tiles), int(train.verified_mask.any(1).sum())
    encoding = Planned(f"encoding {_describe_views(views)}", len(train), len(views))
    labelled = round(config.train.labelled_fraction * labelled)
    return [encoding, *expected_stages(config.train, len(train), labelled, classes, len(views_of(tiles)))]


def _training_views(config: RunConfig, train: Annotations, tiles: Tiles | None) -> tuple[View, ...]:
    count = resolve_num_views(config.train.views, len(train))
    return (*views_of(tiles), *make_views(count, config.train.seed)[1:])


def _describe_views(views: Sequence[View]) -> str:
    return "training images" if len(views) == 1 else f"training images in {len(views)} views"


def encode_training_images(
    config: RunConfig, backbone: Backbone, train: Annotations, track: Track, console: Console, tiles: Tiles | None
) -> Encoded:
    """Encode the training images as `encode_set` does: what the model embeds of them, then the other views."""
    views = _training_views(config, train, tiles)
    return encode_set(backbone, train, _describe_views(views), track, console, config.data.cache, views)


def encode_set(
    backbone: Backbone,
    images: Annotations,
    description: str,
    track: Track,
    console: Console,
    cache: Path | None = None,
    views: Sequence[View] = (PLAIN,),
) -> Encoded:
    """Encode images, or read them from the cache, and report images that cannot be read.

    Returns tokens [V, I, T, W]. Raises ValueError if no image can be read or the cache
    cannot be used.
    """
    report = partial(console.print, f"{description}:", markup=False, highlight=False)
    sources = (images.image_ids, images.paths, views)
    encoded = encode_on_workers(backbone, *sources, track, f"encoding {description}", cache, report)
    left_out, total = encoded.skipped, len(images)
    if left_out:
        skipped(len(left_out))
        console.print(f"{len(left_out)} of {total} {description} could not be read and were skipped:", style="yellow")
        for image in left_out[:10]:
            console.print(f"  {image.reason}", markup=False, highlight=False, soft_wrap=True)
    if not len(encoded.rows):
        reason = f": {left_out[0].reason}" if left_out else ""
        raise ValueError(f"none of {total} {description} can be read{reason}")
    return encoded


def save_run(out: Path, finetuned: Finetuned, backbone: Backbone, config: RunConfig, split: ClassSplit) -> None:
    """Write a run: the model, its split, history and choices, and ends.safetensors with the untuned and tuned head."""
    write_split(create_folder(out), split)
    write_text_atomically(out / "history.json", json.dumps(finetuned.history))
    write_text_atomically(out / "choices.json", json.dumps(finetuned.choices.to_json(), indent=1))
    save_ends(out / "ends.safetensors", finetuned.untuned, finetuned.tuned)
    templates, model = read_templates(config.data), config.model
    save_pretrained(out, finetuned.head, finetuned.class_vectors, backbone, model, templates, finetuned.calibration)
