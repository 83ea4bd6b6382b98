"""Say what a store or a run contains, and whether this machine is set up: info, doctor."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from forclip.cli.app import AsJson, app
from forclip.console import plain_console
from forclip.facts import Fact, format_facts

Verbose = Annotated[bool, Option("--verbose", "-v", help="Also show internals: fingerprints, versions, index parts.")]


@app.command()
def info(
    path: Annotated[str, Argument(help="Folder of a store or a run, or where a store is published.")],
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Show what a store or a run contains: images, sources, model and index; classes, choices and main numbers."""
    from forclip.index.milvus.address import is_milvus

    if is_milvus(path):
        contents, facts = _published(path)
    elif _is_run(path):
        contents, facts = _run(Path(path), as_json or verbose)
    elif inner := _runs_in(path):
        raise ValueError(f"{path}: no run and no store; did you mean {inner}?")
    else:
        contents, facts = _store(path)
    if as_json:
        typer.echo(json.dumps(contents))
        return
    typer.echo(f"{path}: {contents['kind']}")
    for line in format_facts(facts, verbose):
        plain_console().print(f"  {line}", soft_wrap=True)


def _is_run(path: str) -> bool:
    from forclip.training.describe_run import has_run

    return "://" not in path and has_run(Path(path))


def _runs_in(path: str) -> str:
    """Name the runs in a folder that is no store, such as that of `forclip demo`: "" for none."""
    from forclip.index.create_store import has_store
    from forclip.training.describe_run import has_run

    if "://" in path or not Path(path).is_dir() or has_store(Path(path)):
        return ""
    return " or ".join(str(file.parent) for file in sorted(Path(path).glob("*/config.json")) if has_run(file.parent))


def _store(path: str) -> tuple[dict[str, Any], list[Fact]]:
    from forclip.embedding.describe_store import describe_store, store_facts
    from forclip.index.image_index import Index

    index = Index(path)
    contents = describe_store(index)
    return contents, store_facts(index.store.folder, contents)


def _run(folder: Path, internal: bool) -> tuple[dict[str, Any], list[Fact]]:
    """Describe a run. internal: also what is known only after its model is loaded."""
    from forclip.training.describe_run import describe_run, run_facts

    contents = describe_run(folder)
    if internal:
        from forclip.config import ModelConfig
        from forclip.data.images.tiles import describe_tiles
        from forclip.models.retrieval_model import load_model

        model = load_model(ModelConfig(name=str(folder)))
        contents |= {"fingerprint": model.fingerprint, "backbone": model.backbone.name, "dim": model.dim}
        contents["tiles"] = describe_tiles(model.tiles)
    return contents, run_facts(contents)


def _published(path: str) -> tuple[dict[str, Any], list[Fact]]:
    from forclip.index.milvus.index import MilvusIndex

    contents = {"kind": "published store", **MilvusIndex(path).info()}
    internal = ("fingerprint", "format_version", "version")
    facts = [Fact(key, _values(value), key in internal) for key, value in contents.items() if key != "kind"]
    return contents, facts


def _values(value: Any) -> str | list[str]:
    if isinstance(value, dict):
        return [f"{key} = {part}" for key, part in value.items()]
    return [_line(part) for part in value] if isinstance(value, list) else str(value)


def _line(part: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in part.items()) if isinstance(part, dict) else str(part)


@app.command()
def doctor(
    offline: Annotated[bool, Option("--offline", help="Do not try to reach the Hugging Face hub.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this installation: versions, devices, threads, disk, caches, the model hub and optional packages.

    Exit code 0, or 1 if something that every command needs is broken.
    """
    from forclip.doctor import check_all

    checks = check_all(reach_hub=not offline)
    broken = [check for check in checks if check.state == "broken"]
    if as_json:
        typer.echo(json.dumps({"broken": len(broken), "checks": [vars(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks) + 2
        for check in checks:
            plain_console().print(f"{check.state:9}{check.name:{width}}{check.text}", soft_wrap=True)
        things = "1 thing is" if len(broken) == 1 else f"{len(broken)} things are"
        typer.echo(f"{things} broken: see above" if broken else "forclip can run: nothing that it needs is broken")
    if broken:
        raise typer.Exit(1)
