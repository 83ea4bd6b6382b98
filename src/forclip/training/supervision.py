"""What the owner of the data knows of the training images: base labels, and the words that may be used."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forclip.data.splits import check_classes_and_prompts
from forclip.models.backbone import Backbone
from forclip.models.class_vectors import SAME_WORD
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import encode_classes
from forclip.text.vocabulary import WordSet, normalise_word
from forclip.types import Annotations, Bools, ClassSplit, Ints


def labelled_rows(labels: Bools, fraction: float, seed: int) -> Ints:
    """labels: [I, C]. Returns ceil(fraction x I) sorted rows, at least one.

    A smaller fraction's rows are among a larger one's, with the same seed. Raises ValueError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"labelled_fraction must be above 0 and at most 1, not {fraction}")
    return np.sort(_order(labels, seed)[: math.ceil(fraction * len(labels))])


def _order(labels: Bools, seed: int) -> Ints:
    """All rows: each next one shows the most classes not shown yet, ties in random order; then the rest at random."""
    remaining = np.random.default_rng(seed).permutation(len(labels))
    uncovered, chosen = labels.any(0), []
    while uncovered.any():
        best = int(labels[remaining][:, uncovered].sum(1).argmax())
        chosen.append(remaining[best])
        uncovered = uncovered & ~labels[remaining[best]]
        remaining = np.delete(remaining, best)
    return np.concatenate([np.array(chosen, np.int64), remaining])


@dataclass(frozen=True)
class Supervision:
    """Nothing of a novel class is in it.

    labels, verified: [I, C] of base classes; texts: [C, D] unit, theirs; vocabulary: [V, D] unit, for pseudo-labels.
    """

    labels: Bools
    verified: Bools
    texts: Tensor
    vocabulary: Tensor

    @property
    def labelled(self) -> Ints:
        """Rows of the images that have a label at all."""
        return np.flatnonzero(self.verified.any(1))

    def keep_classes(self, columns: Ints) -> "Supervision":
        """Without the other classes, and without their words."""
        dropped = np.setdiff1d(np.arange(len(self.texts)), columns)
        rows = torch.from_numpy(columns)
        vocabulary = self.vocabulary
        if len(dropped):
            cosines = vocabulary @ self.texts[torch.from_numpy(dropped)].T
            vocabulary = vocabulary[cosines.amax(1) <= SAME_WORD]
        return Supervision(self.labels[:, columns], self.verified[:, columns], self.texts[rows], vocabulary)

    def labelled_fraction(self, fraction: float, seed: int) -> "Supervision":
        """Only a fraction of the images keep their labels; classes that none of them shows have no column any more."""
        kept = labelled_rows(self.labels & self.verified, fraction, seed)
        verified = np.zeros_like(self.verified)
        verified[kept] = self.verified[kept]
        shown = np.flatnonzero((self.labels & verified).any(0))
        texts = self.texts[torch.from_numpy(shown)]
        return replace(self, labels=self.labels[:, shown], verified=verified[:, shown], texts=texts)


def supervise(
    backbone: Backbone,
    train: Annotations,
    split: ClassSplit,
    wording: PromptOptions,
    allow_unlabelled_base: bool = False,
) -> Supervision:
    """Base labels of the training images: nothing of a novel class gets past this function.

    Base classes join the vocabulary, novel ones and their synonyms are taken out. Synonyms that a base class is trained
    with are no words of their own; overrides of novel classes are not looked at. Raises ValueError for a base class
    that no training image shows, unless allow_unlabelled_base: then nothing is learned of it; and for an override of
    what is no class.
    """
    check_classes_and_prompts(train, split, wording, allow_unlabelled_base)
    base = train.with_classes(split.base)
    shown = np.atleast_1d((base.labels & base.verified_mask).any(0))
    known = base.with_classes([name for name, there in zip(split.base, shown, strict=True) if there])
    others = dict(zip(split.base, all_synonyms(train, split), strict=False)) if wording.synonyms == "mean" else {}
    novel, of_base = _novel_words(train, split), {normalise_word(w) for words in others.values() for w in words}
    listed = [w for w in wording.vocabulary if w not in novel and normalise_word(w) not in of_base]
    words = tuple(dict.fromkeys([*split.base, *listed]))
    told = wording.overrides

    def encode(names: tuple[str, ...]) -> Tensor:
        own = {name: told[name] for name in names if name in told and name in split.base}
        return encode_classes(backbone, names, wording.templates, tuple(others.get(name, ()) for name in names), own)

    return Supervision(known.labels, known.verified_mask, encode(known.class_names), encode(words))


def all_synonyms(train: Annotations, split: ClassSplit) -> tuple[tuple[str, ...], ...]:
    """The other names of base and then novel classes, to search by. Base classes have those that they are trained with.

    A base class loses the names that are a novel class's as well.
    """
    others = _synonyms(train)
    novel = _novel_words(train, split)
    base = (tuple(w for w in others.get(name, ()) if w not in novel) for name in split.base)
    return (*base, *(others.get(name, ()) for name in split.novel))


def _novel_words(train: Annotations, split: ClassSplit) -> WordSet:
    """The novel classes' names and synonyms."""
    others = _synonyms(train)
    return WordSet(word for name in split.novel for word in (name, *others.get(name, ())))


def _synonyms(train: Annotations) -> dict[str, tuple[str, ...]]:
    return dict(zip(train.class_names, train.synonyms, strict=True)) if train.synonyms else {}
