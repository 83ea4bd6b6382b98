"""Divide the classes into base and novel ones, and store the split with a run (split.json)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from forclip.atomic_write import write_text_atomically
from forclip.config import DataConfig, NamedSplit, NovelRule
from forclip.data.formats.nuimages import NUIMAGES_NOVEL
from forclip.text.prompt_options import PromptOptions
from forclip.text.vocabulary import did_you_mean
from forclip.types import Annotations, ClassSplit

# Bansal et al., "Zero-Shot Object Detection" (arXiv 1804.04340): of COCO's 80 classes 48 are seen and 17 unseen; the
# other 15 are in neither. The names are COCO 2017's.
COCO_BASE = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear"),
    *("zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork"),
    *("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed"),
    *("toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock"),
    *("vase", "toothbrush"),
)
COCO_NOVEL = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife"),
    *("cake", "couch", "keyboard", "sink", "scissors"),
)
COCO_NEITHER = (
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "baseball glove"),
    *("tennis racket", "wine glass", "hot dog", "potted plant", "dining table", "cell phone", "hair drier"),
    "teddy bear",
)


# Base and novel names; base None: all others.
_SPLITS: dict[NamedSplit, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {
    "coco-48-17": (COCO_BASE, COCO_NOVEL),
    "coco-63-17": ((*COCO_BASE, *COCO_NEITHER), COCO_NOVEL),
    "nuimages": (None, NUIMAGES_NOVEL),
}


def choose_classes(data: DataConfig, train: Annotations, gallery: Annotations) -> ClassSplit:
    """Rules look at the training set alone, so that every gallery is searched with the split that was trained.

    A novel class need not be in the training set, nobody has labelled it; one that the gallery does not know is in the
    split, and left out of its evaluation. A published split leaves out the classes that it does not name. Raises
    ValueError for a name that neither set knows, a class in both groups, no base class at all, or a rule that does not
    fit the data.
    """
    if not train.class_names:
        raise ValueError(f"{data.train.annotations}: pictures without any label: there is nothing to learn from")
    names = train.class_names
    base = cast(tuple[str, ...] | None, data.base)  # files of names were read with the config
    if isinstance(data.novel, NovelRule):
        named_base, novel = _by_rule(data.novel, train, data)
        base = named_base if base is None else base
    else:
        novel = cast(tuple[str, ...], data.novel)
    others = tuple(n for n in names if n not in set(novel))
    if base is None and not others:
        raise ValueError(f"{data.train.annotations}: all {len(names)} classes are novel, none is left to learn from")
    known = (*names, *(n for n in gallery.class_names if n not in set(names)))
    split_classes(known, novel)  # each must be a class of one of the sets
    if base is not None:
        for name in base:
            if name not in names:
                raise ValueError(f"{data.train.annotations}: no class is named {name!r}, to be base")
        return ClassSplit(base, novel)
    return ClassSplit(others, tuple(n for n in known if n in set(novel)))


def _by_rule(rule: NovelRule, train: Annotations, data: DataConfig) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Base (None: all others) and novel names."""
    names = train.class_names
    if rule.split is not None:
        return published_split(rule.split, names, data.train.annotations)
    if rule.frequency is not None:
        if rule.frequency not in train.frequencies:
            known = ", ".join(sorted(set(train.frequencies))) or "none"
            raise ValueError(f"{data.train.annotations}: no class has frequency {rule.frequency!r}; there are: {known}")
        return None, tuple(n for n, f in zip(names, train.frequencies, strict=True) if f == rule.frequency)
    if rule.below is not None:
        counts = train.labels.sum(0)
        return None, tuple(n for n, count in zip(names, counts, strict=True) if count < rule.below)
    assert rule.fraction is not None
    count = max(1, round(rule.fraction * len(names)))
    drawn = set(np.random.default_rng(rule.seed).permutation(len(names))[:count].tolist())
    return None, tuple(n for k, n in enumerate(names) if k in drawn)


def published_split(
    split: NamedSplit, names: tuple[str, ...], annotations: Path
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Base (None: all others) and novel names of a split by its name. names: the classes that there are; annotations:
    where, for the ValueError that a class which is not there raises."""
    base, novel = _SPLITS[split]
    missing = [name for name in (*(base or ()), *novel) if name not in names]
    if missing:
        raise ValueError(f"{annotations}: the split {split} has the class {missing[0]!r}, the data has not")
    return base, novel


def split_classes(class_names: Sequence[str], novel_names: Sequence[str]) -> ClassSplit:
    """Everything not novel is base, both in the order of class_names. Raises ValueError for an unknown novel name."""
    for name in novel_names:
        if name not in class_names:
            raise ValueError(f"no class is named {name!r}, to be novel{did_you_mean(name, class_names)}")
    novel = set(novel_names)
    return ClassSplit(
        base=tuple(name for name in class_names if name not in novel),
        novel=tuple(name for name in class_names if name in novel),
    )


def check_classes_and_prompts(
    train: Annotations, split: ClassSplit, wording: PromptOptions, allow_unlabelled_base: bool
) -> None:
    """What `supervise` refuses, to be known before any picture is encoded. Raises ValueError."""
    base = train.with_classes(split.base)
    shown = np.atleast_1d((base.labels & base.verified_mask).any(0))
    if not allow_unlabelled_base and not shown.all():
        name = split.base[int(shown.argmin())]
        raise ValueError(f"base class {name!r} is in no training image: leave it out or make it novel")
    for name, prompts in wording.overrides.items():
        if name not in {*train.class_names, *split.novel}:
            raise ValueError(f"prompts are given for {name!r}, which is no class")
        if not prompts:
            raise ValueError(f"the list of prompts for class {name!r} is empty")


SPLIT_FILE = "split.json"


def write_split(run: Path, split: ClassSplit) -> None:
    """Into the run's folder."""
    write_text_atomically(run / SPLIT_FILE, json.dumps({"base": split.base, "novel": split.novel}, indent=1))


def read_split(run: Path) -> ClassSplit | None:
    """None where the folder holds none. Raises ValueError, naming the file, for a damaged one."""
    file = run / SPLIT_FILE
    try:
        content = json.loads(file.read_text())
        return ClassSplit(tuple(content["base"]), tuple(content["novel"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as a split into base and novel classes: {error}") from None
