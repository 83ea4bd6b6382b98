"""List the pretrained models."""

import json
from dataclasses import asdict

import typer
from rich.table import Column, Table

from forclip.cli.app import AsJson, app
from forclip.console import plain_console, print_table


@app.command()
def models(as_json: AsJson = False) -> None:
    """List pretrained models: licence, size, speed, languages, and which of them are on this machine."""
    from forclip.models.registry import DEFAULT, KNOWN_MODELS, is_cached

    rows = [{**asdict(model), "cached": is_cached(model), "default": model == DEFAULT} for model in KNOWN_MODELS]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("MB", "pixels", "CPU ms", "ImageNet")]
    names = [Column(name, no_wrap=True) for name in ("--model", "architecture", "tag", "licence")]
    table = Table(*names, *numbers, Column("text", no_wrap=True), Column("here", no_wrap=True), box=None)
    for row in rows:
        cells = [row[key] for key in ("megabytes", "image_size", "cpu_ms", "imagenet", "languages")]
        table.add_row(
            row["name"] + (" (default)" if row["default"] else ""),
            row["architecture"],
            row["tag"] or "",
            row["licence"],
            *("" if cell is None else str(cell) for cell in cells),
            "yes" if row["cached"] else "",
        )
    print_table(plain_console(), table)
    typer.echo(
        "MB: to download. CPU ms: of one core, per image. ImageNet: zero-shot accuracy, percent. here: on this disk.\n"
        "forclip-mini knows drawn pictographs, not photos. apple-amlr allows research only. --model also takes other\n"
        "architectures of open_clip (their weights: --pretrained), model folders of open_clip and Hugging Face, and\n"
        "models of the Hugging Face hub (hf-hub:ORG/NAME)."
    )
