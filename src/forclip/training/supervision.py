"""What training may learn from: labels of base classes, and words that name no novel class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forclip.data.images.views import View
from forclip.data.splits import check_classes_and_prompts
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import SAME_WORD
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import encode_classes
from forclip.text.vocabulary import WordSet, normalise_word
from forclip.training.view_labels import label_views
from forclip.types import Annotations, Bools, ClassSplit, Ints


@dataclass(frozen=True)
class Supervision:
    """Labels and text vectors, without any novel class.

    labels, verified: [I, C], of base classes. texts: [C, D] unit, of the base classes. vocabulary: [W, D] unit, of the
    words for pseudo-labels. view_labels, view_verified: [V, I, C], of each view of an image; None if all views have the
    image's labels. names: [C], of the base classes; empty if they are unknown.
    """

    labels: Bools
    verified: Bools
    texts: Tensor
    vocabulary: Tensor
    view_labels: Bools | None = None
    view_verified: Bools | None = None
    names: tuple[str, ...] = ()

    @property
    def labelled(self) -> Ints:
        """Rows of the images with at least one verified label."""
        return np.flatnonzero(self.verified.any(1))

    def sample_labelled(self, count: int, seed: int) -> Ints:
        """Draw rows of at most so many labelled images, sorted."""
        rows = self.labelled
        if len(rows) <= count:
            return rows
        return np.sort(np.random.default_rng([seed, 13]).choice(rows, count, replace=False))

    @property
    def compares_images(self) -> bool:
        """Whether some class has both a labelled image that shows it and one that doesn't."""
        shown, absent = (self.verified & self.labels).any(0), (self.verified & ~self.labels).any(0)
        return bool((shown & absent).any())

    def keep_classes(self, columns: Ints) -> "Supervision":
        """Remove all other classes, also their words from the vocabulary."""
        removed = np.setdiff1d(np.arange(len(self.texts)), columns)
        vocabulary = self.vocabulary
        if len(removed):
            cosines = vocabulary @ self.texts[torch.from_numpy(removed)].T
            vocabulary = vocabulary[cosines.amax(1) <= SAME_WORD]
        return replace(self._take_classes(columns), vocabulary=vocabulary)

    def keep_labelled_fraction(self, fraction: float, seed: int) -> "Supervision":
        """Keep the labels of a fraction of the images, and only the classes that one of these images shows."""
        rows = labelled_rows(self.labels & self.verified, fraction, seed)
        fewer = self.keep_labels_of(rows)
        return fewer._take_classes(np.flatnonzero((fewer.labels & fewer.verified).any(0)))

    def keep_labels_of(self, rows: Ints) -> "Supervision":
        """Forget the labels of all other images."""
        kept = np.zeros((len(self.labels), 1), bool)
        kept[rows] = True
        views = None if self.view_verified is None else self.view_verified & kept
        return replace(self, verified=self.verified & kept, view_verified=views)

    def of_views(self, num_views: int) -> tuple[Bools, Bools]:
        """Return labels and verified of each view, [V, I, C] each."""
        if self.view_labels is None or self.view_verified is None:
            shape = (num_views, *self.labels.shape)
            return np.broadcast_to(self.labels, shape), np.broadcast_to(self.verified, shape)
        assert len(self.view_labels) == num_views
        return self.view_labels, self.view_verified

    def _take_classes(self, columns: Ints) -> "Supervision":
        return replace(
            self,
            labels=self.labels[:, columns],
            verified=self.verified[:, columns],
            texts=self.texts[torch.from_numpy(columns)],
            view_labels=None if self.view_labels is None else self.view_labels[:, :, columns],
            view_verified=None if self.view_verified is None else self.view_verified[:, :, columns],
            names=tuple(self.names[c] for c in columns) if self.names else (),
        )


def labelled_rows(labels: Bools, fraction: float, seed: int) -> Ints:
    """Choose the images that keep their labels: ceil(fraction * I) sorted rows.

    First come images that together show every class, each the one with the most classes not shown before, ties in
    random order; then the others in random order. So with one seed, a smaller fraction is part of a larger one.
    labels: [I, C]; fraction: above 0, at most 1.
    """
    if fraction == 1:  # at once: to cover the classes of a large set takes minutes
        return np.arange(len(labels))
    remaining = np.random.default_rng(seed).permutation(len(labels))
    uncovered, chosen = labels.any(0), []
    while uncovered.any():
        best = int(labels[remaining][:, uncovered].sum(1).argmax())
        chosen.append(remaining[best])
        uncovered = uncovered & ~labels[remaining[best]]
        remaining = np.delete(remaining, best)
    order = np.concatenate([np.array(chosen, np.int64), remaining])
    return np.sort(order[: math.ceil(fraction * len(labels))])


def supervise(
    backbone: Backbone,
    train: Annotations,
    split: ClassSplit,
    prompts: PromptOptions,
    allow_unlabelled_base: bool = False,
    views: Sequence[View] = (),
    rows: Ints | None = None,
) -> Supervision:
    """Build the supervision of the training images. This is the only way from labels to training.

    views: those that the head trains on, which get labels of their own by the boxes (`label_views`); rows: [I], of each
    image where the views were made, None if no image was left out since.

    The vocabulary gains the base classes. It loses novel classes and their synonyms, and the synonyms whose vectors are
    already part of a base class's vector. Prompts of novel classes are not used. Raises ValueError for a base class
    without a training image, unless allow_unlabelled_base (it is then left out, but stays in the vocabulary), and for
    the prompts of an unknown class.
    """
    check_classes_and_prompts(train, split, prompts, allow_unlabelled_base)
    base = train.with_classes(split.base)
    shown = np.atleast_1d((base.labels & base.verified_mask).any(0))
    labelled = base.with_classes([name for name, is_shown in zip(split.base, shown, strict=True) if is_shown])
    synonyms = dict(zip(split.base, all_synonyms(train, split), strict=False)) if prompts.synonyms == "mean" else {}
    _, novel = _synonyms_and_novel_words(train, split)
    used_synonyms = {normalise_word(word) for words in synonyms.values() for word in words}
    listed = [w for w in prompts.vocabulary if w not in novel and normalise_word(w) not in used_synonyms]

    def encode(names: tuple[str, ...]) -> Tensor:
        overrides = {n: prompts.overrides[n] for n in names if n in prompts.overrides and n in split.base}
        other_names = tuple(synonyms.get(name, ()) for name in names)
        return encode_classes(backbone, names, prompts.templates, other_names, overrides)

    texts, vocabulary = encode(labelled.class_names), encode(tuple(dict.fromkeys([*split.base, *listed])))
    view_labels, view_verified = label_views(labelled, views, rows) if views else (None, None)
    labels = labelled.labels, labelled.verified_mask
    return Supervision(*labels, texts, vocabulary, view_labels, view_verified, labelled.class_names)


def all_synonyms(train: Annotations, split: ClassSplit) -> tuple[tuple[str, ...], ...]:
    """Return the synonyms of each base class and then of each novel class, without those shared with a novel class.

    Novel classes keep all their synonyms: these are only used to search.
    """
    synonyms, novel = _synonyms_and_novel_words(train, split)
    base = (tuple(word for word in synonyms.get(name, ()) if word not in novel) for name in split.base)
    return (*base, *(synonyms.get(name, ()) for name in split.novel))


def _synonyms_and_novel_words(train: Annotations, split: ClassSplit) -> tuple[dict[str, tuple[str, ...]], WordSet]:
    synonyms = dict(zip(train.class_names, train.synonyms, strict=True)) if train.synonyms else {}
    return synonyms, WordSet(word for name in split.novel for word in (name, *synonyms.get(name, ())))
