"""metrics.json: the metrics of every method on one dataset, over all seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.confidence import ConfidenceReport, summarise_confidence
from forclip.evaluation.metrics import DENOMINATORS, DESCRIPTION, mean_curves, mean_interval
from forclip.evaluation.protocol import GROUPS, ClassResult, Group, RetrievalReport, metric_name

Metrics = dict[str, Any]  # the content of metrics.json


@dataclass(frozen=True)
class MethodRun:
    """One method with one seed.

    method: `global`, `dense`, `cluster_10`, `sum_untrained`, `tiles_3x3`, `for` or another name. ms_per_image:
    milliseconds to embed one image, None if not measured. confidence: the evaluation of its probabilities, None if it
    has none. passes: of the image tower for an image: 1, and 1 more for each tile.
    """

    method: str
    seed: int
    report: RetrievalReport
    vectors_per_image: float
    ms_per_image: float | None
    confidence: ConfidenceReport | None = None
    passes: int = 1


def summarise_runs(dataset: str, runs: Sequence[MethodRun]) -> Metrics:
    """Average over seeds, in the shape of metrics.json, with sample standard deviations (0 for a single run).

    Methods keep the order in which they first appear. A seed without a value for a group doesn't enter the group's
    mean; the mean is None if no seed has one. Intervals are over classes (forclip.evaluation.metrics).
    Raises ValueError for no run, a repeated run, or runs that differ in k, protocol or distractors_kept.
    """
    if not runs:
        raise ValueError("there is no run to summarise")
    k = _shared(runs, "k")
    by_method: dict[str, list[MethodRun]] = {}
    for run in runs:
        same_method = by_method.setdefault(run.method, [])
        if any(other.seed == run.seed for other in same_method):
            raise ValueError(f"method {run.method!r} has two runs with seed {run.seed}")
        same_method.append(run)
    return {
        "dataset": dataset,
        "metric": metric_name(k, "min(k,R)"),
        "protocol": _shared(runs, "protocol"),
        "images": _whole_mean(run.report.images for run in runs),
        "distractors": _whole_mean(run.report.distractors for run in runs),
        "distractors_kept": _shared(runs, "distractors_kept"),
        "interval": DESCRIPTION,
        "seeds": sorted({run.seed for run in runs}),
        "methods": {method: _summarise_method(of_method) for method, of_method in by_method.items()},
        "classes": _summarise_classes(by_method),
        "left_out": {
            key: list({entry: asdict(entry) for run in runs for entry in getattr(run.report, field)}.values())
            for key, field in (("classes", "left_out"), ("groups", "empty_groups"))
        },
    }


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json atomically. Raises ValueError for NaN or infinity."""
    write_text_atomically(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")


def read_metrics(path: Path) -> Metrics:
    """Read a metrics.json; one of an older version lacks some keys. Raises ValueError naming a file that is none."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    _check_keys(path, metrics, "the file", ("dataset", "metric", "seeds", "methods"))
    _check_keys(path, metrics["methods"], "'methods'", ())
    for name, values in metrics["methods"].items():
        _check_keys(path, values, f"method {name!r}", (*GROUPS, "vectors_per_image", "ms_per_image"))
    return dict(metrics)


def _check_keys(path: Path, content: object, where: str, keys: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {where} must be an object, not {type(content).__name__}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{path}: {where} has no {missing[0]!r}")


def _shared(runs: Sequence[MethodRun], field: str) -> Any:
    """The value of a report's field, which must be the same in all runs."""
    values = {getattr(run.report, field) for run in runs}
    if len(values) > 1:
        raise ValueError(f"runs must share one {field}, not {sorted(values)}")
    return values.pop()


def _whole_mean(counts: Iterable[int]) -> float:
    """The mean, as a whole number if it is one."""
    mean = float(np.mean(list(counts)))
    return int(mean) if mean.is_integer() else mean


def _summarise_method(runs: list[MethodRun]) -> dict[str, Any]:
    reports = [run.report for run in runs]
    times = [run.ms_per_image for run in runs if run.ms_per_image is not None]
    confidence = summarise_confidence([run.confidence for run in runs if run.confidence is not None])
    return {
        **_means([report.means["min(k,R)"] for report in reports]),
        "intervals": {group: _interval(reports, group) for group in GROUPS},
        "vectors_per_image": float(np.mean([run.vectors_per_image for run in runs])),
        "passes": _whole_mean(run.passes for run in runs),
        "ms_per_image": float(np.mean(times)) if times else None,
        "seeds": [run.seed for run in runs],
        "by_seed": {str(run.seed): dict(run.report.means["min(k,R)"]) for run in runs},
        "other_denominators": {
            metric_name(reports[0].k, d): _means([report.means[d] for report in reports]) for d in DENOMINATORS[1:]
        },
        "other_protocols": {
            name: _means([report.other_protocols[name] for report in reports]) for name in reports[0].other_protocols
        },
        "curves": asdict(mean_curves([report.curves for report in reports])),
        **({} if confidence is None else {"confidence": confidence}),
    }


def _means(by_run: Sequence[Mapping[Group, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for group in GROUPS:
        values = [value for of_run in by_run if (value := of_run[group]) is not None]
        means[group] = float(np.mean(values)) if values else None
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        means[f"{group}_std"] = std if values else None
    return means


def _interval(reports: Sequence[RetrievalReport], group: Group) -> list[float] | None:
    by_run = [{c.name: c.average_precision for c in report.classes if group in ("all", c.group)} for report in reports]
    names = dict.fromkeys(name for precisions in by_run for name in precisions)
    rows = [[precisions.get(name, np.nan) for name in names] for precisions in by_run]
    interval = mean_interval(np.array(rows, np.float64).reshape(len(reports), len(names)))
    return None if interval is None else list(interval)


_CLASS_FIELDS = ("num_images", "num_relevant", "average_precision", "precision_at_10", "recall_at_50")


def _summarise_classes(by_method: dict[str, list[MethodRun]]) -> dict[str, Any]:
    """Means over seeds, by class and method.

    If seeds differ in a class's group, `group` is the first, and `by_group` has the precision in each.
    """
    by_class: dict[str, dict[str, list[ClassResult]]] = {}
    for method, runs in by_method.items():
        for result in (result for run in runs for result in run.report.classes):
            by_class.setdefault(result.name, {}).setdefault(method, []).append(result)
    summaries: dict[str, Any] = {}
    for name, of_class in by_class.items():
        by_group: dict[str, dict[str, list[float]]] = {}
        for method, results in of_class.items():
            for result in results:
                by_group.setdefault(result.group, {}).setdefault(method, []).append(result.average_precision)
        means = {
            method: {field: float(np.mean([getattr(r, field) for r in results])) for field in _CLASS_FIELDS}
            for method, results in of_class.items()
        }
        summaries[name] = {"group": next(iter(by_group)), "methods": means}
        if len(by_group) > 1:
            precisions = {g: {m: float(np.mean(v)) for m, v in values.items()} for g, values in by_group.items()}
            summaries[name]["by_group"] = precisions
    return summaries
