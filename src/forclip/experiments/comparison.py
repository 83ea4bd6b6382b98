"""All methods on one dataset: the training-free ladder, the untrained summary head, and FOR for each seed."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from forclip.models.class_vectors import ClassVectors
from forclip.progress import Track, untracked
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import ClassTexts, Reduction, class_scores, encode_class_names
from forclip.training.finetune import Finetuned, TrainingImages, finetune
from forclip.training.initialisation import seeded_head
from forclip.training.supervision import Supervision, all_synonyms, supervise
from forclip.types import Annotations, ClassSplit, ImageEmbeddings, Ints


@dataclass(frozen=True)
class Task:
    """What is compared on. texts: [T, D] unit; text_owners: [T], the class column of the gallery that each asks for."""

    name: str
    backbone: Backbone
    train_images: TrainingImages
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
    wording: PromptOptions,
    allow_unlabelled_base: bool = False,
) -> Task:
    """Takes only the images that could be read. wording and the rest: as `supervise` takes them.

    Synonyms and overrides of novel classes are used here, where they are searched for.
    """
    names = (*split.base, *split.novel)
    labelled = train[0].take(train[1].rows)
    texts, owners = _search_texts(backbone, train[0], split, wording)
    return Task(
        name,
        backbone,
        TrainingImages.encoded(train[1].tokens, labelled.paths),
        supervise(backbone, labelled, split, wording, allow_unlabelled_base),
        gallery[0].with_classes(names, add_missing=True).take(gallery[1].rows),
        gallery[1],
        split,
        texts,
        owners,
    )


def _search_texts(
    backbone: Backbone, train: Annotations, split: ClassSplit, wording: PromptOptions
) -> tuple[Tensor, Ints]:
    """As encode_class_names returns them."""
    names = (*split.base, *split.novel)
    told = {name: prompts for name, prompts in wording.overrides.items() if name in names}
    synonyms = () if wording.synonyms == "none" else all_synonyms(train, split)
    reduction: Reduction = "max" if wording.synonyms == "max" else "mean"
    return encode_class_names(backbone, ClassTexts(names, synonyms, tuple(wording.templates), reduction, told))


def gallery_digest(gallery: Annotations) -> str:
    """Equal for two galleries if they have the same images, classes and labels. Hexadecimal, 16 digits."""
    digest = hashlib.sha256(json.dumps([gallery.image_ids, gallery.class_names]).encode())
    digest.update(np.packbits(gallery.labels).tobytes() + np.packbits(gallery.verified_mask).tobytes())
    return digest.hexdigest()[:16]


def training_free_heads(task: Task, head: HeadConfig, clusters: Sequence[int]) -> dict[str, Head]:
    """The baselines by method name, and the summary head as it starts."""
    # More clusters than positions are no method of this model.
    possible = [f"cluster_{k}" for k in clusters if k <= task.backbone.new_pool().num_positions]
    heads = {name: training_free_head(task.backbone, name) for name in ("global", "dense", *possible)}
    return {**heads, "sum_untrained": seeded_head(task.backbone.new_pool(), task.train_images.tokens[0], head, seed=0)}


@dataclass(frozen=True)
class Measured:
    """A method, its gallery embeddings and what they are worth. texts: [T, D] unit, as this method asks for classes."""

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
) -> Measured:
    """Embeds the gallery with a head and evaluates it. Time per image counts decoding, backbone and head.

    class_vectors: the text side of a finetuned head; calibration: what its scores are worth, to be evaluated as well.
    """
    gallery = task.gallery_images
    start = time.perf_counter()
    found = embed_tokens(head, gallery.tokens, task.gallery.image_ids, task.backbone.device)
    seconds = gallery.seconds + time.perf_counter() - start
    texts = task.texts if class_vectors is None else class_vectors(task.texts)
    by_text = max_sim(found.vectors, found.offsets, texts.cpu().numpy())
    scores = class_scores(by_text, task.text_owners, len(task.gallery.class_names))
    labels, names, verified = task.gallery.labels, task.gallery.class_names, task.gallery.verified
    report = evaluate_scores(
        scores,
        labels,
        names,
        task.split,
        config.min_relevant,
        verified=verified,
        distractors=config.distractors,
    )
    sure = (
        None
        if calibration is None
        else evaluate_confidence(calibration, scores, labels, names, task.split, verified, config.distractors)
    )
    run = MethodRun(method, seed, report, len(found.vectors) / len(found), 1000 * seconds / len(found), sure)
    return Measured(run, head, found, texts.cpu())


def measure_training_free(
    task: Task, head: HeadConfig, config: EvalConfig, seed: int, track: Track = untracked
) -> dict[str, Measured]:
    """The ladder's methods by name. They don't depend on the seed, which only labels the runs."""
    heads = training_free_heads(task, head, config.clusters)
    advance = track("evaluating baselines", len(heads))
    measured = {}
    for method, built in heads.items():
        measured[method] = measure(task, method, built, seed, config)
        advance(1)
    return measured


def finetune_on(
    task: Task, head: HeadConfig, config: TrainConfig, checkpoint: Path | None = None, track: Track = untracked
) -> Finetuned:
    """FOR on the task's base labels."""
    return finetune(task.backbone, task.train_images, task.supervision, head, config, checkpoint, track)


def compare(
    task: Task, head: HeadConfig, train: TrainConfig, config: EvalConfig, seeds: Sequence[int], track: Track = untracked
) -> list[MethodRun]:
    """Every method's runs: the training-free ones once, FOR for each seed."""
    runs = [m.run for m in measure_training_free(task, head, config, seeds[0], track).values()]
    for seed in seeds:
        tuned = finetune_on(task, head, replace(train, seed=seed), None, track)
        runs.append(measure(task, "for", tuned.head, seed, config, tuned.class_vectors, tuned.calibration).run)
    return runs
