"""Say when a measurement has too few classes or images to mean much."""

from collections.abc import Mapping

from forclip.evaluation.methods import best_overall, format_interval
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import CLASS_GROUPS, Group

# Below these, or with a wider interval, the interval of a mean covers most differences between methods.
FEWEST_CLASSES, FEWEST_IMAGES = 5, 50
WIDEST_INTERVAL = 30.0  # points between the ends of the 95 % interval over classes
FEWEST_RELEVANT = 5  # images that show a class, for an average precision of this class


def small_samples(metrics: Metrics) -> dict[Group, str]:
    """Return why the values of a group say little, by group; nothing for groups with enough data or without a value.

    A file of an older version, without classes or intervals, counts as enough.
    """
    method, reasons = best_overall(metrics) or next(iter(metrics["methods"]), None), dict[Group, str]()
    if method is None:
        return reasons
    values = metrics["methods"][method]
    classes = [entry["group"] for entry in metrics.get("classes", {}).values()]
    for group in CLASS_GROUPS:
        interval = values.get("intervals", {}).get(group)
        if values[group] is None:
            continue
        if reason := too_few(metrics.get("images"), classes.count(group) if classes else None):
            reasons[group] = reason
        elif interval is not None and is_too_wide(*interval):
            reasons[group] = f"95 % interval {format_interval(interval, 0)} %"
    return reasons


def too_few(images: float | None, classes: int | None) -> str | None:
    """Return which of two counts is too small for a mean over classes, None if neither is. None: not known."""
    if images is not None and images < FEWEST_IMAGES:
        return f"{images:g} {'image' if images == 1 else 'images'}"
    if classes is not None and classes < FEWEST_CLASSES:
        return f"{classes} {'class' if classes == 1 else 'classes'}"
    return None


def describe_small_sample(metrics: Metrics) -> str | None:
    """Say in a sentence which groups have too little data; None if all have enough."""
    return describe_reasons(small_samples(metrics))


def describe_reasons(reasons: Mapping[Group, str]) -> str | None:
    """Say in a sentence which groups have too little data, by their reasons; None for no group."""
    if not reasons:
        return None
    parts = " and ".join(f"{group} classes ({reason})" for group, reason in reasons.items())
    return f"Not enough data for {parts}: differences between methods may be chance. Label more images."


def is_too_wide(low: float, high: float) -> bool:
    """Whether an interval, in percent, is so wide that the value in it says little."""
    return high - low > WIDEST_INTERVAL


def is_too_few(relevant: int) -> bool:
    """Whether so few images show a class that its average precision says little."""
    return relevant < FEWEST_RELEVANT
