"""Divide the classes into base and novel ones, and store the split with a run (split.json)."""

import json
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np

from forclip.atomic_write import write_text_atomically
from forclip.config import DataConfig, NamedSplit, NovelRule
from forclip.data.formats.nuimages import NUIMAGES_NOVEL
from forclip.data.formats.recognise import describe_class_folders
from forclip.data.left_out import and_left_out
from forclip.text.prompt_options import PromptOptions
from forclip.text.vocabulary import did_you_mean
from forclip.types import Annotations, ClassSplit

# Bansal et al., "Zero-Shot Object Detection" (arXiv 1804.04340): of COCO's 80 classes 48 are base and 17 novel; the
# other 15 are in neither group. The names are COCO 2017's.
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

Groups = tuple[tuple[str, ...] | None, tuple[str, ...]]  # base and novel names; a base of None means all others
_PUBLISHED: dict[NamedSplit, Groups] = {
    "coco-48-17": (COCO_BASE, COCO_NOVEL),
    "coco-63-17": ((*COCO_BASE, *COCO_NEITHER), COCO_NOVEL),
    "nuimages": (None, NUIMAGES_NOVEL),
}


def choose_classes(data: DataConfig, train: Annotations, gallery: Annotations) -> ClassSplit:
    """Choose the base and novel classes of a run.

    Rules look at the training set alone, so that every gallery is searched with the split that was trained. A novel
    class need not be in the training set. One that the gallery lacks stays in the split and is left out of the
    evaluation. Classes that a published split doesn't name are in neither group.
    Raises ValueError for a name that neither set has, a class in both groups, no base class, or a rule that doesn't
    fit the data.
    """
    file, names = data.train.annotations, train.class_names
    if not names:
        folders = describe_class_folders(file)
        problem = "no image has a label, so there is nothing to learn from"
        raise ValueError(f"{file}: {problem}{folders and f'; {folders}'}{and_left_out(train.skipped)}")
    base, novel = data.base, data.novel
    if isinstance(novel, NovelRule):
        rule_base, novel = _by_rule(novel, train, file)
        base = rule_base if base is None else base
    all_names = (*names, *(name for name in gallery.class_names if name not in set(names)))
    _check_novel_names(novel, all_names)
    if base is not None:
        for name in (name for name in base if name not in names):
            raise ValueError(f"{file}: no class is named {name!r}, to be base")
        return ClassSplit(base, novel)
    others = tuple(name for name in names if name not in set(novel))
    if not others:
        raise ValueError(f"{file}: all {len(names)} classes are novel, none is left to learn from")
    return ClassSplit(others, tuple(name for name in all_names if name in set(novel)))


def _by_rule(rule: NovelRule, train: Annotations, file: Path) -> Groups:
    names = train.class_names
    if rule.split is not None:
        return published_split(rule.split, names, file)
    if rule.frequency is not None:
        if rule.frequency not in train.frequencies:
            known = ", ".join(sorted(set(train.frequencies))) or "none"
            raise ValueError(f"{file}: no class has frequency {rule.frequency!r}, only: {known}")
        novel = np.array(train.frequencies) == rule.frequency
    elif rule.below is not None:
        novel = train.labels.sum(0) < rule.below
    else:
        assert rule.fraction is not None
        # Neither nothing nor everything, of two classes or more.
        count = max(1, min(round(rule.fraction * len(names)), len(names) - 1))
        novel = np.isin(np.arange(len(names)), np.random.default_rng(rule.seed).permutation(len(names))[:count])
    return None, tuple(compress(names, novel))


def published_split(split: NamedSplit, names: tuple[str, ...], file: Path) -> Groups:
    """The base and novel names of a published split.

    Raises ValueError, naming the file, if the dataset's names lack a class of the split.
    """
    base, novel = _PUBLISHED[split]
    missing = [name for name in (*(base or ()), *novel) if name not in names]
    if missing:
        raise ValueError(f"{file}: the split {split} needs a class {missing[0]!r}, which the data lack")
    return base, novel


def split_classes(class_names: Sequence[str], novel_names: Sequence[str]) -> ClassSplit:
    """Make all classes base that are not novel; both keep the order of class_names.

    Raises ValueError for an unknown novel name.
    """
    _check_novel_names(novel_names, class_names)
    novel = set(novel_names)
    return ClassSplit(tuple(n for n in class_names if n not in novel), tuple(n for n in class_names if n in novel))


def _check_novel_names(novel_names: Sequence[str], class_names: Sequence[str]) -> None:
    for name in (name for name in novel_names if name not in class_names):
        several = "; write several names as a list: [cat, dog]" if "," in name else ""
        raise ValueError(f"no class is named {name!r}, to be novel{did_you_mean(name, class_names) or several}")


def check_classes_and_prompts(
    train: Annotations, split: ClassSplit, prompt_options: PromptOptions, allow_unlabelled_base: bool
) -> None:
    """Check before any image is encoded that training can use the labels and the prompts.

    Raises ValueError for a base class that no training image shows (unless allow_unlabelled_base and another is
    shown), and as `check_prompts` does.
    """
    base = train.with_classes(split.base)
    shown = np.atleast_1d((base.labels & base.verified_mask).any(0))
    if not shown.any():
        raise ValueError(
            f"no training image shows a base class, such as {split.base[0]!r}: there is nothing to learn from"
        )
    if not allow_unlabelled_base and not shown.all():
        name = split.base[int(shown.argmin())]
        raise ValueError(
            f"no training image shows base class {name!r}: leave it out, make it novel, or set "
            "data.allow_unlabelled_base: true"
        )
    check_prompts(train, split, prompt_options)


def check_prompts(train: Annotations, split: ClassSplit, prompt_options: PromptOptions) -> None:
    """Raise ValueError for prompts of an unknown class, or an empty list of prompts."""
    for name, prompts in prompt_options.overrides.items():
        if name not in {*train.class_names, *split.novel}:
            raise ValueError(f"prompts are given for {name!r}, which is no class")
        if not prompts:
            raise ValueError(f"the list of prompts for class {name!r} is empty")


SPLIT_FILE = "split.json"


def write_split(run: Path, split: ClassSplit) -> None:
    """Write split.json into a run's folder."""
    write_text_atomically(run / SPLIT_FILE, json.dumps({"base": split.base, "novel": split.novel}, indent=1))


def read_split(run: Path) -> ClassSplit | None:
    """Read split.json from a run's folder; None if there is none. Raises ValueError, naming a damaged file."""
    file = run / SPLIT_FILE
    try:
        content = json.loads(file.read_text())
        return ClassSplit(tuple(content["base"]), tuple(content["novel"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as a split into base and novel classes: {error}") from None
