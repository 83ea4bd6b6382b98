"""The pictographs: names, shapes and colours."""

import numpy as np
import pytest

from forclip.toyworld import pictographs
from forclip.toyworld.pictographs import CLEAR, NAMES, SIDE, TINT, render, role_map

# At the small size of a scene. The most similar pair, a tree and a rain cloud, agrees on 0.66.
_LARGEST_AGREEMENT = 0.75


def test_there_are_many_pictographs_with_plain_names() -> None:
    assert len(NAMES) >= 80
    assert list(NAMES) == sorted(set(NAMES))
    assert all(name.replace(" ", "").replace("-", "").isalpha() and name == name.strip().lower() for name in NAMES)


def test_no_two_pictographs_look_alike() -> None:
    """Agreement: of the pixels that at least one drawing covers, the fraction where both have the same role."""
    small = np.stack([role_map(name)[4::8, 4::8].ravel() for name in NAMES])
    for k, drawing in enumerate(small[:-1]):
        others = small[k + 1 :]
        covered = ((others != CLEAR) | (drawing != CLEAR)).sum(1)
        agreement = ((others == drawing) & (drawing != CLEAR)).sum(1) / covered
        assert agreement.max() < _LARGEST_AGREEMENT, (NAMES[k], NAMES[k + 1 + int(agreement.argmax())])


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_fills_its_square_and_takes_its_colour(name: str) -> None:
    roles = role_map(name)
    assert roles.shape == (SIDE, SIDE)
    drawn = roles != CLEAR
    assert 0.05 < drawn.mean() < 1
    height, width = (int(np.ptp(np.nonzero(drawn.any(axis))[0])) + 1 for axis in (1, 0))
    assert max(height, width) == SIDE
    # Centred along its shorter side.
    rows, columns = np.nonzero(drawn)
    assert abs(rows.min() + rows.max() - (SIDE - 1)) <= 2
    assert abs(columns.min() + columns.max() - (SIDE - 1)) <= 2
    assert (roles == TINT).sum() > 0.08 * drawn.sum()


def test_a_role_map_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        role_map(NAMES[0])[0, 0] = 1


def test_rendering_colours_the_tint_and_clears_the_rest() -> None:
    image = render("lemon", 64, (10, 200, 30))
    assert (image.mode, image.size) == ("RGBA", (64, 64))
    values = np.asarray(image)
    opaque = values[values[..., 3] == 255][:, :3].tolist()
    assert opaque.count([10, 200, 30]) > 0.2 * len(opaque)
    assert (values[..., 3] == 0).any()
    # No edge pixel takes on the colour of transparent pixels next to it.
    edges = values[(values[..., 3] > 0) & (values[..., 3] < 255)][:, 1].astype(int)
    assert len(edges) > 20
    assert edges.min() >= 36


def test_an_unknown_name_is_refused() -> None:
    for draw in (pictographs.role_map, lambda name: render(name, 32, (0, 0, 0))):
        with pytest.raises(ValueError, match="unknown pictograph 'unicorn'"):
            draw("unicorn")
