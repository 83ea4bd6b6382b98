"""The typer application, how its commands report errors, and the options that groups of commands share."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup

from forclip import __version__
from forclip.cli.job_options import EventsFile, JobCommands, Quiet, choose_for_all
from forclip.console import plain_console
from forclip.location import with_urls
from forclip.one_line import one_line
from forclip.progress import Notice, is_quiet, record

if TYPE_CHECKING:
    from forclip.config import ModelConfig

StoreFolder = Annotated[
    str, Argument(help="Store written by `forclip index`: a folder, or a URL such as s3://bucket/store.")
]
StorePlace = Annotated[
    str,
    Argument(
        metavar="STORE", help="Store written by `forclip index`, or where it is published: milvus://HOST/COLLECTION."
    ),
]
Device = Annotated[str, Option(help="PyTorch device: cpu, cuda, cuda:1 or mps.")]
Compute = Annotated[
    str,
    Option(help="Number format of the model: auto (float32 on a CPU, half precision on a GPU), float32, bf16 or fp16."),
]
Moved = Annotated[
    str | None,
    Option(
        "--model", help="Where the store's model is now, if it has moved: run folder, open_clip name or model folder."
    ),
]
MovedWeights = Annotated[str | None, Option("--pretrained", help="Where its weights file is now, if it has moved.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]

_ORDER = (
    *("quickstart", "demo", "models", "data", "train", "eval", "compare", "ablate", "recipe"),
    *("plan", "index", "search", "look", "serve", "export", "duplicates"),
    *("info", "doctor", "verify", "publish", "relocate", "delete", "compact"),
)


def _named_as_typed(parameters: list[Any]) -> list[Any]:
    """Show a flag without a value in the help, and an argument by its name in capitals."""
    for parameter in parameters:
        if parameter.metavar is None and getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.metavar is None and parameter.param_type_name == "argument":
            parameter.metavar = parameter.name.upper()
    return parameters


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _named_as_typed(super().get_params(ctx))


class Application(JobCommands):
    """A typer application; the help of its commands shows flags as flags."""

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        return super().command(name, **{"cls": _Command, **options})


class Group(TyperGroup):
    """A group of commands whose help shows flags as flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _named_as_typed(super().get_params(ctx))


class _Commands(Group):
    """Report errors that users can fix on one line, with exit code 2, and an interrupt with 130.

    Other exceptions are bugs and keep their traceback.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order in which a user meets them."""
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def invoke(self, ctx: Any) -> Any:
        try:
            _refuse_workers(ctx)
            with warnings.catch_warnings():
                warnings.simplefilter("always", Notice)
                warnings.showwarning = _show_warning(warnings.showwarning)
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader stopped early, as `| head` does; click ends quietly
        except (ValueError, OSError) as error:
            typer.echo(f"forclip: {with_urls(one_line(error))}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # `main` says so


# Commands that several workers run together, as torchrun starts them.
_ON_WORKERS = ("train", "eval")


def _refuse_workers(ctx: Any) -> None:
    """Raise ValueError for a command that torchrun would run several times; the first worker says so."""
    command = next(iter(ctx._protected_args), "")
    if command in _ON_WORKERS or "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return
    if os.environ.get("RANK") != "0":
        raise typer.Exit(2)
    raise ValueError(f"{command}: torchrun starts it several times; of forclip, it runs {' and '.join(_ON_WORKERS)}")


def _show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """A function that prints notices on one line, once each, and other warnings as Python does."""
    printed: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if not issubclass(category, Notice):
            otherwise(message, category, *args, **kwargs)
        elif str(message) not in printed and os.environ.get("RANK", "0") == "0":
            printed.add(str(message))
            record("notice", message=str(message))
            if not is_quiet():
                typer.echo(f"forclip: {with_urls(str(message))}", err=True)

    return show


def moved_model(model: str | None, pretrained: str | None) -> "ModelConfig | None":
    """Return where a store's model is now, None if it has not moved."""
    from forclip.config import ModelConfig

    if model is None and pretrained is not None:
        raise ValueError("--pretrained needs --model")
    if model is None:
        return None
    from forclip.models.model_copy import local_model

    return local_model(ModelConfig(name=model, pretrained=pretrained))


def outdated_message(images: int) -> str:
    """Say what to do about images that an older version decoded."""
    return (
        f"{images} images were indexed by a version that ignored EXIF orientation. Index their folder again: "
        "forclip index FOLDER --to STORE updates the rotated ones"
    )


def message_console(stderr: bool = False) -> Console:
    """Return the console for progress and messages, which --quiet silences. Results are printed elsewhere."""
    return plain_console(stderr, quiet=is_quiet())


app = Application(
    cls=_Commands,
    help="Find the images that contain an object, in your own large image set, by free text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forclip {__version__}")
        raise typer.Exit


def _choose_cache(folder: Path | None) -> None:
    if folder is not None:
        os.environ["FORCLIP_CACHE"] = str(folder)


def _choose_threads(threads: int | None) -> None:
    from forclip.cpu import set_up_threads

    if threads is not None:
        set_up_threads(threads)


@app.callback()
def forclip(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    cache: Annotated[
        Path | None,
        Option(
            envvar="FORCLIP_CACHE",
            callback=_choose_cache,
            help="Folder for search segments of stores in buckets. Default: ~/.cache/forclip.",
        ),
    ] = None,
    quiet: Quiet = False,
    log: EventsFile = None,
    threads: Annotated[
        int | None,
        Option(min=1, callback=_choose_threads, help="Threads that compute on the CPU. Default: one for each core."),
    ] = None,
) -> None:
    """Options of `forclip` itself; the commands are in the other modules."""
    choose_for_all(quiet, log)
