"""Search a store: search, look, export."""

import json
import webbrowser
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from forclip.cli.app import AsJson, Device, Moved, MovedWeights, StorePlace, app, moved_model, outdated_message
from forclip.console import plain_console, print_table
from forclip.index import TOP_K
from forclip.location import as_location, with_urls
from forclip.one_line import one_line
from forclip.upload import written_to

if TYPE_CHECKING:
    from forclip.index.protocol import SearchIndex
    from forclip.search.labels import StoreLabels
    from forclip.search.request import SearchRequest

_MAX_REASONS = 10  # shown of why images are left out of an export

Text = Annotated[str | None, Argument(help="What to search for.")]
Like = Annotated[Path | None, Option(help="Search for what this image shows, instead of a text.")]
AnyOf = Annotated[list[str] | None, Option("--any", help="Alternative text. Repeat for several.")]
AllOf = Annotated[list[str] | None, Option("--all", help="Text that must match as well. Repeat for several.")]
NoneOf = Annotated[list[str] | None, Option("--not", help="Text that must not match. Repeat for several.")]
Where = Annotated[str | None, Option(help="SQL filter on the store's columns: \"camera = 'front' and width > 1000\".")]
LabelFile = Annotated[Path | None, Option(help="Labels of the store's images, in any format that training reads.")]
LabelImages = Annotated[Path | None, Option("--images", help="Image folder of the annotations.")]
Subset = Annotated[str | None, Option(help="Subset of YOLO or Pascal VOC annotations: val, trainval. Default: all.")]
Split = Annotated[
    str | None,
    Option(help="Base and novel classes: a run's folder or coco-48-17. Default: those of the store's model."),
]
Cutoff = Annotated[
    str | None,
    Option(
        help="Where the list of results ends: auto, a cosine (0.31) or an expected precision (80%). "
        "Also prints the confidence of the results.",
    ),
]


@app.command()
def search(
    store: StorePlace,
    text: Text = None,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, Option("-k", "--limit", min=1, help="Number of images to show.")] = TOP_K,
    where: Where = None,
    min_score: Annotated[float, Option(help="Leave out images below this cosine.")] = -1.0,
    collapse: Annotated[
        float | None,
        Option(help="Leave out near duplicates of better results, from this similarity on, such as 0.95."),
    ] = None,
    cutoff: Cutoff = None,
    right: Annotated[
        Path | None, Option(help="File of image ids, one per line, that are right: rank images like them higher.")
    ] = None,
    wrong: Annotated[
        Path | None, Option(help="File of image ids that are wrong: rank images like them lower, omit these.")
    ] = None,
    exact: Annotated[
        bool, Option("--exact", help="Compare every vector instead of using the approximate index.")
    ] = False,
    report: Annotated[Path | None, Option(help="Also write an HTML page with the pictures to this file.")] = None,
    open_report: Annotated[
        bool, Option("--open", help="Open that page in the browser. Without --report it is a temporary file.")
    ] = False,
    pictures: Annotated[
        str,
        Option(
            metavar="auto|none|kitty|iterm|sixel",
            help="Show the first pictures in the terminal: auto where it says that it can, none, or by this protocol.",
        ),
    ] = "auto",
    annotations: LabelFile = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    model: Moved = None,
    pretrained: MovedWeights = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Find the images that best match a text, and the region that matches in each."""
    from forclip.config import read_names
    from forclip.search.inline_pictures import choose_protocol, contact_sheet, encode_picture
    from forclip.search.output import answer_json, print_answer
    from forclip.search.request import labelled_class, run_search
    from forclip.search.searcher import open_searcher

    protocol = None if as_json else choose_protocol(pictures)
    verdicts = {kind: read_names(file) for kind, file in (("right", right), ("wrong", wrong)) if file is not None}
    others = {"k": k, "where": where, "exact": exact, "min_score": min_score, "collapse": collapse, **verdicts}
    request = _search_request(any_of, all_of, none_of, cutoff, text=text, like=like, **others)
    searcher = open_searcher(store, device, moved_model(model, pretrained))
    report_outdated(searcher.index)
    ids_of = searcher.index.store.ids_of
    request = replace(request, right=tuple(ids_of(request.right)), wrong=tuple(ids_of(request.wrong)))
    labels = open_labels(searcher.index, annotations, images, subset, split)
    if labels is not None:
        labelled_class(request, labels)  # fails before the search
    answer = run_search(searcher, request, labels)
    if report is not None or open_report:
        from forclip.search.report import write_search_report

        report = report or Path(mkdtemp(prefix="forclip-")) / "results.html"
        with written_to(report) as (file, _):
            write_search_report(file, answer, store.rstrip("/").rpartition("/")[2])
            if open_report and not webbrowser.open(file.absolute().as_uri()):
                typer.echo(f"No browser can be opened here. The page: {as_location(report)}", err=True)
    if as_json:
        for note in answer.notes:
            typer.echo(f"forclip: {note}", err=True)
        typer.echo(json.dumps(answer_json(answer)))
    else:
        print_answer(answer, plain_console())
        if protocol is not None and answer.results:
            typer.echo(encode_picture(contact_sheet(answer.results), protocol))


@app.command()
def look(
    store: StorePlace,
    image: Annotated[Path, Argument(help="A picture that is in the store.")],
    text: Annotated[str, Argument(help="What to search for in it.")],
    to: Annotated[
        Path | None, Option(help="Write the picture with heatmap and regions to this file, such as heat.png.")
    ] = None,
    model: Moved = None,
    pretrained: MovedWeights = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Show where one image matches a text: the score of each region, and a heatmap of the best."""
    from forclip.search.look import draw_look, look_for, picture_format, save_picture
    from forclip.search.searcher import open_searcher

    if to is not None:
        picture_format(to)  # fails before the model is loaded
    result = look_for(open_searcher(store, device, moved_model(model, pretrained)), str(image), text)
    if to is not None:
        with written_to(to) as (file, _):
            save_picture(draw_look(result.picture, result.look, result.heatmap), file)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        print_table(plain_console(), result.table())
        if to is not None:
            typer.echo(f"Picture: {as_location(to)}")


@app.command()
def export(
    store: StorePlace,
    to: Annotated[
        Path, Option(help="The file to write; with fiftyone, yolo and cvat a folder, or a zip file if it ends in .zip.")
    ],
    text: Text = None,
    ids: Annotated[
        Path | None, Option(help="Export the images of this file of ids, one per line, instead of searching.")
    ] = None,
    format: Annotated[str, Option(help="coco, csv, cvat, fiftyone, files, labelstudio or yolo.")] = "coco",
    label: Annotated[str | None, Option(help="The label of the images. Default: the text.")] = None,
    root: Annotated[
        Path | None, Option(help="Folder that file names are relative to. Default: absolute names.")
    ] = None,
    split: Annotated[
        float | None,
        Option(help="Share of the images to train on, such as 0.8; the others are to validate on.", metavar="SHARE"),
    ] = None,
    new: Annotated[
        bool, Option("--new", help="Only images that earlier exports to the same name do not hold.")
    ] = False,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, Option("-k", "--limit", min=1, help="Number of images to export at most.")] = TOP_K,
    where: Where = None,
    cutoff: Cutoff = None,
    model: Moved = None,
    pretrained: MovedWeights = None,
    device: Device = "cpu",
) -> None:
    """Export search results, or images by id, for labelling and training tools."""
    from forclip.config import read_names
    from forclip.search.export import export as write
    from forclip.search.searcher import open_index, open_searcher
    from forclip.search.selection import select_ids, select_search

    if ids is not None and (like or any_of or all_of or none_of or where or cutoff):
        raise ValueError(f"{ids}: --ids goes with a text at most, not with other search options")
    moved = moved_model(model, pretrained)
    if ids is None:
        request = _search_request(any_of, all_of, none_of, cutoff, text=text, like=like, k=k, where=where)
        selection = select_search(open_searcher(store, device, moved), request, label, root)
    elif text is None:
        selection = select_ids(open_index(store), read_names(ids), label or "", root)
    else:
        searcher, label = open_searcher(store, device, moved), text if label is None else label
        selection = select_ids(searcher.index, read_names(ids), label, root, searcher.encode_text(text))
    written = write(selection, format, to, split=split, new=new)
    typer.echo(with_urls(str(written)))
    reasons = list(written.left_out.values())
    more = [f"{len(reasons) - _MAX_REASONS} more"] if len(reasons) > _MAX_REASONS else []
    for reason in [*reasons[:_MAX_REASONS], *more]:
        typer.echo(f"left out: {one_line(reason)}", err=True)
    if empty := [part for part, count in written.parts.items() if not count]:
        hint = "an image's part depends on its id, so that few images may all be in one. Export more, or change --split"
        typer.echo(f"no image is in {empty[0]}: {hint}", err=True)


def report_outdated(index: "SearchIndex") -> None:
    """Print what to do about images that an older version decoded, if there are any."""
    if images := index.store.count_outdated():
        typer.echo(outdated_message(images), err=True)


def _search_request(
    any_of: AnyOf, all_of: AllOf, none_of: NoneOf, cutoff: str | None, **others: Any
) -> "SearchRequest":
    from forclip.search.request import SearchRequest, parse_cutoff

    any_texts, all_texts, none_texts = (tuple(texts or ()) for texts in (any_of, all_of, none_of))
    parsed = None if cutoff is None else parse_cutoff(cutoff)
    return SearchRequest(any_of=any_texts, all_of=all_texts, none_of=none_texts, cutoff=parsed, **others)


def open_labels(
    index: "SearchIndex", annotations: Path | None, images: Path | None, subset: str | None, split: str | None
) -> "StoreLabels | None":
    """Load the labels of a store's images and print how many images they match; None without annotations."""
    from forclip.config import SourceConfig
    from forclip.search.labels import describe_matches, load_store_labels

    if annotations is None:
        if images or subset or split:
            raise ValueError("--images, --subset and --split need --annotations")
        return None
    labels = load_store_labels(index, SourceConfig(annotations, images, subset=subset), split)
    typer.echo(describe_matches(labels, index), err=True)
    return labels
