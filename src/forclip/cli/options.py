"""Arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from forclip.index.image_index import Index
    from forclip.search.labels import StoreLabels

StoreFolder = Annotated[Path, Argument(help="Store written by `forclip index`.")]
ConfigFile = Annotated[Path, Argument(help="YAML file of the run.")]
Device = Annotated[str, Option(help="PyTorch device: cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]
Resume = Annotated[bool, Option("--resume", help="Continue a run that was stopped.")]
FirstSeed = Annotated[int, Option("--seed", min=0, help="First seed.")]
Pretrained = Annotated[str | None, Option(help="open_clip tag or weights file, for an open_clip model.")]
Like = Annotated[Path | None, Option(help="Search for what this image shows, instead of a text.")]
AnyOf = Annotated[list[str] | None, Option("--any", help="Alternative text. Repeat for several.")]
AllOf = Annotated[list[str] | None, Option("--all", help="Text that must match as well. Repeat for several.")]
NoneOf = Annotated[list[str] | None, Option("--not", help="Text that must not match. Repeat for several.")]
Where = Annotated[str | None, Option(help="SQL filter on the store's columns: \"camera = 'front' and width > 1000\".")]
AnnotationsOption = Annotated[
    Path | None, Option("--annotations", help="Labels of the store's images: COCO, LVIS, YOLO, VOC or CSV.")
]
LabelImages = Annotated[Path | None, Option("--images", help="Image folder of the annotations.")]
Subset = Annotated[str | None, Option(help="Subset of YOLO or Pascal VOC annotations: val, trainval.")]
Split = Annotated[
    str | None,
    Option(help="Base and novel classes: a run's folder or coco-48-17. Default: those of the store's model."),
]
CutoffOption = Annotated[
    str | None,
    Option(
        "--cutoff",
        help="Where the list of results ends: auto, a cosine (0.31) or an expected precision (80%). "
        "Also prints the confidence of the results.",
    ),
]


def open_labels(
    index: "Index", annotations: Path | None, images: Path | None, subset: str | None, split: str | None
) -> "StoreLabels | None":
    """Load the labels of a store's images and print how many images they match; None without annotations.

    Raises ValueError if an option of the annotations is given without them.
    """
    from forclip.config import SourceConfig
    from forclip.search.labels import describe_matches, load_store_labels

    if annotations is None:
        if images or subset or split:
            raise ValueError("--images, --subset and --split need --annotations")
        return None
    labels = load_store_labels(index, SourceConfig(annotations, images, subset=subset), split)
    typer.echo(describe_matches(labels, index), err=True)
    return labels
