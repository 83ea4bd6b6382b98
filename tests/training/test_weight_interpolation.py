"""Interpolation between two heads, and the file that holds both."""

from pathlib import Path

import pytest
import torch
from torch import nn

from forclip.models.pools import Pool
from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.training.weight_interpolation import interpolate, load_ends, save_ends
from tests.tiny import TinyEyes, tiny_pool


def ends(aligned: bool = False) -> tuple[SummaryHead, SummaryHead]:
    """Return two heads that differ in every weight."""
    pool = tiny_pool((3, 3))
    if aligned:
        pool.output = nn.Linear(6, 6)
    untuned = noise_seeded_head(pool, 4, 1.0, seed=0)
    tuned = interpolate(untuned, untuned, 0.0)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return untuned, tuned


def are_equal(one: SummaryHead, other: SummaryHead) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("aligned", [False, True])
def test_alpha_zero_and_one_are_the_ends(aligned: bool) -> None:
    untuned, tuned = ends(aligned)
    assert are_equal(interpolate(untuned, tuned, 0.0), untuned)
    assert are_equal(interpolate(untuned, tuned, 1.0), tuned)
    assert not are_equal(untuned, tuned)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9, 1.5])
def test_every_weight_is_interpolated(alpha: float) -> None:
    untuned, tuned = ends()
    before = [p.clone() for p in untuned.parameters()]
    between = dict(interpolate(untuned, tuned, alpha).named_parameters())
    other = dict(tuned.named_parameters())
    for name, start in untuned.named_parameters():
        torch.testing.assert_close(between[name], (1 - alpha) * start + alpha * other[name], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, untuned.parameters(), strict=True))


@pytest.mark.parametrize("aligned", [False, True])
def test_both_heads_survive_a_file(tmp_path: Path, aligned: bool) -> None:
    untuned, tuned = ends(aligned)
    save_ends(tmp_path / "ends.safetensors", untuned, tuned)
    read = load_ends(tmp_path / "ends.safetensors", TinyEyes())
    assert are_equal(read[0], untuned)
    assert are_equal(read[1], tuned)
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(read[1](tokens), tuned(tokens), rtol=1e-4, atol=1e-6)
    assert (read[0].pool.output is not None) == aligned


class OtherEyes(TinyEyes):
    def new_pool(self) -> Pool:
        return tiny_pool((2, 2))


def test_missing_damaged_and_unsuitable_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ends.safetensors"
    with pytest.raises(ValueError, match=r"ends\.safetensors"):
        load_ends(file, TinyEyes())
    save_ends(file, *ends())
    with pytest.raises(ValueError, match=r"ends\.safetensors"):
        load_ends(file, OtherEyes())
    whole = file.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        b"no safetensors",
        whole.replace(b"tuned.offsets", b"tuned.offzets"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"ends\.safetensors"):
            load_ends(file, TinyEyes())
