"""Options that every command has: --quiet, and --log for a file of events."""

import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from forclip import __version__
from forclip.location import as_location, is_at_url
from forclip.one_line import one_line
from forclip.progress import EventLog, record, reporting


def local_output(path: Path | None) -> Path | None:
    """Refuse a URL as the place of an output that grows while a job runs."""
    if path is not None and is_at_url(path):
        raise typer.BadParameter(
            f"{as_location(path)} is a URL; write to a local folder, and copy it when the job is done"
        )
    return path


Quiet = Annotated[bool, Option("--quiet", help="Print only errors and results: no progress, no notices.")]
EventsFile = Annotated[
    Path | None,
    Option(
        "--log", metavar="FILE", callback=local_output, help="Append what happens to a file: one JSON object per line."
    ),
]
# The commands that show --log in their help, because they take long. `forclip --log FILE` works with all.
_LONG = (
    *("demo", "train", "eval", "ablate", "recipe", "check", "index", "quickstart", "publish"),
    *("compact", "verify", "duplicates"),
)


class _ForAll:
    """What was chosen before the command's name, as in `forclip --quiet index`."""

    quiet = False
    log: Path | None = None


def choose_for_all(quiet: bool, log: Path | None) -> None:
    """Keep the options that were given before the command's name."""
    _ForAll.quiet, _ForAll.log = quiet, log


class JobCommands(typer.Typer):
    """An application whose commands all have the options of a job."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """Register a command."""
        register = super().command(*arguments, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            name = options.get("name") or (arguments and arguments[0]) or function.__name__
            register(_with_job_options(function, name))
            return function

        return decorate


def _with_job_options(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    added: dict[str, Any] = {"quiet": Quiet} | ({"log": EventsFile} if name in _LONG else {})
    defaults = {"quiet": False, "log": None}

    @functools.wraps(function)
    def run(*arguments: Any, **values: Any) -> Any:
        quiet, log = values.pop("quiet", False), values.pop("log", None)
        with _job(name, quiet or _ForAll.quiet, log or _ForAll.log):
            return function(*arguments, **values)

    signature = inspect.signature(function)
    parameters = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=defaults[key], annotation=annotation)
        for key, annotation in added.items()
    ]
    # Typer reads both.
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *parameters]
    )
    run.__annotations__ = {**function.__annotations__, **added}
    return run


@contextmanager
def _job(command: str, quiet: bool, file: Path | None) -> Iterator[None]:
    """Run a command that reports to a log. Of several workers of torchrun, the first one writes it."""
    if file is None or os.environ.get("RANK", "0") != "0":
        with reporting(quiet=quiet):
            yield
        return
    log = EventLog(file, lambda message: typer.echo(f"forclip: {message}", err=True))
    started, outcome = time.monotonic(), {"status": "completed"}
    try:
        with reporting(quiet=quiet, log=log):
            record("start", command=command, version=__version__)
            try:
                yield
            except typer.Exit as error:
                if error.exit_code:
                    outcome = {"status": "failed"}
                raise
            except (KeyboardInterrupt, typer.Abort):
                outcome = {"status": "interrupted"}
                raise
            except BaseException as error:
                outcome = {"status": "failed", "error": one_line(error) or type(error).__name__}
                raise
            finally:
                record("end", **outcome, seconds=round(time.monotonic() - started, 3))
    finally:
        log.finish()
