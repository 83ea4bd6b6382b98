"""Check a dataset: data check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import AsJson

data_app = typer.Typer(help="What your data holds.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    config: Annotated[Path, typer.Argument(help="A run's YAML file.")],
    as_json: AsJson = False,
) -> None:
    """Images, classes, counts, the base/novel split, and what is wrong: missing files, duplicates, odd boxes."""
    with clear_errors():
        from rich.console import Console

        from forclip.config import load_config
        from forclip.data.check import check_data, print_check
        from forclip.progress import tracking

        with tracking(Console(stderr=True)) as track:
            found = check_data(load_config(config).data, track)
        if as_json:
            typer.echo(json.dumps({**found.to_json(), "problems": found.problems}))
        else:
            print_check(found, Console())
