"""Check a dataset: data check."""

import json
from dataclasses import asdict

import typer
from rich.console import Console

from forclip.cli.app import app
from forclip.cli.options import AsJson, ConfigFile

data_app = typer.Typer(help="Inspect a dataset.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(config: ConfigFile, as_json: AsJson = False) -> None:
    """Count images and classes, show the base/novel split, and list missing files, duplicates and invalid boxes."""
    from forclip.config import load_config
    from forclip.data.check import check_data, print_check
    from forclip.progress import tracking

    with tracking(Console(stderr=True)) as track:
        result = check_data(load_config(config).data, track)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "problems": result.problems}))
    else:
        print_check(result, Console())
