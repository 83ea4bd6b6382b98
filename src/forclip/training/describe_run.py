"""Describe a trained run from its files: classes, split, choices and main numbers. Needs no PyTorch."""

import json
from pathlib import Path
from typing import Any

from forclip.calibration.fit import NEEDED
from forclip.data.splits import read_split
from forclip.evaluation.methods import FOR, format_interval, format_value, metric_label
from forclip.evaluation.metrics_file import Metrics, read_metrics
from forclip.evaluation.sample_size import describe_small_sample
from forclip.facts import Fact, count

_CONFIG, _METRICS = "config.json", "metrics.json"
_MOST_NAMED = 8  # classes


def has_run(folder: Path) -> bool:
    """Whether a folder holds a trained run."""
    return (folder / _CONFIG).is_file() and "backbone" in _read(folder / _CONFIG)


def describe_run(folder: Path) -> dict[str, Any]:
    """Describe a run as JSON values. None for what it does not say, such as a run of an older version.

    metrics: FOR's values in the metrics.json of the run's folder or the one above, as `forclip demo` writes it.
    Raises ValueError for a damaged file.
    """
    config, split = _read(folder / _CONFIG), read_split(folder)
    choices = _read(folder / "choices.json")
    metrics = next((file for file in (folder / _METRICS, folder.parent / _METRICS) if file.is_file()), None)
    return {
        "kind": "run",
        "model": config["backbone"],
        "num_query_tokens": config.get("num_query_tokens"),
        "templates": config.get("templates"),
        "base": None if split is None else list(split.base),
        "novel": None if split is None else list(split.novel),
        "choices": {key: value for key, value in choices.items() if not isinstance(value, dict | list)} or None,
        "calibration": _read(folder / "calibration.json") or None,
        "skipped": len(_read_list(folder / "skipped.json")),
        "metrics_file": None if metrics is None else str(metrics),
        "metrics": None if metrics is None else _of_run(read_metrics(metrics)),
    }


def run_facts(contents: dict[str, Any]) -> list[Fact]:
    """What a person wants to know of a run. contents: as `describe_run` returns them, and more to show on request."""
    model, choices = contents["model"], contents["choices"] or {}
    weights = f" ({model['pretrained']})" if model.get("pretrained") else ""
    size = "" if model.get("image_size") is None else f", image size {model['image_size']}"
    tiles = "" if model.get("tiles", "none") == "none" else f", tiles {model['tiles']}"
    facts = [
        Fact("model", f"{model['name']}{weights}, finetuned{size}{tiles}"),
        Fact("vectors", f"{contents['num_query_tokens']} an image" + (" and as many a tile" if tiles else "")),
        Fact("base", _classes(contents["base"])),
        Fact("novel", _classes(contents["novel"])),
    ]
    if "labelled_images" in choices:
        facts.append(Fact("trained on", count(choices["labelled_images"], "labelled image")))
    if skipped := contents["skipped"]:
        facts.append(Fact("skipped", f"{count(skipped, 'image')} could not be read: skipped.json"))
    if choices:
        facts.append(Fact("choices", _choices(choices)))
    facts += [Fact("probabilities", _calibration(contents["calibration"])), Fact("measured", _measured(contents))]
    facts += [Fact(key, str(contents[key]), internal=True) for key in ("fingerprint", "dim") if key in contents]
    return [*facts, Fact("templates", str(contents["templates"]), internal=True)]


def _of_run(metrics: Metrics) -> Metrics | None:
    return metrics if FOR in metrics["methods"] else None


def _classes(names: list[str] | None) -> str:
    if names is None:
        return "not recorded"
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return count(len(names), "class", "classes") + (f": {', '.join(names[:_MOST_NAMED])}{more}" if names else "")


def _choices(choices: dict[str, Any]) -> list[str]:
    teacher = choices.get("teacher")
    lines = [f"teacher: {teacher}" if teacher else "teacher: none, base labels alone"]
    if guessed_by := choices.get("guessed_by"):
        lines.append(f"images without labels: guessed by {'the zoom teacher' if guessed_by == 'zoom' else 'the start'}")
    for key, meaning in (
        ("share", "from the untuned (0) to the tuned head (1)"),
        ("pooled_share", "plain CLIP's share in each vector"),
        ("class_vectors", "kept part of the base classes' learned shifts"),
    ):
        if choices.get(key) is not None:
            lines.append(f"{meaning}: {choices[key]:g}")
    return lines


def _calibration(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return f"none: {NEEDED}"
    error = calibration.get("held_out_errors", {}).get("top 50")
    measured = "" if error is None else f"; their error over the 50 best images (ECE) is {error:.3f}"
    return f"calibrated on {count(calibration['classes'], 'held-out class', 'held-out classes')}{measured}"


def _measured(contents: dict[str, Any]) -> list[str]:
    metrics = contents["metrics"]
    if metrics is None:
        return ["not yet, or elsewhere: forclip eval CONFIG --model RUN"]
    small = describe_small_sample(metrics)
    values, parts = metrics["methods"][FOR], []
    for group in ("base", "novel"):
        if values[group] is not None:
            interval = format_interval(values.get("intervals", {}).get(group), 0)
            parts.append(f"{format_value(values[group])} {group}" + (f" ({interval})" if interval else ""))
    images = f", {count(metrics['images'], 'image')}" if "images" in metrics else ""
    numbers = f"{metric_label(metrics)} in percent: {', '.join(parts)} on {metrics['dataset']}{images}"
    return [*([small] if small else []), numbers, contents["metrics_file"]]


def _read(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing if it is missing. Raises ValueError, naming a damaged file."""
    content = _read_json(file, {})
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not an object, but {type(content).__name__}")
    return content


def _read_list(file: Path) -> list[Any]:
    content = _read_json(file, [])
    return content if isinstance(content, list) else []


def _read_json(file: Path, missing: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return missing
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable: {error}") from None
