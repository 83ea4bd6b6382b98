"""The data section of a run's configuration: which images, which labels, which classes are novel, which words."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

_STRICT = ConfigDict(extra="forbid")
Format = Literal["auto", "coco", "lvis", "nuimages", "yolo", "voc", "csv", "folder"]
NamedSplit = Literal["coco-48-17", "coco-63-17", "nuimages"]


@validated(frozen=True, config=_STRICT)
class SourceConfig:
    """Images and their labels.

    annotations: a COCO or LVIS JSON file, a CSV file, YOLO's data YAML, nuImages' folder of tables, Pascal VOC's
    folder, or a folder of unlabelled pictures. images: the folder that file names are relative to, or None: the one
    that the annotations are in. format: auto tells them apart. subset: a part by the format's own name (YOLO's val,
    VOC's trainval).
    """

    annotations: Path
    images: Path | None = None
    format: Format = "auto"
    subset: str | None = None

    @property
    def image_folder(self) -> Path:
        """What file names are relative to."""
        if self.images is not None:
            return self.images
        return self.annotations if self.annotations.is_dir() else self.annotations.parent


@validated(frozen=True, config=_STRICT)
class NovelRule:
    """Which classes are novel, by one rule.

    split: coco-48-17, which is published and says what is base as well; coco-63-17, all 80 classes: the same 17 are
    novel and the 15 that it leaves out are base; or nuimages, which is ours. frequency: the dataset's own word (LVIS:
    r); below: shown in fewer training images than this; fraction: of all classes, drawn with the seed.
    """

    split: NamedSplit | None = None
    frequency: str | None = None
    below: int | None = None
    fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("split", "frequency", "below", "fraction") if getattr(self, name) is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise ValueError(f"exactly one of split, frequency, below and fraction says what is novel, not {told}")
        if self.below is not None and self.below < 1:
            raise ValueError(f"below must be at least 1, not {self.below}")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be above 0 and below 1, not {self.fraction}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")


@validated(frozen=True, config=_STRICT)
class GalleryRule:
    """A part of the training source that is searched instead of trained on: a fraction drawn with the seed, or the
    images whose ids a file lists, one a line."""

    fraction: float | None = None
    image_ids: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.image_ids is None):
            raise ValueError("exactly one of fraction and image_ids says what the gallery is")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be above 0 and below 1, not {self.fraction}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")


@validated(frozen=True, config=_STRICT)
class DataConfig:
    """Where images and labels come from.

    gallery: another source, a part of train by a rule, or None: then every second image of train, in id order, is the
    gallery. novel: class names, never used in training, a file that names one a line, or a rule. base: class names
    likewise, or None for all others (those of a published split, where that is the rule). vocabulary: a file of names
    for pseudo-labels, `lvis` for the shipped 1,203, or None for the base classes alone. templates: prompts, or the name
    of a set. synonyms: also ask by the other names that the dataset gives its classes, and take the mean of the text
    vectors, or in evaluation the best of the scores. prompts: by class name, templates or whole prompts of its own.
    allow_unlabelled_base: accept base classes that no training image shows. cache: a folder where
    the backbone's tokens, text vectors and large annotation files are kept for the next run, or None: in memory.
    verdicts: a CSV file of right and wrong picks, which join the training labels (forclip.data.verdicts).
    """

    train: SourceConfig
    novel: tuple[str, ...] | Path | NovelRule = ()
    gallery: SourceConfig | GalleryRule | None = None
    base: tuple[str, ...] | Path | None = None
    vocabulary: Literal["lvis"] | Path | None = None
    templates: Literal["single", "clip7", "clip80"] | tuple[str, ...] = "single"
    synonyms: Literal["none", "mean", "max"] = "none"
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_unlabelled_base: bool = False
    cache: Path | None = None
    verdicts: Path | None = None
