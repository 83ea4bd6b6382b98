"""Between the untuned and the tuned head (WiSE-FT, arXiv 2109.01903)."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import read_head
from forclip.models.summary_head import SummaryHead


def interpolate(untuned: SummaryHead, tuned: SummaryHead, share: float) -> SummaryHead:
    """A new head, each weight `share` of the way: 0 is the untuned, 1 the tuned, beyond 1 overshoots."""
    between = copy.deepcopy(untuned)
    with torch.no_grad():
        for start, end in zip(between.parameters(), tuned.parameters(), strict=True):
            start.lerp_(end, share)
    return between


def save_ends(file: Path, untuned: SummaryHead, tuned: SummaryHead) -> None:
    """Both heads in one safetensors file."""
    ends = {"untuned": untuned, "tuned": tuned}
    state = {f"{end}.{k}": v for end, head in ends.items() for k, v in head.state_dict().items()}
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, file)


def load_ends(file: Path, backbone: Backbone) -> tuple[SummaryHead, SummaryHead]:
    """Untuned and tuned. Raises ValueError where the file is missing, damaged or of another model."""
    try:
        state = load_file(file)
        untuned, tuned = (
            read_head(backbone, {k.removeprefix(f"{end}."): v for k, v in state.items() if k.startswith(f"{end}.")})
            for end in ("untuned", "tuned")
        )
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{file}: missing, damaged or of another model: {str(error)[:200]}") from None
    return untuned, tuned
