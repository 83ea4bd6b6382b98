"""All methods on one dataset: the training-free ladder, the untrained summary head, and FOR for each seed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forclip.config import EvalConfig, HeadConfig, TrainConfig
from forclip.embedding import EncodedImages, embed_tokens
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.metrics_file import MethodRun
from forclip.evaluation.protocol import ClassSplit, evaluate_scores
from forclip.finetuning import Finetuned, Supervision, finetune, untuned_head
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead, DenseHead, Head
from forclip.models.summary_head import global_head
from forclip.prompts import encode_classes
from forclip.types import Annotations, ImageEmbeddings


@dataclass(frozen=True)
class Task:
    """What is compared on. train and gallery have the same class columns; the texts are one vector a column.

    vocabulary: [V, D], the texts that pseudo-labels are scored over; no novel name is among them.
    """

    name: str
    backbone: Backbone
    train: Annotations
    train_images: EncodedImages
    gallery: Annotations
    gallery_images: EncodedImages
    split: ClassSplit
    texts: Tensor
    vocabulary: Tensor

    def supervision(self) -> Supervision:
        """Base labels only: nothing of a novel class leaves this function."""
        shown = self.train.labels.any(0)
        base = [self.train.class_names.index(name) for name in self.split.base]
        columns = [c for c in base if shown[c]]
        labels = self.train.labels[:, columns]
        return Supervision(labels, np.ones_like(labels), self.texts[columns], self.vocabulary)


def new_task(
    name: str,
    backbone: Backbone,
    train: tuple[Annotations, EncodedImages],
    gallery: tuple[Annotations, EncodedImages],
    split: ClassSplit,
    templates: Sequence[str],
    vocabulary: Sequence[str],
    allow_unlabelled_base: bool = False,
) -> Task:
    """Takes only the images that could be read. vocabulary: names; novel ones are left out of it.

    Raises ValueError for a base class that no readable training image shows, unless allow_unlabelled_base: then
    nothing is learned of it, and it is evaluated all the same.
    """
    names = (*split.base, *split.novel)
    trained, searched = (a.with_classes(names).take(e.rows) for a, e in (train, gallery))
    for column, class_name in enumerate(split.base):
        if not allow_unlabelled_base and not trained.labels[:, column].any():
            raise ValueError(f"base class {class_name!r} is in no training image: leave it out or make it novel")
    novel = {n.lower() for n in split.novel}
    words = list(dict.fromkeys([*split.base, *(w for w in vocabulary if w.lower() not in novel)]))
    return Task(
        name,
        backbone,
        trained,
        train[1],
        searched,
        gallery[1],
        split,
        encode_classes(backbone, names, templates),
        encode_classes(backbone, words, templates),
    )


def training_free_heads(backbone: Backbone, head: HeadConfig, clusters: Sequence[int]) -> dict[str, Head]:
    """The baselines by method name, and the summary head as it starts."""
    pool = backbone.new_pool().eval()
    # More clusters than positions are no method of this model.
    possible = [k for k in clusters if k <= pool.num_positions]
    return {
        "global": global_head(pool).to(backbone.device),
        "dense": DenseHead(pool),
        **{f"cluster_{k}": ClusterHead(pool, k) for k in possible},
        "sum_untrained": untuned_head(backbone, head, seed=0),
    }


@dataclass(frozen=True)
class Measured:
    """A method's gallery embeddings and what they are worth."""

    run: MethodRun
    embeddings: ImageEmbeddings


def measure(task: Task, method: str, head: Head, seed: int, config: EvalConfig, with_boxes: bool = False) -> Measured:
    """Embeds the gallery with a head and evaluates it. Time per image counts decoding, backbone and head."""
    gallery = task.gallery_images
    start = time.perf_counter()
    found = embed_tokens(head, gallery.tokens, task.gallery.image_ids, task.backbone.device)
    seconds = gallery.seconds + time.perf_counter() - start
    scores = max_sim(found.vectors, found.offsets, task.texts.numpy())
    report = evaluate_scores(scores, task.gallery.labels, task.gallery.class_names, task.split, config.min_relevant)
    per_image = len(found.vectors) / len(found)
    run = MethodRun(method, seed, report, per_image, 1000 * seconds / len(found))
    if with_boxes:
        found = embed_tokens(head, gallery.tokens, task.gallery.image_ids, task.backbone.device, with_boxes=True)
    return Measured(run, found)


def finetune_on(
    task: Task,
    head: HeadConfig,
    train: TrainConfig,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, terms: None,
) -> Finetuned:
    """FOR on the task's base labels, with this seed."""
    torch.manual_seed(seed)
    config = replace(train, seed=seed)
    tokens = task.train_images.tokens
    return finetune(task.backbone, tokens, task.supervision(), head, config, checkpoint, on_step)


def compare(
    task: Task, head: HeadConfig, train: TrainConfig, config: EvalConfig, seeds: Sequence[int]
) -> list[MethodRun]:
    """Every method's runs; the training-free ones don't depend on a seed and run once."""
    heads = training_free_heads(task.backbone, head, config.clusters)
    runs = [measure(task, method, h, seeds[0], config).run for method, h in heads.items()]
    for seed in seeds:
        tuned = finetune_on(task, head, train, seed)
        runs.append(measure(task, "for", tuned.head, seed, config).run)
    return runs
