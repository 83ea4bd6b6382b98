"""Models at URLs are copied to the cache."""

from pathlib import Path

import pytest

from forclip.config import ModelConfig
from forclip.models.model_copy import local_model
from forclip.models.retrieval_model import as_model_config
from tests.s3 import s3_client


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))


def test_a_model_on_this_machine_stays_as_it_is() -> None:
    for name in ("ViT-B-16", "hf-hub:timm/ViT-B-16-SigLIP", "local-dir:/models/clip", "/runs/demo"):
        model = ModelConfig(name, pretrained="weights.pt")
        assert local_model(model) == model


def test_a_folder_and_a_file_of_weights_are_copied_once(bucket: str, s3_server: str) -> None:
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    objects = {"runs/demo/config.json": b"{}", "runs/demo/model.safetensors": b"abc", "runs/demo/logs/x": b"no"}
    for key, body in ({"w/vit.pt": b"weights"} | objects).items():
        client.put_object(Bucket=name, Key=key, Body=body)
    model = local_model(ModelConfig(f"{bucket}/runs/demo/", pretrained=f"{bucket}/w/vit.pt"))
    folder = Path(model.name)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"abc",
    }
    assert model.pretrained is not None
    assert (Path(model.pretrained).name, Path(model.pretrained).read_bytes()) == ("vit.pt", b"weights")
    assert Path(as_model_config(Path(f"{bucket}/runs/demo")).name).name == "demo"  # pathlib shortens the URL

    client.put_object(Bucket=name, Key="runs/demo/model.safetensors", Body=b"other")
    changed = local_model(model_at := ModelConfig(f"{bucket}/runs/demo"))
    assert (Path(changed.name) / "model.safetensors").read_bytes() == b"other"
    assert (folder / "model.safetensors").read_bytes() == b"abc"  # a process may read it

    client.delete_object(Bucket=name, Key="runs/demo/config.json")
    for file in ("model.safetensors", "logs/x"):
        client.delete_object(Bucket=name, Key=f"runs/demo/{file}")
    with pytest.raises(ValueError, match=f"^{bucket}/runs/demo: no model is there"):
        local_model(model_at)
