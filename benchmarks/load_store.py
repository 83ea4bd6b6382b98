"""A store to put under load: generated images round the vectors of real texts, and a run whose text tower asks.

The texts are everyday names with an adjective before them, as the mini model's text tower says them; the images'
vectors are drawn round those names' vectors as benchmarks.search_data draws them. The run's calibration is made up, so
that lists are judged as those of a finetuned run are; what it says means nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_data import World, make_world, write_vectors
from benchmarks.search_engines.engine_forclip import as_images
from forclip.calibration.model import Calibration
from forclip.config import ModelConfig
from forclip.embedding.ingest import sample_queries
from forclip.embedding.store_model import store_header
from forclip.index.image_index import Index
from forclip.models.class_vectors import no_class_vectors
from forclip.models.mini_clip import MINI_NAME
from forclip.models.retrieval_model import RetrievalModel, configured_backbone, load_model, save_pretrained
from forclip.models.summary_head import window_seeded_head
from forclip.text.vocabulary import load_vocabulary

_QUERY_TOKENS = 25
_IMAGES_AT_ONCE = 5000
_MADE_UP = Calibration(-3.0, 0.5, 1.2, 0.0, 0.95, 0.1, 0.02, 50, 1000, {})
_ADJECTIVES = (
    *("red", "green", "blue", "yellow", "black", "white", "small", "large", "old", "new"),
    *("broken", "wooden", "wet", "dry", "round", "long", "short", "dark", "bright", "dirty"),
    *("clean", "empty", "full", "open", "closed", "heavy", "soft", "hard", "thin", "thick"),
)


def many_texts() -> list[str]:
    """Distinct ones, neighbours of different names: every name once before any comes again."""
    return [f"{adjective} {name}" for adjective in _ADJECTIVES for name in load_vocabulary("lvis")]


def write_run(folder: Path) -> None:
    """The mini model with an untrained summary head."""
    model = ModelConfig(MINI_NAME)
    backbone = configured_backbone(model, "cpu")
    head = window_seeded_head(backbone.new_pool(), _QUERY_TOKENS)
    texts = no_class_vectors(head.pool.dim)
    save_pretrained(folder, head, texts, backbone, model, ("a photo of a {}",), _MADE_UP)


def write_store(folder: Path, run: Path, images: int, per_image: int, seed: int) -> dict[str, Any]:
    """Into a folder that is not there yet, optimised as `forclip index` leaves it. Returns what it holds."""
    config = ModelConfig(str(run))
    model = load_model(config)
    vectors = write_vectors(folder.with_suffix(".npy"), world_of(model, seed), images, per_image)
    index = Index.create(folder, store_header(model, config, "sum", _QUERY_TOKENS))
    for start in range(0, images, _IMAGES_AT_ONCE):
        index.add(*as_images(start, vectors.of_images(start, start + _IMAGES_AT_ONCE)))
    index.optimize(queries=sample_queries(model))
    vectors.file.unlink()
    return {"images": images, "vectors_per_image": per_image, "dim": model.dim, "seed": seed, **index.info()}


def world_of(model: RetrievalModel, seed: int) -> World:
    """One whose concepts are the everyday names: what a name's text has beside what all texts have in common."""
    names: Sequence[str] = load_vocabulary("lvis")
    texts = np.stack([model.encode_query(name).cpu().numpy() for name in names])
    own = texts - texts.mean(axis=0)
    made = make_world(len(names), model.dim, seed)
    centres = own / np.linalg.norm(own, axis=1, keepdims=True)
    common = texts.mean(axis=0) / np.linalg.norm(texts.mean(axis=0))
    return World(centres.astype(np.float32), made.popularity, made.image_mean, common.astype(np.float32), seed)
