"""From what a comparison measured to report.html."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

import forclip
from forclip.comparison import Measured, Task
from forclip.config import RunConfig, config_to_json
from forclip.evaluation.methods import best_training_free
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.report import Curve, ReportPage, write_report
from forclip.grids import pick_queries, query_grids

NUM_QUERIES = 6
_MIN_RELEVANT = 3  # a query with fewer right answers makes a poor picture


@dataclass(frozen=True)
class Story:
    """One seed's comparison. measured: by method name; history: each objective's value at every training step."""

    task: Task
    config: RunConfig
    measured: dict[str, Measured]
    history: list[dict[str, float]]


def tell(path: Path, title: str, metrics: Metrics, story: Story) -> None:
    """Writes the page: the numbers of all seeds, the pictures and curves of this one."""
    queries = pick_queries(story.task, story.config.train.seed, NUM_QUERIES, _MIN_RELEVANT)
    grids = query_grids(story.task, _shown(metrics, story), queries)
    write_report(path, ReportPage(title, metrics["dataset"], metrics, _curves(story.history), grids, _details(story)))


def _shown(metrics: Metrics, story: Story) -> list[tuple[str, Measured]]:
    """Plain CLIP, the best Cluster-CLIP on novel classes (on all, where there is no novel one), and FOR."""
    clusters = {m: v for m, v in metrics["methods"].items() if m.startswith("cluster_")}
    best = best_training_free({**metrics, "methods": clusters}, "novel")
    best = best or best_training_free({**metrics, "methods": clusters}, "all")
    return [(m, story.measured[m]) for m in ("global", best, "for") if m in story.measured]


def _curves(history: list[dict[str, float]]) -> tuple[Curve, ...]:
    if not history:
        return ()
    steps = tuple(float(s) for s in range(1, len(history) + 1))
    return tuple(Curve(name, steps, tuple(h[name] for h in history), "step") for name in history[0])


def _details(story: Story) -> dict[str, str]:
    return {
        "configuration": yaml.safe_dump(config_to_json(story.config), sort_keys=False),
        "model fingerprint": story.task.backbone.fingerprint,
        "base classes": ", ".join(story.task.split.base),
        "novel classes": ", ".join(story.task.split.novel),
        "versions": f"forclip {forclip.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
