"""The typer application, and how its commands report errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

app = typer.Typer(
    help="Find the images that contain an object, in your own large image set, by free text.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a user can mend ends in one sentence and exit code 2; an interrupt in 130; anything else is our bug."""
    try:
        yield
    except BrokenPipeError:
        raise  # `| head` has seen enough: click ends quietly
    except (ValueError, OSError) as error:
        typer.echo(f"forclip: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("forclip: interrupted", err=True)
        raise typer.Exit(130) from None
