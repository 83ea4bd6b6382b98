"""metrics.json: every method's numbers on one dataset, over all seeds."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forclip.evaluation.metrics import DENOMINATORS, Denominator
from forclip.evaluation.result import GROUPS, RetrievalReport, metric_name

Metrics = dict[str, Any]  # what metrics.json holds


@dataclass(frozen=True)
class MethodRun:
    """One method under one seed. method: `global`, `dense`, `cluster_10`, `sum_untrained`, `for` or another name.

    ms_per_image: milliseconds to embed one image, None where it was not measured.
    """

    method: str
    seed: int
    report: RetrievalReport
    vectors_per_image: float
    ms_per_image: float | None


def summarise_runs(dataset: str, runs: Sequence[MethodRun]) -> Metrics:
    """Means over seeds, and sample standard deviations (0 for a single run), in the shape of metrics.json.

    Methods keep the order in which they first appear. A seed without a value for a group does not enter its mean;
    with none at all the mean is None. Raises ValueError for no run, the same run twice, and runs with different k.
    """
    ks = sorted({run.report.k for run in runs})
    if len(ks) != 1:
        raise ValueError(f"runs must share one k, not {ks}" if ks else "there is no run to summarise")
    by_method: dict[str, list[MethodRun]] = {}
    for run in runs:
        same = by_method.setdefault(run.method, [])
        if any(other.seed == run.seed for other in same):
            raise ValueError(f"method {run.method!r} has two runs with seed {run.seed}")
        same.append(run)
    return {
        "dataset": dataset,
        "metric": metric_name(ks[0], "min(k,R)"),
        "seeds": sorted({run.seed for run in runs}),
        "methods": {method: _summarise_method(same) for method, same in by_method.items()},
        "classes": _summarise_classes(by_method),
        "left_out": _reasons(runs),
    }


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Writes all or nothing: a reader sees the old file or the whole new one. Raises ValueError for NaN or infinity."""
    write_whole(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")


def read_metrics(path: Path) -> Metrics:
    """Raises ValueError, naming the file, where it is not a metrics.json."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    _refuse_missing(path, metrics, "the file", ("dataset", "metric", "seeds", "methods"))
    _refuse_missing(path, metrics["methods"], "'methods'", ())
    for name, values in metrics["methods"].items():
        _refuse_missing(path, values, f"method {name!r}", (*GROUPS, "vectors_per_image", "ms_per_image"))
    return dict(metrics)


def write_whole(path: Path, text: str) -> None:
    """Writes beside the target, then renames. What UTF-8 cannot hold (file names of other encodings) becomes `?`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _summarise_method(runs: list[MethodRun]) -> dict[str, Any]:
    timed = [run.ms_per_image for run in runs if run.ms_per_image is not None]
    return {
        **_means(runs, "min(k,R)"),
        "vectors_per_image": float(np.mean([run.vectors_per_image for run in runs])),
        "ms_per_image": float(np.mean(timed)) if timed else None,
        "seeds": [run.seed for run in runs],
        "by_seed": {str(run.seed): dict(run.report.means["min(k,R)"]) for run in runs},
        "other_denominators": {metric_name(runs[0].report.k, d): _means(runs, d) for d in DENOMINATORS[1:]},
    }


def _means(runs: list[MethodRun], denominator: Denominator) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for group in GROUPS:
        values = [value for run in runs if (value := run.report.means[denominator][group]) is not None]
        means[group] = float(np.mean(values)) if values else None
        means[f"{group}_std"] = _sample_std(values) if values else None
    return means


def _sample_std(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _summarise_classes(by_method: dict[str, list[MethodRun]]) -> dict[str, Any]:
    """Per class and method, means over the seeds."""
    classes: dict[str, Any] = {}
    for method, runs in by_method.items():
        results = [result for run in runs for result in run.report.classes]
        for result in results:
            entry = classes.setdefault(result.name, {"group": result.group, "methods": {}})
            if method not in entry["methods"]:
                same = [other for other in results if other.name == result.name]
                entry["methods"][method] = {
                    field: float(np.mean([getattr(one, field) for one in same]))
                    for field in ("num_relevant", "average_precision", "precision_at_10", "recall_at_50")
                }
    return classes


def _reasons(runs: Iterable[MethodRun]) -> dict[str, list[dict[str, str]]]:
    """Each class and group without a value once per reason."""
    classes = {(c.name, c.reason): None for run in runs for c in run.report.left_out}
    groups = {(g.name, g.reason): None for run in runs for g in run.report.empty_groups}
    return {
        "classes": [{"name": name, "reason": reason} for name, reason in classes],
        "groups": [{"name": name, "reason": reason} for name, reason in groups],
    }


def _refuse_missing(path: Path, found: object, where: str, keys: tuple[str, ...]) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {where} must be an object, not {type(found).__name__}")
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"{path}: {where} has no {missing[0]!r}")
