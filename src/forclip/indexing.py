"""Pictures into a store, part by part: what is written stays, whatever stops the job."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from forclip.config import ModelConfig
from forclip.data.folder import list_images
from forclip.embedding import embed_tokens, encode_images
from forclip.index.store import Store, create_store
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.progress import Advance, tracking
from forclip.search import store_header
from forclip.types import SkippedImage

_IMAGES_A_PART = 1024


def index_images(
    source: str,
    to: Path,
    config: ModelConfig,
    head: str,
    num_query_tokens: int,
    device: str,
    console: Console,
) -> None:
    """Adds the pictures of a folder or pattern that the store has not. Their ids are their absolute paths."""
    found = {_as_id(path): path for path in list_images(source)}
    model = load_model(config, device, head, num_query_tokens)
    store = create_store(to, store_header(model, config, model.dim, head, num_query_tokens))
    present = store.image_ids()
    new = [image_id for image_id in found if image_id not in present]
    skipped: list[SkippedImage] = []
    with tracking(console) as track:
        advance = track("embedding", len(new))
        for start in range(0, len(new), _IMAGES_A_PART):
            ids = new[start : start + _IMAGES_A_PART]
            skipped += _add_part(store, model, ids, [found[i] for i in ids], advance)
    added = len(new) - len(skipped)
    console.print(f"{added} added, {len(found) - len(new)} were there, {len(skipped)} could not be read: {to}")
    for bad in skipped:
        console.print(f"  {bad.reason}", markup=False)
    if not store.part_files():
        raise ValueError(f"{source}: none of {len(found)} pictures can be read")


def describe(place: Path) -> dict[str, Any]:
    """A store's or a run's contents, as plain values. Raises ValueError for anything else."""
    if (place / "config.json").exists():
        model = load_model(ModelConfig(name=str(place)))
        return {"kind": "run", "fingerprint": model.fingerprint, "backbone": model.backbone.name, "dim": model.dim}
    store = Store(place)
    return {
        "kind": "store",
        "images": len(store.image_ids()),
        "dim": store.header.dim,
        "fingerprint": store.header.fingerprint,
        **{f"model {key}": value for key, value in store.header.model.items()},
    }


def _add_part(
    store: Store, model: RetrievalModel, ids: list[str], paths: list[Path], advance: Advance
) -> tuple[SkippedImage, ...]:
    encoded = encode_images(model.backbone, ids, paths, advance)
    if len(encoded.rows):
        kept = [ids[row] for row in encoded.rows]
        embeddings = embed_tokens(model.head, encoded.tokens, kept, model.backbone.device, with_boxes=True)
        store.add(embeddings, tuple(kept))
    return encoded.skipped


def _as_id(path: Path) -> str:
    """The absolute path as text; bytes of a name that is not UTF-8 are escaped, so that no two names meet."""
    return os.path.abspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
