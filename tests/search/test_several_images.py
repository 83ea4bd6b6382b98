"""What several images have in common."""

import numpy as np
import pytest

from forclip.search.several_images import common_vector
from tests.index.made import unit


def test_what_all_images_show_is_found_among_what_each_shows_alone() -> None:
    rng = np.random.default_rng(0)
    shared, images = unit(rng, 64), []
    for _ in range(5):
        own = unit(rng, 9, 64)
        near = shared + 0.05 * rng.standard_normal(64).astype(np.float32)
        images.append(rng.permutation(np.concatenate([own, near[None] / np.linalg.norm(near)])))
    found = common_vector(images)
    assert float(np.linalg.norm(found)) == pytest.approx(1, abs=1e-6)
    assert float(found @ shared) > 0.97
    assert found == pytest.approx(common_vector(images[::-1]), abs=1e-6)


def test_images_of_one_vector_have_their_mean_in_common() -> None:
    vectors = unit(np.random.default_rng(1), 4, 16)
    mean = vectors.mean(0)
    assert common_vector([v[None] for v in vectors]) == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
