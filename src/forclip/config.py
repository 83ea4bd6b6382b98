"""The configuration of a run: frozen dataclasses, read from a YAML file and checked by pydantic."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import asdict, field
from datetime import date
from io import StringIO
from os.path import isfile  # Path's method raises for a name that is too long
from pathlib import Path
from reprlib import repr as shortened  # YAML's aliases can make a short file endless when it is printed
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from forclip.image_size import ImageSize, parse_image_size
from forclip.location import Location, Uri, as_location, is_at_url
from forclip.one_line import one_line

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ProperFraction = Annotated[float, Field(gt=0, lt=1)]  # neither nothing nor everything

_NAME_FILES = (".txt", ".names", ".csv", ".tsv", ".lst", ".list", ".json", ".yaml", ".yml")

Format = Literal["auto", "coco", "lvis", "nuimages", "yolo", "voc", "csv", "cvat", "labelstudio", "folder"]
NamedSplit = Literal["coco-48-17", "coco-63-17", "nuimages"]
Compute = Literal["float32", "bf16", "fp16"]
ComputeChoice = Literal["auto", "float32", "bf16", "fp16"]


def _read_if_file(names: Any, info: ValidationInfo) -> Any:
    """A name alone is a file of names, or a single class name if there is no such file."""
    if not isinstance(names, str | Path):
        return names
    file = Path(names) if is_at_url(Path(names)) else Path(info.context or ".", names)
    is_name = (
        isinstance(names, str) and not isfile(file) and not is_at_url(file) and file.suffix.lower() not in _NAME_FILES
    )
    return (names,) if is_name else read_names(file)


def _resolve_if_path(name: str, info: ValidationInfo) -> str:
    prefix = "local-dir:" if name.startswith("local-dir:") else ""
    path = Path(info.context or ".", Path(name.removeprefix(prefix)).expanduser())
    is_model = (path.suffix and path.is_file()) or (path.is_dir() and (prefix or any(path.glob("*config.json"))))
    return f"{prefix}{path}" if info.context and name and is_model else name


def _check_grid(name: str) -> str:
    """Accept `none`, `auto`, and ROWSxCOLUMNS of 1 to 8 with more than one tile."""
    if name not in ("none", "auto") and (not re.fullmatch("[1-8]x[1-8]", name) or name == "1x1"):
        raise ValueError("must be none, auto, or two tiles or more as ROWSxCOLUMNS, each 1 to 8, such as 3x3")
    return name


def _refuse_auto(name: str) -> str:
    if name == "auto":
        raise ValueError("must be none, or ROWSxCOLUMNS such as 3x3; auto applies to model.tiles")
    return name


TileGrid = Annotated[str, AfterValidator(_check_grid)]
# The context is the folder of the YAML file.
File = Annotated[
    Path,
    AfterValidator(lambda path, info: path if isinstance(as_location(path), Uri) else Path(info.context or ".", path)),
]
ModelName = Annotated[str, AfterValidator(_resolve_if_path)]  # a name, or a local path
# Names, a single name, or a file with one name per line.
Names = Annotated[tuple[str, ...], BeforeValidator(_read_if_file)]


@dataclass(frozen=True, config=_STRICT)
class SourceConfig:
    """Images and their labels.

    annotations: a COCO or LVIS JSON file, a CSV file, a YOLO data YAML or folder, a folder of nuImages tables, a
    Pascal VOC folder, an export of CVAT or Label Studio, or a folder of unlabelled images. images: the folder that
    file names are relative to; None means the folder of the annotations. format: auto detects it. subset: a part of
    the dataset by its name in the format (YOLO: val or all, VOC: trainval, CVAT: a subset of a project).
    """

    annotations: File
    images: File | None = None
    format: Format = "auto"
    subset: str | None = None

    @property
    def image_folder(self) -> Path:
        """The folder that file names are relative to."""
        if self.images is not None:
            return self.images
        return self.annotations if self.annotations.is_dir() else self.annotations.parent


@dataclass(frozen=True, config=_STRICT)
class NovelRule:
    """A rule that chooses the novel classes. Exactly one of the first four fields is set.

    split: coco-48-17, a published split that also names the base classes; coco-63-17, which uses all 80 classes: the
    same 17 are novel, and the 15 that the published split leaves out are base; or nuimages, which is our own.
    frequency: classes of this frequency group (LVIS: r). below: classes that fewer training images show. fraction: a
    random part of all classes, drawn with the seed.
    """

    split: NamedSplit | None = None
    frequency: str | None = None
    below: Count | None = None
    fraction: ProperFraction | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        given = [name for name in ("split", "frequency", "below", "fraction") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of split, frequency, below, fraction: {' and '.join(given) or 'none'}")


@dataclass(frozen=True, config=_STRICT)
class GalleryRule:
    """The part of the training source that is searched instead of trained on.

    Either a random fraction, drawn with the seed, or the images whose ids a file lists, one per line.
    """

    fraction: ProperFraction | None = None
    image_ids: File | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.image_ids is None):
            raise ValueError("needs exactly one of fraction and image_ids")


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Where images and labels come from.

    novel: the classes that are never used in training: names, a file with one name per line, or a rule. One name alone
    is a class if no file is called so.
    gallery: the images searched: another source, a part of train by a rule, or None for every second image of train in
    id order. base: class names or a file, as for novel; None means all other classes, or those of the published split.
    vocabulary: words for pseudo-labels: a file of names, `lvis` for the shipped 1,203, or None for the base classes.
    templates: prompt templates, or the name of a set. synonyms: whether a class is also searched by the other names
    that the dataset gives: `mean` averages the text vectors, `max` takes the best score in evaluation. prompts:
    templates or whole prompts for single classes, by class name. allow_unlabelled_base: accept base classes that no
    training image shows. cache: a folder that keeps patch tokens, text vectors and large annotation files between
    runs; None keeps them in memory. verdicts: a CSV file of right and wrong results that join the training labels
    (forclip.data.verdicts).
    """

    train: SourceConfig
    novel: Names | NovelRule = ()
    gallery: SourceConfig | GalleryRule | None = None
    base: Names | None = None
    vocabulary: Literal["lvis"] | File | None = None
    templates: Literal["single", "clip7", "clip80"] | tuple[str, ...] = "single"
    synonyms: Literal["none", "mean", "max"] = "none"
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_unlabelled_base: bool = False
    cache: File | None = None
    verdicts: File | None = None


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """A pretrained model.

    name: a short name of `forclip models`, an open_clip architecture, a model folder in open_clip's or Hugging Face's
    layout, `hf-hub:ORG/NAME`, or `forclip-mini`; the default is for photos (forclip.models.registry). pretrained: an
    architecture's weights: an open_clip tag, a file, or `random`; None takes its best-known tag.
    image_size: pixels per side, [rows, columns] such as [288, 512] for 16:9 pictures, or None for the model's own.
    resize_mode: squash the whole picture to this size, or letterbox it. train_last_stage: also finetune the last stage
    of the image tower, at train.stage_learning_rate (only CLIP's own ResNets and ViTs).
    tiles: what is embedded besides the whole image: none; 2x2, 3x3 or other ROWSxCOLUMNS of overlapping tiles; or auto,
    which a training chooses on held-back base classes, and a pretrained model by the size of the pictures.
    tile_overlap: the part of a tile's side that it shares with its neighbour (forclip.data.images.tiles).
    compute: the number format that the image tower and the head compute in: float32, bf16, fp16, or auto, which is
    float32 on the CPU and the half precision that a GPU does well (forclip.models.compute). compile: whether the image
    tower runs through torch.compile. Neither is saved with a model: it may run elsewhere next time.
    """

    name: ModelName = "ViT-B-16"
    pretrained: ModelName | None = None
    image_size: Annotated[ImageSize | None, BeforeValidator(parse_image_size)] = None
    resize_mode: Literal["squash", "letterbox"] = "squash"
    train_last_stage: bool = False
    tiles: TileGrid = "none"
    tile_overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    compute: ComputeChoice = "auto"
    compile: bool = False


@dataclass(frozen=True, config=_STRICT)
class HeadConfig:
    """The summary head.

    seeding: how query tokens start: as soft windows over positions, as the pooled query plus noise of noise_scale, or
    as clusters of what the training images show. alignment: centre and whiten the outputs by the training images: on,
    off, or auto. alignment_shrinkage: 0 whitens fully, 1 only centres. pooled_share: the share of plain CLIP's
    embedding in each vector (forclip.models.summary_head). `auto` and None are chosen together, by how the head ranks
    the base classes before any training (forclip.training.initialisation).
    """

    num_query_tokens: Count = 25
    seeding: Literal["windows", "noise", "clusters"] = "windows"
    noise_scale: NonNegative = 1.0
    alignment: Literal["auto", "on", "off"] = "auto"
    alignment_shrinkage: Fraction = 0.6
    pooled_share: Fraction | None = None


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """How the head is finetuned. The weights are those of forclip.training.objectives; 0 leaves an objective out.

    What is None or `auto` is chosen in trial trainings that hold back base classes (forclip.training.candidates).

    epochs: passes over the training images. None means 30, and fewer for more than 1,280 images, but at least 3: a
    training of small sets has about 600 steps.
    learning_rate: AdamW's, for a head of width 128; a wider head gets less in proportion (arXiv 2203.03466). None
    measures the rate at which a step moves the vectors by step_size (forclip.training.step_size).
    step_size: None leaves it to what is trained (forclip.training.candidates).
    stage_learning_rate: for the last stage of the tower, if it is trained, relative to learning_rate.
    views: the number of views per training image (the image, its mirror image, then crops). None means four for each of
    up to 10,000 images and fewer beyond, because large sets overfit less and their tokens fill disks. With tiles, each
    tile is one more view.
    trainable: the query tokens; also the query and key projections; or also the value and output projections (all).
    labelled_fraction: the share of the training images whose base labels are used.
    teacher: what the pseudo-labels come from: start (the head before training, so that what it knows is kept), cluster
    (Cluster-CLIP of teacher_clusters), zoom (nine windows of each image), or none.
    self_training: whether to guess the base labels of images without any, and to train on likely guesses
    (forclip.training.self_training). None leaves it to the trials.
    interpolation: alpha, the share of the way from the untuned to the tuned head, chosen on base classes held back in
    trial trainings.
    held_back_folds: the parts of the base classes, each held back in one trial. None means four in full trials that
    leave out images, too, and otherwise two. Fewer than 2: no trials, and an alpha of 0.5.
    class_vectors: how far the base classes' text vectors follow the labels, chosen in the trials (without: 0.75); 0
    leaves them unchanged.
    ema_decay: the decay of the average of weights over steps that training returns; 0 returns the last weights.
    """

    epochs: Count | None = None
    batch_size: Count = 64
    learning_rate: Positive | None = None
    step_size: Positive | None = None
    stage_learning_rate: Positive = 0.1
    weight_decay: NonNegative = 0.01
    warmup_share: Fraction = 0.1
    ema_decay: Fraction = 0.0
    views: Count | None = None
    trainable: Literal["queries", "query_key", "all"] | None = None
    labelled_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    base_loss: Literal["binary", "asymmetric", "softmax"] | None = None
    base_weight: NonNegative = 1.0
    teacher: Literal["auto", "start", "cluster", "zoom", "none"] = "auto"
    self_training: bool | None = None
    teacher_clusters: Count = 25
    pseudo_weight: NonNegative | None = None
    pseudo_temperature: Positive = 0.05
    set_weight: NonNegative | None = None
    random_text_weight: NonNegative = 0.0
    neighbour_weight: NonNegative = 0.0
    neighbour_words: Count = 200
    diversity_weight: NonNegative = 0.0
    held_back_folds: NonNegativeInt | None = None
    interpolation: Fraction | None = None
    class_vectors: Fraction | None = None
    checkpoint_every: Count = 100
    seed: NonNegativeInt = 0


@dataclass(frozen=True, config=_STRICT)
class EvalConfig:
    """What an evaluation measures.

    clusters: the numbers of clusters of the Cluster-CLIP baselines. min_relevant: classes that fewer gallery images
    show are left out. distractors: whether images that show neither a base nor a novel class stay in the gallery.
    tiles: the tiles of the baseline that embeds tiles of each image through plain CLIP, such as 3x3, which takes a pass
    of the image tower for each tile; or none, which leaves the baseline out.
    """

    clusters: tuple[Count, ...] = (5, 10, 25)
    min_relevant: Count = 1
    distractors: bool = True
    tiles: Annotated[TileGrid, AfterValidator(_refuse_auto)] = "3x3"


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Everything that defines a run."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    device: str = "cpu"


def checked_compute(name: str) -> ComputeChoice:
    """Return a known number format, or raise ValueError."""
    match name:
        case "auto" | "float32" | "bf16" | "fp16":
            return name
    raise ValueError(f"compute must be auto, float32, bf16 or fp16, not {name!r}")


def is_run_config(file: Path) -> bool:
    """Whether a file is meant as a run's configuration: a YAML file, but not the data file of a YOLO set."""
    is_yaml = file.suffix.lower() in (".yaml", ".yml")
    if not is_at_url(file) and not (is_yaml and file.is_file()):
        return not file.exists()  # a missing file is reported as a configuration
    if not is_yaml:
        return False
    try:
        content = read_yaml(file, "config file")
    except ValueError:
        return True
    return not isinstance(content, dict) or "data" in content or not {"names", "train", "nc"} & content.keys()


def load_config(file: str | Path) -> RunConfig:
    """Read a YAML file; relative paths in it start from its folder.

    Raises ValueError naming the file, the key and the value.
    """
    file = Path(file)
    content = read_yaml(file, "config file")
    try:
        return TypeAdapter(RunConfig).validate_python(
            content, context=file.parent if is_at_url(file) else file.parent.absolute()
        )
    except ValidationError as error:
        # A key that takes several types has one error for each. Our own messages come first, then the type that matches
        # most of the value: its error has the longest path.
        other_keys = ("missing", "unexpected_keyword_argument")
        first = max(
            error.errors(), key=lambda e: (e["type"] == "value_error", len(e["loc"]), e["type"] not in other_keys)
        )
        # Parts that are pydantic's name of a type, such as `NovelRule` or `tuple[...]`, are no keys.
        parts = (str(part) for part in first["loc"])
        key = ".".join(p for p in parts if p.isdigit() or (p.isidentifier() and not p[0].isupper())) or "the file"
        value, hint = first["input"], ""
        if first["type"] in ("string_type", "tuple_type", "path_type") and isinstance(value, int | float | date):
            hint = "; put quotes around a text that YAML reads as a number, a date, or true or false"
        raise ValueError(f"{file}: {key}: {plain_message(first['msg'])} (given: {repr(value)[:80]}){hint}") from None


def plain_message(message: str) -> str:
    """Return pydantic's message without its name for the errors of our own checks."""
    return message.removeprefix("Value error, ")


def config_to_json(config: Any) -> dict[str, Any]:
    """Convert a dataclass of this module to plain JSON values."""
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(config), mode="json")
    return plain


def read_names(file: Path) -> tuple[str, ...]:
    """Read one name per line; blank lines are skipped. Raises ValueError naming a file that is missing or not text."""
    return tuple(line for _, line in read_lines(file, "file of names"))


def read_lines(file: Path, kind: str, errors: str = "strict") -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank, without spaces around them, with their numbers from 1.

    The arguments and errors are those of `read_text`.
    """
    lines = enumerate(StringIO(read_text(file, kind, errors), newline=None), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_yaml(file: Path, kind: str) -> Any:
    """Read a YAML file. kind: what a missing file is called.

    Raises ValueError, naming the file and the line, for a file that is missing or no YAML, and for a repeated key.
    """
    return parse_yaml(read_text(file, kind), file)


def parse_yaml(text: str, file: Path, as_written: bool = False) -> Any:
    """Parse YAML. file: for messages. as_written: numbers, `no`, dates and empty values stay the text that is written.

    Raises ValueError as `read_yaml` does.
    """
    try:
        return yaml.load(text, _UniqueTexts if as_written else _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, f"{error.problem or error.context}"
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        if "'\\t'" in problem:
            problem = "YAML is indented with spaces, not with tabs"
        raise ValueError(f"{file}: not readable as YAML: {where}{problem}") from None
    # For a value that doesn't fit its tag, PyYAML raises KeyError, AttributeError, IndexError and others.
    except Exception as error:
        raise ValueError(f"{file}: not readable as YAML: {one_line(error)}") from None


class _RefuseRepeatedKeys(yaml.constructor.BaseConstructor):
    """Refuse a repeated key: PyYAML keeps the last, which silently loses a setting or a class name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1} has the key {shortened(key.value)} a second time")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_BOOL = "tag:yaml.org,2002:bool"


class _UniqueKeys(_RefuseRepeatedKeys, yaml.SafeLoader):
    """Reads true and false alone as such (YAML 1.2): `off` is a value of `alignment`, and `no` may be a class."""


_UniqueKeys.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeys.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


class _UniqueTexts(_RefuseRepeatedKeys, yaml.BaseLoader):
    pass


def read_text(file: Path, kind: str, errors: str = "strict") -> str:
    """Read a UTF-8 file, with or without a byte order mark, or a UTF-16 file with one; line ends stay as they are.

    file: may be at a URL. kind: what a missing file is called. errors: as in `bytes.decode`. Raises ValueError, naming
    a file that is missing or unreadable, and the line that is not UTF-8.
    """
    shown = as_location(file)
    try:
        content = _read_bytes(shown)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16", errors)
        return content.decode("utf-8-sig", errors)
    except FileNotFoundError:
        raise ValueError(f"{shown}: no such {kind}") from None
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise ValueError(f"{shown}: starts as UTF-16 but is not: {error.reason}; save the file in UTF-8") from None
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{shown}: line {line} is not UTF-8; save the file in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{shown}: not readable as text: {error}") from None


def _read_bytes(file: Location) -> bytes:
    if isinstance(file, Path):
        return file.read_bytes()
    if not file.is_remote:
        return Path(str(file)).read_bytes()
    from forclip.file_systems import Unreachable, read_file  # late: Arrow's file systems take long to import

    try:
        return read_file(str(file))
    except Unreachable as error:
        raise ValueError(str(error)) from None
