"""Class names to text vectors, through prompt templates."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.backbone import Backbone


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def encode_classes(backbone: Backbone, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """A unit vector for each name: the mean over templates (arXiv 2103.00020, section 3.1.4).

    Returns [C, D] float32 on the CPU. Raises ValueError for a template without `{}`.
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"prompt template {template!r} has no {{}} for the class name")
    if not names:
        raise ValueError("there is no class name to encode")
    texts = [template.format(name) for name in names for template in templates]
    vectors = backbone.encode_text(texts).float().cpu().unflatten(0, (len(names), len(templates)))
    return F.normalize(vectors.mean(1), dim=-1)
