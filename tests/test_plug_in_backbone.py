"""The example that adapts a custom model, on real photos if they are available."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from forclip.data.images.decode import read_image
from forclip.models.baselines import training_free_head

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def realbench(shared: Path) -> Path:
    if not (shared / "realbench" / "photoclip.py").exists():
        pytest.skip(f"no Realbench in {shared}")
    return shared / "realbench"


def test_training_free_heads_equal_the_models_own(realbench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(realbench))
    from plug_in_backbone import PhotoClipBackbone  # type: ignore[import-not-found]  # the script's own folder

    backbone = PhotoClipBackbone(realbench)
    photos = sorted((realbench / "scenes" / "images").glob("*.jpg"))[:4]
    with torch.inference_mode():
        pixels = torch.stack([backbone.preprocess(read_image(p)) for p in photos])
        feature_maps = backbone.model.trunk(pixels)
        tokens = backbone.encode_tokens(pixels)
        heads = {name: training_free_head(backbone, name) for name in ("global", "dense", "cluster_5", "cluster_25")}
        pooled = F.normalize(backbone.model.attnpool(feature_maps), dim=-1)
        dense = F.normalize(backbone.model.dense(feature_maps), dim=-1)
        torch.testing.assert_close(heads["global"](tokens)[:, 0], pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(heads["dense"](tokens), dense, atol=1e-5, rtol=0)
        import baselines  # type: ignore[import-not-found]  # Realbench's own protocol

        for k in (5, 25):
            ours = heads[f"cluster_{k}"](tokens)
            for image, positions in enumerate(dense.numpy()):
                theirs = baselines.cluster(positions, k)
                # The same clusters, in any order.
                assert float((ours[image] @ theirs.T).amax(1).min()) > 1 - 1e-5
                assert float((ours[image] @ theirs.T).amax(0).min()) > 1 - 1e-5
    for name in ("plug_in_backbone", "baselines", "photoclip"):
        sys.modules.pop(name, None)


def test_a_text_without_a_vector_is_an_error(realbench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from plug_in_backbone import PhotoClipBackbone

    backbone = PhotoClipBackbone(realbench)
    vectors = backbone.encode_text(["cup", "traffic light"]).numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    with pytest.raises(ValueError, match="'a photo of a cup'"):
        backbone.encode_text(["a photo of a cup"])
    sys.modules.pop("plug_in_backbone", None)
