"""The mini CLIP: a small open_clip architecture for the toy world, bundled with its weights.

The image tower is a timm ByobNet of stride 8 (96 pixels give 12 x 12 positions), pooled by CLIP's attention pool. The
text tower is a two-layer transformer over CLIP's vocabulary. It is registered with timm and open_clip, so that it is
built and loaded like any other model. `forclip.toyworld.pretraining` pretrains it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from timm.models import register_model
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

from forclip.location import Location
from forclip.progress import notify

MINI_NAME = "forclip-mini"
MINI_WEIGHTS = Path(__file__).parent / f"{MINI_NAME}.safetensors"
_STAGES = ((48, 2), (96, 2), (128, 1))  # (channels, stride) of each residual block, after a stem of stride 2
_PIXELS, _POSITIONS_PER_SIDE = 96, 12
_TOY_PICTURE = re.compile(r"(train|gallery)_\d{5}\.jpg")  # as forclip.toyworld.dataset names them


@register_model
def forclip_mini_tower(pretrained: bool = False, **_timm_bookkeeping: Any) -> ByobNet:
    """Build the image tower, as a factory for timm. [B, 3, 96, 96] -> [B, 128, 12, 12]."""
    assert not pretrained, "the weights belong to the whole CLIP, not to the tower"
    blocks = tuple(ByoBlockCfg(type="basic", d=1, c=channels, s=stride, gs=0, br=1.0) for channels, stride in _STAGES)
    tower = ByobNet(ByoModelCfg(blocks=blocks, stem_chs=32, stem_type="3x3", stem_pool=""))
    # open_clip sizes the attention pool's positional embedding by pool_size.
    tower.default_cfg = {  # type: ignore[assignment]  # timm sets this on its models in the same way
        "pool_size": (_POSITIONS_PER_SIDE, _POSITIONS_PER_SIDE),
        "input_size": (3, _PIXELS, _PIXELS),
    }
    return tower


def register_mini() -> None:
    """Register MINI_NAME with open_clip, once."""
    if MINI_NAME not in open_clip.list_models():
        open_clip.add_model_config(Path(__file__).parent / f"{MINI_NAME}.json")


def warn_about_photos(backbone_name: str, pictures: Sequence[Location]) -> None:
    """Tell the user if the mini CLIP is used on pictures that are not the toy world's, by their names."""
    if backbone_name == MINI_NAME and not all(_TOY_PICTURE.fullmatch(picture.name) for picture in pictures):
        notify(
            f"{MINI_NAME} knows drawn pictographs, not photos: it finds next to nothing in photos."
            " Choose a pretrained model: --model clip-b16, or another one of `forclip models`"
        )
