"""From a run's configuration to its parts: the model, the images, the classes."""

import json
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console

from forclip.atomic_write import write_text_atomically
from forclip.calibration.model import Calibration
from forclip.config import DataConfig, RunConfig, config_to_json
from forclip.data.images.views import make_views, resolve_num_views
from forclip.data.sets import load_sets
from forclip.data.splits import check_classes_and_prompts, choose_classes, write_split
from forclip.data.verdicts import describe_verdicts, read_verdicts
from forclip.embedding.embed import EncodedImages, encode_views
from forclip.embedding.token_cache import cached_tokens
from forclip.models.backbone import Backbone
from forclip.models.cached_texts import CachedTexts
from forclip.models.retrieval_model import configured_backbone, save_pretrained
from forclip.progress import Track, tracking
from forclip.text.prompt_options import PromptOptions, read_prompt_options, read_templates
from forclip.training.finetune import Finetuned, TrainingImages, finetune
from forclip.training.supervision import supervise
from forclip.training.weight_interpolation import save_ends
from forclip.types import Annotations, ClassSplit


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


def checked_wording(data: DataConfig, train: Annotations, split: ClassSplit) -> PromptOptions:
    """Refuses what training would refuse, while nothing has been encoded yet."""
    wording = read_prompt_options(data, train, split)
    check_classes_and_prompts(train, split, wording, data.allow_unlabelled_base)
    return wording


def encode_training(
    config: RunConfig, backbone: Backbone, train: Annotations, track: Track, console: Console
) -> EncodedImages:
    """As encode_set, in as many views as the configuration plans for so many images."""
    views, cache = resolve_num_views(config.train.views, len(train)), config.data.cache
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
            console.print(describe_verdicts(verdicts, train, gallery), markup=False, highlight=False)
        split = choose_classes(config.data, train, gallery)
        wording = checked_wording(config.data, train, split)
        encoded = encode_training(config, backbone, train, track, console)
        readable = train.take(encoded.rows)
        supervision = supervise(backbone, readable, split, wording, config.data.allow_unlabelled_base)
        (out / "run.yaml").write_text(yaml.safe_dump(config_to_json(config), sort_keys=False))
        images = TrainingImages.encoded(encoded.tokens, readable.paths)
        tuned = finetune(backbone, images, supervision, config.head, config.train, checkpoint, track)
    skipped = [{"image_id": s.image_id, "reason": s.reason} for s in encoded.skipped]
    write_text_atomically(out / "skipped.json", json.dumps(skipped, indent=1))
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
    write_text_atomically(out / "history.json", json.dumps(tuned.history))
    write_text_atomically(out / "choices.json", json.dumps(tuned.choices.to_json(), indent=1))
    templates = read_templates(config.data)
    save_ends(out / "ends.safetensors", tuned.untuned, tuned.tuned)
    save_pretrained(out, tuned.head, tuned.class_vectors, backbone, config.model, templates, tuned.calibration)


def load_backbone(config: RunConfig) -> Backbone:
    """The pretrained model that a configuration names, its text vectors kept where there is a cache."""
    backbone = configured_backbone(config.model, config.device)
    return backbone if config.data.cache is None else CachedTexts(backbone, config.data.cache / "texts")
