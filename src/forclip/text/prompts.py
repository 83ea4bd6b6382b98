"""Class names to text vectors, through prompt templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.types import Floats, Ints

How = Literal["mean", "max"]


class TextEncoder(Protocol):
    """The part of a backbone that encodes text."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return float32 [T, D] of unit length, one row per text."""
        ...


@dataclass(frozen=True)
class ClassTexts:
    """What a model is told of each class.

    synonyms: other names of each class, or nothing at all; templates: prompts with `{}` for a name. how: a class is one
    vector (mean), or one for each of its names, the best of which counts (max). overrides: by class, what it is told
    instead of the templates: with `{}` a template for the class's names, without it a whole prompt.
    Raises ValueError for a template without `{}`, no template, no class, and an override that is empty or of no class.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    templates: tuple[str, ...] = ("a photo of a {}",)
    how: How = "mean"
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.synonyms) in (0, len(self.names))
        if not self.templates:
            raise ValueError("there is no prompt template")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(f"prompt template {template!r} has no {{}} for the class name")
        if not self.names:
            raise ValueError("there is no class name to encode")
        for name, texts in self.overrides.items():
            if name not in self.names:
                raise ValueError(f"prompts are given for {name!r}, which is no class")
            if not texts:
                raise ValueError(f"the list of prompts for class {name!r} is empty")

    def names_of(self, column: int) -> tuple[str, ...]:
        """The class's name and its synonyms, each once: LVIS repeats the name among the synonyms."""
        synonyms = self.synonyms[column] if self.synonyms else ()
        return tuple(dict.fromkeys((self.names[column], *synonyms)))

    def prompts_of(self, column: int) -> tuple[tuple[str, ...], ...]:
        """What the class is asked by: for each of its vectors, the prompts that are averaged."""
        told = self.overrides.get(self.names[column], self.templates)
        templates = [text for text in told if "{}" in text]
        whole = [(text,) for text in told if "{}" not in text]
        # Not str.format: it would trip over other braces in a template.
        named = [tuple(t.replace("{}", name) for t in templates) for name in self.names_of(column) if templates]
        groups = (*named, *whole)
        return groups if self.how == "max" else (tuple(prompt for group in groups for prompt in group),)


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def encode_class_names(encoder: TextEncoder, texts: ClassTexts) -> tuple[Tensor, Ints]:
    """Unit vectors of all classes, and the class that each belongs to: a mean over prompts, as `texts.how` groups them.

    Returns [T, D] float32 on the CPU and [T] in ascending order, every class at least once. The mean over prompts is
    CLIP's (arXiv 2103.00020, section 3.1.4).
    """
    groups = [(column, group) for column in range(len(texts.names)) for group in texts.prompts_of(column)]
    vectors = encoder.encode_text([prompt for _, group in groups for prompt in group]).float().cpu()
    means = [part.mean(0) for part in vectors.split([len(group) for _, group in groups])]
    return F.normalize(torch.stack(means), dim=-1), np.array([column for column, _ in groups], np.int64)


def encode_classes(
    encoder: TextEncoder,
    names: Sequence[str],
    templates: Sequence[str],
    synonyms: Sequence[tuple[str, ...]] = (),
    overrides: Mapping[str, tuple[str, ...]] | None = None,
) -> Tensor:
    """A unit vector for each class: the mean over its names, and over templates or what overrides them.

    Returns [C, D] float32 on the CPU. Raises ValueError as ClassTexts does.
    """
    texts = ClassTexts(tuple(names), tuple(synonyms), tuple(templates), "mean", overrides or {})
    return encode_class_names(encoder, texts)[0]


def class_scores(scores: Floats, owners: Ints, num_classes: int) -> Floats:
    """The best score of a class's names. scores: [I, T]; owners: [T], in 0..num_classes - 1. Returns [I, num_classes].

    Raises ValueError for a class that no text is of.
    """
    missing = np.setdiff1d(np.arange(num_classes), owners)
    if len(missing):
        raise ValueError(f"no text is of the class of column {missing[0]}")
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(num_classes))
    best: Floats = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best
