"""The pointing benchmark on a head whose regions are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.pointing import Method, World, cell_boxes, evaluate, evaluate_chance, methods, summarise, winning_maps
from benchmarks.pointing_hits import Pair
from forclip.models.summary_head import window_seeded_head
from tests.tiny import TinyBackbone, tiny_pool


class Corners:
    """A head with two vectors for opposite corners of 3 x 3 positions; the second image swaps the corners."""

    grid = (3, 3)

    def __call__(self, tokens: Tensor) -> Tensor:
        return torch.eye(2)[None]

    def position_weights(self, tokens: Tensor) -> Tensor:
        corners = torch.zeros(1, 2, 9)
        swapped = bool(tokens[0, 0, 0])
        corners[0, int(swapped), 0] = corners[0, int(not swapped), 8] = 1
        return corners


def world() -> World:
    upper, lower = (np.array([box], np.float32) for box in ([0, 0, 0.4, 0.4], [0.6, 0.6, 1, 1]))
    pairs = [Pair(0, 0, upper), Pair(0, 1, upper), Pair(1, 0, lower)]
    tokens = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).expand(2, 9, 8)
    head = window_seeded_head(tiny_pool((3, 3)), 4)
    novel = np.array([False, True])
    return World("corners", TinyBackbone(), head, tokens, torch.eye(2), torch.eye(2), novel, pairs)


def test_the_best_vector_of_a_text_is_evaluated() -> None:
    """Class 0 matches the first vector, which hits in both images; class 1 matches the second, which misses."""
    corners = world()
    maps = winning_maps(corners, Method(Corners(), corners.texts))
    assert maps.argmax(1).tolist() == [0, 8, 8]
    measures = evaluate(corners, (3, 3), maps, cell_boxes)
    # One cell of side 1/3 inside a box of side 0.4.
    assert measures["base"] == pytest.approx({"peak": 100, "centre": 100, "correct": 100, "overlap": 100 / 9 / 0.16})
    assert measures["novel"] == {"peak": 0, "centre": 0, "correct": 0, "overlap": 0}


def test_chance_is_the_area_of_the_boxes() -> None:
    for group in evaluate_chance(world()).values():
        assert group == pytest.approx({"peak": 16, "centre": 16, "correct": 0, "overlap": 16}, abs=1e-4)


def test_every_method_gives_a_map_for_each_pair() -> None:
    corners = world()
    generator = torch.Generator().manual_seed(0)
    tokens, texts = torch.randn(2, 9, 8, generator=generator), torch.randn(2, 6, generator=generator)
    random = replace(corners, tokens=tokens, texts=texts, plain=texts)
    compared = methods(random, clusters=(2,))
    assert len(compared) == 8
    for method in compared.values():
        maps = winning_maps(random, method)
        assert maps.shape == (3, 9)
        assert (maps >= 0).all()
        assert maps.any(1).all()


def test_worlds_are_averaged() -> None:
    corners = world()
    one = {"chance": evaluate_chance(corners)}
    two = {"chance": {group: {m: v + 2 for m, v in values.items()} for group, values in one["chance"].items()}}
    means = summarise([one, two])["chance"]["base"]
    assert means["peak"] == 17
    assert means["peak_std"] == 1.41
