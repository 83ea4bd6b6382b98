"""Names and notes of the methods for readers, FOR's gain over the training-free ones, and how numbers are printed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forclip.evaluation.confidence import Pairs
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import GROUPS, Group

FOR = "for"
DASH = "\N{EN DASH}"  # for a missing value, and between the ends of an interval
_NAMES = {
    "global": "CLIP (global)",
    "dense": "Dense-CLIP",
    "sum_untrained": "SUM-CLIP, untrained",
    FOR: "FOR (finetuned)",
}
_NOTES = {
    "global": "CLIP's own embedding of the whole image: one vector.",
    "dense": "One vector per position, from the value path of CLIP's last attention, without mixing positions.",
    "cluster": "Dense-CLIP's vectors grouped into k regions by Ward clustering; one mean vector per region.",
    "tiles": "CLIP's own embedding of each of several overlapping tiles of the image, without the whole.",
    "sum_untrained": "Query tokens attend to the positions through CLIP's own head, before finetuning.",
    FOR: "SUM-CLIP finetuned with labels of the base classes and a teacher's pseudo-labels, never a novel label.",
}
PAIRS_NAMES: dict[Pairs, str] = {
    "top 50": "each class's 50 best images",
    "above 0.05": "images with a probability above 0.05",
    "all": "all images, nearly all of them easy",
}


@dataclass(frozen=True)
class Gain:
    """FOR against the best training-free method of one group. value, best: percent; difference: value - best."""

    value: float
    best: float
    best_method: str

    @property
    def difference(self) -> float:
        return self.value - self.best


def display_name(method: str) -> str:
    """A method's name for readers: `cluster_10` becomes `Cluster-CLIP, k = 10`; an unknown method keeps its name."""
    if clusters := re.fullmatch(r"cluster_(\d+)", method):
        return f"Cluster-CLIP, k = {clusters[1]}"
    if tiles := re.fullmatch(r"tiles_(\d+)x(\d+)", method):
        return f"Tiles of CLIP, {tiles[1]} x {tiles[2]}"
    return _NAMES.get(method, method)


def method_note(method: str) -> str:
    """One line about a method; empty for an unknown method."""
    return _NOTES.get(_kind(method), "")


def _kind(method: str) -> str:
    """The method without its number of clusters or its tiles."""
    return re.sub(r"^(cluster_\d+|tiles_\d+x\d+)$", lambda name: name[0].partition("_")[0], method)


def gains_over_baseline(metrics: Metrics) -> dict[Group, Gain]:
    """FOR's gain in each group in which FOR and a training-free method have a value."""
    gains: dict[Group, Gain] = {}
    methods = metrics["methods"]
    for group in GROUPS:
        best = best_training_free(metrics, group)
        value = methods.get(FOR, {}).get(group)
        if best is not None and value is not None:
            gains[group] = Gain(value, methods[best][group], best)
    return gains


def best_training_free(metrics: Metrics, group: Group) -> str | None:
    """The training-free method with the highest value in a group; None if none has a value."""
    values = {
        method: of_method[group]
        for method, of_method in metrics["methods"].items()
        if _kind(method) in _NOTES and method != FOR
        if of_method[group] is not None
    }
    return max(values, key=lambda m: values[m]) if values else None


def best_overall(metrics: Metrics) -> str | None:
    """FOR if it was measured, otherwise the training-free method that is best on all classes."""
    return FOR if FOR in metrics["methods"] else best_training_free(metrics, "all")


def best_cells(metrics: Metrics) -> set[tuple[str, str]]:
    """The best method and column pairs, all that print the same value: highest mAP, fewest ms. Empty for one method."""
    best: set[tuple[str, str]] = set()
    for column in (*GROUPS, "ms_per_image"):
        values = {m: v[column] for m, v in metrics["methods"].items() if v[column] is not None}
        if len(metrics["methods"]) > 1 and values:
            top = format_value(min(values.values()) if column == "ms_per_image" else max(values.values()))
            best |= {(method, column) for method, value in values.items() if format_value(value) == top}
    return best


def passes(metrics: Metrics, method: str) -> float:
    """Passes of the image tower for an image; 1 in a file of an older version."""
    return float(metrics["methods"][method].get("passes", 1))


def format_value(value: float | None) -> str:
    """One decimal, more for a value that would print as 0.0, a dash for None."""
    if value is None:
        return DASH
    return f"{value:.1f}" if value == 0 or abs(value) >= 0.05 else f"{value:.2g}"


def format_interval(interval: Sequence[float] | None, decimals: int = 1) -> str:
    """The ends of an interval joined by a dash; empty for None."""
    return "" if interval is None else DASH.join(f"{end:.{decimals}f}" for end in interval)


def format_error(pairs: dict[str, Any]) -> str:
    """The calibration error of one kind of pairs in metrics.json, with its standard deviation over seeds."""
    if pairs["ece"] is None:
        return DASH
    return f"{pairs['ece']:.3f}" + (f" ± {pairs['ece_std']:.3f}" if pairs["ece_std"] else "")


def metric_label(metrics: Metrics) -> str:
    """The metric's short name: `map_at_50/min(50,R)` becomes `mAP@50`."""
    rank = re.match(r"map_at_(\d+)", str(metrics["metric"]))
    return f"mAP@{rank[1]}" if rank else str(metrics["metric"])
