"""Measure methods on one dataset: the training-free baselines, the untrained summary head, and FOR."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from forclip.calibration.model import Calibration
from forclip.config import EvalConfig, HeadConfig, TrainConfig
from forclip.embedding.embed import EncodedImages, embed_tokens
from forclip.evaluation.confidence import evaluate_confidence
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.metrics_file import MethodRun
from forclip.evaluation.protocol import evaluate_scores
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head, training_free_head
from forclip.models.retrieval_model import ClassVectors
from forclip.progress import Track, untracked
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import ClassTexts, Reduction, class_scores, encode_class_names
from forclip.training.finetune import Finetuned, finetune
from forclip.training.initialisation import seeded_head
from forclip.training.supervision import Supervision, all_synonyms, supervise
from forclip.types import Annotations, ClassSplit, ImageEmbeddings, Ints


@dataclass(frozen=True)
class Task:
    """A dataset, ready to train and measure on.

    train_tokens: [V, I, T, W] float16, V views of each training image, the plain one first; train_paths: [I].
    texts: [T, D] unit, by which classes are searched; text_owners: [T], the gallery's class column of each text.
    """

    name: str
    backbone: Backbone
    train_tokens: Tensor
    train_paths: Sequence[Path]
    supervision: Supervision
    gallery: Annotations
    gallery_images: EncodedImages
    split: ClassSplit
    texts: Tensor
    text_owners: Ints


def new_task(
    name: str,
    backbone: Backbone,
    train: tuple[Annotations, EncodedImages],
    gallery: tuple[Annotations, EncodedImages],
    split: ClassSplit,
    prompts: PromptOptions,
    allow_unlabelled_base: bool = False,
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
    supervision = supervise(backbone, labelled, split, prompts, allow_unlabelled_base)
    searched = gallery_annotations.with_classes(names, add_missing=True).take(gallery_encoded.rows)
    training = (tokens if tokens.ndim == 4 else tokens[None], labelled.paths, supervision)
    return Task(name, backbone, *training, searched, gallery_encoded, split, texts, text_owners)


def gallery_digest(gallery: Annotations) -> str:
    """Return 16 hexadecimal digits, equal for galleries with the same images, classes and labels."""
    digest = hashlib.sha256(json.dumps([gallery.image_ids, gallery.class_names]).encode())
    digest.update(np.packbits(gallery.labels).tobytes() + np.packbits(gallery.verified_mask).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class MethodResult:
    """A method's evaluation, with its head and gallery embeddings. texts: [T, D] unit, as this method searches by."""

    run: MethodRun
    head: Head
    embeddings: ImageEmbeddings
    texts: Tensor


def measure(
    task: Task,
    method: str,
    head: Head,
    seed: int,
    config: EvalConfig,
    class_vectors: ClassVectors | None = None,
    calibration: Calibration | None = None,
) -> MethodResult:
    """Embed the gallery with a head and evaluate it. Time per image includes decoding, backbone and head.

    class_vectors: the text side of a finetuned head. calibration: if given, its probabilities are evaluated too.
    """
    start = time.perf_counter()
    embeddings = embed_tokens(head, task.gallery_images.tokens, task.gallery.image_ids, task.backbone.device)
    seconds = task.gallery_images.seconds + time.perf_counter() - start
    texts = (task.texts if class_vectors is None else class_vectors(task.texts)).cpu()
    labels, names, verified = task.gallery.labels, task.gallery.class_names, task.gallery.verified
    text_scores = max_sim(embeddings.vectors, embeddings.offsets, texts.numpy())
    scores = class_scores(text_scores, task.text_owners, len(names))
    labelled, kept = (scores, labels, names, task.split), config.distractors
    report = evaluate_scores(*labelled, config.min_relevant, verified=verified, distractors=kept)
    confidence = None if calibration is None else evaluate_confidence(calibration, *labelled, verified, kept)
    count = len(embeddings)
    run = MethodRun(method, seed, report, len(embeddings.vectors) / count, 1000 * seconds / count, confidence)
    return MethodResult(run, head, embeddings, texts)


def measure_training_free(
    task: Task, head: HeadConfig, config: EvalConfig, seed: int, track: Track = untracked
) -> dict[str, MethodResult]:
    """Measure the baselines and the untrained summary head, by method name. The seed only labels the results.

    Skips more clusters than positions.
    """
    num_positions = task.backbone.new_pool().num_positions
    names = ("global", "dense", *(f"cluster_{k}" for k in config.clusters if k <= num_positions))
    heads = {name: training_free_head(task.backbone, name) for name in names}
    heads["sum_untrained"] = seeded_head(task.backbone.new_pool(), task.train_tokens[0], head, seed=0)
    advance = track("evaluating baselines", len(heads))
    results = {}
    for method, built in heads.items():
        results[method] = measure(task, method, built, seed, config)
        advance(1)
    return results


def finetune_on(
    task: Task, head: HeadConfig, config: TrainConfig, checkpoint: Path | None = None, track: Track = untracked
) -> Finetuned:
    """Finetune FOR on the task's base labels."""
    data = (task.train_tokens, task.train_paths, task.supervision)
    return finetune(task.backbone, *data, head, config, checkpoint, track)
