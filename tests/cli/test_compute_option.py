"""`--compute` and `model.compute`: the number format of a command."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from forclip.cli import app
from forclip.cli.train import _with_compute
from forclip.config import RunConfig, load_config

CONFIG = "data: {train: {annotations: labels.json}}\nmodel: {name: forclip-mini, compute: bf16, compile: true}\n"


def test_a_configuration_has_a_number_format_and_an_option_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG)
    model = load_config(file).model
    assert (model.compute, model.compile) == ("bf16", True)
    assert _with_compute(file, None) == file
    replaced = _with_compute(file, "float32")
    assert isinstance(replaced, RunConfig)
    assert replaced.model.compute == "float32"
    assert replaced.model.compile


@pytest.mark.parametrize("command", ["train {config} --out {out}", "eval {config}", "index {folder} --to {out}"])
def test_an_unknown_number_format_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    words = command.format(config=tmp_path / "run.yaml", out=tmp_path / "out", folder=tmp_path).split()
    result = CliRunner().invoke(app, [*words, "--compute", "int4"])
    assert result.exit_code == 2
    assert "'int4'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_number_format_in_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.replace("bf16", "int4"))
    with pytest.raises(ValueError, match=r"model\.compute: .*int4"):
        load_config(file)
