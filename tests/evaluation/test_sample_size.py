"""Measurements of few classes or images say so."""

from io import StringIO
from typing import Any

import pytest

from forclip.console import plain_console
from forclip.evaluation.report import summary
from forclip.evaluation.sample_size import describe_small_sample, is_too_few, small_samples
from forclip.evaluation.terminal import print_metrics


def metrics(images: int = 800, base: int = 30, novel: int = 10, interval: tuple[float, float] = (20.0, 40.0)) -> Any:
    classes = {
        f"{group} {k}": {"group": group, "methods": {}}
        for group, n in (("base", base), ("novel", novel))
        for k in range(n)
    }
    values = {"base": 50.0, "novel": 30.0, "all": 45.0, "vectors_per_image": 9, "ms_per_image": None}
    intervals = {"base": [45.0, 55.0], "novel": list(interval), "all": [40.0, 50.0]}
    ours = {**values, "intervals": intervals}
    methods = {"global": {**values, "novel": 20.0, "intervals": intervals}, "for": ours}
    content = {"dataset": "pets", "metric": "map_at_50/min(50,R)", "seeds": [0], "methods": methods}
    return {**content, "classes": classes, "images": images, "distractors": 0, "protocol": "all images"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {}),
        ({"interval": (3.0, 50.0)}, {"novel": "95 % interval 3-50 %"}),
        ({"novel": 4}, {"novel": "4 classes"}),
        ({"base": 1}, {"base": "1 class"}),
        ({"images": 49}, {"base": "49 images", "novel": "49 images"}),
    ],
)
def test_few_classes_few_images_and_wide_intervals(changes: dict[str, Any], found: dict[str, str]) -> None:
    reasons = small_samples(metrics(**changes))
    assert {group: reason.replace("\N{EN DASH}", "-") for group, reason in reasons.items()} == found


def test_the_report_and_the_terminal_begin_with_it_and_claim_no_gain() -> None:
    small = metrics(interval=(3.0, 50.0))
    sentence = describe_small_sample(small)
    assert sentence is not None
    assert summary(small).startswith(sentence)
    assert "never-labelled" not in summary(small)  # whose gain it would be
    assert "never-labelled" in summary(metrics())
    console = plain_console()
    console.file = StringIO()
    print_metrics(console, small)
    printed = " ".join(console.file.getvalue().split())
    assert sentence in printed
    assert printed.endswith("(CLIP (global)): base +0.0")


def test_an_older_file_has_enough_data() -> None:
    old = metrics(novel=1)
    del old["classes"], old["images"]
    for values in old["methods"].values():
        del values["intervals"]
    assert describe_small_sample(old) is None


def test_the_average_precision_of_a_class_needs_five_images() -> None:
    assert is_too_few(4)
    assert not is_too_few(5)
