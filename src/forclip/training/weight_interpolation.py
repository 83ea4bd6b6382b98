"""Interpolation between the weights of the untuned and the tuned head (WiSE-FT, arXiv 2109.01903)."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import read_head
from forclip.models.summary_head import SummaryHead


def interpolate(untuned: SummaryHead, tuned: SummaryHead, alpha: float) -> SummaryHead:
    """Return a new head with weights (1 - alpha) * untuned + alpha * tuned. alpha above 1 extrapolates.

    Plain CLIP's share is the untuned head's.
    """
    head = copy.deepcopy(untuned)
    with torch.no_grad():
        for weight, tuned_weight in zip(head.own_parameters(), tuned.own_parameters(), strict=True):
            weight.lerp_(tuned_weight, alpha)
    return head


def save_ends(file: Path, untuned: SummaryHead, tuned: SummaryHead) -> None:
    """Write both heads to one safetensors file."""
    heads = {"untuned": untuned, "tuned": tuned}
    state = {f"{end}.{k}": v for end, head in heads.items() for k, v in head.state_dict().items()}
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, file)


def load_ends(file: Path, backbone: Backbone) -> tuple[SummaryHead, SummaryHead]:
    """Read the untuned and the tuned head. Raises ValueError if the file is missing, damaged or of another model."""
    try:
        state = load_file(file)
        untuned, tuned = (
            read_head(backbone, {k.removeprefix(f"{end}."): v for k, v in state.items() if k.startswith(f"{end}.")})
            for end in ("untuned", "tuned")
        )
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{file}: missing, damaged or of another model: {str(error)[:200]}") from None
    return untuned, tuned
