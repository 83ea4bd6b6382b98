"""Prepare the views of an image for a backbone: decoded no larger than needed, cut and scaled."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forclip.data.images.picture import Picture, reduction_for
from forclip.data.images.views import Size, View
from forclip.models.backbone import Backbone


class PrepareViews:
    """Convert an image to the backbone's input of each view: [views, 3, H, W].

    With `reduction`, what `stream_pixels` takes. A backbone that was plugged in gets all pixels of an image, unless it
    has `shrinkage` and `preprocess_part` as `TowerBackbone` has them.
    """

    def __init__(self, backbone: Backbone, views: Sequence[View]) -> None:
        self._preprocess, self._views = backbone.preprocess, views
        self._shrinkage: Callable[[int, int], float] | None = getattr(backbone, "shrinkage", None)
        self._preprocess_part: Any = getattr(backbone, "preprocess_part", None)

    def __call__(self, row: int, picture: Picture) -> Tensor:
        # NumPy copies in this thread alone.
        return torch.from_numpy(np.stack([self._view(view, row, picture).numpy() for view in self._views]))

    def reduction(self, row: int, size: Size) -> int:
        """Return how far an image may be reduced: as far as all views allow. size: of the upright image."""
        if self._shrinkage is None or self._preprocess_part is None:
            return 1
        return reduction_for(min(self._shrinkage(*view.window(row, size).size) for view in self._views))

    def _view(self, view: View, row: int, picture: Picture) -> Tensor:
        if picture.reduction == 1:
            return self._preprocess(view(row, picture.pixels))
        pixels: Tensor = self._preprocess_part(*picture.show(view.window(row, picture.size)))
        return pixels
