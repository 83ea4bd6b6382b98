"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forclip.index.image_index import Index
    from forclip.search.labels import StoreLabels

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelName = Annotated[
    str, typer.Option("--model", help="A run's folder, forclip-mini, an open_clip name, local-dir:PATH.")
]
Pretrained = Annotated[str | None, typer.Option(help="open_clip's tag or a file of weights, for a built-in name.")]
Like = Annotated[Path | None, typer.Option(help="Look for what this picture shows, instead of a text.")]
AnyOf = Annotated[list[str] | None, typer.Option("--any", help="Another text that will do as well.")]
AllOf = Annotated[list[str] | None, typer.Option("--all", help="A text that must be shown, too.")]
NoneOf = Annotated[list[str] | None, typer.Option("--not", help="A text that must not be shown.")]
Where = Annotated[str | None, typer.Option(help="SQL over the store's columns: \"camera = 'front' and width > 1000\".")]
AnnotationsOption = Annotated[
    Path | None, typer.Option("--annotations", help="Labels of the store's pictures: COCO, LVIS, YOLO, VOC, CSV ...")
]
LabelImages = Annotated[Path | None, typer.Option("--images", help="Folder of an annotation file's pictures.")]
Subset = Annotated[str | None, typer.Option(help="Of YOLO's or Pascal VOC's annotations: val, trainval.")]
Split = Annotated[
    str | None,
    typer.Option(help="What was base and what is novel: a run's folder, or coco-48-17; without it the model's."),
]
CutoffOption = Annotated[
    str | None,
    typer.Option(
        "--cutoff",
        help="Where to end the list, and say how sure it is: auto, a cosine (0.31), or an expected precision (80%).",
    ),
]


def open_labels(
    index: "Index", annotations: Path | None, images: Path | None, subset: str | None, split: str | None
) -> "StoreLabels | None":
    """None where no annotations are given. Says how many images they match."""
    from forclip.config import SourceConfig
    from forclip.search.labels import load_store_labels, tell_matches

    if annotations is None:
        if images or subset or split:
            raise ValueError("--images, --subset and --split are of --annotations")
        return None
    labels = load_store_labels(index, SourceConfig(annotations, images, subset=subset), split)
    typer.echo(tell_matches(labels, index), err=True)
    return labels
