"""Which classes of two sets are base and which novel."""

from typing import cast

import numpy as np

from forclip.data.nuimages_names import NUIMAGES_NOVEL
from forclip.data_config import DataConfig, NamedSplit, NovelRule
from forclip.evaluation.protocol import ClassSplit, split_classes
from forclip.published_splits import COCO_BASE, COCO_NOVEL
from forclip.types import Annotations


def choose_classes(data: DataConfig, train: Annotations, gallery: Annotations) -> ClassSplit:
    """A class counts if both sets know it. A published split leaves out the classes that it does not name.

    Raises ValueError for a name that is no class, a class in both groups, no base class at all, or a rule that does not
    fit the data.
    """
    in_both = set(gallery.class_names)
    names = [n for n in train.class_names if n in in_both]
    base = cast(tuple[str, ...] | None, data.base)  # files of names were read with the config
    if isinstance(data.novel, NovelRule):
        named_base, novel = _by_rule(data.novel, train.with_classes(names), data)
        base = named_base if base is None else base
    else:
        novel = cast(tuple[str, ...], data.novel)
    split = split_classes(names, novel)
    if base is None:
        return split
    split_classes(names, base)  # each must be a class
    return ClassSplit(base, split.novel)


def _by_rule(rule: NovelRule, train: Annotations, data: DataConfig) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Base (None: all others) and novel names."""
    names = train.class_names
    if rule.split is not None:
        return _published(rule.split, names, data)
    if rule.frequency is not None:
        if rule.frequency not in train.frequencies:
            known = ", ".join(sorted(set(train.frequencies))) or "none"
            raise ValueError(f"{data.train.annotations}: no class has frequency {rule.frequency!r}; there are: {known}")
        return None, tuple(n for n, f in zip(names, train.frequencies, strict=True) if f == rule.frequency)
    if rule.below is not None:
        counts = train.labels.sum(0)
        return None, tuple(n for n, count in zip(names, counts, strict=True) if count < rule.below)
    assert rule.fraction is not None
    count = round(rule.fraction * len(names))
    drawn = set(np.random.default_rng(rule.seed).permutation(len(names))[:count].tolist())
    return None, tuple(n for k, n in enumerate(names) if k in drawn)


def _published(
    split: NamedSplit, names: tuple[str, ...], data: DataConfig
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    base, novel = (COCO_BASE, COCO_NOVEL) if split == "coco-48-17" else (None, NUIMAGES_NOVEL)
    missing = [name for name in (*(base or ()), *novel) if name not in names]
    if missing:
        raise ValueError(f"{data.train.annotations}: the split {split} has the class {missing[0]!r}, the data has not")
    return base, novel
