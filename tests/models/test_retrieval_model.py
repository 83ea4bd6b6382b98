"""Trained models on disk: saving, loading, keys of earlier versions, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, ModelConfig
from forclip.data.images.tiles import Tiles
from forclip.models.backbone import weights_fingerprint
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.pools import upgrade_key
from forclip.models.retrieval_model import (
    ClassVectors,
    from_pretrained,
    load_model,
    load_store_model,
    no_class_vectors,
    save_pretrained,
    store_header,
    stored_model,
)
from forclip.models.summary_head import SummaryHead, noise_seeded_head, window_seeded_head
from tests.tiny import TinyBackbone, tiny_pool


def head(aligned: bool = False) -> SummaryHead:
    """A head with the same weights at every call."""
    pool = tiny_pool((3, 3))
    torch.manual_seed(4)
    if aligned:
        pool.output = nn.Linear(6, 6)
    return noise_seeded_head(pool, 4, 1.0, seed=2)


def class_vectors() -> ClassVectors:
    return ClassVectors(TinyBackbone().encode_text(["my cat"]), torch.full((1, 6), 0.3), torch.tensor([0.9]))


def save(folder: Path, aligned: bool = False, words: ClassVectors | None = None) -> None:
    save_pretrained(folder, head(aligned), words or class_vectors(), TinyBackbone(), ModelConfig("tiny"), ("my {}",))


@torch.no_grad()
@pytest.mark.parametrize("aligned", [False, True])
def test_image_and_text_sides_are_loaded(tmp_path: Path, aligned: bool) -> None:
    save(tmp_path, aligned)
    read = from_pretrained(tmp_path, backbone=TinyBackbone())
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(read.head(tokens), head(aligned)(tokens))
    stored = TinyBackbone().encode_text(["my cat"])
    torch.testing.assert_close(read.encode_query("cat"), F.normalize(stored + 0.3, dim=-1)[0])
    torch.testing.assert_close(read.encode_query("owl"), TinyBackbone().encode_text(["my owl"])[0])
    assert read.dim == 6


OLD_KEYS = {
    *("offsets", "bias", "pool.inner.positional_embedding", "pool.output.weight", "pool.output.bias"),
    *(
        f"pool.inner.{layer}.{kind}"
        for layer in ("q_proj", "k_proj", "v_proj", "c_proj")
        for kind in ("weight", "bias")
    ),
    *("class_vectors.texts", "class_vectors.shifts", "class_vectors.nearest"),
}


@torch.no_grad()
def test_weights_of_forclip_0_1_load_with_their_fingerprint(tmp_path: Path) -> None:
    """There an aligned pool held the plain one as `inner`."""
    save(tmp_path, aligned=True)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    old = {re.sub(r"^pool\.(?!output)", "pool.inner.", key): tensor for key, tensor in state.items()}
    del old["pooled_share"]
    assert old.keys() == OLD_KEYS
    save_file(old, file)
    read = from_pretrained(tmp_path, backbone=TinyBackbone())
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(read.head(tokens), head(aligned=True)(tokens))
    torch.testing.assert_close(
        cast(SummaryHead, read.head).state_dict(), head(aligned=True).state_dict(), rtol=0, atol=0
    )
    assert read.fingerprint == weights_fingerprint(old, TinyBackbone().fingerprint)  # stores remember it


def test_keys_of_forclip_0_1_are_renamed() -> None:
    renamed = {
        "offsets": "offsets",
        "pool.q_proj.weight": "pool.q_proj.weight",
        "pool.inner.tower_stage.layer.0.weight": "pool.tower_stage.layer.0.weight",
        "head.pool.inner.inner.q_proj.bias": "head.pool.q_proj.bias",
        "untuned.pool.output.bias": "untuned.pool.output.bias",
    }
    assert {old: upgrade_key(old) for old in renamed} == renamed


def test_the_calibration_is_saved_with_its_model(tmp_path: Path) -> None:
    parts = (head(), class_vectors(), TinyBackbone(), ModelConfig("tiny"), ("my {}",))
    learned = Calibration(-3.0, 0.5, 2.0, 0.0, 0.9, 0.1, 0.04, 10, 100, {"top 50": 0.02})
    save_pretrained(tmp_path, *parts, learned)
    with_it = from_pretrained(tmp_path, backbone=TinyBackbone())
    assert with_it.calibration == learned
    save_pretrained(tmp_path, *parts)  # another model in the same folder doesn't inherit it
    without = from_pretrained(tmp_path, backbone=TinyBackbone())
    assert without.calibration is None
    assert with_it.fingerprint == without.fingerprint  # its vectors are the same
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match=r"calibration\.json"):
        from_pretrained(tmp_path, backbone=TinyBackbone())


def test_class_vectors_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    save(tmp_path / "one")
    save(tmp_path / "same")
    save(tmp_path / "other", words=no_class_vectors(6))
    one, same, other = (
        from_pretrained(tmp_path / name, backbone=TinyBackbone()).fingerprint for name in ("one", "same", "other")
    )
    assert one == same != other


def test_damaged_and_foreign_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        from_pretrained(tmp_path, backbone=TinyBackbone())
    save(tmp_path)
    with pytest.raises(ValueError, match="'tiny'"):
        from_pretrained(tmp_path, backbone=TinyBackbone(fingerprint="1" * 64))
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:100], whole.replace(b"class_vectors.shifts", b"class_vectors.shafts")):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            from_pretrained(tmp_path, backbone=TinyBackbone())
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format_version": 1}))
    with pytest.raises(ValueError, match="version 1"):
        from_pretrained(tmp_path, backbone=TinyBackbone())


def test_a_trained_run_refuses_a_head_that_it_does_not_have(tmp_path: Path) -> None:
    backbone = load_open_clip("forclip-mini", None)
    trained, run = window_seeded_head(backbone.new_pool(), 3).eval(), ModelConfig(str(tmp_path))
    save_pretrained(
        tmp_path, trained, no_class_vectors(backbone.new_pool().dim), backbone, ModelConfig("forclip-mini"), ("a {}",)
    )
    assert cast(SummaryHead, load_model(run, head="sum", num_query_tokens=3).head).num_query_tokens == 3
    assert load_model(run).fingerprint == load_model(run, head="sum").fingerprint
    with pytest.raises(ValueError, match="num_query_tokens 3, not 25"):
        load_model(run, num_query_tokens=25)
    with pytest.raises(ValueError, match="dense"):
        load_model(run, head="dense")
    header = store_header(load_model(run), run)
    assert header.model["num_query_tokens"] == 3
    assert stored_model(header) == (ModelConfig("forclip-mini"), "sum", 3)


def test_a_pretrained_model_takes_the_configs_default_head() -> None:
    model = load_model(ModelConfig("forclip-mini"))
    assert cast(SummaryHead, model.head).num_query_tokens == HeadConfig().num_query_tokens
    assert model.fingerprint == load_model(ModelConfig("forclip-mini"), head="sum", num_query_tokens=25).fingerprint
    assert stored_model(store_header(model, ModelConfig("forclip-mini"))) == (ModelConfig("forclip-mini"), "sum", 25)


TILED = ModelConfig("forclip-mini", tiles="2x3", tile_overlap=0.25)


def save_run(folder: Path, model: ModelConfig) -> None:
    backbone = load_open_clip("forclip-mini", None)
    pool = backbone.new_pool()
    trained, calibration = (
        window_seeded_head(pool, 3).eval(),
        Calibration(-3.5, 0.5, 2.0, 0.0, 1.0, 0.3, 0.05, 30, 600, {}),
    )
    save_pretrained(folder, trained, no_class_vectors(pool.dim), backbone, model, ("a {}",), calibration)


def test_a_run_keeps_its_tiles_and_other_tiles_are_another_model(tmp_path: Path) -> None:
    save_run(tmp_path / "tiled", TILED)
    save_run(tmp_path / "plain", ModelConfig("forclip-mini"))
    tiled, plain = (load_model(ModelConfig(str(tmp_path / name))) for name in ("tiled", "plain"))
    assert tiled.tiles == Tiles(2, 3, 0.25)
    assert len(tiled.views) == 7
    assert plain.tiles is None
    assert tiled.with_tiles(None).fingerprint == plain.fingerprint != tiled.fingerprint
    assert plain.with_tiles(Tiles(2, 3, 0.25)).fingerprint == tiled.fingerprint
    grids = [None, Tiles(2, 3), Tiles(3, 2), Tiles(2, 3, 0.25), Tiles(2, 3, 0)]
    assert len({plain.with_tiles(tiles).fingerprint for tiles in grids}) == len(grids)
    assert load_model(ModelConfig(str(tmp_path / "tiled"), tiles="2x2")).tiles == Tiles(2, 2)
    assert load_model(ModelConfig(str(tmp_path / "tiled"), tiles="auto")).tiles == tiled.tiles


def test_a_calibration_is_of_the_scores_of_the_runs_own_tiles(tmp_path: Path) -> None:
    save_run(tmp_path, TILED)
    run = load_model(ModelConfig(str(tmp_path)))
    assert run.calibration is not None
    assert run.with_tiles(run.tiles).calibration == run.calibration
    assert run.with_tiles(None).calibration is None


def test_a_run_of_an_earlier_version_has_no_tiles(tmp_path: Path) -> None:
    save_run(tmp_path, ModelConfig("forclip-mini"))
    config = tmp_path / "config.json"
    content = json.loads(config.read_text())
    expected = load_model(ModelConfig(str(tmp_path))).fingerprint
    del content["backbone"]["tiles"], content["backbone"]["tile_overlap"]
    config.write_text(json.dumps(content))
    assert load_model(ModelConfig(str(tmp_path))).tiles is None
    assert load_model(ModelConfig(str(tmp_path))).fingerprint == expected


def test_a_store_remembers_tiles(tmp_path: Path) -> None:
    """Of pretrained models and runs, and those that were chosen instead of a run's own."""
    save_run(tmp_path / "run", TILED)
    run = ModelConfig(str(tmp_path / "run"))
    for model, config, folder in (
        (load_model(TILED), TILED, "none"),
        (load_model(run), run, "run"),
        (load_model(run).with_tiles(None), run, "run"),
        (load_model(run).with_tiles(Tiles(4, 1)), run, "run"),
    ):
        header = store_header(model, config)
        for override in (None, run) if folder == "run" else (None,):
            loaded = load_store_model(tmp_path / folder, header, override=override)
            assert (loaded.tiles, loaded.fingerprint) == (model.tiles, model.fingerprint)


def test_a_store_of_an_earlier_version_has_no_tiles(tmp_path: Path) -> None:
    model = load_model(ModelConfig("forclip-mini"))
    header = store_header(model, ModelConfig("forclip-mini"))
    assert header.model["tiles"] == "none"
    old = replace(header, model={k: v for k, v in header.model.items() if not k.startswith("tile")})
    loaded = load_store_model(tmp_path / "none", old)
    assert (loaded.tiles, loaded.fingerprint) == (None, model.fingerprint)


def test_auto_is_never_stored_nor_guessed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto"):
        save_run(tmp_path, ModelConfig("forclip-mini", tiles="auto"))
    with pytest.raises(ValueError, match="auto"):
        load_model(ModelConfig("forclip-mini", tiles="auto"))


@torch.no_grad()
@pytest.mark.parametrize("is_aligned", [False, True])
def test_a_run_keeps_plain_clips_share(tmp_path: Path, is_aligned: bool) -> None:
    mixed = head(is_aligned).with_share(0.5)
    for parameter in mixed.pool.parameters():
        parameter.add_(0.1)
    save_pretrained(tmp_path, mixed.eval(), class_vectors(), TinyBackbone(), ModelConfig("tiny"), ("my {}",))
    read = from_pretrained(tmp_path, backbone=TinyBackbone())
    tokens = torch.randn(2, 9, 8)
    torch.testing.assert_close(read.head(tokens), mixed(tokens))
    assert (read.head(tokens) - mixed.with_share(0.0)(tokens)).abs().max() > 0.01
