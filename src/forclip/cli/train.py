"""Train, compare and measure: demo, train, eval, compare, ablate, recipe."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import AsJson, Device


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: each is another world and another split.")] = 1,
) -> None:
    """The whole path on the toy world: baselines, FOR, a table, and report.html. Nothing is downloaded."""
    with clear_errors():
        from rich.console import Console

        from forclip.experiments.demo import run_demo

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
    with clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.training.runs import train_run

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
    with clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.evaluation.terminal import print_metrics
        from forclip.experiments.evaluate import evaluate_run

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
    with clear_errors():
        from rich.console import Console

        from forclip.evaluation.compare_runs import compare_runs, print_comparison, write_comparison

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
    with clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.experiments.ablation import config_dataset, known_variants, run_ablation, toyworld_dataset
        from forclip.experiments.demo import NUM_GALLERY, NUM_TRAIN

        if config is not None and (train_images or gallery_images):
            raise ValueError("--train-images and --gallery-images are of the toy world, not of a CONFIG")
        known, names = known_variants(variants, [name.strip() for name in only.split(",") if name.strip()])
        toy = toyworld_dataset(out, train_images or NUM_TRAIN, gallery_images or NUM_GALLERY)
        ground = toy if config is None else config_dataset(load_config(config))
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
    with clear_errors():
        from rich.console import Console

        from forclip.evaluation.terminal import print_metrics
        from forclip.experiments.published_recipes import print_recipes, run_recipe, smoke_recipe

        console = Console()
        if name is None:
            print_recipes(console)
        elif smoke:
            print_metrics(console, smoke_recipe(name, labelled_fraction, console))
        elif root is None or out is None:
            raise ValueError(f"{name} needs --root, the dataset's folder, and --out; or --smoke to try it")
        else:
            print_metrics(console, run_recipe(name, root, out, labelled_fraction, device, resume, console))
