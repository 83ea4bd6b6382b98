"""The container files name what is there."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from forclip.cli import app

ROOT = Path(__file__).parents[1]


def test_the_image_copies_what_the_wheel_is_built_from() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()[:-1]
    ]
    let_through = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("file", ["compose.yaml", "compose.cuda.yaml"])
def test_the_service_is_started_with_options_that_there_are(file: str) -> None:
    command, *arguments = yaml.safe_load((ROOT / file).read_text())["services"]["serve"]["command"]
    options = {name for parameter in typer.main.get_command(app).commands[command].params for name in parameter.opts}  # type: ignore[attr-defined]
    assert {argument for argument in arguments if argument.startswith("--")} <= options
