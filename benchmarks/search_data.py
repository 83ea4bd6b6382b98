"""Vectors and text queries of the search benchmark, generated or given, and their exact scores.

Vectors are stored in a .npy file, float16 [images * per_image, dim], image by image. A generated gallery starts with
the images of every smaller one with the same seed and number of concepts.

Generated vectors are clustered like real embeddings. With 20,000 images x 25 x 512, the mean of all vectors has length
0.55, as measured for a CLIP-shaped model. The cosine of a text query is 0.29 with its nearest image (standard deviation
over queries 0.03), 0.24 with the 50th, 0.13 with the 1,000th, and 0.07 (0.04) on average over all images. The 50th and
the 51st differ by 0.0003. At least 50 images contain the concept of a query, so the best 50 are not noise. The results
of a run describe the cosines of its vectors.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from forclip.types import Floats, Ints

TYPICAL = "typical.npy"

_BLOCK_IMAGES = 500
_CONCEPTS_AN_IMAGE = 6
_FAMILY_SIZE = 20  # concepts that are similar, as breeds are
_POPULARITY = 0.7  # a concept's frequency falls with this power of its rank
_IMAGE_MEAN, _IMAGE_OWN, _IMAGE_NOISE = 0.55, 0.3, 0.55
_LEAST_CONCEPT, _MOST_CONCEPT = 0.35, 0.75  # weight of the concept in a vector, drawn for each image and concept
_TEXT_MEAN, _TEXT_CONCEPT, _TEXT_NOISE = 0.5, 0.35, 0.79
_SAME_SCORE = 1e-5  # rounding error of a cosine in float16


@dataclass(frozen=True)
class Vectors:
    """The first images of a file, each with per_image vectors."""

    file: Path
    images: int
    per_image: int

    def __len__(self) -> int:
        return self.images * self.per_image

    @property
    def dim(self) -> int:
        return int(self.load().shape[1])

    def load(self) -> NDArray[np.float16]:
        """The vectors, [images * per_image, dim], memory-mapped."""
        mapped: NDArray[np.float16] = np.load(self.file, mmap_mode="r")[: len(self)]
        return mapped

    def of_images(self, start: int, stop: int) -> Floats:
        """The vectors of images start to stop, [images, per_image, dim] float32."""
        rows = self.load()[start * self.per_image : min(stop, self.images) * self.per_image]
        return rows.astype(np.float32).reshape(-1, self.per_image, rows.shape[1])


@dataclass(frozen=True)
class World:
    """The distribution of generated images and texts. centres: unit [concepts, dim]; popularity: [concepts], sums to 1;
    image_mean, text_mean: unit [dim], shared by all images and by all texts."""

    centres: Floats
    popularity: NDArray[np.float64]
    image_mean: Floats
    text_mean: Floats
    seed: int


def concepts_for(images: int) -> int:
    """Number of concepts: 3,000 from 20,000 images on, else fewer, so that many concepts are in at least 50 images."""
    return max(10, min(3000, images * 3 // 20))


def make_world(concepts: int, dim: int, seed: int) -> World:
    """Draw a world from a seed."""
    rng = np.random.default_rng([seed, 0])
    families = _unit(rng.standard_normal((-(-concepts // _FAMILY_SIZE), dim), np.float32))
    centres = _unit(0.5 * families[rng.integers(0, len(families), concepts)] + _unit(_normal(rng, (concepts, dim))))
    popularity = 1 / np.arange(1, concepts + 1) ** _POPULARITY
    means = _unit(_normal(rng, (2, dim)))
    return World(centres, popularity / popularity.sum(), means[0], means[1], seed)


def write_vectors(file: Path, world: World, images: int, per_image: int) -> Vectors:
    """Generate the vectors of a gallery, block by block.

    A vector is the unit sum of a part shared by all images, a concept, a part shared within the image, and noise.
    """
    dim = len(world.image_mean)
    out = open_memmap(file, "w+", np.float16, (images * per_image, dim))
    for start in range(0, images, _BLOCK_IMAGES):
        block = _image_block(world, start, per_image)[: images - start]
        out[start * per_image : (start + len(block)) * per_image] = block.reshape(-1, dim)
    out.flush()
    return Vectors(file, images, per_image)


def _image_block(world: World, start: int, per_image: int) -> Floats:
    """Unit vectors of one block of images, [_BLOCK_IMAGES, per_image, dim]."""
    rng, dim = np.random.default_rng([world.seed, 1, start]), len(world.image_mean)
    held = rng.choice(len(world.centres), (_BLOCK_IMAGES, _CONCEPTS_AN_IMAGE), p=world.popularity)
    strength = rng.uniform(_LEAST_CONCEPT, _MOST_CONCEPT, held.shape).astype(np.float32)
    chosen = rng.integers(0, _CONCEPTS_AN_IMAGE, (_BLOCK_IMAGES, per_image))
    image = np.arange(_BLOCK_IMAGES)[:, None]
    vectors = world.centres[held[image, chosen]] * strength[image, chosen][..., None]
    vectors += _IMAGE_MEAN * world.image_mean
    vectors += _IMAGE_OWN * _unit(_normal(rng, (_BLOCK_IMAGES, 1, dim)))
    vectors += _IMAGE_NOISE * _unit(_normal(rng, vectors.shape))
    return _unit(vectors)


def typical_queries(vectors: Vectors) -> Floats | None:
    """Text queries by which an engine may choose its settings; they are not measured. None for given vectors."""
    file = vectors.file.with_name(TYPICAL)
    typical: Floats | None = np.load(file) if file.exists() else None
    return typical


def make_queries(world: World, count: int, images: int) -> Floats:
    """Generate text queries, unit [count, dim]: a part shared by all texts, a concept, and noise.

    Concepts are drawn by popularity from those that at least 50 of the `images` contain. No image is near such a text.
    """
    rng = np.random.default_rng([world.seed, 2])
    frequent = world.popularity[world.popularity * images * _CONCEPTS_AN_IMAGE >= 50]
    if not len(frequent):
        frequent = world.popularity[:1]
    # Concepts are sorted by popularity, so the frequent ones come first.
    concepts = rng.choice(len(frequent), count, p=frequent / frequent.sum())
    noise = _unit(_normal(rng, (count, len(world.text_mean))))
    return _unit(_TEXT_MEAN * world.text_mean + _TEXT_CONCEPT * world.centres[concepts] + _TEXT_NOISE * noise)


def exact_scores(vectors: Vectors, queries: Floats) -> Floats:
    """Max-sim of every query and image, [queries, images]."""
    scores = np.empty((len(queries), vectors.images), np.float32)
    for start in range(0, vectors.images, _BLOCK_IMAGES):
        block = vectors.of_images(start, start + _BLOCK_IMAGES)
        cosines = block.reshape(-1, block.shape[2]) @ queries.T
        scores[:, start : start + len(block)] = cosines.reshape(len(block), -1, len(queries)).max(axis=1).T
    return scores


def recall(images: Ints, scores: Floats, k: int) -> float:
    """Fraction of the best k images that a search found. Images as good as the k-th count as well.

    images: results, best first; scores: exact scores of all images.
    """
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k] - _SAME_SCORE
    return min(k, int(np.count_nonzero(scores[np.unique(images[:k])] >= least))) / k


def describe(scores: Floats) -> dict[str, Any]:
    """Mean and standard deviation of the queries' cosines, at some ranks and over all images."""
    ranked: Floats = np.sort(scores, axis=1)[:, ::-1]
    at_ranks = {f"rank_{rank}": ranked[:, rank - 1] for rank in (1, 50, 1000) if rank <= ranked.shape[1]}
    spread = {**at_ranks, "all_images": ranked}
    return {name: {"mean": float(v.mean()), "std": float(v.std())} for name, v in spread.items()}


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_normal(shape, np.float32)


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths
