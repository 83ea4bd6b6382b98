"""What a run is made of: frozen dataclasses that read themselves from YAML and refuse what they do not know."""

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
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


_STRICT = ConfigDict(extra="forbid")


@validated(frozen=True, config=_STRICT)
class ModelConfig:
    """A pretrained model, by an open_clip name (with a pretrained tag or file), `local-dir:PATH` or `forclip-mini`.

    image_size: pixels a side, or None for the model's own. train_last_stage: finetune the tower's last stage with the
    head, at train.stage_learning_rate (CLIP's own ResNets and ViTs).
    """

    name: str = "forclip-mini"
    pretrained: str | None = None
    image_size: int | None = None
    resize_mode: Literal["squash", "letterbox"] = "squash"
    train_last_stage: bool = False


@validated(frozen=True, config=_STRICT)
class HeadConfig:
    """The summary head. seeding: soft windows over positions; the pooled query plus noise of noise_scale; or clusters
    of what the training images show, wherever it is.

    alignment: centre and whiten the outputs by the training photos: on, off, or auto: unless that ranks the base labels
    of the training photos worse. alignment_shrinkage: 0 whitens fully, 1 only centres.
    """

    num_query_tokens: int = 25
    seeding: Literal["windows", "noise", "clusters"] = "windows"
    noise_scale: float = 1.0
    alignment: Literal["auto", "on", "off"] = "auto"
    alignment_shrinkage: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.alignment_shrinkage <= 1:
            raise ValueError(f"alignment_shrinkage must be within 0..1, not {self.alignment_shrinkage}")
        if self.num_query_tokens < 1:
            raise ValueError(f"num_query_tokens must be at least 1, not {self.num_query_tokens}")


@validated(frozen=True, config=_STRICT)
class TrainConfig:
    """How the head is finetuned. Weights are of the objectives in forclip.training.objectives; 0 leaves one out.

    learning_rate: AdamW's, for a head of width 128; a wider one gets less in proportion (arXiv 2203.03466).
    stage_learning_rate: of the tower's last stage, where that is trained, as a share of learning_rate.
    views: of each training image, kept beside each other: itself, its mirror image, crops; or None: four of each of up
    to 10,000 images, fewer beyond, since large sets overfit less and their tokens fill disks.
    trainable: queries alone; queries and where they look (query_key); or values and output as well (all).
    labelled_fraction: share of the training images whose base labels are used.
    teacher: of the objectives that follow one: cluster (Cluster-CLIP of teacher_clusters), zoom (nine windows of each
    picture), none, or auto: the one that ranks the labelled photos best, and none where none beats the untuned head.
    interpolation: the share of the way from the untuned to the tuned head, or None: chosen on base classes held back
    in held_back_folds trial trainings (below 2 folds: 0.5).
    class_vectors: how far the base classes' text vectors follow the labels; 0 leaves them.
    ema_decay: of the average of weights over steps that is handed over; 0 hands over the last.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    stage_learning_rate: float = 0.1
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    ema_decay: float = 0.0
    views: int | None = None
    trainable: Literal["queries", "query_key", "all"] = "all"
    labelled_fraction: float = 1.0
    base_loss: Literal["binary", "asymmetric", "softmax"] = "asymmetric"
    base_weight: float = 1.0
    teacher: Literal["auto", "cluster", "zoom", "none"] = "auto"
    teacher_clusters: int = 25
    pseudo_weight: float = 0.1
    pseudo_temperature: float = 0.05
    set_weight: float = 0.1
    random_text_weight: float = 0.0
    neighbour_weight: float = 0.0
    neighbour_words: int = 200
    diversity_weight: float = 0.0
    held_back_folds: int = 2
    interpolation: float | None = None
    class_vectors: float = 0.75
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        above = ("epochs", "batch_size", "learning_rate", "stage_learning_rate", "checkpoint_every")
        for name in (*above, "teacher_clusters", "pseudo_temperature", "neighbour_words"):
            if not getattr(self, name) > 0:  # so written, it refuses NaN
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("base", "pseudo", "set", "random_text", "neighbour", "diversity"):
            if not getattr(self, f"{name}_weight") >= 0:
                raise ValueError(f"{name}_weight must not be negative, but is {getattr(self, f'{name}_weight')}")
        for name in ("warmup_share", "ema_decay", "class_vectors"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0..1, not {getattr(self, name)}")
        if not 0 < self.labelled_fraction <= 1:
            raise ValueError(f"labelled_fraction must be above 0 and at most 1, not {self.labelled_fraction}")
        if self.views is not None and self.views < 1:
            raise ValueError(f"views must be above 0, not {self.views}")
        if self.interpolation is not None and not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation must be within 0..1, not {self.interpolation}")
        if self.held_back_folds < 0:
            raise ValueError(f"held_back_folds must not be negative, but is {self.held_back_folds}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")


@validated(frozen=True, config=_STRICT)
class EvalConfig:
    """What is measured. Classes with fewer than min_relevant gallery images are left out.

    distractors: gallery images that show no base and no novel class stay among the images searched.
    """

    clusters: tuple[int, ...] = (5, 10, 25)
    min_relevant: int = 1
    distractors: bool = True

    def __post_init__(self) -> None:
        for count in self.clusters:
            if count < 1:
                raise ValueError(f"clusters must be at least 1 each, not {count}")
        if self.min_relevant < 1:
            raise ValueError(f"min_relevant must be at least 1, not {self.min_relevant}")


@validated(frozen=True, config=_STRICT)
class RunConfig:
    """All of a run."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    device: str = "cpu"


def load_config(file: Path) -> RunConfig:
    """Reads a YAML file; paths in it are relative to it. Raises ValueError naming the file, the key and the value."""
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such config file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    try:
        config = TypeAdapter(RunConfig).validate_python(content)
    except ValidationError as error:
        # Where several kinds of value are taken, our own refusal of one says more than pydantic's of the others; and of
        # those, the one that got furthest into what is there.
        deepest = max(error.errors(), key=lambda e: len(e["loc"]))
        first = next((e for e in error.errors() if e["type"] == "value_error"), deepest)
        place = ".".join(str(part) for part in first["loc"] if not _names_a_kind(part)) or "the file"
        raise ValueError(f"{file}: {place}: {first['msg']} (given: {str(first['input'])[:80]!r})") from None
    return _anchored(config, file.parent.absolute())


def _names_a_kind(part: int | str) -> bool:
    """Whether pydantic put it into the place of an error for a kind of value, such as `NovelRule` or `tuple[...]`."""
    return isinstance(part, str) and (not part.isidentifier() or part[0].isupper())


def config_to_json(config: Any) -> dict[str, Any]:
    """A dataclass of this module as plain JSON values."""
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(config), mode="json")
    return plain


def read_names(file: Path) -> tuple[str, ...]:
    """One name a line; empty lines don't count. Raises ValueError for a file that is not there or not text."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file of names") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as a list of names: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


def _anchored(config: RunConfig, folder: Path) -> RunConfig:
    """Paths relative to the config file's folder, files of names read."""
    data = config.data

    def anchor(source: SourceConfig) -> SourceConfig:
        images = None if source.images is None else folder / source.images
        return replace(source, annotations=folder / source.annotations, images=images)

    def names(given: tuple[str, ...] | Path) -> tuple[str, ...]:
        return read_names(folder / given) if isinstance(given, Path) else given

    gallery = data.gallery
    if isinstance(gallery, SourceConfig):
        gallery = anchor(gallery)
    elif gallery is not None and gallery.image_ids is not None:
        gallery = replace(gallery, image_ids=folder / gallery.image_ids)
    anchored = replace(
        data,
        train=anchor(data.train),
        gallery=gallery,
        novel=data.novel if isinstance(data.novel, NovelRule) else names(data.novel),
        base=None if data.base is None else names(data.base),
        vocabulary=folder / data.vocabulary if isinstance(data.vocabulary, Path) else data.vocabulary,
        cache=data.cache and folder / data.cache,
        verdicts=data.verdicts and folder / data.verdicts,
    )
    return replace(config, data=anchored)
