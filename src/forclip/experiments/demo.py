"""Run everything on the toy world: draw it, finetune FOR, measure all methods, write a report."""

from pathlib import Path

from rich.console import Console

from forclip.config import DataConfig, EvalConfig, ModelConfig, RunConfig, SourceConfig, TrainConfig
from forclip.data.training_images import write_training_images
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics
from forclip.experiments.comparison import finetune_on, measure, measure_training_free
from forclip.experiments.evaluate import load_task
from forclip.experiments.report import Comparison, write_comparison_report
from forclip.progress import Track, portion, tracking
from forclip.toyworld.dataset import ToyWorld, write_toyworld
from forclip.training.runs import create_folder, load_backbone, save_run, with_tiles


def toyworld_config(world: ToyWorld, seed: int) -> RunConfig:
    """Return the complete configuration of one seed."""
    train, gallery = (SourceConfig(file, world.images) for file in (world.train_file, world.gallery_file))
    data, evaluation = DataConfig(train, world.novel, gallery), EvalConfig(clusters=(5, 10, 25))
    return RunConfig(data, ModelConfig("forclip-mini"), train=TrainConfig(seed=seed), eval=evaluation)


NUM_TRAIN, NUM_GALLERY = 1200, 800


def run_demo(out: Path, seeds: tuple[int, ...], console: Console) -> Metrics:
    """Train and measure once for each seed, which decides the world, the split into classes, and the training.

    Writes metrics.json, report.html (with images of the first seed), and the world and the model of each seed.
    """
    create_folder(out)
    comparisons = []
    with tracking(console) as track:
        for number, seed in enumerate(seeds):
            with portion(number, len(seeds)):
                comparisons.append(_run_seed(out, seed, track, console))
    metrics = summarise_runs("toy world", [result.run for c in comparisons for result in c.results.values()])
    write_metrics(out / "metrics.json", metrics)
    write_comparison_report(out / "report.html", "FOR on the toy world", metrics, comparisons[0])
    return metrics


def _run_seed(out: Path, seed: int, track: Track, console: Console) -> Comparison:
    advance = track("drawing the toy world", NUM_TRAIN + NUM_GALLERY)
    config = toyworld_config(write_toyworld(out / f"world-{seed}", NUM_TRAIN, NUM_GALLERY, seed, advance), seed)
    task = load_task(config, load_backbone(config), track, console)
    results = measure_training_free(task, config.head, config.eval, seed, track)
    tuned = finetune_on(task, config.head, config.train, None, track)
    rest = tuned.class_vectors, tuned.calibration, task.tiles
    results["for"] = measure(task, "for", tuned.head, seed, config.eval, *rest)
    write_training_images(create_folder(out / f"model-{seed}"), task.train_paths)
    save_run(out / f"model-{seed}", tuned, task.backbone, with_tiles(config, task.tiles), task.split)
    return Comparison(task, config, results, tuned.history)
