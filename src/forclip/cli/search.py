"""Search a store: search, look, export."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import (
    AllOf,
    AnnotationsOption,
    AnyOf,
    AsJson,
    CutoffOption,
    Device,
    LabelImages,
    Like,
    NoneOf,
    Split,
    StoreFolder,
    Subset,
    Where,
    open_labels,
)

if TYPE_CHECKING:
    from forclip.search.request import Cutoff

Text = Annotated[str | None, typer.Argument(help="What to search for.")]


@app.command()
def search(
    store: StoreFolder,
    text: Text = None,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of images to show.")] = 50,
    where: Where = None,
    min_score: Annotated[float, typer.Option(help="Leave out images below this cosine.")] = -1.0,
    cutoff: CutoffOption = None,
    right: Annotated[
        Path | None, typer.Option(help="File of image ids, one per line, that are right: rank images like them higher.")
    ] = None,
    wrong: Annotated[
        Path | None, typer.Option(help="File of image ids that are wrong: rank images like them lower, omit these.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every vector instead of using the approximate index.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML page with the pictures to this file.")] = None,
    annotations: AnnotationsOption = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Find the images that best match a text, and the region that matches in each."""
    with clear_errors():
        from forclip.config import read_names
        from forclip.search.output import answer_json, print_answer
        from forclip.search.request import SearchRequest, labelled_class, run_search
        from forclip.search.searcher import open_searcher

        request = SearchRequest(
            text=text,
            like=like,
            any_of=tuple(any_of or ()),
            all_of=tuple(all_of or ()),
            none_of=tuple(none_of or ()),
            k=k,
            where=where,
            exact=exact,
            min_score=min_score,
            cutoff=_cutoff(cutoff),
            right=() if right is None else read_names(right),
            wrong=() if wrong is None else read_names(wrong),
        )
        searcher = open_searcher(store, device)
        labels = open_labels(searcher.index, annotations, images, subset, split)
        if labels is not None:
            labelled_class(request, labels)  # fails before the search
        answer = run_search(searcher, request, labels)
        if report is not None:
            from forclip.search.report import write_search_report

            write_search_report(report, answer, store.name)
        if as_json:
            typer.echo(json.dumps(answer_json(answer)))
        else:
            from rich.console import Console

            print_answer(answer, Console())


@app.command()
def look(
    store: StoreFolder,
    image: Annotated[Path, typer.Argument(help="A picture that is in the store.")],
    text: Annotated[str, typer.Argument(help="What to search for in it.")],
    to: Annotated[
        Path | None, typer.Option(help="Write the picture with heatmap and regions to this file, such as heat.png.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Show where one image matches a text: the score of each region, and a heatmap of the best."""
    with clear_errors():
        from forclip.embedding.ingest import path_to_id
        from forclip.search.look import draw_look, look_for
        from forclip.search.searcher import open_searcher

        result = look_for(open_searcher(store, device), path_to_id(image), text)
        if to is not None:
            draw_look(result.picture, result.look, result.heatmap).save(to)
        if as_json:
            typer.echo(json.dumps(result.to_json()))
        else:
            from rich.console import Console

            Console().print(result.table())
            if to is not None:
                typer.echo(f"Picture: {to}")


@app.command()
def export(
    store: StoreFolder,
    to: Annotated[Path, typer.Option(help="The file to write; with --format fiftyone a folder.")],
    text: Text = None,
    ids: Annotated[
        Path | None, typer.Option(help="Export the images of this file of ids, one per line, instead of searching.")
    ] = None,
    format: Annotated[str, typer.Option(help="coco, csv, fiftyone or files.")] = "coco",
    label: Annotated[str | None, typer.Option(help="The label of the images. Default: the text.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that file names are relative to. Default: absolute names.")
    ] = None,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of images to export at most.")] = 50,
    where: Where = None,
    cutoff: CutoffOption = None,
    device: Device = "cpu",
) -> None:
    """Export search results, or images by id, as COCO JSON, CSV to review, FiftyOne folder or file list."""
    with clear_errors():
        from forclip.config import read_names
        from forclip.index.image_index import Index
        from forclip.search.export import export as write
        from forclip.search.request import SearchRequest
        from forclip.search.searcher import open_searcher
        from forclip.search.selection import select_ids, select_ids_for, select_search

        if ids is not None and (like or any_of or all_of or none_of or where or cutoff):
            raise ValueError(f"{ids}: --ids goes with a text at most, not with other search options")
        if ids is None:
            request = SearchRequest(
                text=text,
                like=like,
                any_of=tuple(any_of or ()),
                all_of=tuple(all_of or ()),
                none_of=tuple(none_of or ()),
                k=k,
                where=where,
                cutoff=_cutoff(cutoff),
            )
            selection = select_search(open_searcher(store, device), request, label, root)
        elif text is None:
            selection = select_ids(Index(store), read_names(ids), label or "", root)
        else:
            selection = select_ids_for(open_searcher(store, device), read_names(ids), text, label, root)
        write(selection, format, to)
        typer.echo(f"{len(selection.items)} images: {to}")


def _cutoff(text: str | None) -> "Cutoff | None":
    from forclip.search.request import parse_cutoff

    return None if text is None else parse_cutoff(text)
