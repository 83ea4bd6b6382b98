"""Files of weights as training scripts, other tools and broken downloads leave them."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from forclip.models.checkpoint import read_checkpoint
from forclip.progress import Notice

STATE = {
    "logit_scale": torch.tensor(1.0),
    "visual.conv1.weight": torch.arange(6.0).reshape(2, 3),
    "ln_final.bias": torch.ones(2),
}
AVERAGED = {name: value + 1 for name, value in STATE.items()}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


WRAPPED: list[Any] = [
    STATE,
    {
        "epoch": 3,
        "name": "run",
        "state_dict": prefixed("module."),
        "optimizer": {"state": {0: {"m": torch.ones(9)}}},
    },
    {"state_dict": prefixed("module._orig_mod.")},
    prefixed("_orig_mod."),
    prefixed("_fsdp_wrapped_module."),
    {"model": STATE, "args": argparse.Namespace(lr=1e-3), "best": np.float64(0.5), "seed": np.int64(3)},
    {"model_state_dict": STATE, "scheduler": {"last": torch.ones(2)}},
    {"module": prefixed("module."), "ds_version": "0.14"},
    {
        "state_dict": {**prefixed("clip_model."), "loss.weight": torch.ones(1)},
        "pytorch-lightning_version": "2.4",
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{}],
    },
    {"checkpoint": {"model": STATE}},
]


@pytest.mark.parametrize("content", WRAPPED)
def test_wrapped_weights_are_found(tmp_path: Path, content: Any) -> None:
    for new in (True, False):
        torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=new)
        torch.testing.assert_close(read_checkpoint(tmp_path / "weights.pt").state, STATE, rtol=0, atol=0)


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.bin")
    torch.save(STATE, tmp_path / "weights.safetensors")
    for name in ("weights.bin", "weights.safetensors"):
        torch.testing.assert_close(read_checkpoint(tmp_path / name).state, STATE, rtol=0, atol=0)


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema")])
def test_averaged_weights_are_preferred_and_said(tmp_path: Path, names: tuple[str, str]) -> None:
    torch.save({names[0]: STATE, names[1]: AVERAGED, "epoch": 1}, tmp_path / "weights.pt")
    with pytest.warns(Notice, match=names[1]):
        state = read_checkpoint(tmp_path / "weights.pt").state
    torch.testing.assert_close(state, AVERAGED, rtol=0, atol=0)


class Archive(nn.Module):
    """What OpenAI published: a TorchScript archive with three numbers beside the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.visual = nn.Linear(2, 3)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(77))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.visual(x)
        return y * self.logit_scale


@pytest.mark.filterwarnings("ignore")
def test_torchscript_archives_are_read(tmp_path: Path) -> None:
    model = Archive()
    torch.jit.script(model).save(str(tmp_path / "ViT-B-32.pt"))
    checkpoint = read_checkpoint(tmp_path / "ViT-B-32.pt")
    assert checkpoint.is_openai
    assert set(checkpoint.state) == {"logit_scale", "visual.weight", "visual.bias"}
    torch.testing.assert_close(checkpoint.state["visual.weight"], model.visual.weight.detach())


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("written-by-a-pickle",)


def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("evil.pt", {"state_dict": STATE, "x": Malicious()}), ("whole.pt", nn.Linear(2, 2))):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=name) as error:
            read_checkpoint(tmp_path / name)
        assert len(str(error.value)) < 250 + len(str(tmp_path))
    assert not (tmp_path / "written-by-a-pickle").exists()


def test_what_is_no_file_of_weights_is_named(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole.pt")
    save_file(STATE, tmp_path / "whole.safetensors")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"optimizer": {"state": {0: torch.ones(3)}}}, tmp_path / "optimizer.pt")
    np.savez(tmp_path / "arrays.zip", a=np.ones(3))
    contents = {
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 605143884\n",
        "annexed.pt": b"/annex/objects/SHA256E-s605--0123.pt\n",
        "page.pt": b"\n<!DOCTYPE html><html><body>404</body></html>",
        "empty.pt": b"",
        "text.bin": b"hello " * 50,
        "model.gguf": b"GGUF" + bytes(50),
        "weights.pt.gz": b"\x1f\x8b\x08" + bytes(50),
        "cut.pt": (tmp_path / "whole.pt").read_bytes()[:900],
        "cut.safetensors": (tmp_path / "whole.safetensors").read_bytes()[:-8],
        "short.safetensors": (tmp_path / "whole.safetensors").read_bytes()[:20],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.pt").symlink_to("nowhere.pt")
    (tmp_path / "folder").mkdir()
    for name in (*contents, "tensor.pt", "optimizer.pt", "arrays.zip.npz", "missing.pt", "link.pt", "folder"):
        with pytest.raises(ValueError, match=name) as error:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 250 + 2 * len(str(tmp_path))
    for name, todo in (
        ("pointer.safetensors", "git lfs pull"),
        ("annexed.pt", "git annex get"),
        ("link.pt", "nowhere"),
    ):
        with pytest.raises(ValueError, match=todo):
            read_checkpoint(tmp_path / name)
