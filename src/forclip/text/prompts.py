"""Encode class names to text vectors through prompt templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.text.prompt_options import SINGLE_TEMPLATE, resolve_templates
from forclip.types import Floats, Ints

Reduction = Literal["mean", "max"]


class TextEncoder(Protocol):
    """The part of a backbone that encodes text."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return float32 [T, D] of unit length, one row per text."""


@dataclass(frozen=True)
class ClassTexts:
    """The names and prompts of a list of classes.

    synonyms: other names of each class, or empty. templates: prompts with `{}` for a name, or the name of a template
    set. reduction: `mean` gives one vector per class; `max` gives one per name, of which the best score counts.
    overrides: by class name, templates for the class's names (with `{}`) or whole prompts (without), in place of
    `templates`. Raises ValueError for a template without `{}`, no template, no class, and an override that is empty or
    of an unknown class.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    templates: tuple[str, ...] = SINGLE_TEMPLATE
    reduction: Reduction = "mean"
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.synonyms) in (0, len(self.names))
        object.__setattr__(self, "templates", resolve_templates(self.templates))
        if not self.names:
            raise ValueError("there is no class name to encode")
        for name, prompts in self.overrides.items():
            if name not in self.names:
                raise ValueError(f"prompts are given for {name!r}, which is no class")
            if not prompts:
                raise ValueError(f"the list of prompts for class {name!r} is empty")

    def prompt_groups(self, column: int) -> tuple[tuple[str, ...], ...]:
        """Return a class's prompts, grouped by vector: the prompts of a group are averaged."""
        prompts = self.overrides.get(self.names[column], self.templates)
        templates = [text for text in prompts if "{}" in text]
        whole = [(text,) for text in prompts if "{}" not in text]
        synonyms = self.synonyms[column] if self.synonyms else ()
        names = dict.fromkeys((self.names[column], *synonyms))  # LVIS repeats a class's name among its synonyms
        # Not str.format: it would fail on other braces in a template.
        named = [tuple(t.replace("{}", name) for t in templates) for name in names if templates]
        groups = (*named, *whole)
        return groups if self.reduction == "max" else (tuple(prompt for group in groups for prompt in group),)


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def encode_class_names(encoder: TextEncoder, texts: ClassTexts) -> tuple[Tensor, Ints]:
    """Encode all classes, each vector the normalised mean over a group of prompts (arXiv 2103.00020, section 3.1.4).

    Returns unit vectors [T, D], float32 on the CPU, and the class of each vector, [T] in ascending order. Every class
    has at least one vector.
    """
    groups = [(column, group) for column in range(len(texts.names)) for group in texts.prompt_groups(column)]
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
    """Encode each class to one unit vector, the mean over its names and templates (or its overrides).

    Returns [C, D], float32 on the CPU. Raises ValueError as ClassTexts does.
    """
    texts = ClassTexts(tuple(names), tuple(synonyms), tuple(templates), "mean", overrides or {})
    return encode_class_names(encoder, texts)[0]


def class_scores(scores: Floats, owners: Ints, num_classes: int) -> Floats:
    """Take the maximum over each class's texts.

    scores: [I, T]; owners: [T], each text's class in 0..num_classes - 1. Returns [I, num_classes]. Raises ValueError
    for a class without a text.
    """
    missing = np.setdiff1d(np.arange(num_classes), owners)
    if len(missing):
        raise ValueError(f"class {missing[0]} has no text")
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(num_classes))
    best: Floats = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best
