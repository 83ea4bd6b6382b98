"""Train a run: from its configuration to a folder with the model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console

from forclip.atomic_write import write_text_atomically
from forclip.config import DataConfig, RunConfig, config_to_json, load_config
from forclip.data.images.tiles import Tiles, views_of
from forclip.data.images.views import PLAIN, View, make_views, resolve_num_views
from forclip.data.sources import load_sets
from forclip.data.splits import check_classes_and_prompts, choose_classes, write_split
from forclip.data.training_images import write_training_images
from forclip.data.verdicts import describe_verdicts, read_verdicts
from forclip.embedding.embed import EncodedImages, encode_views
from forclip.embedding.orientation import warn_about_orientation
from forclip.embedding.token_cache import cached_tokens
from forclip.models.backbone import Backbone
from forclip.models.mini_clip import warn_about_photos
from forclip.models.references import absolute_reference
from forclip.models.retrieval_model import RetrievalModel, configured_backbone, from_pretrained, save_pretrained
from forclip.models.text_cache import cache_texts
from forclip.progress import Track, tracking
from forclip.text.prompt_options import PromptOptions, read_prompt_options, read_templates
from forclip.training.choose_tiles import resolve_tiles
from forclip.training.finetune import Finetuned, finetune
from forclip.training.supervision import supervise
from forclip.training.weight_interpolation import save_ends
from forclip.types import Annotations, ClassSplit


def train(
    config: RunConfig | str | Path, out: str | Path, *, resume: bool = False, console: Console | None = None
) -> RetrievalModel:
    """Finetune a model with FOR on the base labels of a dataset, write the run to a folder and load it.

    config: a RunConfig, or the path of its YAML file. out: folder for what `save_run` writes, the checkpoint, run.yaml
    and skipped.json; `forclip index` and load_model accept it as a model. resume: continue a run that was stopped.
    console: receives progress and messages; standard error by default.

    Raises ValueError if the config or the data is invalid, or if `out` already contains a run and resume is False.
    """
    config = config if isinstance(config, RunConfig) else load_config(Path(config))
    out, console = Path(out), console or Console(stderr=True)
    checkpoint = create_folder(out) / "checkpoint.safetensors"
    if not resume and (checkpoint.exists() or (out / "config.json").exists()):
        raise ValueError(f"{out}: already holds a run; continue it with --resume, or choose another folder")
    pretrained = configured_backbone(config.model, config.device)
    backbone = pretrained if config.data.cache is None else cache_texts(pretrained, config.data.cache / "texts")
    with tracking(console) as track:
        train, gallery = load_sets(config.data)
        warn_about_photos(backbone.name, train.paths)
        warn_about_orientation(backbone, train.paths)
        if config.data.verdicts is not None:
            verdicts, _ = read_verdicts(config.data.verdicts, config.data.train.image_folder)
            console.print(describe_verdicts(verdicts, train, gallery), markup=False, highlight=False)
        split, prompts = choose_classes_and_prompts(config.data, train, gallery)
        query_tokens = config.head.num_query_tokens
        tiles = resolve_tiles(config.model, backbone, train, split, prompts, query_tokens, track, console)
        config = with_tiles(config, tiles)
        encoded = encode_training_images(config, backbone, train, track, console, tiles)
        readable = train.take(encoded.rows)
        unlabelled = config.data.allow_unlabelled_base
        supervision = supervise(backbone, readable, split, prompts, unlabelled, encoded.views, encoded.rows)
        if not supervision.keep_labelled_fraction(config.train.labelled_fraction, config.train.seed).compares_images:
            message = "no base class has both a labelled image that shows it and one that doesn't"
            console.print(f"[yellow]{message}: the labels can't teach what to tell apart[/]", highlight=False)
        exact = replace(config, model=absolute_reference(config.model))
        (out / "run.yaml").write_text(yaml.safe_dump(config_to_json(exact), sort_keys=False))
        settings = (config.head, config.train, checkpoint, track)
        finetuned = finetune(
            backbone, encoded.tokens, readable.paths, supervision, *settings, num_parts=len(views_of(tiles))
        )
    skipped = [{"image_id": s.image_id, "reason": s.reason} for s in encoded.skipped]
    write_text_atomically(out / "skipped.json", json.dumps(skipped, indent=1))
    write_training_images(out, readable.paths)
    save_run(out, finetuned, backbone, config, split)
    calibration = finetuned.calibration
    message = "The model gives scores but no probabilities: too few base classes were held out to calibrate it."
    if calibration is not None:
        error = calibration.held_out_errors["top 50"]
        measured = "" if error is None else f"; ECE over the 50 best images of unseen classes: {error:.3f}"
        message = f"Probabilities are calibrated on {calibration.classes} held-out base classes{measured}."
    console.print(message)
    console.print(f"The model: [bold]{out}[/]")
    return from_pretrained(out, backbone=pretrained)


def create_folder(folder: Path) -> Path:
    """Create a folder if it does not exist, and return it. Raises ValueError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_backbone(config: RunConfig) -> Backbone:
    """Load the configured pretrained model; its text vectors are cached if the run has a cache."""
    backbone = configured_backbone(config.model, config.device)
    return backbone if config.data.cache is None else cache_texts(backbone, config.data.cache / "texts")


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


def encode_training_images(
    config: RunConfig, backbone: Backbone, train: Annotations, track: Track, console: Console, tiles: Tiles | None
) -> EncodedImages:
    """Encode the training images as `encode_set` does: what the model embeds of them, then the other views."""
    count = resolve_num_views(config.train.views, len(train))
    views = (*views_of(tiles), *make_views(count, config.train.seed)[1:])
    description = "training images" if len(views) == 1 else f"training images in {len(views)} views"
    return encode_set(backbone, train, description, track, console, config.data.cache, views)


def encode_set(
    backbone: Backbone,
    images: Annotations,
    description: str,
    track: Track,
    console: Console,
    cache: Path | None = None,
    views: Sequence[View] = (PLAIN,),
) -> EncodedImages:
    """Encode images, or read them from the cache, and report images that cannot be read.

    Returns tokens [V, I, T, W]. Raises ValueError if no image can be read or the cache
    cannot be used.
    """
    advance = track(f"encoding {description}", len(images))
    sources = (images.image_ids, images.paths, views)
    if cache is None:
        encoded = encode_views(backbone, *sources, advance)
    else:
        report = partial(console.print, f"{description}:", markup=False, highlight=False)
        encoded = cached_tokens(cache, backbone, *sources, advance, report)
    skipped, total = encoded.skipped, len(images)
    if skipped:
        console.print(f"[yellow]{len(skipped)} of {total} {description} could not be read and were skipped:[/]")
        for image in skipped[:10]:
            console.print(f"  {image.reason}", markup=False)
    if not len(encoded.rows):
        reason = f": {skipped[0].reason}" if skipped else ""
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
