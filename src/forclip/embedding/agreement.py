"""Check that vectors of two number formats agree before both go into one store."""

from collections.abc import Sequence
from dataclasses import replace

from forclip.config import Compute
from forclip.embedding.embed import embed_images
from forclip.index.image_index import Index
from forclip.location import Location, parse_location
from forclip.models.compute import compute_of
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.tower_backbone import TowerBackbone
from forclip.types import Floats

MEAN_COSINE, LEAST_COSINE = 0.999, 0.99
_IMAGES, _CANDIDATES = 8, 64


def agree_on_compute(index: Index, model: RetrievalModel, new: Sequence[Location]) -> None:
    """Let a model add to a store that it wrote in another number format, if its vectors agree in both.

    A few images of the store are embedded in both formats, or, if none can be read, of those to be added, `new`. Their
    vectors agree if their cosines are at least 0.999 on average and 0.99 each. The header then names both formats.
    Raises ValueError if they do not agree, and if there is no image to tell.
    """
    header, compute, backbone = index.store.header, compute_of(model.backbone), model.backbone
    if compute in header.compute or not new:
        return
    assert isinstance(backbone, TowerBackbone)
    first: Compute = header.compute[0]  # type: ignore[assignment]
    other = replace(model, backbone=backbone.with_compute(first))
    folder, hint = index.store.folder, f"--compute {first} continues it as it was written"
    rows = index.store.table().scanner(["uri"], limit=_CANDIDATES).to_table().column("uri").to_pylist()
    for paths in ([parse_location(index.store.roots.resolve(uri)) for uri in rows], new[:_CANDIDATES]):
        vectors = _vectors_of(model, other, paths)
        if vectors is not None:
            break
    else:
        raise ValueError(f"{folder}: was written in {first}, and no image can be read to compare {compute}; {hint}")
    cosines = (vectors[0] * vectors[1]).sum(1)
    if cosines.mean() < MEAN_COSINE or cosines.min() < LEAST_COSINE:
        raise ValueError(
            f"{folder}: was written in {first}; vectors in {compute} have a cosine of {cosines.mean():.4f} with those"
            f" on average and {cosines.min():.4f} at least, where {MEAN_COSINE} and {LEAST_COSINE} are needed; {hint}"
        )
    index.store.write_header(replace(header, compute=[*header.compute, compute]))


def _vectors_of(
    model: RetrievalModel, other: RetrievalModel, paths: Sequence[Location]
) -> tuple[Floats, Floats] | None:
    """Embed the first images that can be read with both models. Returns [total, dim] of each, None without any."""
    for start in range(0, len(paths), _IMAGES):
        part = paths[start : start + _IMAGES]
        try:
            both = [embed_images(one, part, with_boxes=False)[0].vectors for one in (model, other)]
        except ValueError:  # none of them can be read
            continue
        return both[0], both[1]
    return None
