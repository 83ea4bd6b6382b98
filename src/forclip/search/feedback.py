"""Relevance feedback: refine a query vector with verdicts on images.

A logistic probe is fitted to stored vectors: the vector of a right image that matched the query should score high, that
of a wrong image low. There are few verdicts and hundreds of dimensions, so the probe's prior is centred on the query,
and what it learns is a combination of the images' vectors. NumPy only.
"""

from collections.abc import Sequence

import numpy as np

from forclip.calibration.model import SCORE_SAMPLE
from forclip.index.protocol import SearchIndex
from forclip.types import Bools, Doubles, Floats

STIFFNESS = 100.0  # precision of the prior, so that weights move by about 1 / sqrt of it; chosen on base classes
_BIAS = 0.1  # squared size of the bias feature: what all examples share moves the bias rather than the weights
_STEPS = 60
_FEW_SCORES = 10


def refined_query(
    index: SearchIndex, query: Floats, right: Sequence[str], wrong: Sequence[str], where: str | None = None
) -> Floats:
    """Return a query vector that ranks images like the right ones higher and those like the wrong ones lower.

    Args:
        query: unit [dim].
        right, wrong: image ids with verdicts, at least one in all.
        where: the filter of the search, as in Index.search.

    Returns:
        A unit vector [dim].

    Raises:
        ValueError: for an id that the store does not have, naming it, or no verdict at all.
    """
    if not right and not wrong:
        raise ValueError("no verdicts: at least one image must be right or wrong")
    vectors = index.best_vectors([*right, *wrong], query)
    if missing := [image_id for image_id in (*right, *wrong) if image_id not in vectors]:
        raise ValueError(f"{index.name}: has no image {missing[0]!r}")
    examples = np.stack([vectors[i] for i in (*right, *wrong)])
    is_right = np.arange(len(examples)) < len(right)
    scores = index.scores(query, SCORE_SAMPLE, where=where)
    if len(scores) < _FEW_SCORES:  # the filter leaves almost nothing, so its scores have no spread of their own
        scores = index.scores(query, SCORE_SAMPLE)
    return refine(query, examples, is_right, float(scores.std()))


def refine(query: Floats, examples: Floats, is_right: Bools, spread: float, stiffness: float = STIFFNESS) -> Floats:
    """Fit the probe to example vectors and return its weights as a unit vector [dim].

    Minimises sum of log losses + stiffness / 2 * |weights - query|^2, with a bias whose prior is weak. The weights are
    query + examples.T @ moves, so only `moves` [n] is optimised. Each step minimises a quadratic bound of the loss (the
    second derivative of a logistic loss is at most 1/4), so no step increases it.

    Args:
        query: unit [dim].
        examples: unit [n, dim].
        is_right: [n].
        spread: standard deviation of the query's scores over the gallery, above 0: the unit of scores.
    """
    scale = 1 / max(spread, 1e-6)
    vectors, prior = examples.astype(np.float64), query.astype(np.float64)
    start = scale * (vectors @ prior)
    start -= start.mean()
    kernel = vectors @ vectors.T + _BIAS
    moves: Doubles = np.zeros(len(vectors))
    inverse_bound = np.linalg.inv(stiffness * np.eye(len(vectors)) + scale**2 / 4 * kernel)
    for _ in range(_STEPS):
        logits = start + scale * (kernel @ moves)
        errors = np.exp(-np.logaddexp(0, -logits)) - is_right  # sigmoid, without overflow
        moves -= inverse_bound @ (stiffness * moves + scale * errors)
    weights = prior + vectors.T @ moves
    unit: Floats = (weights / np.linalg.norm(weights)).astype(np.float32)
    return unit
