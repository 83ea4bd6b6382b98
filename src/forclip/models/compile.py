"""Run a function of tensors through torch.compile where that works here."""

from collections.abc import Callable

import torch
from torch import Tensor

from forclip.one_line import one_line
from forclip.progress import notify


def compile_or_not(function: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """Return a function that is compiled at its first call, or runs as it is, with a notice, if that fails.

    Batches of other sizes are not compiled again. name: for the notice.
    """
    compiled: Callable[[Tensor], Tensor] | None = torch.compile(function, dynamic=None)

    def run(inputs: Tensor) -> Tensor:
        nonlocal compiled
        if compiled is not None:
            try:
                return compiled(inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler, or its absence, raises
                reason = one_line(error)[:200] or type(error).__name__
                notify(f"{name}: torch.compile does not work here, so the image tower runs without it: {reason}")
                compiled = None
        return function(inputs)

    return run
