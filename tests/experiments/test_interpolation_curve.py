"""The curve between a run's untuned and tuned head."""

import json
from pathlib import Path

import pytest
import torch

from forclip.experiments.interpolation_curve import CurvePoint, curve_figure, read_ends, write_curve
from forclip.models.summary_head import SummaryHead, window_seeded_head
from forclip.toyworld.dataset import ToyWorld
from forclip.training.weight_interpolation import save_ends
from tests.cli.test_cli import assert_one_line, run, write_config
from tests.tiny import TinyEyes, tiny_pool


def head(offset: float = 0.0) -> SummaryHead:
    built = window_seeded_head(tiny_pool((3, 3)), 3)
    with torch.no_grad():
        built.offsets.add_(offset)
    return built


def points(chosen: float) -> list[CurvePoint]:
    return [CurvePoint(s, 40 + 10 * s, 30 - 4 * (s - 0.5) ** 2, 35.0, s == chosen) for s in (0.0, 0.5, 1.0)]


def test_both_heads_and_the_chosen_alpha_are_read(tmp_path: Path) -> None:
    save_ends(tmp_path / "ends.safetensors", head(), head(1.0))
    assert read_ends(tmp_path, TinyEyes())[2] is None
    (tmp_path / "choices.json").write_text('{"share": 0.25}')
    untuned, tuned, chosen = read_ends(tmp_path, TinyEyes())
    assert chosen == 0.25
    torch.testing.assert_close(tuned.offsets, untuned.offsets + 1)


def test_the_curve_has_the_share_of_the_run(tmp_path: Path) -> None:
    save_ends(tmp_path / "ends.safetensors", head().with_share(0.75), head(1.0))
    (tmp_path / "choices.json").write_text('{"share": 0.25, "pooled_share": 0.5}')
    assert float(read_ends(tmp_path, TinyEyes())[0].pooled_share) == 0.5


def test_missing_equal_and_damaged_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no ends\.safetensors"):
        read_ends(tmp_path, TinyEyes())
    save_ends(tmp_path / "ends.safetensors", head(), head())
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_ends(tmp_path, TinyEyes())
    (tmp_path / "ends.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        read_ends(tmp_path, TinyEyes())


def test_the_chart_and_the_json_file(tmp_path: Path) -> None:
    axes = curve_figure(points(0.5)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0", "0.5", "1"]
    marked = [line for line in axes.lines if line.get_label() == "chosen"]
    assert [(line.get_xdata(), line.get_ydata()) for line in marked] == [([45.0], [30.0])]
    assert "%" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()
    write_curve(tmp_path, points(0.5))
    shares = json.loads((tmp_path / "interpolation.json").read_text())["shares"]
    assert shares[1] == {"share": 0.5, "base": 45.0, "novel": 30.0, "all": 35.0, "chosen": True}
    assert (tmp_path / "interpolation.png").exists()


def test_without_novel_classes_there_is_no_chart(tmp_path: Path) -> None:
    write_curve(tmp_path, points(0.5))
    write_curve(tmp_path, [CurvePoint(0.0, 40.0, None, 40.0, True)])
    assert not (tmp_path / "interpolation.png").exists()  # an older one is removed


def test_from_the_command_line(tmp_path: Path, small_world: ToyWorld) -> None:
    """The curve's chosen point equals the run's result, and alpha 0 that of the untrained head."""
    train = {"epochs": 1, "teacher": "none", "interpolation": 0.4, "class_vectors": 0.0}
    config = write_config(tmp_path, small_world, train=train, head={"alignment": "off"})
    model, out = tmp_path / "model", tmp_path / "eval"
    assert_one_line(run("eval", config, "--interpolate", "--out", out), "--model")
    assert run("train", config, "--out", model).exit_code == 0
    result = run("eval", config, "--model", model, "--interpolate", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    methods = json.loads(result.stdout)["methods"]  # the table does not spoil the JSON
    shares = json.loads((out / "interpolation.json").read_text())["shares"]
    assert [(p["share"], p["chosen"]) for p in shares] == [(s, s == 0.4) for s in (0.0, 0.25, 0.4, 0.5, 0.75, 1.0)]
    for group in ("base", "novel", "all"):
        assert shares[2][group] == pytest.approx(methods["for"][group], abs=1e-6)
        assert shares[0][group] == pytest.approx(methods["sum_untrained"][group], abs=1e-6)
    (model / "ends.safetensors").unlink()
    assert_one_line(run("eval", config, "--model", model, "--interpolate", "--out", out), "no ends.safetensors")
