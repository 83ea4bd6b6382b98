"""metrics.json: every method's numbers on one dataset, over all seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.bootstrap import DESCRIPTION, mean_interval
from forclip.evaluation.confidence import ConfidenceReport, summarise_confidence
from forclip.evaluation.metrics import DENOMINATORS, mean_curves
from forclip.evaluation.protocol import GROUPS, ClassResult, Group, RetrievalReport, metric_name
from forclip.types import Doubles

Metrics = dict[str, Any]  # what metrics.json holds


@dataclass(frozen=True)
class MethodRun:
    """One method under one seed. method: `global`, `dense`, `cluster_10`, `sum_untrained`, `for` or another name.

    ms_per_image: milliseconds to embed one image, None where it was not measured; confidence: what its probabilities
    are worth, None for a method that gives none.
    """

    method: str
    seed: int
    report: RetrievalReport
    vectors_per_image: float
    ms_per_image: float | None
    confidence: ConfidenceReport | None = None


def summarise_runs(dataset: str, runs: Sequence[MethodRun]) -> Metrics:
    """Means over seeds, and sample standard deviations (0 for a single run), in the shape of metrics.json.

    Methods keep the order in which they first appear. A seed without a value for a group does not enter its mean;
    with none at all the mean is None. Intervals are over classes, see forclip.evaluation.bootstrap.
    Raises ValueError for no run, the same run twice, and runs that differ in k, protocol or distractors_kept.
    """
    if not runs:
        raise ValueError("there is no run to summarise")
    k = _shared("k", [run.report.k for run in runs])
    protocol = _shared("protocol", [run.report.protocol for run in runs])
    kept = _shared("distractors_kept", [run.report.distractors_kept for run in runs])
    by_method: dict[str, list[MethodRun]] = {}
    for run in runs:
        same = by_method.setdefault(run.method, [])
        if any(other.seed == run.seed for other in same):
            raise ValueError(f"method {run.method!r} has two runs with seed {run.seed}")
        same.append(run)
    return {
        "dataset": dataset,
        "metric": metric_name(k, "min(k,R)"),
        "protocol": protocol,
        "images": _mean_count([run.report.images for run in runs]),
        "distractors": _mean_count([run.report.distractors for run in runs]),
        "distractors_kept": kept,
        "interval": DESCRIPTION,
        "seeds": sorted({run.seed for run in runs}),
        "methods": {method: _summarise_method(same) for method, same in by_method.items()},
        "classes": _summarise_classes(by_method),
        "left_out": _reasons(runs),
    }


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Writes all or nothing: a reader sees the old file or the whole new one. Raises ValueError for NaN or infinity."""
    write_text_atomically(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")


def read_metrics(path: Path) -> Metrics:
    """Raises ValueError, naming the file, where it is not a metrics.json. One of an older version lacks some keys."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    _refuse_missing(path, metrics, "the file", ("dataset", "metric", "seeds", "methods"))
    _refuse_missing(path, metrics["methods"], "'methods'", ())
    for name, values in metrics["methods"].items():
        _refuse_missing(path, values, f"method {name!r}", (*GROUPS, "vectors_per_image", "ms_per_image"))
    return dict(metrics)


def _shared(what: str, values: Sequence[Any]) -> Any:
    """The one value that all runs have."""
    if len(set(values)) > 1:
        raise ValueError(f"runs must share one {what}, not {sorted(set(values))}")
    return values[0]


def _mean_count(counts: Sequence[int]) -> float:
    """Whole where it is."""
    mean = float(np.mean(counts))
    return int(mean) if mean.is_integer() else mean


def _summarise_method(runs: list[MethodRun]) -> dict[str, Any]:
    timed = [run.ms_per_image for run in runs if run.ms_per_image is not None]
    confidence = summarise_confidence([run.confidence for run in runs if run.confidence is not None])
    return {
        **_means([run.report.means["min(k,R)"] for run in runs]),
        "intervals": {group: _interval(runs, group) for group in GROUPS},
        "vectors_per_image": float(np.mean([run.vectors_per_image for run in runs])),
        "ms_per_image": float(np.mean(timed)) if timed else None,
        "seeds": [run.seed for run in runs],
        "by_seed": {str(run.seed): dict(run.report.means["min(k,R)"]) for run in runs},
        "other_denominators": {
            metric_name(runs[0].report.k, d): _means([run.report.means[d] for run in runs]) for d in DENOMINATORS[1:]
        },
        "other_protocols": {
            name: _means([run.report.other_protocols[name] for run in runs]) for name in runs[0].report.other_protocols
        },
        "curves": mean_curves([run.report.curves for run in runs]).to_json(),
        **({} if confidence is None else {"confidence": confidence}),
    }


def _interval(runs: Sequence[MethodRun], group: Group) -> list[float] | None:
    found = mean_interval(_precisions(runs, group))
    return None if found is None else list(found)


def _precisions(runs: Sequence[MethodRun], group: Group) -> Doubles:
    """Average precisions of the group's classes: [runs, classes], NaN where a run has no such class in the group."""
    by_run = [{c.name: c.average_precision for c in run.report.classes if group in ("all", c.group)} for run in runs]
    names = dict.fromkeys(name for of_run in by_run for name in of_run)
    rows = [[of_run.get(name, np.nan) for name in names] for of_run in by_run]
    return np.array(rows, np.float64).reshape(len(runs), len(names))


def _means(by_run: Sequence[Mapping[Group, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for group in GROUPS:
        values = [value for of_run in by_run if (value := of_run[group]) is not None]
        means[group] = float(np.mean(values)) if values else None
        means[f"{group}_std"] = _sample_std(values) if values else None
    return means


def _sample_std(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


_CLASS_FIELDS = ("num_images", "num_relevant", "average_precision", "precision_at_10", "recall_at_50")


def _summarise_classes(by_method: dict[str, list[MethodRun]]) -> dict[str, Any]:
    """Per class and method, means over the seeds.

    Where seeds differ in the class's group, that is the first, and `by_group` has the average precision in each.
    """
    found: dict[str, dict[str, list[ClassResult]]] = {}
    for method, runs in by_method.items():
        for run in runs:
            for result in run.report.classes:
                found.setdefault(result.name, {}).setdefault(method, []).append(result)
    return {name: _summarise_class(of_methods) for name, of_methods in found.items()}


def _summarise_class(of_methods: dict[str, list[ClassResult]]) -> dict[str, Any]:
    groups = list(dict.fromkeys(result.group for results in of_methods.values() for result in results))
    summary: dict[str, Any] = {
        "group": groups[0],
        "methods": {
            method: {field: float(np.mean([getattr(r, field) for r in results])) for field in _CLASS_FIELDS}
            for method, results in of_methods.items()
        },
    }
    if len(groups) > 1:
        summary["by_group"] = {group: _precisions_within(of_methods, group) for group in groups}
    return summary


def _precisions_within(of_methods: dict[str, list[ClassResult]], group: str) -> dict[str, float]:
    within = {m: [r.average_precision for r in results if r.group == group] for m, results in of_methods.items()}
    return {method: float(np.mean(values)) for method, values in within.items() if values}


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
