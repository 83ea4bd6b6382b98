"""The command line: each command opens something, calls one function and maps errors. Heavy imports wait for it."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forclip.index.image_index import Index
    from forclip.store_labels import StoreLabels

app = typer.Typer(
    help="Find the images that contain an object, in your own large image set, by free text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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


def _labels(
    index: "Index", annotations: Path | None, images: Path | None, subset: str | None, split: str | None
) -> "StoreLabels | None":
    """None where no annotations are given. Says how many images they match."""
    from forclip.data_config import SourceConfig
    from forclip.store_labels import load_store_labels, tell_matches

    if annotations is None:
        if images or subset or split:
            raise ValueError("--images, --subset and --split are of --annotations")
        return None
    labels = load_store_labels(index, SourceConfig(annotations, images, subset=subset), split)
    typer.echo(tell_matches(labels, index), err=True)
    return labels


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a user can mend ends in one sentence and exit code 2; an interrupt in 130; anything else is our bug."""
    try:
        yield
    except BrokenPipeError:
        raise  # `| head` has seen enough: click ends quietly
    except (ValueError, OSError) as error:
        typer.echo(f"forclip: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("forclip: interrupted", err=True)
        raise typer.Exit(130) from None


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: each is another world and another split.")] = 1,
) -> None:
    """The whole path on the toy world: baselines, FOR, a table, and report.html. Nothing is downloaded."""
    with _clear_errors():
        from rich.console import Console

        from forclip.demo import run_demo

        console = Console()
        run_demo(out, tuple(range(seed, seed + seeds)), console)
        console.print(f"\nThe report: [bold]{out / 'report.html'}[/]")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A run's YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the model and its checkpoint.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")] = False,
) -> None:
    """Finetune FOR on your base labels."""
    with _clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.runs import train_run

        train_run(load_config(config), out, resume, Console())


@app.command(name="eval")
def evaluate(
    config: Annotated[Path, typer.Argument(help="A run's YAML file.")],
    model: Annotated[Path | None, typer.Option(help="A trained run's folder; without it only baselines run.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.html.")] = Path("runs/eval"),
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Also measure the run's way from the untuned to the tuned head.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare all methods on one dataset: metrics.json, a table, report.html."""
    with _clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.evaluation.terminal import print_metrics
        from forclip.runs import evaluate_run

        console = Console(stderr=as_json)
        metrics = evaluate_run(load_config(config), model, out, console, interpolate)
        if as_json:
            typer.echo(json.dumps(metrics))
        else:
            print_metrics(console, metrics)
            console.print(f"\nThe report: [bold]{out / 'report.html'}[/]")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders with a metrics.json, or such files.")],
    out: Annotated[Path | None, typer.Option(help="Folder for compare.json and compare.md.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put runs on one dataset side by side: intervals, and paired differences over the classes that they share."""
    with _clear_errors():
        from rich.console import Console

        from forclip.evaluation.compare_runs import compare_runs
        from forclip.evaluation.comparison_tables import print_comparison, write_comparison

        comparison = compare_runs(runs)
        if out is not None:
            write_comparison(out, comparison)
        if as_json:
            typer.echo(json.dumps(comparison.to_json()))
        else:
            print_comparison(Console(), comparison)


@app.command()
def ablate(
    out: Annotated[Path, typer.Option(help="Folder for ablation.json, .md, .png; a stopped run in it goes on.")],
    config: Annotated[Path | None, typer.Argument(help="A run's YAML file; the toy world without it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds; on the toy world each is another world.")] = 3,
    only: Annotated[str, typer.Option(help="Names of variants, with commas between; all without it.")] = "",
    variants: Annotated[
        Path | None, typer.Option(help="YAML: name: {head: {..}, train: {..}}; measures these and `for`.")
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(min=2, help="Of each toy world; as in the demo without it.")
    ] = None,
    gallery_images: Annotated[int | None, typer.Option(min=1, help="Likewise.")] = None,
) -> None:
    """What each part contributes: the recipe with one thing changed at a time, over seeds, beside the baselines."""
    with _clear_errors():
        from rich.console import Console

        from forclip.ablation import config_ground, known_variants, run_ablation, toy_ground
        from forclip.config import load_config
        from forclip.demo import NUM_GALLERY, NUM_TRAIN

        if config is not None and (train_images or gallery_images):
            raise ValueError("--train-images and --gallery-images are of the toy world, not of a CONFIG")
        known, names = known_variants(variants, [name.strip() for name in only.split(",") if name.strip()])
        toy = toy_ground(out, train_images or NUM_TRAIN, gallery_images or NUM_GALLERY)
        ground = toy if config is None else config_ground(load_config(config))
        command = shlex.join(["forclip", *sys.argv[1:]])
        console = Console()
        run_ablation(ground, known, names, range(seed, seed + seeds), out, command, console)
        console.print(f"\nThe table: [bold]{out / 'ablation.md'}[/], the chart: [bold]{out / 'ablation.png'}[/]")


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Such as coco-rn50x64; without it all are listed.")] = None,
    root: Annotated[Path | None, typer.Option(help="The dataset's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the cache, the model and the comparison.")] = None,
    labelled_fraction: Annotated[float, typer.Option(help="Share of the training images whose labels are used.")] = 1.0,
    device: Device = "cuda",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run left off.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try it on a few generated pictures with random weights, on the CPU.")
    ] = False,
) -> None:
    """The paper's comparison on COCO, LVIS or nuImages: train, then measure all methods."""
    with _clear_errors():
        from rich.console import Console

        from forclip.evaluation.terminal import print_metrics
        from forclip.recipe_run import print_recipes, run_recipe, smoke_recipe

        console = Console()
        if name is None:
            print_recipes(console)
        elif smoke:
            print_metrics(console, smoke_recipe(name, labelled_fraction, console))
        elif root is None or out is None:
            raise ValueError(f"{name} needs --root, the dataset's folder, and --out; or --smoke to try it")
        else:
            print_metrics(console, run_recipe(name, root, out, labelled_fraction, device, resume, console))


data_app = typer.Typer(help="What your data holds.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    config: Annotated[Path, typer.Argument(help="A run's YAML file.")],
    as_json: AsJson = False,
) -> None:
    """Images, classes, counts, the base/novel split, and what is wrong: missing files, duplicates, odd boxes."""
    with _clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.data_check import check_data, print_check
        from forclip.progress import tracking

        with tracking(Console(stderr=True)) as track:
            found = check_data(load_config(config).data, track)
        if as_json:
            typer.echo(json.dumps({**found.to_json(), "problems": found.problems}))
        else:
            print_check(found, Console())


@app.command()
def index(
    source: Annotated[
        str, typer.Argument(help="A folder of pictures, a pattern such as 'photos/**/*.jpg', or a file of annotations.")
    ],
    to: Annotated[Path, typer.Option(help="The store: a new folder, or one that this model wrote.")],
    model: Annotated[
        str | None,
        typer.Option(help="A run's folder, forclip-mini (the default), an open_clip name, local-dir:PATH."),
    ] = None,
    pretrained: Pretrained = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side; the model's own without it.")] = None,
    head: Annotated[
        str | None, typer.Option(help="For a pretrained model: sum (the default), global, dense or cluster_K.")
    ] = None,
    num_query_tokens: Annotated[
        int | None, typer.Option(min=1, help="Vectors per image with the head `sum`; 25 without it.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of an annotation file's pictures.")] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: a column `image`, and others to filter by with --where.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of a new store's vectors: fp16 (the default), or int8 at half the size.")
    ] = None,
    merge: Annotated[
        float | None, typer.Option(help="Merge vectors of an image from this cosine on, such as 0.95.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try pictures again that could not be read before.")] = False,
    delete_vanished: Annotated[
        bool, typer.Option("--delete-vanished", help="Take pictures out that are not in the source any more.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; 0: threads. Without it: processes beside a GPU.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Embed pictures and add them to a store: new ones and changed ones; unreadable ones are listed."""
    with _clear_errors():
        from rich.console import Console

        from forclip.config import ModelConfig
        from forclip.image_metadata import read_metadata
        from forclip.index.schema import checked_precision
        from forclip.indexing import IndexJob, StoreOptions, decoding_processes, index_images

        table = None if metadata is None else read_metadata(metadata)
        processes = decoding_processes(device) if workers is None else workers
        job = IndexJob(source, images, table, retry, delete_vanished, processes)
        if model is None and (pretrained or image_size):
            raise ValueError("--pretrained and --image-size are of a --model")
        config = None if model is None else ModelConfig(name=model, pretrained=pretrained, image_size=image_size)
        bits = None if precision is None else checked_precision(precision)
        options = StoreOptions(config, head, num_query_tokens, bits, merge)
        index_images(job, to, options, device, Console())


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
    with _clear_errors():
        from forclip.config import read_names
        from forclip.search import open_searcher
        from forclip.search_answer import answer_json, print_answer
        from forclip.search_request import SearchRequest, answer, parse_cutoff

        cut = None if cutoff is None else parse_cutoff(cutoff)
        texts = (tuple(any_of or ()), tuple(all_of or ()), tuple(none_of or ()))
        picks = [() if file is None else read_names(file) for file in (right, wrong)]
        request = SearchRequest(text, like, *texts, k, where, exact, min_score, cut, *picks)
        searcher = open_searcher(store, device)
        labels = _labels(searcher.index, annotations, images, subset, split)
        found = answer(searcher, request)
        if labels is not None:
            from forclip.labelled_answer import with_labels

            found = with_labels(searcher, found, labels)
        if report is not None:
            from forclip.search_report import write_search_report

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
    with _clear_errors():
        from forclip.image_ids import as_id
        from forclip.looking_answer import look_for, seen_json, seen_table
        from forclip.looking_picture import draw_look
        from forclip.search import open_searcher

        seen = look_for(open_searcher(store, device), as_id(image), text)
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
    with _clear_errors():
        from forclip.config import read_names
        from forclip.exporting.chosen import select_found, select_ids, select_ids_for
        from forclip.exporting.formats import export as write
        from forclip.index.image_index import Index
        from forclip.search import open_searcher
        from forclip.search_request import SearchRequest, parse_cutoff

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


@app.command()
def serve(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at; another than this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="FORCLIP_TOKEN", help="Who asks must have it. From FORCLIP_TOKEN too.")
    ] = None,
    annotations: AnnotationsOption = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    device: Device = "cpu",
) -> None:
    """A page to search on, and the API behind it."""
    with _clear_errors():
        from forclip.search import open_searcher
        from forclip.server.run import link, listening
        from forclip.server.run import serve as serve_until_stopped
        from forclip.server.security import Access

        access = Access(host, token)
        listener = listening(access, port)  # before the model, which takes a while to load
        searcher = open_searcher(store, device)
        labels = _labels(searcher.index, annotations, images, subset, split)
        typer.echo(f"{len(searcher.index)} images: {link(access, port)}  (Ctrl-C stops)")
        serve_until_stopped(searcher, access, listener, labels)


@app.command()
def delete(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    where: Annotated[str | None, typer.Option(help="SQL over the store's columns: which images to take out.")] = None,
    ids: Annotated[Path | None, typer.Option(help="A file of image ids, one a line.")] = None,
) -> None:
    """Take images out of a store. The picture files stay where they are."""
    with _clear_errors():
        from forclip.config import read_names
        from forclip.index.image_index import Index

        if (where is None) == (ids is None):
            raise ValueError("give either --where or --ids")
        opened = Index(store)
        count = opened.delete(where) if where is not None else opened.delete_ids(read_names(ids)) if ids else 0
        typer.echo(f"{count} deleted, {len(opened)} left: {store}")


@app.command()
def compact(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    kind: Annotated[
        str | None,
        typer.Option("--index", help="FAISS' name of an index, such as RaBitQ, or none; by size without it."),
    ] = None,
) -> None:
    """Give back the room of deleted images and old versions, and bring the search index in step."""
    with _clear_errors():
        from forclip.index.image_index import Index

        opened = Index(store)
        opened.compact(kind)
        found = opened.info()
        typer.echo(f"{found['images']} images, {(found['table_bytes'] + found['search_bytes']) / 1e6:.0f} MB: {store}")


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")]) -> None:
    """Read all of a store and say what is wrong with it; exit code 1 if anything is."""
    with _clear_errors():
        from forclip.index.image_index import Index

        problems = Index(store).verify()
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{store}: " + (f"{len(problems)} problems" if problems else "sound"))
        if problems:
            raise typer.Exit(1)


@app.command()
def info(
    place: Annotated[Path, typer.Argument(help="A store or a run.")],
    as_json: AsJson = False,
) -> None:
    """What a store or a run holds."""
    with _clear_errors():
        from forclip.indexing import describe

        described = describe(place)
        if as_json:
            typer.echo(json.dumps(described))
        else:
            for key, value in described.items():
                lines = value if isinstance(value, list) and value else [value]
                for line in lines:
                    told = ", ".join(f"{k} {v}" for k, v in line.items()) if isinstance(line, dict) else line
                    typer.echo(f"{key:20s} {told}")


def main() -> None:
    """The console script."""
    app(prog_name="forclip")


if __name__ == "__main__":
    main()
