"""The heatmap of a vector: how much each position of an image contributes to it."""

from dataclasses import dataclass

import torch
from PIL import Image

from forclip.models.retrieval_model import RetrievalModel
from forclip.types import Floats


@dataclass(frozen=True)
class Heatmap:
    """values: [rows, columns], 0..1, the strongest position's is 1. frame: where the map's edges lie in the image, as
    `Backbone.frame` returns it. agreement: cosine between the requested vector and the one that the map belongs to."""

    values: Floats
    frame: tuple[float, float, float, float]
    agreement: float


@torch.inference_mode()
def compute_heatmap(model: RetrievalModel, image: Image.Image, vector: Floats) -> Heatmap:
    """Embed the image again and return the heatmap of its vector that is nearest to a stored one, [dim] unit.

    A stored vector is rounded, and may be the mean of several merged vectors, so it need not equal any of them.
    """
    backbone, head = model.backbone, model.head
    tokens = backbone.encode_tokens(backbone.preprocess(image)[None].to(backbone.device)).float()
    cosines = head(tokens)[0] @ torch.from_numpy(vector).to(tokens)
    nearest = int(cosines.argmax())
    weights = head.position_weights(tokens)[0, nearest].reshape(head.grid)
    values: Floats = (weights / weights.max()).cpu().numpy()
    return Heatmap(values, backbone.frame(*image.size), float(cosines[nearest]))
