"""Measure methods on one dataset: the training-free baselines, the untrained summary head, and FOR."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forclip.calibration.model import Calibration
from forclip.config import EvalConfig, HeadConfig, TrainConfig
from forclip.data.images.tiles import Tiles, parse_tiles, views_of
from forclip.data.images.views import PLAIN, View
from forclip.embedding.encode_on_workers import Encoded, embed_rows
from forclip.embedding.row_shards import Rows, one_view
from forclip.embedding.stream_parts import embed_views
from forclip.evaluation.confidence import evaluate_confidence
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.metrics_file import MethodRun
from forclip.evaluation.protocol import evaluate_scores
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head, training_free_head
from forclip.models.retrieval_model import ClassVectors
from forclip.progress import Advance, Track, silent, untracked
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import ClassTexts, Reduction, class_scores, encode_class_names
from forclip.training.finetune import Finetuned, finetune
from forclip.training.initialisation import seeded_head
from forclip.training.supervision import Supervision, all_synonyms, supervise
from forclip.types import Annotations, ClassSplit, ImageEmbeddings, Ints


@dataclass(frozen=True)
class Task:
    """A dataset, ready to train and measure on.

    train_tokens: [V, I, T, W] float16, V views of each training image: what the model embeds, then others; train_paths:
    [I]. tiles: what the trained model embeds besides the whole image.
    texts: [T, D] unit, by which classes are searched; text_owners: [T], the gallery's class column of each text.
    """

    name: str
    backbone: Backbone
    train_tokens: Rows
    train_paths: Sequence[Location]
    supervision: Supervision
    gallery: Annotations
    gallery_images: Encoded
    split: ClassSplit
    texts: Tensor
    text_owners: Ints
    tiles: Tiles | None = None


def new_task(
    name: str,
    backbone: Backbone,
    train: tuple[Annotations, Encoded],
    gallery: tuple[Annotations, Encoded],
    split: ClassSplit,
    prompts: PromptOptions,
    allow_unlabelled_base: bool = False,
    tiles: Tiles | None = None,
) -> Task:
    """Build a task from the images that could be read. Raises ValueError as `supervise` does.

    train, gallery: annotations of all images, and the encoded images. Synonyms and prompts of novel classes are used
    in `texts` only.
    """
    names = (*split.base, *split.novel)
    (train_annotations, train_encoded), (gallery_annotations, gallery_encoded) = train, gallery
    labelled, tokens = train_annotations.take(train_encoded.rows), train_encoded.tokens
    synonyms = () if prompts.synonyms == "none" else all_synonyms(train_annotations, split)
    reduction: Reduction = "max" if prompts.synonyms == "max" else "mean"
    overrides = {name: texts for name, texts in prompts.overrides.items() if name in names}
    class_texts = ClassTexts(names, synonyms, tuple(prompts.templates), reduction, overrides)
    texts, text_owners = encode_class_names(backbone, class_texts)
    supervision = supervise(
        backbone, labelled, split, prompts, allow_unlabelled_base, train_encoded.views, train_encoded.rows
    )
    searched = gallery_annotations.with_classes(names, add_missing=True).take(gallery_encoded.rows)
    if isinstance(tokens, Tensor) and tokens.ndim == 3:
        tokens = tokens[None]
    training = (tokens, labelled.paths, supervision)
    return Task(name, backbone, *training, searched, gallery_encoded, split, texts, text_owners, tiles)


@dataclass(frozen=True)
class MethodResult:
    """A method's evaluation, with its head and gallery embeddings.

    texts: [T, D] unit, as this method searches by. views: the parts of an image that the head embeds, in the order of
    their vectors, equally many of each.
    """

    run: MethodRun
    head: Head
    embeddings: ImageEmbeddings
    texts: Tensor
    views: tuple[View, ...] = (PLAIN,)


def measure(
    task: Task,
    method: str,
    head: Head,
    seed: int,
    config: EvalConfig,
    class_vectors: ClassVectors | None = None,
    calibration: Calibration | None = None,
    tiles: Tiles | None = None,
    advance: Advance = silent,
) -> MethodResult:
    """Embed the gallery with a head and evaluate it. Time per image includes decoding, backbone and head.

    class_vectors: the text side of a finetuned head. calibration: if given, its probabilities are evaluated too. tiles:
    embedded besides the whole images, in a stream. advance: called with the number of images whose tiles are embedded.
    Raises ValueError for an image that can no longer be read.
    """
    start = time.perf_counter()
    embeddings = embed_rows(task.backbone, head, task.gallery_images.tokens, task.gallery.image_ids)
    seconds = task.gallery_images.seconds + time.perf_counter() - start
    if tiles is not None:
        sources = task.gallery.image_ids, task.gallery.paths, tiles.tile_views(), advance
        of_tiles, more_seconds = embed_views(task.backbone, head, *sources)
        whole = torch.from_numpy(embeddings.vectors).unflatten(0, (len(embeddings), -1))
        embeddings, seconds = _of_parts(torch.cat([whole[None], of_tiles]), task), seconds + more_seconds
    text_side = class_vectors, calibration
    return _evaluate(task, method, head, embeddings, views_of(tiles), seconds, seed, config, *text_side)


def measure_tiles(
    task: Task, tiles: Tiles, config: EvalConfig, seed: int, advance: Advance = silent, cache: Path | None = None
) -> MethodResult:
    """Embed the gallery's tiles alone, each through plain CLIP, in a stream, and evaluate it. cache: as `embed_views`.

    Raises ValueError for an image that can no longer be read.
    """
    head, views = training_free_head(task.backbone, "global"), tiles.tile_views()
    sources = task.gallery.image_ids, task.gallery.paths, views, advance, cache
    vectors, seconds = embed_views(task.backbone, head, *sources, head_name="global")
    return _evaluate(task, f"tiles_{tiles.name}", head, _of_parts(vectors, task), views, seconds, seed, config)


def _of_parts(vectors: Tensor, task: Task) -> ImageEmbeddings:
    """Join the vectors [P, I, N, D] of each gallery image's parts, part by part."""
    parts, images, count, _ = vectors.shape
    offsets = np.arange(images + 1, dtype=np.int64) * parts * count
    return ImageEmbeddings(vectors.transpose(0, 1).flatten(0, 2).numpy(), offsets, task.gallery.image_ids)


def _evaluate(
    task: Task,
    method: str,
    head: Head,
    embeddings: ImageEmbeddings,
    views: tuple[View, ...],
    seconds: float,
    seed: int,
    config: EvalConfig,
    class_vectors: ClassVectors | None = None,
    calibration: Calibration | None = None,
) -> MethodResult:
    """Evaluate a method's gallery embeddings. seconds: for all images."""
    texts = (task.texts if class_vectors is None else class_vectors(task.texts)).cpu()
    labels, names, verified = task.gallery.labels, task.gallery.class_names, task.gallery.verified
    text_scores = max_sim(embeddings.vectors, embeddings.offsets, texts.numpy())
    scores = class_scores(text_scores, task.text_owners, len(names))
    labelled, kept = (scores, labels, names, task.split), config.distractors
    report = evaluate_scores(*labelled, config.min_relevant, verified=verified, distractors=kept)
    confidence = None if calibration is None else evaluate_confidence(calibration, *labelled, verified, kept)
    count = len(embeddings)
    cost = len(embeddings.vectors) / count, 1000 * seconds / count
    run = MethodRun(method, seed, report, *cost, confidence, passes=len(views))
    return MethodResult(run, head, embeddings, texts, views)


def measure_training_free(
    task: Task, head: HeadConfig, config: EvalConfig, seed: int, track: Track = untracked, cache: Path | None = None
) -> dict[str, MethodResult]:
    """Measure the baselines and the untrained summary head, by method name. The seed only labels the results.

    Skips more clusters than positions. cache: a folder that keeps the vectors of the gallery's tiles between runs.
    """
    num_positions = task.backbone.new_pool().num_positions
    names = ("global", "dense", *(f"cluster_{k}" for k in config.clusters if k <= num_positions))
    heads = {name: training_free_head(task.backbone, name) for name in names}
    heads["sum_untrained"] = seeded_head(task.backbone.new_pool(), one_view(task.train_tokens, 0), head, seed=0)
    advance = track("evaluating baselines", len(heads))
    results = {}
    for method, built in heads.items():
        results[method] = measure(task, method, built, seed, config)
        advance(1)
    if (tiles := parse_tiles(config.tiles)) is not None:
        advance = track("embedding tiles", len(task.gallery))
        of_tiles = measure_tiles(task, tiles, config, seed, advance, cache)
        results[of_tiles.run.method] = of_tiles
    return results


def finetune_on(
    task: Task, head: HeadConfig, config: TrainConfig, checkpoint: Path | None = None, track: Track = untracked
) -> Finetuned:
    """Finetune FOR on the task's base labels."""
    data = (task.train_tokens, task.train_paths, task.supervision)
    return finetune(task.backbone, *data, head, config, checkpoint, track, len(views_of(task.tiles)))
