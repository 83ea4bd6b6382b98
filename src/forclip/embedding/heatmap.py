"""Where in a picture a vector comes from, position by position."""

from dataclasses import dataclass

import torch
from PIL import Image

from forclip.models.retrieval_model import RetrievalModel
from forclip.types import Floats


@dataclass(frozen=True)
class Heatmap:
    """values: [rows, columns], 0..1, the strongest position's 1; frame: where the map's edges lie in the picture, as
    Backbone.frame tells it; agreement: the cosine between the vector asked for and the one that the map is of."""

    values: Floats
    frame: tuple[float, float, float, float]
    agreement: float


@torch.inference_mode()
def compute_heatmap(model: RetrievalModel, picture: Image.Image, vector: Floats) -> Heatmap:
    """The map of that one of the picture's vectors, made anew, which is nearest to a stored one, unit [dim].

    A stored vector is not always one of these: it may be the mean of several that were merged, and is rounded.
    """
    backbone, head = model.backbone, model.head
    tokens = backbone.encode_tokens(backbone.preprocess(picture)[None].to(backbone.device)).float()
    cosines = head(tokens)[0] @ torch.from_numpy(vector).to(tokens)
    nearest = int(cosines.argmax())
    values = head.position_weights(tokens)[0, nearest].reshape(head.grid)
    shown: Floats = (values / values.max()).cpu().numpy()
    return Heatmap(shown, backbone.frame(*picture.size), float(cosines[nearest]))
