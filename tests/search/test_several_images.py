"""What several images have in common."""

from pathlib import Path

import numpy as np
import pytest

from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.search.several_images import common_vector
from forclip.types import Floats, ImageEmbeddings
from tests.index.made import files, names, unit

DIM = 64


def near(vector: Floats, rng: np.random.Generator) -> Floats:
    moved = vector + 0.05 * rng.standard_normal(vector.shape).astype(np.float32)
    unit_length: Floats = moved / np.linalg.norm(moved)
    return unit_length


def test_what_the_images_share_is_found_beside_what_every_image_shows(tmp_path: Path) -> None:
    """Each image has a background that all images of the gallery share, vectors of its own, and some the object."""
    rng = np.random.default_rng(0)
    background, thing = unit(rng, DIM), unit(rng, DIM)
    shows = np.arange(120) % 10 == 0
    sets = []
    for has_thing in shows:
        rows = [near(background, rng), *unit(rng, 4, DIM), *([near(thing, rng)] if has_thing else [])]
        sets.append(rng.permutation(np.stack(rows)))
    index = Index.create(tmp_path / "store", StoreHeader("abc", DIM, {"name": "some model"}))
    offsets = np.cumsum([0, *map(len, sets)])
    index.add(ImageEmbeddings(np.concatenate(sets), offsets, tuple(names(120))), files(names(120)))
    wanted = [names(120)[n] for n in np.flatnonzero(shows)]
    stored = index.image_vectors(wanted[:4])
    liked = [stored[image_id] for image_id in wanted[:4]]
    query = common_vector(index, liked)
    assert float(np.linalg.norm(query)) == pytest.approx(1, abs=1e-6)
    assert {r.image_id for r in index.search(query, len(wanted))} == set(wanted)
    assert query == pytest.approx(common_vector(index, liked[::-1]), abs=1e-6)
