"""The pointing benchmark on a head whose places are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.pointing import Look, World, cell_boxes, judge, judge_chance, looks, summarise, winning_maps
from forclip.evaluation.pointing import Pair
from forclip.models.summary_head import window_seeded_head
from tests.tiny import TinyBackbone, tiny_pool


class Corners:
    """Two vectors an image, looking at opposite corners of 3 x 3 positions; in the second image they change sides."""

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


def test_the_vector_that_answers_is_the_one_that_is_judged() -> None:
    """Class 0 asks for the first vector, which is right in both images; class 1 for the second, which is wrong."""
    made = world()
    maps = winning_maps(made, Look(Corners(), made.texts))
    assert maps.argmax(1).tolist() == [0, 8, 8]
    found = judge(made, (3, 3), maps, cell_boxes)
    # A cell of a third's side within a box of 0.4.
    assert found["base"] == pytest.approx({"peak": 100, "centre": 100, "correct": 100, "overlap": 100 / 9 / 0.16})
    assert found["novel"] == {"peak": 0, "centre": 0, "correct": 0, "overlap": 0}


def test_chance_is_the_share_that_the_boxes_cover() -> None:
    for group in judge_chance(world()).values():
        assert group == pytest.approx({"peak": 16, "centre": 16, "correct": 0, "overlap": 16}, abs=1e-4)


def test_every_look_gives_a_map_for_each_pair() -> None:
    made = world()
    drawn = torch.Generator().manual_seed(0)
    tokens, texts = torch.randn(2, 9, 8, generator=drawn), torch.randn(2, 6, generator=drawn)
    random = replace(made, tokens=tokens, texts=texts, plain=texts)
    asked = looks(random, clusters=(2,))
    assert len(asked) == 8
    for look in asked.values():
        maps = winning_maps(random, look)
        assert maps.shape == (3, 9)
        assert (maps >= 0).all()
        assert maps.any(1).all()


def test_worlds_are_averaged() -> None:
    made = world()
    one = {"chance": judge_chance(made)}
    two = {"chance": {group: {m: v + 2 for m, v in values.items()} for group, values in one["chance"].items()}}
    told = summarise([one, two])["chance"]["base"]
    assert told["peak"] == 17
    assert told["peak_std"] == 1.41
