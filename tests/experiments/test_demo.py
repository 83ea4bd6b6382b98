"""The demo on a small toy world. Finetuning must help classes that were never labelled."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from forclip.experiments import demo
from forclip.models.retrieval_model import from_pretrained

NUM_TRAIN, NUM_GALLERY = 400, 200  # a third of the demo's


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "NUM_TRAIN", NUM_TRAIN)
        patch.setattr(demo, "NUM_GALLERY", NUM_GALLERY)
        demo.run_demo(out, (5,), Console(quiet=True))
    return out


def test_novel_classes_gain(finished: Path) -> None:
    methods = json.loads((finished / "metrics.json").read_text())["methods"]
    for group in ("base", "novel"):
        # Tiles take nine passes of the image tower.
        best = max(values[group] for name, values in methods.items() if name != "for" and values["passes"] == 1)
        # This world gives 7.7 on novel and 16.3 on base classes.
        assert methods["for"][group] > best + {"base": 10, "novel": 5}[group], (group, methods)


def test_cluster_clip_beats_plain_clip(finished: Path) -> None:
    """Objects are small here, so several vectors per image must beat one."""
    methods = json.loads((finished / "metrics.json").read_text())["methods"]
    best_cluster = max(v["all"] for m, v in methods.items() if m.startswith("cluster_"))
    assert best_cluster > methods["global"]["all"] + 1


def test_probabilities_of_novel_classes_are_calibrated(finished: Path) -> None:
    """The calibration is fitted to base classes alone. The 50 best images of each class are the hardest."""
    methods = json.loads((finished / "metrics.json").read_text())["methods"]
    assert [name for name, values in methods.items() if "confidence" in values] == ["for"]
    novel = methods["for"]["confidence"]["novel"]
    # This world gives 0.018 and 0.022.
    assert novel["pairs"]["top 50"]["ece"] < 0.06
    assert novel["pairs"]["above 0.05"]["ece"] < 0.06
    assert novel["pairs"]["top 50"]["brier"] < novel["pairs"]["top 50"]["brier_of_rate"]
    calibration = from_pretrained(finished / "model-5").calibration
    assert calibration is not None
    assert calibration.images == NUM_TRAIN


def test_the_report_is_one_file_without_outside_requests(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "FOR (finetuned)" in page
    assert "Probabilities" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(json.loads((finished / "metrics.json").read_text())["classes"]) > 100
    assert from_pretrained(finished / "model-5").dim == 128
