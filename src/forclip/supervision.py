"""What the owner of the data knows of the training images: base labels, and the words that may be used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forclip.evaluation.protocol import ClassSplit
from forclip.labelled_fraction import labelled_rows
from forclip.models.backbone import Backbone
from forclip.objectives import SAME_WORD
from forclip.prompts import encode_classes
from forclip.types import Annotations, Bools, Ints


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
    templates: Sequence[str],
    vocabulary: Sequence[str],
    allow_unlabelled_base: bool = False,
) -> Supervision:
    """Base labels of the training images: nothing of a novel class gets past this function.

    vocabulary: names for pseudo-labels; base classes join it and novel ones are taken out. Raises ValueError for a
    base class that no training image shows, unless allow_unlabelled_base: then nothing is learned of it.
    """
    base = train.with_classes(split.base)
    shown = np.atleast_1d((base.labels & base.known).any(0))
    if not allow_unlabelled_base and not shown.all():
        name = split.base[int(shown.argmin())]
        raise ValueError(f"base class {name!r} is in no training image: leave it out or make it novel")
    known = base.with_classes([name for name, there in zip(split.base, shown, strict=True) if there])
    novel = {name.lower() for name in split.novel}
    words = list(dict.fromkeys([*split.base, *(w for w in vocabulary if w.lower() not in novel)]))
    texts = encode_classes(backbone, known.class_names, templates)
    return Supervision(known.labels, known.known, texts, encode_classes(backbone, words, templates))
