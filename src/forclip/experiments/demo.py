"""The whole path on the embedded default: toy world, baselines, FOR, report."""

from pathlib import Path

from rich.console import Console

from forclip.config import DataConfig, EvalConfig, ModelConfig, RunConfig, SourceConfig, TrainConfig
from forclip.evaluation.metrics_file import Metrics, summarise_runs, write_metrics
from forclip.evaluation.terminal import print_metrics
from forclip.experiments.comparison import finetune_on, measure, measure_training_free
from forclip.experiments.evaluate import load_task
from forclip.experiments.report import ReportContents, tell
from forclip.models.open_clip_backbone import load_open_clip
from forclip.progress import Track, tracking
from forclip.toyworld.dataset import ToyWorld, write_toyworld
from forclip.training.runs import create_folder, save_run


def toyworld_config(world: ToyWorld, seed: int) -> RunConfig:
    """The complete configuration of one seed."""
    return RunConfig(
        data=DataConfig(
            train=SourceConfig(world.train_file, world.images),
            gallery=SourceConfig(world.gallery_file, world.images),
            novel=world.novel,
        ),
        model=ModelConfig(name="forclip-mini"),
        train=TrainConfig(seed=seed),
        eval=EvalConfig(clusters=(5, 10, 25)),
    )


NUM_TRAIN, NUM_GALLERY = 1200, 800


def run_demo(out: Path, seeds: tuple[int, ...], console: Console) -> Metrics:
    """Each seed is another world, another split into base and novel classes and another training run.

    Writes metrics.json, report.html (with the first seed's pictures), and each seed's world and model below out.
    """
    create_folder(out)
    with tracking(console) as track:
        stories = [_run_seed(out, seed, track, console) for seed in seeds]
    metrics = summarise_runs("toy world", [m.run for s in stories for m in s.measured.values()])
    write_metrics(out / "metrics.json", metrics)
    tell(out / "report.html", "FOR on the toy world", metrics, stories[0])
    print_metrics(console, metrics)
    return metrics


def _run_seed(out: Path, seed: int, track: Track, console: Console) -> ReportContents:
    drawn = track("drawing the toy world", NUM_TRAIN + NUM_GALLERY)
    world = write_toyworld(out / f"world-{seed}", NUM_TRAIN, NUM_GALLERY, seed, drawn)
    config = toyworld_config(world, seed)
    backbone = load_open_clip(config.model.name, config.model.pretrained)
    task = load_task(config, backbone, track, console)
    measured = measure_training_free(task, config.head, config.eval, seed, track)
    tuned = finetune_on(task, config.head, config.train, None, track)
    measured["for"] = measure(task, "for", tuned.head, seed, config.eval, tuned.class_vectors, tuned.calibration)
    save_run(out / f"model-{seed}", tuned, backbone, config, task.split)
    return ReportContents(task, config, measured, tuned.history)
