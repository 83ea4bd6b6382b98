"""Search a store: search, look, export."""

import json
from pathlib import Path
from typing import Annotated

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
    Subset,
    Where,
    open_labels,
)


@app.command()
def search(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many images.")] = 50,
    where: Where = None,
    min_score: Annotated[float, typer.Option(help="Leave out images below this cosine.")] = -1.0,
    cutoff: CutoffOption = None,
    right: Annotated[Path | None, typer.Option(help="A file of ids, one a line: images that are right.")] = None,
    wrong: Annotated[Path | None, typer.Option(help="A file of ids of images that are wrong.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every vector, however large the store.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write a page with the pictures: FILE.html.")] = None,
    annotations: AnnotationsOption = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """The images that best match a text, with the place in each."""
    with clear_errors():
        from forclip.config import read_names
        from forclip.search.output import answer_json, print_answer
        from forclip.search.request import SearchRequest, answer, parse_cutoff
        from forclip.search.searcher import open_searcher

        cut = None if cutoff is None else parse_cutoff(cutoff)
        texts = (tuple(any_of or ()), tuple(all_of or ()), tuple(none_of or ()))
        picks = [() if file is None else read_names(file) for file in (right, wrong)]
        request = SearchRequest(text, like, *texts, k, where, exact, min_score, cut, *picks)
        searcher = open_searcher(store, device)
        labels = open_labels(searcher.index, annotations, images, subset, split)
        found = answer(searcher, request)
        if labels is not None:
            from forclip.search.request import with_labels

            found = with_labels(searcher, found, labels)
        if report is not None:
            from forclip.search.report import write_search_report

            write_search_report(report, found, store.name)
        if as_json:
            typer.echo(json.dumps(answer_json(found)))
        else:
            from rich.console import Console

            print_answer(found, Console())


@app.command()
def look(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    image: Annotated[Path, typer.Argument(help="A picture that is in it.")],
    text: Annotated[str, typer.Argument(help="What to look for.")],
    to: Annotated[
        Path | None, typer.Option(help="A file for the picture with the heatmap and all places, such as heat.png.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Where in one image: how well each of its places answers a text, and the heatmap of the best."""
    with clear_errors():
        from forclip.embedding.ingest import path_to_id
        from forclip.search.look import draw_look, look_for, seen_json, seen_table
        from forclip.search.searcher import open_searcher

        seen = look_for(open_searcher(store, device), path_to_id(image), text)
        if to is not None:
            draw_look(seen.picture, seen.look, seen.heatmap).save(to)
        if as_json:
            typer.echo(json.dumps(seen_json(seen)))
        else:
            from rich.console import Console

            Console().print(seen_table(seen))
            if to is not None:
                typer.echo(f"The picture: {to}")


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    to: Annotated[Path, typer.Option(help="The file to write, or with fiftyone the folder.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    ids: Annotated[Path | None, typer.Option(help="A file of image ids, one a line, instead of a search.")] = None,
    format: Annotated[str, typer.Option(help="coco, csv, fiftyone or files.")] = "coco",
    label: Annotated[str | None, typer.Option(help="What the images show; the text without it.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder that file names are relative to; absolute without it.")
    ] = None,
    like: Like = None,
    any_of: AnyOf = None,
    all_of: AllOf = None,
    none_of: NoneOf = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many images at most.")] = 50,
    where: Where = None,
    cutoff: CutoffOption = None,
    device: Device = "cpu",
) -> None:
    """Hand on what a search found, or images by id: COCO JSON, CSV to judge, a FiftyOne folder, a list of files."""
    with clear_errors():
        from forclip.config import read_names
        from forclip.index.image_index import Index
        from forclip.search.export import export as write
        from forclip.search.request import SearchRequest, parse_cutoff
        from forclip.search.searcher import open_searcher
        from forclip.search.selection import select_found, select_ids, select_ids_for

        if ids is not None and (like or any_of or all_of or none_of or where or cutoff):
            raise ValueError(
                f"{ids}: ids are exported as they are: at most with a text, and without a search's options"
            )
        if ids is None:
            cut = None if cutoff is None else parse_cutoff(cutoff)
            texts = (tuple(any_of or ()), tuple(all_of or ()), tuple(none_of or ()))
            request = SearchRequest(text, like, *texts, k, where, cutoff=cut)
            selection = select_found(open_searcher(store, device), request, label, root)
        elif text is None:
            selection = select_ids(Index(store), read_names(ids), label or "", root)
        else:
            selection = select_ids_for(open_searcher(store, device), read_names(ids), text, label, root)
        write(selection, format, to)
        typer.echo(f"{len(selection.items)} images: {to}")
