"""Train, compare and measure: demo, train, eval, compare, ablate, recipe; and data check."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from forclip.cli.app import Application, AsJson, Device, Group, app, message_console
from forclip.cli.job_options import local_output
from forclip.console import plain_console
from forclip.progress import is_quiet

if TYPE_CHECKING:
    from forclip.config import RunConfig

ConfigFile = Annotated[Path, Argument(help="YAML file of the run.")]
FirstSeed = Annotated[int, Option("--seed", min=0, help="First seed.")]
ConfiguredCompute = Annotated[
    str | None,
    Option("--compute", help="Number format, in place of model.compute of the file: auto, float32, bf16 or fp16."),
]
Resume = Annotated[bool, Option("--resume", help="Continue a run that was stopped.")]
data_app = Application(cls=Group, help="Inspect a dataset.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@contextmanager
def _workers() -> Iterator[bool]:
    """Join the workers that torchrun started. Yields whether this is the first one, the only one that prints."""
    from forclip import distributed

    try:
        with distributed.joined():
            yield distributed.is_first()
    except distributed.OtherWorkerFailed as error:
        if not error.here and os.environ.get("RANK") == "0":
            typer.echo(f"forclip: {error}", err=True)
        raise typer.Exit(2) from None


def _with_compute(config: "Path | RunConfig", compute: str | None) -> "Path | RunConfig":
    """Return a run's configuration with another number format, or the configuration or file itself if none is given."""
    if compute is None:
        return config
    from forclip.config import checked_compute, load_config

    config = load_config(config) if isinstance(config, Path) else config
    return replace(config, model=replace(config.model, compute=checked_compute(compute)))


@app.command()
def demo(
    out: Annotated[Path, Option(callback=local_output, help="Output folder.")] = Path("runs/demo"),
    seed: FirstSeed = 0,
    seeds: Annotated[int, Option(min=1, help="Number of seeds. Each draws another world and split.")] = 1,
) -> None:
    """Train and compare all methods on a generated toy world, without a download. Writes report.html."""
    from forclip.evaluation.terminal import print_metrics
    from forclip.experiments.demo import run_demo

    metrics = run_demo(out, tuple(range(seed, seed + seeds)), message_console())
    print_metrics(plain_console(), metrics)
    typer.echo(f"\nReport: {out / 'report.html'}")


@app.command()
def train(
    out: Annotated[Path, Option(callback=local_output, help="Output folder for the model and its checkpoint.")],
    config: Annotated[Path | None, Argument(help="YAML file of the run. Not needed with --from.")] = None,
    labels: Annotated[
        Path | None,
        Option("--from", help="Train on this label file or exported folder of a labelling tool, without a YAML file."),
    ] = None,
    images: Annotated[Path | None, Option(help="Image folder of --from. Default: the export's own.")] = None,
    model: Annotated[str | None, Option(help="Pretrained model to train with --from. Default: clip-b16.")] = None,
    device: Annotated[str | None, Option(help="Device for --from: cpu or cuda. Default: cpu.")] = None,
    resume: Resume = False,
    compute: ConfiguredCompute = None,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="Write curves and example rankings to OUT/tensorboard.")
    ] = False,
    wandb: Annotated[
        str | None, Option(metavar="PROJECT", help="Record the same to a project of Weights & Biases.")
    ] = None,
) -> None:
    """Finetune a model with FOR on your base labels. On several GPUs: `torchrun -m forclip train`."""
    from forclip.data.label_export import config_of_labels
    from forclip.training.runs import train as train_run

    if (config is None) == (labels is None):
        raise ValueError("give either the YAML file of a run or --from LABELS")
    if labels is None and (images or model or device):
        raise ValueError(f"--images, --model and --device go with --from; {config} has its own")
    with _workers() as is_first:
        run = config if labels is None else config_of_labels(labels, images, model, device or "cpu")
        assert run is not None
        train_run(
            _with_compute(run, compute),
            out,
            resume=resume,
            console=message_console(),
            tensorboard=tensorboard,
            wandb=wandb,
        )
    if not is_first:
        return
    if is_quiet():
        typer.echo(f"The model: {out}")
        return
    folder = shlex.quote(str(out))
    typer.echo(f"measure it: forclip eval {folder}/run.yaml --model {folder} --out {folder}-eval")
    typer.echo(f"search with it: forclip index PHOTOS --to NEW.store --model {folder}")


@app.command(name="eval")
def evaluate(
    config: ConfigFile,
    model: Annotated[Path | None, Option(help="Folder of a trained run. Default: only the baselines.")] = None,
    out: Annotated[Path, Option(callback=local_output, help="Output folder for metrics.json and report.html.")] = Path(
        "runs/eval"
    ),
    interpolate: Annotated[
        bool, Option("--interpolate", help="Also measure heads between the untuned and the tuned head.")
    ] = False,
    compute: ConfiguredCompute = None,
    as_json: AsJson = False,
) -> None:
    """Compare all methods on one dataset: metrics.json, a table and report.html."""
    from forclip.evaluation.terminal import print_metrics
    from forclip.experiments.evaluate import evaluate as evaluate_run

    with _workers() as is_first:
        messages = message_console(stderr=as_json)
        metrics = evaluate_run(
            _with_compute(config, compute), out, model=model, interpolate=interpolate, console=messages
        )
    if not is_first:
        return
    if as_json:
        typer.echo(json.dumps(metrics))
    else:
        print_metrics(plain_console(), metrics)
        typer.echo(f"\nReport: {out / 'report.html'}")


@app.command()
def compare(
    runs: Annotated[list[Path], Argument(help="Metrics files, or folders that contain metrics.json.")],
    out: Annotated[
        Path | None, Option(callback=local_output, help="Output folder for compare.json and compare.md.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on one dataset: intervals, and paired differences over the classes that they share."""
    from forclip.evaluation.compare_runs import compare_runs, print_comparison, write_comparison

    comparison = compare_runs(runs)
    if out is not None:
        write_comparison(out, comparison)
    if as_json:
        typer.echo(json.dumps(comparison.to_json()))
    else:
        print_comparison(plain_console(), comparison)


@app.command()
def ablate(
    out: Annotated[
        Path,
        Option(callback=local_output, help="Output folder for ablation.json, .md and .png. A stopped run continues."),
    ],
    config: Annotated[Path | None, Argument(help="YAML file of the run. Default: the toy world.")] = None,
    seed: FirstSeed = 0,
    seeds: Annotated[int, Option(min=1, help="Number of seeds. Each draws another toy world.")] = 3,
    only: Annotated[str, Option(help="Comma-separated names of variants. Default: all.")] = "",
    variants: Annotated[
        Path | None, Option(help="YAML file of variants (name: {head: {..}, train: {..}}) to compare with `for`.")
    ] = None,
    train_images: Annotated[
        int | None, Option(min=2, help="Training images per toy world. Default: as in the demo.")
    ] = None,
    gallery_images: Annotated[
        int | None, Option(min=1, help="Gallery images per toy world. Default: as in the demo.")
    ] = None,
) -> None:
    """Measure what each part of FOR contributes: change one setting at a time and compare, over several seeds."""
    from forclip.config import load_config
    from forclip.experiments.ablation import config_dataset, run_ablation, select_variants, toyworld_dataset
    from forclip.experiments.demo import NUM_GALLERY, NUM_TRAIN

    if config is not None and (train_images or gallery_images):
        raise ValueError(f"--train-images and --gallery-images apply to the toy world only, not to {config}")
    known, names = select_variants(variants, [name.strip() for name in only.split(",") if name.strip()])
    if config is None:
        dataset = toyworld_dataset(out, train_images or NUM_TRAIN, gallery_images or NUM_GALLERY)
    else:
        dataset = config_dataset(load_config(config))
    command = shlex.join(["forclip", *sys.argv[1:]])
    run_ablation(dataset, known, names, range(seed, seed + seeds), out, command, message_console())
    typer.echo(f"\nTable: {out / 'ablation.md'}, chart: {out / 'ablation.png'}")


@app.command()
def recipe(
    name: Annotated[str | None, Argument(help="Recipe such as coco-rn50x64. Default: list all recipes.")] = None,
    root: Annotated[Path | None, Option(help="Folder of the dataset.")] = None,
    out: Annotated[
        Path | None, Option(callback=local_output, help="Output folder for cache, model and comparison.")
    ] = None,
    labelled_fraction: Annotated[float, Option(help="Fraction of the training images whose labels count.")] = 1.0,
    device: Device = "cuda",
    resume: Resume = False,
    smoke: Annotated[
        bool, Option("--smoke", help="Try the recipe on a few generated images with random weights, on the CPU.")
    ] = False,
) -> None:
    """Run the paper's comparison on COCO, LVIS or nuImages: train, then measure all methods."""
    from forclip.evaluation.terminal import print_metrics
    from forclip.experiments.published_recipes import print_recipes, run_recipe, smoke_recipe

    console = plain_console()
    if name is None:
        print_recipes(console)
    elif smoke:
        print_metrics(console, smoke_recipe(name, labelled_fraction, message_console()))
    elif root is None or out is None:
        raise ValueError(f"{name} needs --root (folder of the dataset) and --out, or --smoke")
    else:
        print_metrics(console, run_recipe(name, root, out, labelled_fraction, device, resume, message_console()))


@data_app.command()
def check(
    config: Annotated[Path, Argument(help="YAML file of a run; or a label file or folder, to check it by itself.")],
    images: Annotated[Path | None, Option(help="Image folder of a label file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count images and classes, show the split, and list missing files, duplicates and labels that can't be used.

    Exit code 0, 1 if pictures are missing, 2 if the configuration or a label file can't be read.
    """
    from forclip.config import SourceConfig, is_run_config, load_config
    from forclip.data.check import check_data, check_labels, print_check, print_set
    from forclip.progress import tracking

    if not is_run_config(config):
        with tracking(plain_console(stderr=True)) as track:
            one = check_labels(SourceConfig(config, images), track)
        if as_json:
            typer.echo(json.dumps({**asdict(one), "problems": one.problems("labels")}))
        else:
            print_set("labels", one, plain_console())
        if one.pictures_missing:
            raise typer.Exit(1)
        return
    if images is not None:
        raise ValueError(f"{config}: a run's file names its image folders itself; remove --images {images}")
    with tracking(plain_console(stderr=True)) as track:
        result = check_data(load_config(config).data, track)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "problems": result.problems}))
    else:
        print_check(result, plain_console())
    if result.pictures_missing:
        raise typer.Exit(1)
